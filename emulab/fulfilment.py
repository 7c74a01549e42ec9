"""Whether an expectation holds, by what was seen of its flows.  Pure.

Exact about what is meant: "cannot reach" says that the request did not arrive, not that no answer came back; an encapsulation
is that of packets on the underlay, and an expectation of which no packet crosses it does not hold.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from emulab.expectation import Expectation
from emulab.model import SWITCHES
from emulab.packet import INITIAL_TTL, Finding, Flow, FlowResult, Kind, Observation, Verdict, short, text

_ADDRESSES = ("source", "destination", "source port", "destination port", "identifier", "sequence")
_REWRITTEN = (*_ADDRESSES, "protocol", "payload", "conntrack")
_LOST = (Verdict.DROPPED, Verdict.REFUSED, Verdict.DENIED)


@dataclass(frozen=True)
class Failure:
    """A flow that is otherwise than ``expected``: what was ``found`` of its ``field``, where, and by which rule if known."""

    flow: Flow
    field: str
    expected: str
    found: str
    place: str = ""
    rule: str | None = None

    def show(self) -> dict[str, object]:
        flow = self.flow
        return {
            "from": flow.source,
            "to": flow.destination,
            "family": flow.family,
            "protocol": flow.protocol,
            "port": flow.dport if flow.protocol != "icmp" else None,
            "field": self.field,
            "expected": self.expected,
            "found": self.found,
            "place": self.place,
            "rule": self.rule,
        }


def failures(expected: Expectation, results: Sequence[FlowResult]) -> list[Failure]:
    """What of an expectation does not hold; its MTU is judged apart, by `passes`."""
    found = [failure for result in results for failure in _of(expected, result)]
    if expected.encapsulation and not found and not any(map(_on_underlay, results)):
        found = [Failure(results[0].flow, "encapsulation", _wanted(expected), "never on the underlay: they are on one node")]
    return found


def _of(expected: Expectation, result: FlowResult) -> Iterator[Failure]:
    flow, arrived, answered = result.flow, arrival(result), result.verdict not in _LOST
    if not expected.reaches:
        if answered or arrived:
            words = "delivered" if answered else "the request arrived, only the answer was lost"
            yield Failure(flow, "delivery", "no arrival", words, str(arrived.place) if arrived else flow.destination)
        elif expected.dropped_at is not None:
            last = _last(flow, result.observations)
            names = {last, last.partition(":")[0]}
            if expected.dropped_at not in names | {short(name) for name in names}:
                yield Failure(flow, "dropped at", expected.dropped_at, f"last seen at {short(last)}", last)
        return
    if not answered:
        yield _lost(result)
        return
    changed = [*_translations(result)]
    if expected.nat is False:
        yield from (Failure(flow, one.field, one.before, one.after, one.place, one.rule) for one in changed)
    if expected.nat and not changed:
        yield Failure(flow, "NAT", "an address or port rewritten", "everything as it was sent")
    if expected.encapsulation:
        yield from _encapsulation(expected, result)
    if expected.hops is not None:
        lost = None if arrived is None else INITIAL_TTL - arrived.inner.ttl
        if lost != expected.hops:
            found = "not seen at its destination" if arrived is None else str(lost)
            yield Failure(flow, "hops", str(expected.hops), found, str(arrived.place) if arrived else "")
    if expected.seen_as is not None:
        seen = text(arrived.inner.source) if arrived else "not seen at its destination"
        if arrived is None or ipaddress.ip_address(seen) != ipaddress.ip_address(expected.seen_as):
            yield Failure(
                flow, "seen as", expected.seen_as, seen, str(arrived.place) if arrived else "", _rule(changed, "source")
            )


def passes(expected: Expectation, fits: Iterable[FlowResult], over: Iterable[FlowResult]) -> Iterator[Failure]:
    """Whether packets of the expected MTU pass, and one byte more does not."""
    for result in fits:
        if result.verdict in _LOST:
            lost = _lost(result)
            yield Failure(result.flow, "MTU", f"{expected.mtu} bytes delivered", lost.found, lost.place)
    for result in over:
        if result.verdict not in _LOST:
            yield Failure(result.flow, "MTU", f"{expected.mtu}", f"{(expected.mtu or 0) + 1} bytes are delivered, too")


def arrival(result: FlowResult) -> Observation | None:
    """The request as it arrived where it was sent to, a Service's at one of its endpoints; None if it was not seen there."""
    flow = result.flow
    for one in result.observations:
        if (one.leg, one.direction) == ("request", "in") and one.place.namespace not in (flow.source, SWITCHES):
            if one.place.namespace == flow.destination:
                return one
            if flow.kind is Kind.SERVICE and "/" in one.place.namespace:
                return one
    return None


def _lost(result: FlowResult) -> Failure:
    """Why it did not get through, as verification says it; for what policies deny, by which."""
    told = next((one for one in result.findings if one.field == "delivery"), None)
    last = _last(result.flow, result.observations)
    found = told.after if told else f"{result.verdict.value}, last seen at {short(last)}"
    if result.verdict is Verdict.DENIED:
        found = f"denied: {result.policy}"
    return Failure(result.flow, "delivery", "an answer", found, told.place if told else last, told.rule if told else None)


def _last(flow: Flow, observations: Sequence[Observation]) -> str:
    """Where the request was seen last, or the answer if there was one."""
    return str(observations[-1].place) if observations else flow.source


def _translations(result: FlowResult) -> Iterator[Finding]:
    yield from (one for one in (*result.findings, *result.translations) if one.field in _REWRITTEN)


def _rule(changed: Iterable[Finding], field: str) -> str | None:
    return next((one.rule for one in changed if one.field == field), None)


def _on_underlay(result: FlowResult) -> list[Observation]:
    return [one for one in result.observations if one.place.namespace == SWITCHES]


def _wanted(expected: Expectation) -> str:
    return f"{expected.encapsulation}{'' if expected.vni is None else f' VNI {expected.vni}'}"


def _encapsulation(expected: Expectation, result: FlowResult) -> Iterator[Failure]:
    for one in _on_underlay(result):
        kind = one.outer.kind if one.outer else "none"
        vni = one.outer.vni if one.outer else None
        if kind != expected.encapsulation or expected.vni not in (None, vni):
            found = "none" if one.outer is None else f"{kind} VNI {vni}"
            yield Failure(result.flow, "encapsulation", _wanted(expected), found, str(one.place))
            return
