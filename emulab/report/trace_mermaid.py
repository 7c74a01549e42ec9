"""A trace as a Mermaid sequence diagram (https://mermaid.js.org/syntax/sequenceDiagram.html), for documents.

A namespace is a participant, in the order of the way; an arrow is a link between two of them, dotted on the way back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from emulab.packet import short, text
from emulab.report.trace_text import headers
from emulab.trace import Hop, Trace


def write(trace: Trace, out: TextIO) -> None:
    out.write("\n".join(lines(trace)) + "\n")


def lines(trace: Trace) -> Iterator[str]:
    """The diagram line by line."""
    names = list(dict.fromkeys([trace.flow.source, *(hop.place.namespace for hop in trace.hops)]))
    identifiers = {name: f"p{index}" for index, name in enumerate(names)}
    yield "sequenceDiagram"
    for name in names:
        yield f"    participant {identifiers[name]} as {_plain(short(name))}"
    for leg, arrow in (("request", "->>"), ("reply", "-->>")):
        yield from _way(trace.way(leg), arrow, identifiers)
    here = identifiers[trace.hops[-1].place.namespace if trace.hops else trace.flow.source]
    if trace.loss:
        way = trace.way(trace.loss.leg) or trace.hops
        here = identifiers[way[-1].place.namespace] if way else here
        yield f"    Note over {here}: {trace.loss.code.value}: {_plain(trace.loss.reason)}"
    elif trace.round_trip_us is not None:
        yield f"    Note over {here}: {trace.verdict.value}, back in {trace.round_trip_us:.0f} us"


def _way(hops: Sequence[Hop], arrow: str, identifiers: dict[str, str]) -> Iterator[str]:
    before: Hop | None = None
    for hop in hops:
        here = identifiers[hop.place.namespace]
        if before is not None and before.place.namespace != hop.place.namespace:
            there = identifiers[before.place.namespace]
            outer = f"{hop.outer.kind} {text(hop.outer.source)} > {text(hop.outer.destination)}: " if hop.outer else ""
            yield f"    {there}{arrow}{here}: {_plain(outer + headers(hop.inner))}"
        changed = [change for change in hop.changed if not change.startswith(("MACs", "TTL"))]
        if changed:
            why = [hop.translator] if hop.translator else hop.why[:1]
            yield f"    Note over {here}: {_plain('<br/>'.join([', '.join(changed), *why]))}"
        before = hop


def _plain(words: str) -> str:
    """Without what Mermaid takes for its own syntax: a semicolon ends a line, # begins an entity."""
    return words.replace("#", "#35;").replace(";", "#59;").replace("#35#59;", "#35;")
