"""One flow hop by hop, as lines of text: when, where, the headers there, and what changed on the way to it.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from emulab.packet import FlowResult, Observation, short, text


class Hop(NamedTuple):
    """One line of the story."""

    time: str
    place: str
    headers: str
    change: str


def hops(result: FlowResult) -> Iterator[Hop]:
    """The request's way, and the reply's in one line; TCP's handshake stands for the rest of the conversation."""
    if not result.observations:
        return
    start = result.observations[0].time
    before: Observation | None = None
    first = next(o for o in result.observations)
    requests = [o for o in result.observations if o.leg == "request" and o.inner.note == first.inner.note]
    for seen in requests:
        arrow = "->" if seen.direction == "out" else "<-"
        place = f"{short(seen.place.namespace)}:{seen.place.interface}"
        yield Hop(
            f"{(seen.time - start) * 1e6:6.0f} us",
            f"{arrow} {place}",
            _headers(seen),
            ", ".join(_changes(before, seen)),
        )
        before = seen
    replies = [o for o in result.observations if o.leg == "reply"]
    if replies:
        last = replies[-1]
        place = f"{short(last.place.namespace)}:{last.place.interface}"
        yield Hop(f"{(last.time - start) * 1e6:6.0f} us", f"<- {place}", _headers(last), "the reply, back at the sender")


def _headers(seen: Observation) -> str:
    inner = seen.inner
    note = f" {inner.note}" if inner.note else ""
    if inner.protocol == "icmp":
        return f"{text(inner.source)} > {text(inner.destination)} icmp{note} ttl {inner.ttl}"
    ends = f"{_end(inner.source, inner.sport)} > {_end(inner.destination, inner.dport)}"
    return f"{ends} {inner.protocol}{note} ttl {inner.ttl}"


def _end(address: bytes, port: int) -> str:
    return f"[{text(address)}]:{port}" if len(address) == 16 else f"{text(address)}:{port}"


def _changes(before: Observation | None, seen: Observation) -> Iterator[str]:
    outer = seen.outer
    if before is None:
        return
    for name, one, other in (
        ("source", before.inner.source, seen.inner.source),
        ("destination", before.inner.destination, seen.inner.destination),
    ):
        if one != other:
            yield f"{name} {text(one)} -> {text(other)}"
    for name, port, other_port in (
        ("source port", before.inner.sport, seen.inner.sport),
        ("destination port", before.inner.dport, seen.inner.dport),
    ):
        if port != other_port:
            yield f"{name} {port} -> {other_port}"
    if outer != before.outer:
        if outer is None:
            yield "decapsulated"
        else:
            yield f"{outer.kind} {text(outer.source)} > {text(outer.destination)} port {outer.dport} vni {outer.vni}"
    if before.inner.ttl != seen.inner.ttl:
        yield f"ttl {before.inner.ttl} -> {seen.inner.ttl}"
    if before.macs != seen.macs and before.inner.ttl == seen.inner.ttl and outer == before.outer:
        yield "MAC addresses"
