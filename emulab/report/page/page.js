// The page as a whole: what is shown, and what another page (emulab serve) may do with it.
const page = {
  facts: null,
  selected: null,

  render(data) {
    const before = this.selected;
    this.facts = new Facts(data);
    if (data.svg) cluster.replace(data.svg);
    document.title = `${data.title} – emulab`;
    byId('title').textContent = data.title;
    byId('verdict').textContent = data.verdict;
    const expected = data.expectations.every((one) => one.passed);
    document.documentElement.dataset.ok = String(data.ok && expected);
    byId('counts').replaceChildren(...Object.entries(data.summary).filter(([name, count]) => count || name === 'flows' || name === 'delivered').map(([name, count]) => el('li', {},
      el('span', { class: `count ${name === 'flows' ? '' : tone(name)}` }, number(count)), ` ${name}`)));
    byId('main').hidden = false;
    const open = (from, to, options) => this.open(from, to, options);
    sections.findings(this.facts, open);
    sections.expectations(this.facts, open);
    sections.kinds(this.facts, open);
    sections.mtu(this.facts);
    sections.plan(this.facts);
    sections.environment(this.facts);
    matrix.render(this.facts, (from, to, layers) => this.open(from, to, { layers }));
    cluster.read();
    this.first(before);
    if (!window.emulab.rendered) window.emulab.rendered = performance.now();
  },

  // What is open at first: what was open, else what the first finding is about, else the longest way.
  first(before) {
    const { facts } = this;
    if (before && facts.index.has(before.from) && (facts.index.has(before.to) || facts.between(before.from, before.to).length)) {
      const way = facts.between(before.from, before.to).find((one) => before.way && one.id === before.way.id);
      const step = walk.step;
      this.open(before.from, before.to, { way });
      if (way) walk.go(step);
      return;
    }
    const { findings } = facts.data;
    const finding = findings.find((one) => one.flow && facts.between(one.flow.from, one.flow.to).length) || findings.find((one) => one.flow);
    if (finding) {
      this.open(finding.flow.from, finding.flow.to, { way: facts.between(finding.flow.from, finding.flow.to).find((one) => same(one, finding)), at: finding });
      return;
    }
    const ways = [...facts.ways.values()].map((found) => found[0]);
    const between = ways.filter((way) => facts.index.has(way.from) && facts.index.has(way.to));
    const longest = (between.length ? between : ways).reduce((best, way) => (best && best.hops.length >= way.hops.length ? best : way), null);
    if (longest) this.open(longest.from, longest.to, {});
    else {
      this.selected = null;
      walk.way = null;
      byId('walk').hidden = true;
      cluster.clear();
    }
  },

  // Show what is between two: ``way`` is the packet, ``at`` a finding's place on it, ``layers`` those that the cell stood for.
  open(from, to, { way, at, layers, jump } = {}) {
    const { facts } = this;
    const ways = facts.between(from, to);
    const one = facts.index.get(from);
    const other = facts.index.get(to);
    const states = one !== undefined && other !== undefined ? facts.each(facts.layers, one, other) : [];
    const wanted = layers && layers.length === 1 ? ways.find((found) => shape(found) === shape(layers[0])) : null;
    const bad = states.find(([, state]) => !GOOD.has(state));
    const worst = bad && ways.find((found) => shape(found) === bad[0]);
    const chosen = way || wanted || (layers && layers.length === 1 && ways.length ? null : worst) || ways[0] || null;
    this.selected = { from, to, way: chosen };
    byId('walk').hidden = false;
    const show = (found, place) => {
      this.selected.way = found;
      if (found) walk.open(found, place);
      else walk.way = null;
      walk.render({ from, to, ways, states }, facts, (another) => {
        show(another);
        byId('walk').querySelector('[aria-pressed="true"]')?.focus();
      });
    };
    show(chosen, at || (chosen && chosen.findings[0]));
    matrix.mark(from, to);
    if (window.emulab.onCell) window.emulab.onCell({ from, to, way: chosen, states });
    if (!jump) return;
    const section = byId('walk');
    section.setAttribute('tabindex', '-1');
    section.focus({ preventScroll: true });
    (cluster.svg() ? byId('cluster') : section).scrollIntoView({ block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
  },
};

// Light or dark: as the system has it, until somebody chooses.
const theme = {
  start() {
    byId('theme').addEventListener('click', () => this.set(this.dark() ? 'light' : 'dark'));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.shown());
    let kept = null;
    try { kept = localStorage.getItem('emulab-theme'); } catch { /* a file may have no storage */ }
    if (kept === 'light' || kept === 'dark') document.documentElement.dataset.theme = kept;
    this.shown();
  },
  dark: () => (document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark',
  set(name) {
    document.documentElement.dataset.theme = name;
    try { localStorage.setItem('emulab-theme', name); } catch { /* then it is for this time only */ }
    this.shown();
  },
  shown() {
    byId('theme').textContent = this.dark() ? '☀ Light' : '☾ Dark';
    if (!matrix.large || !matrix.canvas) return;
    matrix.heated = null;
    matrix.paint();
  },
};

// ``render(document)`` shows another document, without a reload; what was open stays open.  ``onCell({from, to, way, states})`` hears
// of every pair that is opened; ``onDevice({place, pod, node})`` of clicks into the drawing, and ``onPair({from, to})`` of two pods
// clicked there; these two may return true to take it over.  ``draw(svg)`` shows another drawing of the same cluster.
// ``open(from, to)`` opens a pair.  ``walk(story)`` adds a trace (emulab/trace/1, with ``packets`` or without) and opens it.
window.emulab = {
  onCell: null,
  onDevice: null,
  onPair: null,
  rendered: 0,
  render: (data) => page.render(data),
  draw(svg) {
    cluster.replace(svg);
    cluster.read();
    if (walk.way) cluster.show(walk.way, walk.step);
  },
  open: (from, to) => page.open(from, to, { jump: true }),
  walk(story) {
    const way = { ...fromStory(story, page.facts), id: `${identity(story)} live`, live: true };
    const key = `${way.from} ${way.to}`;
    page.facts.ways.set(key, [way, ...page.facts.between(way.from, way.to).filter((one) => one.id !== way.id)]);
    page.open(way.from, way.to, { way });
  },
  get document() { return page.facts && page.facts.data; },
};

document.addEventListener('keydown', (event) => {
  if (event.target === document.body || event.target.closest('#walk, #cluster')) walk.keys(event);
});
byId('drawing').addEventListener('click', (event) => cluster.clicked(event, (from, to) => page.open(from, to, {})));
addEventListener('resize', () => walk.way && cluster.show(walk.way, walk.step));
theme.start();
page.render(JSON.parse(byId('document').textContent));
