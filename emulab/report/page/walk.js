// A packet's way, place by place.
const FIELDS = [
  ['From MAC', (headers, macs) => macs?.[0]],
  ['To MAC', (headers, macs) => macs?.[1]],
  ['Source', (headers) => headers.source],
  ['Destination', (headers) => headers.destination],
  ['TTL', (headers) => headers.ttl],
  ['Protocol', (headers) => (headers.kind ? 'udp' : headers.protocol + (headers.note ? ` ${headers.note}` : ''))],
  ['Source port', (headers) => headers.sport, 'Identifier'],
  ['Destination port', (headers) => headers.dport, 'Sequence'],
  ['VNI', (headers) => headers.vni],
  ['Length', (headers) => (headers.length ? `${headers.length} bytes` : undefined)],
];

const walk = {
  way: null,
  step: 0,

  // Show a way from its first hop, or from the one that ``at`` (place and leg) names.
  open(way, at) {
    this.way = way;
    const found = at ? way.hops.findIndex((hop) => hop.place === at.place && (!at.leg || hop.leg === at.leg)) : 0;
    this.step = Math.max(0, found);
  },

  go(step, focus) {
    if (!this.way || !this.way.hops.length) return;
    this.step = Math.max(0, Math.min(this.way.hops.length - 1, step));
    this.update();
    const current = byId('walk').querySelector('.hops [aria-current]');
    if (focus && current) current.focus({ preventScroll: true });
    this.scrollTo(current);
    const hop = this.way.hops[this.step];
    say(`${this.step + 1} of ${this.way.hops.length}: ${hop.direction === 'out' ? 'leaves by' : 'arrives at'} ${short(hop.place)}. ${hop.changed.join(', ')}`);
  },

  scrollTo(current) {
    const list = byId('walk').querySelector('.hops');
    if (!list || !current) return;
    const box = current.getBoundingClientRect();
    const outer = list.getBoundingClientRect();
    if (box.top < outer.top || box.bottom > outer.bottom) list.scrollTop += box.top - outer.top - outer.height / 3;
  },

  keys(event) {
    if (!this.way || event.altKey || event.ctrlKey || event.metaKey || event.target.matches('input, select, textarea')) return;
    const inList = event.target.closest('.hops');
    const steps = { ArrowRight: 1, ArrowLeft: -1, ...(inList ? { ArrowDown: 1, ArrowUp: -1 } : {}) };
    const to = { Home: 0, End: this.way.hops.length - 1 }[event.key] ?? (event.key in steps ? this.step + steps[event.key] : null);
    if (to === null) return;
    event.preventDefault();
    this.go(to, inList);
  },

  // The whole section: ``ways`` are the packets that can be walked between these two; ``choose`` shows another of them.
  render(selection, facts, choose) {
    const { from, to, ways, states } = selection;
    byId('walk-title').textContent = `${short(from)} → ${short(to)}`;
    const parts = [];
    if (states?.length) {
      parts.push(el('p', { class: 'states' }, states.map(([name, state]) => el('span', { class: `chip ${tone(state)}` }, `${SIGNS[state]} ${name} ${state}`))));
    }
    if (ways.length > 1) {
      parts.push(el('div', { class: 'choices', role: 'group', 'aria-label': 'Packets that can be walked' }, ways.map((way) => el('button', {
        type: 'button', 'aria-pressed': String(way === this.way), onclick: () => choose(way),
      }, `${shape(way)}${way.dport && way.protocol !== 'icmp' ? ` ${way.dport}` : ''}${way.size ? `, ${way.size} bytes` : ''}${way.live ? ', just now' : ''}`))));
    }
    if (!this.way) parts.push(this.nothing(from, to));
    else parts.push(this.head(), el('div', { class: 'steps' }, this.list(), el('div', { class: 'detail', id: 'detail' })));
    body('walk').replaceChildren(...parts);
    this.update();
  },

  nothing(from, to) {
    const command = `emulab trace ${short(from)} ${short(to)}`;
    return el('div', { class: 'note' }, el('p', {}, 'Only the verdict of this pair is recorded, not its way.  On a running lab this tells it:'),
      el('p', { class: 'command' }, code(command), copyButton(() => command, 'the command')));
  },

  head() {
    const { way } = this;
    const good = GOOD.has(way.verdict) && !way.findings.length;
    const told = el('p', { class: `outcome ${good ? 'good' : 'bad'}` }, el('span', { class: `chip ${tone(way.verdict)}` }, `${SIGNS[way.verdict] || '?'} ${way.verdict}`), ' ',
      way.reason ? el('strong', {}, way.reason) : way.answered_by && way.answered_by !== way.to ? `answered by ${short(way.answered_by)}` : '',
      way.reason_code ? ` (${way.reason_code})` : '',
      way.reason && way.last_place ? ['; last seen at ', code(short(way.last_place))] : '',
      way.mtu ? `${way.reason ? '; ' : ' '}smallest MTU ${way.mtu} bytes` : '',
      way.round_trip_us ? `, back after ${micro(way.round_trip_us)}` : '');
    const parts = [told];
    for (const finding of way.findings) if (finding.field !== 'delivery' || !way.reason) parts.push(el('p', { class: 'finding' }, sentence({ ...finding, flow: way, subject: '', text: '' }, way)));
    if (way.policy) parts.push(el('p', { class: 'policy' }, `Policies: ${way.policy}`));
    if (way.evidence?.length) parts.push(el('ul', { class: 'evidence' }, way.evidence.map((line) => el('li', {}, line))));
    const button = (label, title, act) => el('button', { type: 'button', 'aria-label': title, title, onclick: act }, label);
    const back = way.hops.findIndex((hop) => hop.leg === 'reply');
    parts.push(el('div', { class: 'stepper', role: 'group', 'aria-label': 'Step along the way' },
      button('|◀', 'First place', () => this.go(0)),
      button('◀', 'Previous place', () => this.go(this.step - 1)),
      el('output', { id: 'step' }),
      button('▶', 'Next place', () => this.go(this.step + 1)),
      button('▶|', 'Last place', () => this.go(way.hops.length - 1)),
      back > 0 ? el('button', { type: 'button', onclick: () => this.go(back) }, 'The way back') : null,
      way.packets ? this.download(way) : null,
      way.traced ? null : el('span', { class: 'hint' }, 'seen by verify: reasons, MTU and MACs are in traces only')));
    return el('div', { class: 'walk-head' }, parts);
  },

  download(way) {
    const bytes = Uint8Array.from(atob(way.packets), (letter) => letter.charCodeAt(0));
    const name = `${short(way.from)}-to-${short(way.to)}-${way.protocol}${way.family}`.replace(/[^A-Za-z0-9.-]/g, '_');
    const link = el('a', { class: 'button', download: `${name}.pcapng`, href: '#' }, 'pcapng');
    link.addEventListener('click', () => {
      link.href = URL.createObjectURL(new Blob([bytes], { type: 'application/x-pcapng' }));
      setTimeout(() => { URL.revokeObjectURL(link.href); link.href = '#'; }, 1000);
    });
    link.setAttribute('aria-label', 'Download these packets for Wireshark (pcapng)');
    return link;
  },

  list() {
    const legs = [];
    for (const [leg, title] of [['request', 'There'], ['reply', 'Back']]) {
      const items = [];
      this.way.hops.forEach((hop, index) => {
        if (hop.leg === leg) items.push(el('li', {}, this.entry(hop, index)));
      });
      if (items.length) {
        if (this.way.reason && (legs.length || !this.way.hops.some((hop) => hop.leg === 'reply')) && leg === this.way.hops[this.way.hops.length - 1].leg) {
          items.push(el('li', { class: 'lost-here' }, `✗ ${this.way.verdict}: ${this.way.reason}`));
        }
        legs.push(el('h3', {}, title), el('ol', {}, items));
      }
    }
    if (!legs.length) legs.push(el('p', {}, 'It was seen nowhere.'));
    return el('div', { class: 'hops', role: 'group', 'aria-label': 'Places on the way' }, legs);
  },

  entry(hop, index) {
    const wrong = this.marks(hop, 'findings').length;
    const told = hop.changed.filter((words) => !words.startsWith('MACs'));
    return el('button', { type: 'button', class: wrong ? 'wrong' : null, 'data-step': index, onclick: () => this.go(index) },
      el('span', { class: 'arrow', 'aria-hidden': 'true' }, hop.direction === 'out' ? '→' : '←'),
      el('span', { class: 'place' }, el('span', { class: 'unseen' }, hop.direction === 'out' ? 'leaves by ' : 'arrives at '), short(hop.place)),
      el('span', { class: 'time' }, micro(hop.time_us)),
      told.length ? el('span', { class: 'changed' }, arrows(told.join(', '))) : null,
      hop.why.length ? el('span', { class: 'print-only' }, `because ${hop.why.join('; ')}`) : null);
  },

  // Findings, or translations that are expected, which were first seen at this hop.
  marks(hop, kind) {
    return (this.way[kind] || []).filter((one) => one.place === hop.place && one.leg === hop.leg);
  },

  update() {
    const detail = byId('detail');
    if (!this.way || !detail) {
      cluster.clear();
      return;
    }
    const hop = this.way.hops[this.step];
    for (const button of byId('walk').querySelectorAll('[data-step]')) {
      if (Number(button.dataset.step) === this.step) button.setAttribute('aria-current', 'step');
      else button.removeAttribute('aria-current');
    }
    byId('step').textContent = hop ? `${this.step + 1} of ${this.way.hops.length}` : '–';
    detail.replaceChildren(...(hop ? this.detail(hop) : []));
    cluster.show(this.way, this.step);
  },

  detail(hop) {
    const before = this.step && this.way.hops[this.step - 1].leg === hop.leg ? this.way.hops[this.step - 1] : null;
    const parts = [el('h3', {}, el('span', { class: 'verb' }, hop.direction === 'out' ? 'leaves by ' : 'arrives at '), code(short(hop.place)))];
    parts.push(el('dl', { class: 'facts' },
      el('div', {}, el('dt', {}, 'Time'), el('dd', {}, micro(hop.time_us))),
      el('div', {}, el('dt', {}, 'MTU'), el('dd', {}, hop.mtu ? `${hop.mtu} bytes` : 'not recorded')),
      el('div', {}, el('dt', {}, 'Leg'), el('dd', {}, hop.leg))));
    for (const finding of this.marks(hop, 'findings')) parts.push(el('div', { class: 'mark bad' }, difference(finding, this.way)));
    for (const change of this.marks(hop, 'translations')) parts.push(el('div', { class: 'mark fine' }, el('span', {}, 'As it should be: '), difference(change, this.way)));
    parts.push(this.headers(hop, before));
    if (hop.changed.length) parts.push(el('h4', {}, 'Changed since the place before'), el('ul', { class: 'changes' }, hop.changed.map((words) => el('li', {}, arrows(words)))));
    if (hop.why.length) parts.push(el('h4', {}, 'Because'), el('ul', { class: 'why' }, hop.why.map((words) => el('li', {}, code(words)))));
    return parts;
  },

  // Outer and inner headers side by side; what differs from the hop before is marked, with what it was.
  headers(hop, before) {
    const columns = [];
    if (hop.outer || before?.outer) columns.push(['Outer', hop.outer, before?.outer, hop.outer_macs, before?.outer_macs]);
    columns.push([hop.outer ? 'Inner' : 'Packet', hop.inner, before?.inner, hop.macs, before?.macs]);
    const rows = [];
    for (const [name, read, icmpName] of FIELDS) {
      const cells = columns.map(([, headers, was, macs, wasMacs]) => [headers ? read(headers, macs) : undefined, was ? read(was, wasMacs) : undefined, Boolean(was)]);
      if (cells.every(([now, was]) => now === undefined && was === undefined)) continue;
      rows.push(el('tr', {}, el('th', { scope: 'row' }, hop.inner.protocol === 'icmp' && icmpName ? (columns.length < 2 ? icmpName : `${name}, ${icmpName.toLowerCase()}`) : name),
        cells.map(([now, was, compared], index) => this.cell(now, was, compared || (index === 0 && columns.length > 1 && before !== null)))));
    }
    const title = (name, headers) => (name === 'Outer' ? (headers ? `Outer (${headers.kind})` : 'Outer (removed)') : name);
    return el('table', { class: 'headers' }, el('caption', { class: 'unseen' }, `Headers at ${short(hop.place)}`),
      el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'Field'), columns.map(([name, headers]) => el('th', { scope: 'col' }, title(name, headers))))),
      el('tbody', {}, rows));
  },

  cell(now, was, compared) {
    if (!compared || now === was) return el('td', {}, now === undefined ? '' : String(now));
    return el('td', { class: 'differs' }, was === undefined ? null : [el('del', {}, String(was)), ' '], now === undefined ? null : el('ins', {}, String(now)));
  },
};

// Which rule did it: the one that a trace met there, where verify knows only the connection's entry.
function ruleOf(finding, way) {
  if (!finding.rule || !finding.rule.startsWith('conntrack') || !way) return finding.rule;
  const hop = way.hops.find((one) => one.place === finding.place && one.leg === finding.leg);
  return hop?.why.find((words) => words.split(' ').some((word) => ['masquerade', 'snat', 'dnat', 'redirect'].includes(word))) || finding.rule;
}

// ``field: before → after, by rule``.
function difference(finding, way) {
  const rule = ruleOf(finding, way);
  if (finding.field === 'delivery') return [el('ins', {}, finding.after), ' instead of ', finding.before];
  return [el('strong', {}, finding.field), ' ', el('del', {}, finding.before), ' → ', el('ins', {}, finding.after),
    rule ? el('div', { class: 'rule' }, 'by ', code(rule)) : null];
}
