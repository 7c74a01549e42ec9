// The drawing: which element is which place, and a packet's way along them.
const cluster = {
  places: new Map(),
  picked: null,

  // Another drawing: SVG as text, made by emulab; what it holds is taken over as an image's elements, not as HTML.
  replace(text) {
    const parsed = new DOMParser().parseFromString(text, 'image/svg+xml').documentElement;
    if (parsed.nodeName === 'svg') byId('drawing').replaceChildren(document.importNode(parsed, true));
  },

  read() {
    this.places = new Map();
    this.picked = null;
    const svg = this.svg();
    byId('cluster').hidden = !svg;
    if (!svg) return;
    for (const element of svg.querySelectorAll('[data-place], [data-pod], [data-node]')) {
      for (const key of ['place', 'pod', 'node']) {
        const name = element.dataset[key];
        if (name && !this.places.has(name)) this.places.set(name, element);
      }
    }
  },

  svg: () => document.querySelector('#drawing svg'),

  // A place's own element, or that of its pod or node when devices are not drawn.
  of(place) {
    return this.places.get(place) || this.places.get(place.slice(0, place.lastIndexOf(':')));
  },

  clear() {
    const svg = this.svg();
    if (!svg) return;
    for (const element of svg.querySelectorAll('.on-way, .here, .lost, .passed')) element.classList.remove('on-way', 'here', 'lost', 'passed');
    svg.querySelector('.way')?.remove();
  },

  // Highlight the leg of ``hop``: what is behind it, where it is, and where it got lost.
  show(way, step) {
    this.clear();
    const svg = this.svg();
    const hop = way.hops[step];
    if (!svg || !hop) return;
    const leg = way.hops.filter((one) => one.leg === hop.leg);
    const here = leg.indexOf(hop);
    const points = [];
    leg.forEach((one, index) => {
      const element = this.of(one.place);
      if (!element) return;
      element.classList.add('on-way');
      if (index <= here) element.classList.add('passed');
      points.push({ ...this.centre(svg, element), index });
    });
    const line = (found) => found.map((point) => `${point.x.toFixed(1)},${point.y.toFixed(1)}`).join(' ');
    const now = points.filter((point) => point.index <= here);
    const scale = this.scale(svg);
    const layer = svgEl('g', { class: `way ${hop.leg}`, 'aria-hidden': 'true', 'stroke-width': 3 * scale });
    layer.append(svgEl('polyline', { class: 'ahead', points: line(points) }), svgEl('polyline', { class: 'behind', points: line(now) }));
    const at = now[now.length - 1];
    if (at) layer.append(svgEl('circle', { class: 'halo', cx: at.x, cy: at.y, r: 11 * scale }), svgEl('circle', { class: 'packet', cx: at.x, cy: at.y, r: 5 * scale }));
    svg.append(layer);
    const element = this.of(hop.place);
    if (!element) return;
    element.classList.add('here');
    const lost = way.last_place && way.reason && hop.place === way.last_place && here === leg.length - 1;
    if (lost) element.classList.add('lost');
    if (lost && at) layer.append(svgEl('path', { class: 'cross', 'stroke-width': 3 * scale, d: `M${at.x - 8 * scale},${at.y - 8 * scale} l${16 * scale},${16 * scale} m0,${-16 * scale} l${-16 * scale},${16 * scale}` }));
    this.scrollTo(element);
  },

  // User units for a pixel of the screen, so that marks are as large in a large drawing.
  scale(svg) {
    const matrix = svg.getScreenCTM();
    return matrix && matrix.a ? Math.min(4, Math.max(0.6, 1 / matrix.a)) : 1;
  },

  centre(svg, element) {
    const box = element.getBoundingClientRect();
    const matrix = svg.getScreenCTM();
    const point = new DOMPoint(box.left + box.width / 2, box.top + box.height / 2);
    const { x, y } = matrix ? point.matrixTransform(matrix.inverse()) : { x: 0, y: 0 };
    return { x, y };
  },

  // Only the drawing in its frame: the page stays where it is.
  scrollTo(element) {
    const frame = byId('drawing');
    const box = element.getBoundingClientRect();
    const outer = frame.getBoundingClientRect();
    if (frame.scrollWidth > frame.clientWidth) frame.scrollLeft += box.left + box.width / 2 - outer.left - outer.width / 2;
    if (frame.scrollHeight > frame.clientHeight) frame.scrollTop += box.top + box.height / 2 - outer.top - outer.height / 2;
  },

  // Two pods clicked one after the other are a packet's ends.
  clicked(event, open) {
    const element = event.target.closest('[data-place], [data-pod], [data-node]');
    if (!element) return;
    const holder = (key) => element.closest(`[data-${key}]`)?.dataset[key] || null;
    const place = element.dataset.place || null;
    const pod = holder('pod') || (place && place.includes('/') ? place.slice(0, place.lastIndexOf(':')) : null);
    const facts = { place, pod, node: holder('node') };
    if (window.emulab.onDevice && window.emulab.onDevice(facts) === true) return;
    if (!pod) return;
    const box = this.places.get(pod) || element;
    if (!this.picked || this.picked.pod === pod) {
      this.picked?.box.classList.remove('picked');
      this.picked = this.picked ? null : { pod, box };
      this.picked?.box.classList.add('picked');
      say(this.picked ? `From ${short(pod)}: choose where to` : '');
      return;
    }
    const from = this.picked.pod;
    this.picked.box.classList.remove('picked');
    this.picked = null;
    if (window.emulab.onPair && window.emulab.onPair({ from, to: pod }) === true) return;
    open(from, pod);
  },
};
