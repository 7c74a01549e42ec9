// Everything that is told in words: findings, expectations, what is beside pods, sizes, the plan, the environment.
const MANY = 30;

// What is wrong, in a sentence or two, and by which rule.
function sentence(finding, way) {
  const ends = finding.flow ? `${short(finding.flow.from)} → ${short(finding.flow.to)} ${shape(finding.flow)}` : finding.subject;
  const by = ruleOf(finding, way);
  const rule = by ? el('div', { class: 'rule' }, 'by ', code(by)) : null;
  const rewritten = ['source', 'destination', 'source port', 'destination port', 'identifier', 'sequence', 'protocol', 'payload'].includes(finding.field);
  if (rewritten) {
    return [el('strong', {}, ends), `: the ${finding.leg}’s ${finding.field} was rewritten, `, el('del', {}, finding.before), ' → ', el('ins', {}, finding.after),
      ', first seen at ', code(short(finding.place)), rule];
  }
  const told = finding.text || `${finding.field}: ${finding.after} instead of ${finding.before}`;
  const place = finding.place && !finding.place.includes(' -> ') && !told.includes(short(finding.place)) ? [' at ', code(short(finding.place))] : null;
  return [el('strong', {}, ends), ': ', told, place, way?.reason && way.traced && finding.text ? el('div', { class: 'rule' }, 'because ', code(way.reason)) : null,
    finding.rule && !told.includes(finding.rule) ? rule : null];
}

// An item for each of ``found``: the first ones, and the rest on demand.
function listed(found, item, tag, attributes) {
  const list = el(tag, attributes, found.slice(0, MANY).map(item));
  if (found.length <= MANY) return [list];
  const button = el('button', { type: 'button' }, `Show ${number(found.length - MANY)} more`);
  button.addEventListener('click', () => {
    const more = found.slice(MANY).map(item);
    list.append(...more);
    button.remove();
    more[0].querySelector('button, summary')?.focus();
  });
  return [list, button];
}

const sections = {
  findings(facts, open) {
    const found = facts.data.findings;
    byId('findings').classList.toggle('none', !found.length);
    if (!found.length) {
      body('findings').replaceChildren(el('p', { class: 'fine' }, facts.data.expectations.some((one) => !one.passed)
        ? 'None by the probes; see the expectations.' : 'None: every packet that was seen is as it should be.'));
      return;
    }
    const item = (finding) => {
      const way = finding.flow && facts.between(finding.flow.from, finding.flow.to).find((one) => same(one, finding));
      return el('li', {}, el('span', { class: `chip ${tone(finding.label)}` }, `${SIGNS[finding.label] || '!'} ${finding.label}`),
        el('div', { class: 'told' }, sentence(finding, way), finding.number > 1 ? el('span', { class: 'more' }, ` and ${number(finding.number - 1)} more like it`) : null),
        finding.flow ? el('button', {
          type: 'button', class: 'primary', 'aria-label': `${way ? 'Walk' : 'Show'} ${short(finding.flow.from)} to ${short(finding.flow.to)}, ${shape(finding.flow)}`,
          onclick: () => open(finding.flow.from, finding.flow.to, { way, at: finding, jump: true }),
        }, way ? 'Walk the packet' : 'Show the pair') : null);
    };
    body('findings').replaceChildren(...listed(found, item, 'ol', { class: 'list' }));
  },

  expectations(facts, open) {
    const outcomes = facts.data.expectations;
    byId('expectations').hidden = !outcomes.length;
    const passed = outcomes.filter((one) => one.passed).length;
    const item = (outcome) => el('li', {},
      el('span', { class: `chip ${outcome.passed ? 'delivered' : 'dropped'}` }, outcome.passed ? '✓ passed' : '✗ failed'),
      el('div', { class: 'told' }, el('strong', {}, outcome.title), el('span', { class: 'more' }, ` ${number(outcome.flows)} ${outcome.flows === 1 ? 'flow' : 'flows'}, ${outcome.seconds.toFixed(2)} s`),
        outcome.failures.length ? el('ul', {}, outcome.failures.slice(0, MANY).map((one) => el('li', {}, `${short(one.from)} → ${short(one.to)} ${shape(one)}: ${one.field}: `,
          el('ins', {}, String(one.found)), ' instead of ', el('del', {}, String(one.expected)), one.place ? [' at ', code(short(one.place))] : null,
          one.rule ? el('div', { class: 'rule' }, 'by ', code(one.rule)) : null))) : null),
      outcome.story ? el('button', {
        type: 'button', class: 'primary', 'aria-label': `Walk the packet of: ${outcome.title}`,
        onclick: () => open(outcome.story.from, outcome.story.to, { way: facts.between(outcome.story.from, outcome.story.to).find((one) => one.id === identity(outcome.story)), at: outcome.failures[0], jump: true }),
      }, 'Walk the packet') : null);
    const sorted = [...outcomes].sort((one, other) => one.passed - other.passed);
    body('expectations').replaceChildren(el('p', {}, `${number(passed)} of ${number(outcomes.length)} as expected`), ...listed(sorted, item, 'ul', { class: 'list' }));
  },

  kinds(facts, open) {
    const { kinds } = facts.data;
    byId('kinds').hidden = !kinds.length;
    const titles = { 'node-to-pod': 'Nodes to pods', 'pod-to-outside': 'Pods to the outside', 'pod-to-service': 'To Services' };
    const ways = [...facts.ways.values()].flat();
    body('kinds').replaceChildren(...kinds.map((kind) => {
      const examples = ways.filter((way) => way.kind === kind.kind);
      const states = Object.entries(kind.states).map(([state, count]) => el('span', { class: `chip ${tone(state)}` }, `${SIGNS[state] || ''} ${number(count)} ${state}`));
      return el('div', { class: 'kind' }, el('h3', {}, titles[kind.kind] || kind.kind), el('p', {}, states,
        kind.translated ? ` ${number(kind.translated)} translated, as they should be` : ''),
      examples.length ? el('details', {}, el('summary', {}, `${number(examples.length)} to walk`), el('div', { class: 'choices' }, examples.slice(0, 200).map((way) => el('button', {
        type: 'button', onclick: () => open(way.from, way.to, { way, jump: true }),
      }, `${short(way.from)} → ${short(way.to)} ${shape(way)}`)))) : null);
    }));
  },

  mtu(facts) {
    const checks = facts.data.mtu;
    byId('mtu').hidden = !checks.length;
    const groups = new Map();
    for (const check of checks) {
      const key = `${check.family} ${check.mtu}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(check);
    }
    const rows = [...groups.values()].map((found) => {
      const full = found.filter((one) => one.full === 'delivered').length;
      const told = found.filter((one) => one.over === 'too big').length;
      const by = [...new Set(found.map((one) => one.reported_by).filter(Boolean))];
      return el('tr', {}, el('th', { scope: 'row' }, `IPv${found[0].family}`), el('td', {}, `${found[0].mtu} bytes`), el('td', {}, `${full} of ${found.length}`),
        el('td', {}, `${told} of ${found.length}${by.length ? `, by ${by.slice(0, 3).map(short).join(', ')}${by.length > 3 ? ' and more' : ''}` : ''}`));
    });
    body('mtu').replaceChildren(el('div', { class: 'scroll' }, el('table', { class: 'plain' }, el('caption', { class: 'unseen' }, 'Packets of full size with DF, by family'),
      el('thead', {}, el('tr', {}, ['Family', 'Largest with DF', 'Delivered', 'A byte more: too big'].map((name) => el('th', { scope: 'col' }, name)))), el('tbody', {}, rows))));
  },

  plan(facts) {
    const spaces = Object.entries(facts.data.plan);
    byId('plan').hidden = !spaces.length;
    const homes = new Map(facts.pods.map((pod) => [pod.name, pod.node]));
    const item = ([name, lines]) => {
      const title = homes.has(name) ? `Pod ${short(name)} on ${homes.get(name)}` : `Node ${name}`;
      const details = el('details', {}, el('summary', {}, title, el('span', { class: 'more' }, ` ${number(lines.length)} lines`)));
      details.addEventListener('toggle', () => {
        if (!details.open || details.children.length > 1) return;
        details.append(el('div', { class: 'lines' }, copyButton(() => lines.join('\n'), `the lines of ${short(name)}`), el('pre', { tabindex: 0, 'aria-label': `Lines of ${short(name)}` }, lines.join('\n'))));
      });
      return el('li', {}, details);
    };
    body('plan').replaceChildren(el('p', { class: 'hint' }, 'As a person would type it, each inside its own network namespace.'), ...listed(spaces, item, 'ul', { class: 'plans' }));
  },

  environment(facts) {
    const { data } = facts;
    const options = Object.entries(data.options).filter(([, value]) => value !== null).map(([name, value]) => `${name}=${value}`).join(' ');
    const pairs = [['Data plane', `${data.plugin}${options ? ` (${options})` : ''}`], ['Topology', `${data.topology}: ${number(data.nodes.length)} nodes, ${number(data.pods.length)} pods`],
      ['Taps', data.taps === 'ends' ? 'both ends only' : 'every place'], ...Object.entries(data.environment)];
    const list = (found) => el('dl', { class: 'facts wide' }, found.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, String(value)))));
    const times = Object.entries(data.timings);
    body('environment').replaceChildren(list(pairs), ...(times.length ? [el('h3', {}, 'Seconds by phase'), list(times.map(([name, seconds]) => [name, seconds.toFixed(3)]))] : []),
      ...(data.left_out.length ? [el('h3', {}, 'What this page does not hold'), el('ul', {}, data.left_out.map((words) => el('li', {}, words)))] : []));
  },
};

// Whether a way is that of a finding's flow.
function same(way, finding) {
  const { flow } = finding;
  if (way.family !== flow.family || way.protocol !== flow.protocol) return false;
  if (finding.label === 'MTU') return Boolean(way.size);
  return !way.size && (way.protocol === 'icmp' || !flow.dport || way.dport === flow.dport);
}
