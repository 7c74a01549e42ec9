// Elements by name, attributes and children; a string is always text, never markup.
const SVG = 'http://www.w3.org/2000/svg';

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false && child !== '') element.append(child);
  }
  return element;
}

const el = (name, attributes, ...children) => make(document.createElement(name), attributes, children);
const svgEl = (name, attributes, ...children) => make(document.createElementNS(SVG, name), attributes, children);
const byId = (id) => document.getElementById(id);
const body = (id) => byId(id).querySelector('.body');
const code = (text) => el('code', {}, text);

function say(words) {
  byId('said').textContent = words;
}

// A button that copies ``text()``; where the clipboard is closed to us, a selection and the old command will do.
function copyButton(text, what) {
  const button = el('button', { type: 'button', class: 'copy', 'aria-label': `Copy ${what}` }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      const area = el('textarea', { class: 'unseen' });
      area.value = text();
      document.body.append(area);
      area.select();
      document.execCommand('copy');
      area.remove();
      button.focus();
    }
    button.textContent = 'Copied';
    say(`${what} copied`);
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
  return button;
}
