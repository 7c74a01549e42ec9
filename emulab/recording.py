"""What a report needs of a lab: a verification, and packets to walk along with: those with findings, and an example of each way.

Everything is measured while the lab is there; what comes out is one document of JSON values (`emulab.report.document`).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from typing import Any

from emulab.errors import EmulabError
from emulab.kernel.versions import versions
from emulab.lab import Lab
from emulab.model import Endpoint
from emulab.packet import Flow, FlowResult, Kind, MtuResult
from emulab.probe import tracing
from emulab.probe.taps import Frame
from emulab.report import document, trace_pcapng, verdict
from emulab.report.document import Document
from emulab.result import Block, RunResult

SECONDS = 3.0  # for traces, in all
_STORIES, _BAD, _HOPS = 64, 40, 4000  # at most: traces, flows with findings, hops of flows that verify saw
_LOST = 0.5  # seconds that a lost packet is waited for
_LISTED = 10_000  # pod pairs, up to which each can be looked for among the walkable ones

Shape = tuple[str, str, int, str, int | None]  # source, destination, family, protocol, port


def record(
    lab: Lab,
    result: RunResult,
    *,
    title: str = "",
    seconds: float = SECONDS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Document:
    """``result`` is what `Lab.verify` found in this lab.

    Flows of interest are traced one by one for ``seconds`` at most (0: not at all); ``on_progress`` is told (done, in all).
    """
    recorded = [one for one in result.flows.recorded if one.flow.kind is not Kind.POD or one.observations or one.findings]
    wanted = list(_of_interest(lab, result))
    stories, refused = [], 0
    deadline = time.monotonic() + seconds
    for number, (shape, size) in enumerate(wanted):
        if time.monotonic() >= deadline:
            break
        if on_progress:
            on_progress(number, len(wanted))
        try:
            stories.append(story(lab, shape, size))
        except EmulabError:  # a node that is off sends nothing
            refused += 1
    walkable = {_shape(one) for one in stories}
    flows = list(_fitting(result, recorded, walkable))
    pairs = {shape[:2] for shape in walkable} | {(one.flow.source, one.flow.destination) for one in flows if one.observations}
    return document.build(
        lab.design,
        result,
        flows=flows,
        stories=stories,
        left_out=_left_out(lab, len(stories), len(wanted), pairs, seconds),
        environment=versions(),
        title=title,
    )


def story(lab: Lab, shape: Shape, size: int | None = None) -> dict[str, Any]:
    """One packet traced: ``emulab/trace/1``, its ``size`` if it has one of its own, and what the taps saw as ``packets``."""
    source, destination, family, protocol, port = shape
    frames: list[Frame] = []
    told = tracing.trace(
        lab,
        source,
        destination,
        family=family,
        protocol=protocol,
        port=None if protocol == "icmp" else port,
        size=size,
        timeout=_LOST,
        on_frame=frames.append,
    )
    packets = base64.b64encode(trace_pcapng.packed(told, frames)).decode()
    return {**told.show(), "size": size, "packets": packets}


def _of_interest(lab: Lab, result: RunResult) -> Iterator[tuple[Shape, int | None]]:
    """What to trace, with the size of the packet if it matters: findings first, then examples."""
    met: set[tuple[Shape, int | None]] = set()

    def new(shape: Shape, size: int | None = None) -> bool:
        if len(met) >= _STORIES or (shape, size) in met:
            return False
        met.add((shape, size))
        return True

    for group in verdict.groups(result):
        one = group.about
        if isinstance(one, MtuResult):
            shape, size = (one.source, one.destination, one.family, "icmp", None), one.mtu + (one.full == "delivered")
            if new(shape, size):
                yield shape, size
        elif one and new(_of(one.flow)):
            yield _of(one.flow), None
    ways, rest = _examples(lab, result)
    bad = (judged.flow for judged, _ in zip(result.bad(), range(_BAD), strict=False))
    for flow in (*ways, *bad, *rest):
        if new(_of(flow)):
            yield _of(flow), None


def _examples(lab: Lab, result: RunResult) -> tuple[list[Flow], list[Flow]]:
    """A flow for each pair of nodes, to the outside, to each Service; then for each pair of pods, each protocol and family."""
    homes = {endpoint.key: endpoint.node for endpoint in lab.cluster.endpoints}
    recorded = [judged.flow for judged in result.flows.recorded]

    def firsts(key: Callable[[Flow], tuple[object, ...]], *kinds: Kind) -> list[Flow]:
        return list({key(flow): flow for flow in reversed(recorded) if flow.kind in kinds}.values())[::-1]

    def way(flow: Flow) -> tuple[object, ...]:
        return flow.kind, homes.get(flow.source, flow.source), homes.get(flow.destination, flow.destination)

    def shaped(flow: Flow) -> tuple[object, ...]:
        return *way(flow), flow.family, flow.protocol

    meshed = [flow for block in result.flows.blocks for flow in _between_nodes(block)]
    services = firsts(lambda flow: (flow.destination, flow.dport, flow.protocol), Kind.SERVICE)
    ways = [*firsts(way, Kind.POD), *meshed, *firsts(way, Kind.OUTSIDE), *services]
    rest = [*firsts(lambda flow: (flow.source, flow.destination), Kind.POD), *firsts(shaped, Kind.POD), *firsts(way, Kind.NODE)]
    return ways, [*rest, *firsts(shaped, Kind.OUTSIDE, Kind.SERVICE), *(flow for flow in recorded if flow.kind is Kind.POD)]


def _between_nodes(block: Block) -> Iterator[Flow]:
    """One for each ordered pair of nodes, such that every node has had its turn before one has it again."""
    firsts: dict[str, list[Endpoint]] = {}
    for endpoint in block.endpoints:
        firsts.setdefault(endpoint.node, []).append(endpoint)
    nodes = list(firsts)
    for step in range(len(nodes)):
        for index, node in enumerate(nodes):
            source = firsts[node][0]
            destination = firsts[nodes[(index + step) % len(nodes)]][-1]
            if source is not destination:
                here, there = (endpoint.address(block.family).packed for endpoint in (source, destination))
                ends = (source.key, destination.key, block.family, block.protocol, here, there)
                yield Flow(0, Kind.POD, *ends, block.sport, block.dports[0])


def _of(flow: Flow) -> Shape:
    return flow.source, flow.destination, flow.family, flow.protocol, None if flow.protocol == "icmp" else flow.dport


def _shape(story: dict[str, Any]) -> Shape:
    return story["from"], story["to"], story["family"], story["protocol"], story["dport"]


def _fitting(result: RunResult, recorded: list[FlowResult], told: set[Shape]) -> Iterator[FlowResult]:
    """Flows as verify saw them, while there is room: with findings; of pairs that no trace tells; all others that none tells."""
    shapes = {shape[:4] for shape in told}
    pairs = {shape[:2] for shape in told}
    bad, needed, others = [], [], []
    breaches = [one for block in result.flows.blocks for one, _ in zip(block.breaches(), range(_BAD), strict=False)]
    for one in (*recorded, *breaches):
        flow = one.flow
        if one.findings:
            bad.append(one)
        elif (flow.source, flow.destination) not in pairs:
            pairs.add((flow.source, flow.destination))
            needed.append(one)
        elif (flow.source, flow.destination, flow.family, flow.protocol) not in shapes:
            others.append(one)
    others.sort(key=lambda one: not one.translations)
    room = _HOPS
    for one in (*bad[: 10 * _BAD], *needed, *others):
        room -= len(one.observations)
        if room < 0:
            return
        yield one


def _left_out(lab: Lab, told: int, wanted: int, pairs: set[tuple[str, str]], seconds: float) -> list[str]:
    """What cannot be walked, in words."""
    words = []
    if told < wanted:
        words.append(f"{told} of {wanted} flows of interest are traced: there are {seconds:g} s for it.")
    keys = [endpoint.key for endpoint in lab.cluster.endpoints]
    total = len(keys) * (len(keys) - 1)
    walkable = sum(source != destination and "/" in source and "/" in destination for source, destination in pairs)
    if total <= _LISTED:
        walkable = sum((one, other) in pairs for one in keys for other in keys if one != other)
    if walkable < total:
        words.append(
            f"{walkable:,} of {total:,} pairs of pods can be walked; of the others only the verdict is recorded "
            "(emulab trace FROM TO tells the story of any pair of a running lab)."
        )
    return words
