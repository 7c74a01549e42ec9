"""Sends one packet and tells its story: `trace`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from ipaddress import ip_address

from emulab import fabric
from emulab.kernel import conntrack, counters, nftrace
from emulab.oracle import Oracle
from emulab.packet import Kind, Observation, Place, Verdict
from emulab.probe import deciders, lost, paths, why
from emulab.probe.engine import Engine, Outcome
from emulab.probe.flows import PORT
from emulab.probe.scene import Scene
from emulab.probe.taps import Frame
from emulab.probe.unlimited import unlimited_errors
from emulab.probe.wanted import Running, Wanted, matches, watched
from emulab.state import merge
from emulab.trace import TRANSLATING, Hop, Loss, Reason, Trace, changes, translations


def trace(
    lab: Running,
    source: str,
    destination: str,
    *,
    family: int | None = None,
    protocol: str | None = None,
    port: int | None = None,
    size: int | None = None,
    timeout: float = 1.0,
    answering: bool = False,
    on_frame: Callable[[Frame], None] | None = None,
    on_scene: Callable[[Scene, nftrace.Watch], None] | None = None,
) -> Trace:
    """One packet from ``source`` to ``destination`` (pod keys, node names, "internet", a Service), hop by hop.

    Without a ``protocol`` it is an ICMP echo, to a Service that of its port (the first, or the one of that number).
    ``size`` is that of the whole IP packet in bytes, as MTUs count; ``timeout`` in seconds is how long a lost one is waited
    for.  ``answering``: something listens at ``port`` of pods, whatever they declare.  ``on_frame`` gets every frame that the
    taps see, ARP and all; ``on_scene`` all that is known in the end.  Raises `InputError` for what cannot be sent.
    """
    wanted = Wanted(lab, source, destination, protocol, port, size)
    family = wanted.family(family)
    round_ = lab.next_round()
    lab.prime()
    places = wanted.places(family)
    ends = [name for name in dict.fromkeys((source, destination, *places)) if name in lab.namespaces]
    tapped = [name for name in watched(lab, wanted, family) if name in lab.namespaces]
    frames: list[Frame] = []

    def keep(frame: Frame) -> None:
        frames.append(frame)
        if on_frame:
            on_frame(frame)

    with ExitStack() as release:
        engine = Engine(
            lab.namespaces,
            pods=[name for name in ends if name in wanted.pods],
            nodes=[node for node in ends if node in wanted.nodes],
            families=lab.cluster.topology.families,
            watched=tapped,
            tunnel_ports=lab.tunnel_ports,
            round_=round_,
            timeout=timeout,
            on_frame=keep,
            complete=False,
            serving=wanted.serving(),
            port=port if answering and port and not wanted.service else PORT,
        )
        release.callback(engine.close)
        flow = wanted.flow(family, round_, lambda to: engine.host(source).source_for(to))
        nat = release.enter_context(closing(conntrack.Watch(lab.namespaces, tapped)))
        rules = release.enter_context(closing(nftrace.Watch(lab.namespaces, tapped, matches(flow, round_, lab.tunnel_ports))))
        before = {name: counters.read(lab.namespaces[name]) for name in tapped}
        full = counters.tables_full(lab.namespaces[source])
        if wanted.service:  # a second refusal within a second would look like a loss
            nodes = [name for name in tapped if name in wanted.nodes]
            release.enter_context(unlimited_errors(lab.namespaces, nodes))
        engine.forget()
        (outcome,) = engine.run([flow])
        scene = Scene(
            flow,
            lab.namespaces,
            merge(lab.plan, fabric.plan(lab.cluster.topology)),
            lab.tunnel_ports,
            frozenset(wanted.nodes),
            frames,
            rules.events(),
            {}
            if outcome.answered
            else {name: counters.rose(before[name], counters.read(lab.namespaces[name])) for name in tapped},
            nat.translated(),
            outcome.refused,
            engine.missed,
            frozenset(f for f, number in counters.tables_full(lab.namespaces[source]).items() if number > full.get(f, 0)),
        )
        told = _told(lab, scene, outcome, tapped, _end(outcome, places) if wanted.service or wanted.published else destination)
        if on_scene:
            on_scene(scene, rules)
        return told


def _off(lab: Running, destination: str, found: Loss) -> Loss:
    """That a node is switched off explains whatever its neighbours miss."""
    node = next((endpoint.node for endpoint in lab.cluster.endpoints if endpoint.key == destination), destination)
    if node in lab.namespaces or not any(one.name == node for one in lab.cluster.nodes):
        return found
    return Loss(Reason.NODE_STOPPED, f"{node} is switched off", (found.reason, *found.evidence), found.leg)


def _policed(lab: Running, scene: Scene, found: Loss) -> Loss:
    """That policies deny it explains the rule that dropped it, if that is one of the data plane's own, where they count.

    They see the packet as the rule saw it: what was sent to a Service, on its way to an endpoint.
    """
    oracle = Oracle(lab.cluster)
    if found.code is not Reason.RULE or found.leg != "request" or not oracle.active:
        return found
    homes = {endpoint.key: endpoint.node for endpoint in lab.cluster.endpoints}
    for node in scene.nodes.intersection(scene.events):
        event = deciders.drop(scene, lab.plan, node)
        if event is None:
            continue
        source, destination, transport = scene.ends(event)
        here, there, port = ip_address(source), ip_address(destination), int.from_bytes(transport[2:4], "big")
        denier = oracle.decide(here, there, scene.flow.protocol, port).denier
        if denier is not None and homes[denier.pod] == node:
            return Loss(Reason.POLICY, f"by policy: {denier}", (found.reason, *found.evidence), found.leg)
    return found


def _end(outcome: Outcome, places: Collection[str]) -> str:
    """The endpoint to which a Service's packet came; "" when it came to none."""
    seen = (one for one in reversed(outcome.seen) if (one.leg, one.direction) == ("request", "in"))
    return next((one.place.namespace for one in seen if one.place.namespace in places and one.place.interface == "eth0"), "")


def _told(lab: Running, scene: Scene, outcome: Outcome, tapped: Sequence[str], destination: str) -> Trace:
    """The kernels are asked while everything is as the packet left it."""
    flow = scene.flow
    nodes = {node.name for node in lab.cluster.nodes}
    wiring = scene.wiring(tapped)
    ends = [None if name in nodes else Place(name, "eth0") for name in (destination, flow.source)]
    ways: dict[str, paths.Way] = {}
    for leg, end in zip(("request", "reply"), ends, strict=True):
        seen = [one for one in outcome.seen if one.leg == leg]
        opening = [one for one in seen if one.inner.note == seen[0].inner.note] if seen else []
        ways[leg] = paths.way(opening, wiring, end)
    scene.outers = {one.outer[:2] for one in ways["request"].seen if one.outer}
    start = min((one.time for way in ways.values() for one in way.seen), default=time.time())
    hops = [hop for leg, way in ways.items() for hop in _hops(scene, leg, way, start)]
    verdict = Verdict.DELIVERED if outcome.answered else Verdict.REFUSED if outcome.refused else Verdict.DROPPED
    if outcome.answered and flow.kind is Kind.POD and any(hop.translated for hop in hops):
        verdict = Verdict.REWRITTEN
    loss = None if outcome.answered else _off(lab, flow.destination, _policed(lab, scene, lost.diagnose(scene, hops, ways)))
    request = [hop for hop in hops if hop.leg == "request"]
    back = [hop for hop in hops if hop.leg == "reply"]
    return Trace(
        flow,
        verdict,
        tuple(hops),
        loss,
        min((hop.mtu for hop in request if hop.mtu and hop.outer is None), default=None),
        back[-1].time_us if outcome.answered and back else None,
        lab.plane.name,
        {name: dict(rose) for name, rose in scene.rose.items() if rose} if loss else {},
    )


def _hops(scene: Scene, leg: str, way: paths.Way, start: float) -> Iterator[Hop]:
    rules = why.rules(scene, leg, way.seen)
    frames = {(frame.time / 1e9, frame.place, frame.outbound): frame for frame in scene.frames}
    before: Observation | None = None
    for index, seen in enumerate(way.seen):
        frame = frames.get((seen.time, seen.place, seen.direction == "out"))
        macs = (frame.data[6:12].hex(":"), frame.data[:6].hex(":")) if frame else seen.macs
        changed = list(changes(before, seen))
        reasons = [*rules.get(index, ()), *why.because(scene, before, seen, macs)]
        rewritten = before is not None and any(translations(before.inner, seen.inner))
        if rewritten:
            reasons = [*_translator(scene, rules, way, index), *reasons]
        if copies := way.flooded.get(index):
            changed.append(f"flooded to {copies} ports")
        link = scene.link(seen.place)
        yield Hop(
            (seen.time - start) * 1e6,
            seen.place,
            seen.direction,
            leg,
            seen.inner,
            seen.outer,
            seen.macs,
            link.mtu if link else 0,
            tuple(changed),
            tuple(dict.fromkeys(reasons)),
            seen.time,
            macs if seen.outer else None,
            rewritten,
        )
        before = seen


def _translator(scene: Scene, rules: Mapping[int, Sequence[str]], way: paths.Way, index: int) -> Iterator[str]:
    """The rule that rewrote it, met here or on its way in; else what connection tracking says, as for every answer."""
    namespace = way.seen[index].place.namespace
    for earlier in range(index, -1, -1):
        if way.seen[earlier].place.namespace == namespace:
            for rule in rules.get(earlier, ()):
                if any(word in rule.split() for word in TRANSLATING):
                    yield rule
                    return
    for name in dict.fromkeys((namespace, way.seen[index - 1].place.namespace)):
        if entry := scene.conntrack(name):
            yield entry
            return
