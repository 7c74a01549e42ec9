"""To judge expectations of a lab: all of them are measured together, and what does not hold is told with its packet's story."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from emulab.control.live import LiveLab, operation
from emulab.control.operations.measuring import present
from emulab.errors import InputError
from emulab.expectation import DEFAULT_PORT, Expectation, pairs
from emulab.fulfilment import Failure, failures, passes
from emulab.lab import Lab
from emulab.packet import Finding, FlowResult, Observation, rewrites, short
from emulab.services import PREFIX, Services
from emulab.trace import Trace
from emulab.verification import Probing

_QUICK, _PATIENT = 0.5, 2.0  # seconds: silence of the first measurement, and of the one that confirms a loss
_TOLD = 100  # failures of one expectation


class _Shape(NamedTuple):
    """What can be measured at once."""

    protocol: str
    port: int | None
    size: int | None


@dataclass
class _Claim:
    """An expectation in a lab, and what has been seen of it."""

    expected: Expectation
    pairs: list[tuple[str, str]]
    port: int | None
    results: list[FlowResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def shapes(self) -> Iterator[_Shape]:
        """The flows themselves, and for an MTU those of its size and a byte more."""
        expected = self.expected
        yield _Shape(expected.protocol, self.port, expected.size)
        if expected.mtu is not None:
            by = "udp" if expected.protocol == "udp" else "icmp"
            for size in (expected.mtu, expected.mtu + 1):
                yield _Shape(by, self.port if by == "udp" else None, size)

    @property
    def lost(self) -> bool:
        """Whether it fails for silence alone, which a busy moment may explain."""
        return self.expected.reaches and all(one.field in ("delivery", "MTU") for one in self.failures)


@operation
def expect(live: LiveLab, expectations: list[dict[str, Any]], within: float = 0.0, stories: bool = True) -> Any:
    """Whether expectations (docs/json.md) hold, now or ``within`` seconds; with ``stories`` the trace of what does not."""
    if not 0 <= within <= 600:
        raise InputError(f"within {within:g}: 0 to 600 seconds expected")
    lab, deadline = live.lab, time.monotonic() + within
    with live.turn():
        claims = [_claim(lab, Expectation.read(one)) for one in expectations]
        _judge(lab, claims, _QUICK)
    while True:
        doubtful = [one for one in claims if one.failures and (one.lost or within)]
        if not doubtful:
            break
        last = time.monotonic() >= deadline
        with live.turn():
            _judge(lab, doubtful, _PATIENT if last else _QUICK)
        if last:
            break
    with live.turn():
        outcomes = [_outcome(lab, one, stories) for one in claims]
    return {"ok": all(one["passed"] for one in outcomes), "outcomes": outcomes}


def _claim(lab: Lab, expected: Expectation) -> _Claim:
    found = pairs(lab.cluster, expected)
    for source in {here for here, _ in found}:
        present(lab.design, source)
    port = expected.port
    if expected.protocol != "icmp" and port is None:
        port = DEFAULT_PORT
        service = Services(lab.cluster).named(found[0][1]) if found[0][1].startswith(PREFIX) else None
        if service:
            port = next((one.port for one in service.ports if one.protocol == expected.protocol), port)
    return _Claim(expected, found, port)


def _judge(lab: Lab, claims: Sequence[_Claim], timeout: float) -> None:
    """Measure what the claims are about, a round per shape of flow, and note what does not hold."""
    start = time.perf_counter()
    measured = {}
    for shape in dict.fromkeys(shape for claim in claims for shape in claim.shapes):
        meant = {pair for claim in claims if shape in claim.shapes for pair in claim.pairs}
        families = {claim.expected.family for claim in claims if shape in claim.shapes}
        measured[shape] = _measure(lab, shape, meant, families, timeout)
    seconds = (time.perf_counter() - start) / max(1, len(claims))
    for claim in claims:
        claim.seconds += seconds
        flows = [_of(claim, measured[shape]) for shape in claim.shapes]
        claim.results = flows[0]
        if not flows[0]:
            raise InputError(f"{claim.expected}: {_nothing(lab, claim)}")
        claim.failures = failures(claim.expected, flows[0])
        if len(flows) == 3 and not claim.failures:
            claim.failures = list(passes(claim.expected, *flows[1:]))


def _of(claim: _Claim, measured: dict[tuple[str, str], list[FlowResult]]) -> list[FlowResult]:
    family = claim.expected.family
    return [one for pair in claim.pairs for one in measured.get(pair, ()) if family in (None, one.flow.family)]


def _nothing(lab: Lab, claim: _Claim) -> str:
    """Why there is no flow to measure."""
    source, destination = claim.pairs[0]
    if destination.startswith(PREFIX):
        has = ", ".join(f"{one.port}/{one.protocol}" for one in Services(lab.cluster).named(destination).ports)
        return f"{short(destination)} has {has}"
    family = f"IPv{claim.expected.family} address" if claim.expected.family else "address family in common"
    return f"{short(source)} and {short(destination)} have no {family}"


def _measure(
    lab: Lab, shape: _Shape, meant: Collection[tuple[str, str]], families: Collection[int | None], timeout: float
) -> dict[tuple[str, str], list[FlowResult]]:
    """What became of the flows of one shape, by their ends.  Nodes are asked one by one: verification probes pods."""
    found: dict[tuple[str, str], list[FlowResult]] = {}
    nodes = {node.name for node in lab.cluster.nodes}
    offered = lab.cluster.topology.families
    wanted = tuple(one for one in offered if None in families or one in families)
    engine = [pair for pair in meant if pair[1] not in nodes]
    if engine and wanted:
        probing = Probing(
            protocols=(shape.protocol,),
            families=wanted,
            timeout=timeout,
            sources={here for here, _ in engine},
            destinations={there for _, there in engine},
            pairs=frozenset(engine),
            size=shape.size,
            mtu=False,
        )
        probing = probing if shape.port is None else replace(probing, port=shape.port)
        for one in lab.verify(probing).flows:
            found.setdefault((one.flow.source, one.flow.destination), []).append(one)
    for pair in sorted(meant):
        if pair[1] in nodes:
            found[pair] = list(_traced(lab, shape, pair, wanted, timeout))
    return found


def _traced(lab: Lab, shape: _Shape, pair: tuple[str, str], families: Sequence[int], timeout: float) -> Iterator[FlowResult]:
    for family in families:
        try:
            told, _ = _trace(lab, pair, family, shape, timeout)
        except InputError:  # they have no such addresses in common
            continue
        seen = tuple(
            Observation(hop.time, hop.place, hop.direction, hop.leg, hop.inner, hop.outer, hop.macs) for hop in told.hops
        )
        lost = told.loss
        delivery = [Finding("delivery", "an answer", lost.reason, told.last_place or pair[0], lost.leg)] if lost else []
        yield FlowResult(told.flow, told.verdict, seen, tuple(delivery), tuple(rewrites(told.flow, seen)))


def _trace(lab: Lab, pair: tuple[str, str], family: int, shape: _Shape, timeout: float) -> tuple[Trace, list[Any]]:
    from emulab.probe import tracing

    frames: list[Any] = []
    options: dict[str, Any] = {"protocol": shape.protocol, "port": shape.port, "size": shape.size, "timeout": timeout}
    return tracing.trace(lab, *pair, family=family, **options, answering=True, on_frame=frames.append), frames


def _outcome(lab: Lab, claim: _Claim, stories: bool) -> dict[str, Any]:
    expected, failed = claim.expected, claim.failures
    told: dict[str, Any] = {"story": None, "text": "", "packets": ""}
    if failed and stories:
        told = _story(lab, claim, failed[0])
    return {
        "expectation": expected.show(),
        "title": str(expected),
        "passed": not failed,
        "flows": len(claim.results),
        "failed": len({one.flow.number for one in failed}),
        "seconds": round(claim.seconds, 6),
        "failures": [one.show() for one in failed[:_TOLD]],
        **told,
    }


def _story(lab: Lab, claim: _Claim, failure: Failure) -> dict[str, Any]:
    """The packet of a failed expectation, sent once more and watched."""
    from emulab.report import trace_pcapng, trace_text

    flow = failure.flow
    shapes = list(claim.shapes)
    shape = shapes[0] if failure.field != "MTU" else shapes[2 if failure.found.endswith("delivered, too") else 1]
    told, frames = _trace(lab, (flow.source, flow.destination), flow.family, shape, 1.0)
    page = io.StringIO()
    trace_text.write(told, page)
    packets = base64.b64encode(trace_pcapng.packed(told, frames)).decode()
    return {"story": told.show(), "text": page.getvalue(), "packets": packets}
