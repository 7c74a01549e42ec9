// The live layer over a report's page: events, measuring, tracing, faults, links and nodes.  What it asks for is in docs/serve.md.
'use strict';
(() => {
  const el = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value === true ? '' : String(value));
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return made;
  };
  const short = (name) => String(name).replace(/^default\//, '');
  const KEPT = 300; // lines of the log
  const served = window.served;
  let state = null;
  let library = { faults: [], injected: [] };
  let [looking, outdated, rendering] = [false, false, false];

  const control = (name, attributes, ...children) => el(name, { 'data-asks': true, ...attributes }, ...children);
  const labelled = (label, field) => el('div', { class: 'field' }, el('label', { for: field.id }, label), field);
  const select = (attributes, ...children) => control('select', attributes, ...children);

  const parts = {
    measure: control('button', { type: 'button', class: 'primary', onclick: () => ask('measure') }, 'Measure again'),
    progress: el('progress', { 'aria-label': 'Measuring', hidden: true }),
    standing: el('span', { class: 'standing', role: 'status' }),
    wrong: el('p', { class: 'wrong', role: 'alert', hidden: true }),
    from: select({ id: 'trace-from' }),
    to: select({ id: 'trace-to' }),
    protocol: select({ id: 'trace-protocol', onchange: () => { parts.port.disabled = !ports(); } }, ['icmp', 'udp', 'tcp'].map((name) => el('option', {}, name))),
    port: control('input', { id: 'trace-port', type: 'number', min: 1, max: 65535, placeholder: '8080', disabled: true }),
    family: select({ id: 'trace-family' }, el('option', { value: 4 }, 'IPv4'), el('option', { value: 6 }, 'IPv6')),
    fault: select({ id: 'fault', onchange: () => showPlaces() }),
    place: select({ id: 'fault-place' }),
    summary: el('p', { class: 'hint', id: 'fault-summary' }),
    injected: el('ul', { class: 'injected', 'aria-label': 'Injected faults' }),
    clear: control('button', { type: 'button', hidden: true, onclick: () => ask('faults/clear') }, 'Clear faults'),
    switches: el('tbody'),
    log: el('ol', { class: 'log' }),
  };
  const ports = () => parts.protocol.value !== 'icmp';
  const submit = (work) => (event) => { event.preventDefault(); work(); };

  const panel = (title, ...children) => el('div', { class: 'panel' }, el('h3', {}, title), ...children);
  const section = el('section', { id: 'live', 'aria-labelledby': 'live-title' },
    el('div', { class: 'bar' }, el('h2', { id: 'live-title' }, 'Live: ', el('code', {}, served.lab)), parts.measure, parts.progress, parts.standing),
    parts.wrong,
    el('div', { class: 'panels' },
      panel('Trace a packet',
        el('form', { onsubmit: submit(trace) },
          labelled('From', parts.from), labelled('To', parts.to), labelled('Protocol', parts.protocol), labelled('Port', parts.port), labelled('Family', parts.family),
          control('button', { type: 'submit' }, 'Trace')),
        el('p', { class: 'hint' }, 'Or click two pods in the drawing, one after the other.')),
      panel('Faults',
        el('form', { onsubmit: submit(() => ask('faults/inject', { name: parts.fault.value, at: parts.place.value })) },
          labelled('Fault', parts.fault), labelled('At', parts.place), control('button', { type: 'submit' }, 'Inject')),
        parts.summary, parts.injected, parts.clear),
      panel('Nodes and links', el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Switches of nodes and links' },
        el('table', {}, el('thead', {}, el('tr', {}, ['Name', 'Node', 'Link'].map((name) => el('th', { scope: 'col' }, name)))), parts.switches))),
      panel('Events', el('div', { class: 'scroll', role: 'log', tabindex: 0, 'aria-label': 'Events' }, parts.log))));
  document.getElementById('main').prepend(section);
  document.querySelector('footer p').textContent = 'Made by emulab serve, of a lab that runs now.';

  // What a server or a person must know at once.
  function wrong(words) {
    parts.wrong.textContent = words;
    parts.wrong.hidden = !words;
  }

  // Ask the lab for something; its refusal is shown, and null returned.
  async function ask(path, given = {}) {
    wrong('');
    try {
      const answer = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(given) });
      const body = answer.headers.get('content-type')?.startsWith('application/json') ? await answer.json() : {};
      if (answer.ok) return body;
      wrong(body.error || `The server refused that (${answer.status}).`);
    } catch {
      wrong('There is no answer: the connection is lost.');
    }
    return null;
  }

  async function trace() {
    const wanted = { from: parts.from.value, to: parts.to.value, protocol: parts.protocol.value, family: Number(parts.family.value) };
    if (ports() && parts.port.value) wanted.port = Number(parts.port.value);
    section.setAttribute('aria-busy', 'true');
    const story = await ask('trace', wanted);
    section.removeAttribute('aria-busy');
    if (!story) return;
    window.emulab.walk(story);
    document.getElementById('walk').scrollIntoView({ block: 'nearest' });
  }

  // Options without losing what was chosen.
  function offer(field, options) {
    const now = JSON.stringify(options);
    if (field.dataset.offers === now) return;
    const { value } = field;
    field.dataset.offers = now;
    field.replaceChildren(...options.map(([name, label]) => el('option', { value: name }, label)));
    if (options.some(([name]) => name === value)) field.value = value;
  }

  function showFaults() {
    offer(parts.fault, library.faults.filter((one) => one.places.length).map((one) => [one.name, one.name]));
    showPlaces();
    parts.injected.replaceChildren(...library.injected.map((one) => el('li', {}, one.blind ? 'one that is to be found out' : `${one.name} at ${short(one.at)}`)));
    parts.clear.hidden = !library.injected.length;
  }

  function showPlaces() {
    const chosen = library.faults.find((one) => one.name === parts.fault.value);
    offer(parts.place, (chosen?.places || []).map((place) => [place, short(place)]));
    parts.summary.textContent = chosen ? `${chosen.summary[0].toUpperCase()}${chosen.summary.slice(1)}.  What one sees: ${chosen.symptom}.` : 'Nothing can break here in a known way.';
  }

  function toggle(label, on, act) {
    return control('button', { type: 'button', role: 'switch', 'aria-checked': String(on), 'aria-label': label, onclick: (event) => act(event.currentTarget.getAttribute('aria-checked') !== 'true') });
  }

  function showSwitches(lab) {
    const links = new Map(lab.links.map((link) => [link.node, link]));
    const known = new Map([...parts.switches.rows].map((row) => [row.dataset.name, row]));
    parts.switches.replaceChildren(...lab.nodes.map(({ name, status }) => {
      const row = known.get(name) || el('tr', { 'data-name': name }, el('th', { scope: 'row' }, name),
        el('td', {}, toggle(`Node ${name}`, true, (on) => ask(on ? 'node/start' : 'node/stop', { node: name }))),
        el('td', {}, toggle(`Link of ${name}`, true, (up) => ask('link', { node: name, up }))));
      const [node, link] = row.querySelectorAll('button');
      node.setAttribute('aria-checked', String(status === 'Running'));
      link.setAttribute('aria-checked', String(links.get(name)?.status === 'Up'));
      return row;
    }));
  }

  function show() {
    const { lab } = state;
    const pods = lab.pods.map((pod) => [pod.name, short(pod.name)]);
    const others = [...lab.nodes.map((node) => [node.name, node.name]), ['internet', 'internet']];
    offer(parts.from, [...pods, ...others]);
    offer(parts.to, [...pods, ...others]);
    if (!parts.to.dataset.chosen && pods.length > 1) parts.to.value = pods[pods.length - 1][0];
    parts.to.dataset.chosen = 'true';
    const families = new Set(lab.pods.flatMap((pod) => pod.addresses.map((address) => (address.includes(':') ? '6' : '4'))));
    for (const option of parts.family.options) option.disabled = families.size > 0 && !families.has(option.value);
    if (parts.family.selectedOptions[0]?.disabled) parts.family.value = [...families][0];
    showSwitches(lab);
    standing();
  }

  function standing() {
    const { measuring, changed, over } = state;
    parts.progress.hidden = !measuring;
    if (measuring?.total) Object.assign(parts.progress, { max: measuring.total, value: measuring.done });
    else parts.progress.removeAttribute('value');
    parts.measure.disabled = Boolean(measuring || over);
    section.classList.toggle('stale', Boolean(changed));
    parts.standing.textContent = over || (measuring ? 'measuring …' : changed ? 'The lab has changed since it was measured.' : 'Nothing has changed since it was measured.');
  }

  // The page stays readable, but nothing can be asked any more.
  function end(words) {
    stream.close();
    state = { ...state, measuring: null, over: words };
    if (state.lab) standing();
    section.classList.add('over');
    for (const field of section.querySelectorAll('[data-asks]')) field.disabled = true;
    wrong(words);
  }

  async function look() {
    const [found, drawing] = await Promise.all([fetch('state'), fetch('drawing')]);
    if (!found.ok || !drawing.ok) return;
    state = { ...(await found.json()), over: state?.over };
    show();
    window.emulab.draw(await drawing.text());
    await lookAtFaults();
  }

  // One question at a time; what happens meanwhile is another.
  async function lookAtFaults() {
    outdated = true;
    if (looking) return;
    looking = true;
    try {
      while (outdated) {
        outdated = false;
        const found = await fetch('faults');
        if (!found.ok) return;
        library = await found.json();
        showFaults();
      }
    } finally {
      looking = false;
    }
  }

  async function report() {
    const found = await fetch('report');
    if (!found.ok) return;
    const document = await found.json();
    rendering = true;
    window.emulab.render(document);
    rendering = false;
  }

  let waiting = null;
  function lookSoon() {
    waiting ??= setTimeout(() => { waiting = null; look().catch(() => {}); }, 100);
  }

  const counted = new Map(); // how a verdict changed -> the line of all that changed so
  // ``time  what  details``; verdicts that change in the same way are counted on one line.
  function note(event) {
    const { time, event: what, ...facts } = event;
    const { from, to, protocol, family, ...rest } = facts;
    const verdict = what === 'verdict changed';
    const kind = verdict ? `${facts.before} → ${facts.after}` : '';
    if (!verdict) counted.clear();
    const same = counted.get(kind);
    if (same) {
      same.number += 1;
      same.line.querySelector('.facts').textContent = `${kind}: ${same.number} flows`;
      return;
    }
    const told = verdict ? `${kind}: ${short(from)} → ${short(to)} ${protocol}/IPv${family}` : Object.entries(what === 'measured' ? { flows: rest.flows } : rest)
      .filter(([, value]) => value).map(([key, value]) => `${key} ${Array.isArray(value) ? value.map(short).join(', ') : short(value)}`).join(', ');
    const frame = parts.log.parentElement;
    const atEnd = frame.scrollTop + frame.clientHeight >= frame.scrollHeight - 8;
    const line = el('li', {}, el('time', {}, new Date(time * 1000).toLocaleTimeString('en-GB')), el('strong', {}, what), el('span', { class: 'facts' }, told));
    if (verdict) counted.set(kind, { line, number: 1 });
    parts.log.append(line);
    while (parts.log.children.length > KEPT) parts.log.firstElementChild.remove();
    if (atEnd) frame.scrollTop = frame.scrollHeight;
  }

  const stream = new EventSource('events');
  stream.onopen = () => {
    section.classList.remove('lost');
    wrong('');
    lookSoon();
  };
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) end('The server of this page has ended.  Start emulab serve again and open the address that it prints.');
    else if (!state?.over) {
      section.classList.add('lost');
      wrong('The connection is lost; trying again …');
    }
  };
  stream.onmessage = (message) => {
    const event = JSON.parse(message.data);
    const old = Number(message.lastEventId) <= served.last;
    if (event.event === 'measuring') {
      if (!old && state) {
        state.measuring = { done: event.done, total: event.total };
        standing();
      }
      return;
    }
    if (event.event !== 'missed') note(event);
    if (old) return;
    if (event.event === 'lab gone') end(`The lab '${event.lab}' is gone.  What is shown is what was measured last.`);
    else if (event.event === 'measured' || event.event === 'missed') report().then(look).catch(() => {});
    else if (event.event === 'measurement failed') { wrong(`The measurement failed: ${event.error}`); lookSoon(); }
    else if (!['lab down', 'verdict changed'].includes(event.event)) lookSoon();
  };

  window.emulab.onPair = ({ from, to }) => {
    parts.from.value = from;
    parts.to.value = to;
    trace();
    return true;
  };
  // Of most pairs only the verdict is recorded: whoever asks for the way has it traced.
  window.emulab.onCell = ({ from, to, way }) => {
    if ([...parts.from.options].some((option) => option.value === from)) parts.from.value = from;
    if ([...parts.to.options].some((option) => option.value === to)) parts.to.value = to;
    if (!way && !rendering && !state?.over) trace();
  };
  window.emulab.onDevice = ({ node, pod }) => {
    const row = !pod && node && [...parts.switches.rows].find((one) => one.dataset.name === node);
    if (row) row.querySelector('button').focus();
    return Boolean(row);
  };
})();
