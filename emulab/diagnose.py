"""What is wrong, in plain words: where, by what evidence, and the command that repairs it.

Causes come from what deviates from the plan; the packets that were lost or rewritten are evidence.  Without deviations they
show what the data plane cannot do by design on this underlay, or something that nobody knows yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emulab.causes import links, rules, ways
from emulab.causes.contract import Cause, Finder
from emulab.dataplane import DataPlane
from emulab.diff import alteration, removal
from emulab.drift import Deviation, Foreign, Found
from emulab.model import Cluster
from emulab.packet import Finding, FlowResult, Kind
from emulab.result import RunResult
from emulab.scene import Scene
from emulab.state import NftTable, State

# In order: what explains much before what it explains, what certainly does harm before what may.
FINDERS: tuple[Finder, ...] = (
    links.devices,
    links.forwarding,
    links.reverse_path,
    links.proxies,
    rules.rules,
    links.sizes,
    ways.tunnel_ends,
    ways.doubles,
    ways.memories,
    ways.entries,
    ways.routes,
    ways.the_rest,
)
MOST = 6  # pieces of evidence


@dataclass(frozen=True)
class Diagnosis:
    """``fault``: a name in `emulab.faults.FAULTS`, or "unknown-drift", "unreachable", "by-design".

    ``where``: a node (also for its uplink) or pod; ``evidence``: objects as planned and found, rules, packets.
    """

    fault: str
    where: str
    words: str
    evidence: tuple[str, ...]
    repair: str


def diagnose(
    cluster: Cluster, plane: DataPlane, desired: State, deviations: Sequence[Deviation], result: RunResult | None
) -> list[Diagnosis]:
    """The most decisive first.  ``desired`` is the whole plan, ``merge(fabric.plan(topology), plan)``."""
    scene = Scene(cluster, plane, desired)
    lost = _lost(scene, result) if result else []
    found = [_from(scene, cause, lost) for cause in _causes(scene, deviations)]
    if not found:
        found += _unexplained([packet for packet in lost if not packet.reason])
    return found + _by_design([packet for packet in lost if packet.reason]) + (_unenforced(result) if result else [])


def _causes(scene: Scene, deviations: Sequence[Deviation]) -> Iterator[Cause]:
    rest = list(deviations)
    for finder in FINDERS:
        explained: set[int] = set()
        for cause in finder(scene, rest):
            if not {id(d) for d in cause.explained} <= explained:
                yield cause
            explained |= {id(d) for d in cause.explained}
        rest = [d for d in rest if id(d) not in explained]


@dataclass(frozen=True)
class _Lost:
    """A packet that did not arrive as sent: ``reason`` says why it could not by design."""

    nodes: frozenset[str]
    ends: frozenset[str]
    place: str
    words: str
    reason: str


def _lost(scene: Scene, result: RunResult) -> list[_Lost]:
    lost = [_flow(scene, judged) for judged in result.bad() if not _is_unenforced(judged.findings[0])]
    for measured in result.mtu:
        if measured.findings:
            reason = by_design(scene, measured.source, measured.destination, measured.family)
            words = f"{measured.findings[0].place} IPv{measured.family}: {measured.findings[0]}"
            lost.append(_packet(scene, measured.source, measured.destination, measured.source, words, reason))
    others = (finding for finding in result.findings if not _is_unenforced(finding))
    return lost + [_Lost(frozenset(), frozenset(), f.place.partition(":")[0], str(f), "") for f in others]


def _is_unenforced(finding: Finding) -> bool:
    """Whether it says that a policy is not enforced, by design: of a flow by its rule, of the cluster by itself."""
    return finding.field == "policy" and (finding.rule is not None or finding.before == "enforced")


def _flow(scene: Scene, judged: FlowResult) -> _Lost:
    flow, finding = judged.flow, judged.findings[0]
    reason = "" if flow.kind is Kind.OUTSIDE else by_design(scene, flow.source, flow.destination, flow.family)
    return _packet(scene, flow.source, flow.destination, finding.place.partition(":")[0], f"{flow}: {finding}", reason)


def _packet(scene: Scene, source: str, destination: str, place: str, words: str, reason: str) -> _Lost:
    nodes = frozenset(_node(scene, name) for name in (source, destination))
    return _Lost(nodes, frozenset((source, destination)), place, words, reason)


def _node(scene: Scene, name: str) -> str:
    return scene.endpoints[name].node if name in scene.endpoints else name


def by_design(scene: Scene, source: str, destination: str, family: int) -> str:
    """Why this data plane cannot carry packets from ``source`` to ``destination`` as they are; "" if it can."""
    cluster, topology = scene.cluster, scene.cluster.topology
    if source in scene.endpoints and not scene.is_flat():
        return "pods are met at the address of their node and a published port: packets are rewritten on the way"
    here, there = _node(scene, source), _node(scene, destination)
    ends = [scene.endpoints.get(name) or next(iter(cluster.endpoints_on(name)), None) for name in (source, destination)]
    if here == there or ends[0] is None or ends[1] is None:
        return ""
    tunnels = scene.plane.wire(cluster, ends[0], ends[1], family).tunnels
    hops = [(scene.nodes.get(str(t.source), ""), scene.nodes.get(str(t.destination), "")) for t in tunnels] or [(here, there)]
    for one, other in hops:
        for node in filter(None, (one, other)):
            if not topology.running(node):
                return f"{node} is stopped (emulab node start {node})"
            if not topology.uplink(node).up:
                return f"the link of {node} is down (emulab link up {node})"
        if frozenset((one, other)) in topology.partitioned:
            return f"{one} and {other} are partitioned (emulab heal)"
        if not topology.connected(one, other):
            return f"the underlay carries nothing between {one} and {other}, and nobody relays"
    if not tunnels and not topology.near(here, there):
        return f"packets travel as they are, and the router between {here} and {there} knows no pod addresses"
    return ""


def _from(scene: Scene, cause: Cause, lost: Sequence[_Lost]) -> Diagnosis:
    objects = [str(d) for d in cause.explained if not (cause.seen and isinstance(d.found, NftTable))]
    evidence = [*cause.seen, *objects][:MOST]
    return Diagnosis(cause.fault, cause.where, cause.words, (*evidence, *_packets(scene, cause, lost)), _repair(cause))


def _packets(scene: Scene, cause: Cause, lost: Sequence[_Lost]) -> list[str]:
    """Up to two packets: last seen where the cause is, or from or to there."""
    names = {cause.where, *cause.namespaces}
    nodes = {_node(scene, name) for name in names}

    def distance(packet: _Lost) -> int:
        return 0 if cause.where in packet.ends else 1 if packet.place in names else 2 if packet.nodes & nodes else 3

    near = sorted((packet for packet in lost if not packet.reason and distance(packet) < 3), key=distance)
    return [packet.words for packet in near[:2]]


def _repair(cause: Cause) -> str:
    """The command, and what it amounts to in the first namespace."""
    lines = [line for d in cause.explained if d.namespace == cause.namespaces[0] for line in undone(d)]
    more = "; ..." if len(lines) > 3 else ""
    return f"emulab repair {' '.join(cause.namespaces)}  # in {cause.namespaces[0]}: {'; '.join(lines[:3])}{more}"


def undone(deviation: Deviation) -> list[str]:
    """What a person would type to put one object back."""
    planned, found = deviation.planned, deviation.found
    if found is None:
        return list(planned.lines()) if planned else []
    if planned is None or isinstance(planned, NftTable):
        return [*_removal(found), *(planned.lines() if planned else ())]
    if not isinstance(found, Foreign) and type(found) is type(planned):
        return list(alteration(found, planned)) or [*_removal(found), *planned.lines()]
    return [*_removal(found), *planned.lines()]


def _removal(thing: Found) -> list[str]:
    if isinstance(thing, Foreign):
        return [f"# to be removed: {thing.line}"]
    return list(removal(thing))


def _unexplained(lost: Sequence[_Lost]) -> list[Diagnosis]:
    """Packets that are lost though everything is as planned, by the place where they were seen last."""
    found = []
    for place, count in Counter(packet.place for packet in lost).most_common():
        words = f"{count} flows fail though everything is as planned; they were seen last, or first otherwise, in {place}"
        evidence = tuple(packet.words for packet in lost if packet.place == place)[:3]
        found.append(Diagnosis("unreachable", place, words, evidence, "emulab run --pcap  # look at the packets there"))
    return found


def _by_design(lost: Sequence[_Lost]) -> list[Diagnosis]:
    found = []
    for reason, count in Counter(packet.reason for packet in lost).most_common():
        some = [packet for packet in lost if packet.reason == reason]
        reason, _, command = reason.removesuffix(")").partition(" (emulab ")
        now = "as the lab is now" if command else "with this data plane here"
        words = f"not a fault, {count} flows cannot work {now}: {reason}"
        repair = f"emulab {command}" if command else "choose another plugin or option"
        where = " and ".join(sorted(some[0].nodes))
        found.append(Diagnosis("by-design", where, words, tuple(p.words for p in some[:2]), repair))
    return found


def _unenforced(result: RunResult) -> list[Diagnosis]:
    """The policies that this data plane does not enforce."""
    policies: dict[str, list[str]] = {}
    for finding in result.findings:
        if _is_unenforced(finding):
            policies.setdefault(finding.after, []).append(finding.place)
    through = [judged for judged in result.bad() if _is_unenforced(judged.findings[0])] if policies else []
    found = []
    for reason, names in policies.items():
        some = [judged for judged in through if judged.findings[0].rule == reason]
        words = f"not a fault, {len(some)} flows pass although policies deny them: {reason}"
        evidence = tuple(f"{judged.flow}: {judged.findings[0]}" for judged in some[:2])
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        found.append(Diagnosis("by-design", f"policy {names[0]}{more}", words, evidence, "choose another plugin"))
    return found
