// What a document says, made easy to ask: signs, names, layers of the matrix, and the packets that can be walked.
const SIGNS = {
  delivered: '✓', denied: '⊘', rewritten: 'R', dropped: '✗', refused: '!', duplicated: 'D',
  'let through': '‼', 'not as promised': '~', 'not probed': '·',
};
const WORST = ['rewritten', 'duplicated', 'refused', 'dropped', 'let through', 'not as promised', 'denied', 'delivered', 'not probed'];
const GOOD = new Set(['delivered', 'denied', 'not probed']);
const tone = (state) => (state || 'not probed').replaceAll(' ', '-');
const short = (name) => (name.startsWith('svc/default/') ? `svc/${name.slice(12)}` : name.replace(/^default\//, ''));
const shape = (one) => `${one.protocol}/IPv${one.family}`;
const arrows = (words) => words.replaceAll(' -> ', ' → ');
const number = (value) => value.toLocaleString('en');
const micro = (value) => (value >= 1000 ? `${(value / 1000).toFixed(2)} ms` : `${value.toFixed(value < 10 ? 1 : 0)} µs`);

class Facts {
  constructor(data) {
    this.data = data;
    this.pods = data.pods;
    this.index = new Map(data.pods.map((pod, index) => [pod.name, index]));
    this.letters = data.letters;
    this.layers = data.pairs;
    this.read = new Map();
    // The matrix has the pods by node, in the nodes' order.
    const nodes = new Map(data.nodes.map((node) => [node.name, []]));
    data.pods.forEach((pod, index) => {
      if (!nodes.has(pod.node)) nodes.set(pod.node, []);
      nodes.get(pod.node).push(index);
    });
    this.nodes = [...nodes].filter(([, members]) => members.length).map(([name, members]) => ({ name, members }));
    this.order = this.nodes.flatMap((node) => node.members);
    this.rank = new Uint8Array(256).fill(255);
    for (const [letter, state] of Object.entries(this.letters)) this.rank[letter.charCodeAt(0)] = WORST.indexOf(state);
    this.ways = new Map();
    for (const story of data.stories) this.add(fromStory(story, this));
    for (const flow of data.flows) if (flow.hops.length) this.add(fromFlow(flow));
    for (const outcome of data.expectations) if (outcome.story) this.add({ ...fromStory(outcome.story, this), packets: outcome.packets });
  }

  // A story replaces what verify saw of the same flow, unless that shows something wrong that the story does not.
  add(way) {
    const key = `${way.from} ${way.to}`;
    const found = this.ways.get(key) || [];
    const same = found.findIndex((one) => one.id === way.id);
    if (same < 0) found.push(way);
    else if (way.findings.length && !found[same].findings.length && way.verdict !== found[same].verdict) found.unshift({ ...way, id: `${way.id} seen by verify` });
    this.ways.set(key, found);
  }

  between(from, to) {
    return this.ways.get(`${from} ${to}`) || [];
  }

  flow(from, to, one) {
    return this.data.flows.find((flow) => flow.from === from && flow.to === to && flow.family === one.family
      && flow.protocol === one.protocol && (one.protocol === 'icmp' || !one.dport || flow.dport === one.dport));
  }

  state(layer, from, to) {
    return this.letters[layer.rows[from][to]];
  }

  // A byte for each pair: how bad it is (an index of WORST) by one layer.  Read once, a million pairs take milliseconds.
  ranks(layer) {
    if (!this.read.has(layer)) {
      const size = this.pods.length;
      const found = new Uint8Array(size * size);
      const encoder = new TextEncoder();
      layer.rows.forEach((row, from) => encoder.encodeInto(row, found.subarray(from * size, (from + 1) * size)));
      for (let index = 0; index < found.length; index += 1) found[index] = this.rank[found[index]];
      this.read.set(layer, found);
    }
    return this.read.get(layer);
  }

  // The same by several layers: the worst counts.
  worst(layers) {
    if (layers.length === 1) return this.ranks(layers[0]);
    const found = this.ranks(layers[0]).slice();
    for (const layer of layers.slice(1)) {
      const other = this.ranks(layer);
      for (let index = 0; index < found.length; index += 1) if (other[index] < found[index]) found[index] = other[index];
    }
    return found;
  }

  each(layers, from, to) {
    return layers.map((layer) => [shape(layer), this.state(layer, from, to)]).filter(([, state]) => state !== 'not probed');
  }
}

const identity = (one) => [one.from, one.to, one.family, one.protocol, one.protocol === 'icmp' ? '' : one.dport, one.size || ''].join(' ');

function fromStory(story, facts) {
  const seen = facts.flow(story.from, story.to, story);
  return {
    ...story,
    id: identity(story),
    traced: true,
    findings: seen && !story.size ? seen.findings : [],
    translations: seen ? seen.translations : [],
    policy: seen ? seen.policy : undefined,
    kind: seen ? seen.kind : undefined,
  };
}

// What verify saw of a flow: of a conversation by TCP its opening stands for the rest.
function fromFlow(flow) {
  const legs = ['request', 'reply'].flatMap((leg) => {
    const seen = flow.hops.filter((hop) => hop.leg === leg);
    return seen.filter((hop) => (hop.inner.note || '') === (seen[0].inner.note || ''));
  });
  const start = flow.hops.length ? flow.hops[0].time : 0;
  const hops = legs.map((hop, index) => {
    const before = index && legs[index - 1].leg === hop.leg ? legs[index - 1] : null;
    return { ...hop, time_us: (hop.time - start) * 1e6, macs: null, outer_macs: null, mtu: 0, changed: changes(before, hop), why: [] };
  });
  const lost = flow.findings.find((finding) => finding.field === 'delivery');
  return {
    ...flow,
    id: identity(flow),
    traced: false,
    hops,
    reason: lost ? `${lost.after} instead of ${lost.before}` : null,
    evidence: [],
    last_place: hops.length ? hops[hops.length - 1].place : null,
    mtu: null,
    round_trip_us: null,
  };
}

function changes(before, hop) {
  if (!before) return [];
  const words = [];
  const names = { source: 'source', destination: 'destination', sport: 'source port', dport: 'destination port', ttl: 'TTL' };
  for (const [field, name] of Object.entries(names)) {
    if (before.inner[field] !== hop.inner[field]) words.push(`${name} ${before.inner[field]} -> ${hop.inner[field]}`);
  }
  if (before.outer && !hop.outer) words.push(`${before.outer.kind} removed`);
  if (hop.outer && (!before.outer || before.outer.source !== hop.outer.source || before.outer.destination !== hop.outer.destination)) {
    words.push(`${hop.outer.kind} ${hop.outer.source} > ${hop.outer.destination} VNI ${hop.outer.vni}`);
  }
  return words;
}
