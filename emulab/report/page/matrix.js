// The pod x pod matrix: a grid of cells for as many pods as a screen holds; for more a heat map, and a grid of two nodes' pods.
const GRID = 36;
const LONGEST = 32;

const matrix = {
  facts: null,
  layers: [],
  shown: null,
  blocks: [],
  pick: { from: 0, to: 0 },
  at: null,
  open: null,

  render(facts, open) {
    this.facts = facts;
    this.open = open;
    const kept = this.shown && facts.layers.some((layer) => shape(layer) === this.shown) ? this.shown : null;
    this.shown = kept;
    this.blocks = facts.nodes.flatMap(({ name, members }) => {
      const parts = [];
      for (let start = 0; start < members.length; start += LONGEST) {
        const part = members.slice(start, start + LONGEST);
        parts.push({ name: members.length > LONGEST ? `${name} ${start + 1}–${start + part.length}` : name, node: name, members: part });
      }
      return parts;
    });
    this.large = facts.pods.length > GRID;
    document.querySelector('.columns').classList.toggle('large', this.large);
    if (!this.large) this.pick = { from: null, to: null };
    else if (this.pick.from === null || this.pick.from >= this.blocks.length || this.pick.to >= this.blocks.length) this.pick = { from: 0, to: Math.min(1, this.blocks.length - 1) };
    this.draw();
  },

  layersShown() {
    return this.shown ? this.facts.layers.filter((layer) => shape(layer) === this.shown) : this.facts.layers;
  },

  draw() {
    const { facts } = this;
    byId('pairs').hidden = !facts.layers.length;
    if (!facts.layers.length) return;
    this.layers = this.layersShown();
    this.worst = facts.worst(this.layers);
    this.heated = null;
    const parts = [this.chooser(), this.legend()];
    if (this.large) {
      this.canvas = el('canvas', { role: 'img', 'aria-label': this.summary() });
      this.canvas.addEventListener('click', (event) => this.clicked(event));
      this.canvas.addEventListener('mousemove', (event) => this.hovered(event));
      this.tip = el('p', { class: 'tip' }, ' ');
      this.gridBox = el('div', { class: 'block' });
      parts.push(el('div', { class: 'overview' }, el('div', { class: 'heat' }, this.canvas, this.tip), el('div', { class: 'lens' }, this.choosers(), this.gridBox)));
      body('pairs').replaceChildren(...parts);
      this.paint();
      this.block();
    } else {
      parts.push(el('div', { class: 'scroll' }, this.grid(facts.nodes, facts.nodes)));
      body('pairs').replaceChildren(...parts);
    }
  },

  stateOf(from, to) {
    return WORST[this.worst[from * this.facts.pods.length + to]];
  },

  chooser() {
    const names = this.facts.layers.map(shape);
    if (names.length < 2) return el('p', { class: 'hint' }, `${names[0]}, and the replies`);
    const choice = (value, label) => el('label', {}, el('input', {
      type: 'radio', name: 'layer', value: value || '', checked: this.shown === value,
      onchange: () => { this.shown = value; this.draw(); body('pairs').querySelector('input:checked').focus(); },
    }), el('span', {}, label));
    return el('fieldset', { class: 'layers' }, el('legend', { class: 'unseen' }, 'Protocol and family'), choice(null, 'worst of all'), names.map((name) => choice(name, name)));
  },

  legend() {
    this.counts = new Array(WORST.length).fill(0);
    for (let index = 0; index < this.worst.length; index += 1) this.counts[this.worst[index]] += 1;
    this.counts[WORST.length - 1] -= this.facts.pods.length; // nobody sends to itself
    return el('ul', { class: 'legend', 'aria-label': 'Pairs by verdict' }, WORST.map((state, index) => (this.counts[index]
      ? el('li', {}, el('span', { class: `cell ${tone(state)}`, 'aria-hidden': 'true' }, SIGNS[state]), ` ${state} ${number(this.counts[index])}`) : null)));
  },

  summary() {
    const told = WORST.map((state, index) => (this.counts[index] ? `${number(this.counts[index])} ${state}` : '')).filter(Boolean);
    return `Heat map of ${number(this.facts.pods.length)} by ${number(this.facts.pods.length)} pods: ${told.join(', ')}. Choose two nodes for a table of their pods.`;
  },

  // A table of the pods of some nodes by those of others; arrow keys move, Enter opens.
  grid(rows, columns) {
    const { facts } = this;
    const wide = columns.reduce((sum, node) => sum + node.members.length, 0);
    const longest = Math.max(...columns.flatMap((node) => node.members.map((pod) => short(facts.pods[pod].name).length)));
    const slim = wide > 14 || longest > 8;
    const many = rows.length > 1 || columns.length > 1;
    const head = [];
    if (many) head.push(el('tr', {}, el('td', { colspan: 2, class: 'corner' }), columns.map((node) => el('th', { scope: 'colgroup', colspan: node.members.length, class: 'node' }, node.name))));
    head.push(el('tr', {}, el('th', { class: 'corner', colspan: many ? 2 : 1, scope: 'col' }, 'from ↓ to →'),
      columns.flatMap((node) => node.members.map((pod, index) => el('th', { scope: 'col', class: `${slim ? 'slim' : ''} ${index ? '' : 'first'}` }, el('span', {}, short(facts.pods[pod].name)))))));
    const lines = rows.flatMap((node) => node.members.map((from, index) => el('tr', { class: index ? null : 'first' },
      many && !index ? el('th', { scope: 'rowgroup', rowspan: node.members.length, class: 'node side' }, el('span', {}, node.name)) : null,
      el('th', { scope: 'row' }, short(facts.pods[from].name)),
      columns.flatMap((other) => other.members.map((to, place) => this.cell(from, to, place === 0))))));
    const table = el('table', { class: 'grid', role: 'grid', 'aria-label': `${this.shown || 'All protocols'}: who reaches whom`, onkeydown: (event) => this.keys(event), onclick: (event) => this.pressed(event) },
      el('thead', {}, head), el('tbody', {}, lines));
    const current = this.at && table.querySelector(`[data-from="${this.at.from}"][data-to="${this.at.to}"]`);
    (current || table.querySelector('button'))?.setAttribute('tabindex', '0');
    return table;
  },

  cell(from, to, first) {
    if (from === to) return el('td', { class: `self ${first ? 'first' : ''}` }, el('span', { class: 'unseen' }, 'itself'));
    const state = this.stateOf(from, to);
    const { pods } = this.facts;
    const each = this.layers.length > 1 ? this.facts.each(this.layers, from, to) : [];
    const differs = each.some(([, one]) => one !== state);
    const words = differs ? each.map(([name, one]) => `${name} ${one}`).join(', ') : state;
    const ends = `${short(pods[from].name)} to ${short(pods[to].name)}`;
    const selected = page.selected && page.selected.from === pods[from].name && page.selected.to === pods[to].name;
    return el('td', { class: first ? 'first' : null, role: 'gridcell', 'aria-selected': String(Boolean(selected)) }, el('button', {
      type: 'button', tabindex: -1, class: `cell ${tone(state)}`, 'data-from': from, 'data-to': to, 'aria-label': `${ends}: ${words}`, title: `${ends}: ${words}`,
    }, SIGNS[state], differs ? el('span', { class: 'part', 'aria-hidden': 'true' }) : null));
  },

  pressed(event) {
    const cell = event.target.closest('[data-from]');
    if (!cell) return;
    this.focus(cell, false);
    const { pods } = this.facts;
    this.open(pods[Number(cell.dataset.from)].name, pods[Number(cell.dataset.to)].name, this.layers);
  },

  focus(cell, really = true) {
    const table = cell.closest('table');
    table.querySelector('[tabindex="0"]')?.setAttribute('tabindex', '-1');
    cell.setAttribute('tabindex', '0');
    this.at = { from: Number(cell.dataset.from), to: Number(cell.dataset.to) };
    if (really) cell.focus();
  },

  keys(event) {
    const cell = event.target.closest('[data-from]');
    if (!cell || event.altKey || event.metaKey) return;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const rows = [...cell.closest('tbody').rows].map((row) => [...row.cells].filter((one) => one.tagName === 'TD'));
    let row = rows.findIndex((cells) => cells.includes(cell.parentElement));
    let column = rows[row].indexOf(cell.parentElement);
    if (event.key === 'Home' || event.key === 'End') {
      event.preventDefault();
      const cells = rows[row].filter((one) => one.firstElementChild?.matches('button'));
      this.focus(cells[event.key === 'Home' ? 0 : cells.length - 1].firstElementChild);
      return;
    }
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [down, right] = moves[event.key];
    do {
      row += down;
      column += right;
    } while (rows[row]?.[column] && !rows[row][column].querySelector('button'));
    const next = rows[row]?.[column]?.querySelector('button');
    if (next) this.focus(next);
  },

  // The block's nodes, chosen by name.
  choosers() {
    const select = (key, label) => el('label', {}, `${label} `, el('select', {
      onchange: (event) => { this.pick[key] = Number(event.target.value); this.block(); this.paint(); },
    }, this.blocks.map((block, index) => el('option', { value: index, selected: this.pick[key] === index }, block.name))));
    this.selects = { from: select('from', 'From'), to: select('to', 'to') };
    return el('p', { class: 'choosers' }, this.selects.from, ' ', this.selects.to);
  },

  block() {
    for (const key of ['from', 'to']) this.selects[key].querySelector('select').value = String(this.pick[key]);
    const grid = this.grid([this.blocks[this.pick.from]], [this.blocks[this.pick.to]]);
    this.gridBox.replaceChildren(el('div', { class: 'scroll' }, grid));
  },

  // A pixel for each pair, or for some of them: then it shows the worst.  ``bad`` are those that must not be overlooked.
  heat() {
    const { facts } = this;
    const size = facts.pods.length;
    const width = body('pairs').clientWidth || 560;
    const room = Math.max(280, Math.min(640, width > 800 ? width * 0.48 : width));
    const per = Math.max(1, Math.ceil(size / room));
    const cells = Math.ceil(size / per);
    const zoom = Math.max(1, Math.floor(room / cells));
    const colours = WORST.map((state) => pixel(colour(`--heat-${tone(state)}`)));
    const image = new Uint32Array(cells * cells);
    const { order } = facts;
    const worst = new Uint8Array(cells);
    const bad = [];
    for (let row = 0; row < cells; row += 1) {
      worst.fill(WORST.length - 1);
      for (let from = row * per; from < Math.min(size, (row + 1) * per); from += 1) {
        const start = order[from] * size;
        for (let to = 0; to < size; to += 1) {
          const one = this.worst[start + order[to]];
          const cell = per === 1 ? to : (to / per) | 0;
          if (one < worst[cell]) worst[cell] = one;
        }
      }
      for (let column = 0; column < cells; column += 1) {
        image[row * cells + column] = colours[worst[column]];
        if (worst[column] < WORST.indexOf('denied') && bad.length < 20000) bad.push([row, column, worst[column]]);
      }
    }
    const small = document.createElement('canvas');
    small.width = cells;
    small.height = cells;
    small.getContext('2d').putImageData(new ImageData(new Uint8ClampedArray(image.buffer), cells, cells), 0, 0);
    return { small, bad, zoom, scale: zoom / per };
  },

  paint() {
    this.heated ||= this.heat();
    const { small, bad, zoom, scale } = this.heated;
    const { canvas } = this;
    canvas.width = small.width * zoom;
    canvas.height = small.height * zoom;
    const context = canvas.getContext('2d');
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    this.scale = scale;
    this.stress(context, bad, zoom);
    this.lines(context);
  },

  // What is wrong is seen even when it is one pixel in a million.
  stress(context, bad, zoom) {
    if (zoom >= 4) return;
    const colours = WORST.map((state) => colour(`--heat-${tone(state)}`));
    for (const [row, column, state] of bad) {
      context.fillStyle = colours[state];
      context.fillRect(Math.min(column * zoom - 1, this.canvas.width - 4), Math.max(0, row * zoom - 1), 4, 4);
    }
  },

  // Where a node ends, and the block that the table shows.
  lines(context) {
    const { canvas, facts } = this;
    context.fillStyle = colour('--heat-line');
    let end = 0;
    for (const node of facts.nodes.slice(0, -1)) {
      end += node.members.length;
      if (node.members.length * this.scale < 5) continue;
      context.fillRect(0, Math.round(end * this.scale), canvas.width, 1);
      context.fillRect(Math.round(end * this.scale), 0, 1, canvas.height);
    }
    const span = (index) => {
      const start = this.blocks.slice(0, index).reduce((sum, block) => sum + block.members.length, 0);
      return [start * this.scale, this.blocks[index].members.length * this.scale];
    };
    const [top, height] = span(this.pick.from);
    const [left, width] = span(this.pick.to);
    context.lineWidth = 2;
    context.strokeStyle = colour('--heat-mark');
    context.strokeRect(left, top, Math.max(4, width), Math.max(4, height));
  },

  // The pair under the pointer; where several share the pixels around it, one that is wrong.
  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const last = this.facts.order.length - 1;
    const index = (value, length) => Math.min(last, Math.max(0, Math.floor(((value / length) * this.canvas.width) / this.scale)));
    const at = { from: index(event.clientY - box.top, box.height), to: index(event.clientX - box.left, box.width) };
    const reach = this.scale >= 4 ? 0 : Math.ceil(3 / this.scale);
    let found = at;
    let worst = WORST.indexOf('denied');
    for (let from = Math.max(0, at.from - reach); from <= Math.min(last, at.from + reach); from += 1) {
      for (let to = Math.max(0, at.to - reach); to <= Math.min(last, at.to + reach); to += 1) {
        const state = this.worst[this.facts.order[from] * (last + 1) + this.facts.order[to]];
        if (state < worst) [found, worst] = [{ from, to }, state];
      }
    }
    return found;
  },

  hovered(event) {
    const { from, to } = this.under(event);
    const [one, other] = [this.facts.order[from], this.facts.order[to]];
    const state = one === other ? 'itself' : this.stateOf(one, other);
    this.tip.textContent = `${short(this.facts.pods[one].name)} → ${short(this.facts.pods[other].name)}: ${state}`;
  },

  clicked(event) {
    const { from, to } = this.under(event);
    this.reveal(this.facts.order[from], this.facts.order[to]);
    const cell = this.gridBox.querySelector(`[data-from="${this.facts.order[from]}"][data-to="${this.facts.order[to]}"]`);
    if (cell) {
      this.focus(cell);
      cell.click();
    }
  },

  // Let the grid hold this pair.
  reveal(from, to) {
    this.at = { from, to };
    if (!this.large || from === undefined || to === undefined) return;
    const block = (pod) => this.blocks.findIndex((one) => one.members.includes(pod));
    if (this.pick.from === block(from) && this.pick.to === block(to)) return;
    this.pick = { from: block(from), to: block(to) };
    this.block();
    this.paint();
  },

  // Which cell is the open one.
  mark(from, to) {
    for (const cell of body('pairs').querySelectorAll('[aria-selected="true"]')) cell.setAttribute('aria-selected', 'false');
    const one = this.facts.index.get(from);
    const other = this.facts.index.get(to);
    if (one === undefined || other === undefined) return;
    this.reveal(one, other);
    const cell = body('pairs').querySelector(`[data-from="${one}"][data-to="${other}"]`);
    cell?.parentElement.setAttribute('aria-selected', 'true');
    if (cell) this.focus(cell, false);
  },
};

// A colour of the style sheet, as light or dark as it is now.
function colour(name) {
  const probe = el('span', { class: 'unseen' });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// The same as a pixel of an image.
function pixel(found) {
  const canvas = document.createElement('canvas');
  canvas.width = 1;
  canvas.height = 1;
  const context = canvas.getContext('2d');
  context.fillStyle = found;
  context.fillRect(0, 0, 1, 1);
  return new Uint32Array(context.getImageData(0, 0, 1, 1).data.buffer)[0];
}
