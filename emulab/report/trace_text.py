"""A trace for people, on one screen: the way there with every reason, the way back where something changed, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TextIO

from rich.console import Console
from rich.markup import escape

from emulab.packet import Headers, Verdict, short, text
from emulab.report.text import console_for
from emulab.trace import Hop, Trace

_ASCII = str.maketrans({"→": ">", "←": "<", "✓": "+", "✗": "x", "·": "-"})
_INDENT = " " * 12


def write(trace: Trace, out: TextIO, *, quiet: bool = False, columns: int | None = None) -> None:
    """Print the story; ``quiet`` leaves out everything but the verdict."""
    console = console_for(out, columns)
    if not quiet:
        console.print(_spelled(_head(trace), console))
        widths = _widths(trace.hops)
        for line in _way(trace.way("request"), widths, console.width, whole=True):
            console.print(_spelled(line, console))
        back = trace.way("reply")
        if back:
            console.print("[bold]and back[/]")
            for line in _way(back, widths, console.width, whole=not trace.delivered):
                console.print(_spelled(line, console))
        console.print()
    for line in _verdict(trace):
        console.print(_spelled(line, console))


def _head(trace: Trace) -> str:
    flow = trace.flow
    port = "" if flow.protocol == "icmp" else f" port {flow.dport}"
    ends = f"{text(flow.source_address)} > {text(flow.destination_address)}"
    size = f"{trace.hops[0].inner.length} bytes" if trace.hops else ""
    what = f"{flow.protocol}/IPv{flow.family}{port}"
    return "  ".join(filter(None, [f"[bold]{escape(trace.title)}[/]", what, ends, size, f"[dim]{escape(trace.plugin)}[/]"]))


def place(hop: Hop) -> str:
    """``→ node-a:cni0``: leaving by, ``←``: arriving at."""
    return f"{'→' if hop.direction == 'out' else '←'} {short(hop.place.namespace)}:{hop.place.interface}"


def headers(inner: Headers) -> str:
    """``10.1.1.1 > 10.1.2.1 ttl 64``, with ports where there are any."""
    note = f" {inner.note}" if inner.note else ""
    if inner.protocol == "icmp":
        return f"{text(inner.source)} > {text(inner.destination)}{note} ttl {inner.ttl}"
    return f"{end(inner.source, inner.sport)} > {end(inner.destination, inner.dport)}{note} ttl {inner.ttl}"


def end(address: bytes, port: int) -> str:
    return f"[{text(address)}]:{port}" if len(address) == 16 else f"{text(address)}:{port}"


def _widths(hops: Sequence[Hop]) -> tuple[int, int]:
    return max((len(place(hop)) for hop in hops), default=0), max((len(headers(hop.inner)) for hop in hops), default=0)


def _way(hops: Sequence[Hop], widths: tuple[int, int], width: int, *, whole: bool) -> Iterator[str]:
    """``whole``: every hop with its reasons; else those at which something changed, and why if it was translated."""
    for index, hop in enumerate(hops):
        if not whole and not hop.changed and 0 < index < len(hops) - 1:
            continue
        changed = ", ".join(change for change in hop.changed if whole or not change.startswith("MACs"))
        where = escape(f"{place(hop):<{widths[0]}}  mtu {hop.mtu or '-':<5}  {headers(hop.inner):<{widths[1]}}".rstrip())
        yield f"{hop.time_us:7.0f} us  {where}" + (f"  [cyan]{escape(changed)}[/]" if changed else "")
        reasons = "; ".join(hop.why if whole else filter(None, [hop.translator]))
        if reasons:
            room = max(40, width - len(_INDENT))
            for line in wrap(f"because {reasons}", room, subsequent_indent=" " * 8, break_long_words=False):
                yield f"{_INDENT}[dim]{escape(line)}[/]"


def _verdict(trace: Trace) -> Iterator[str]:
    if trace.delivered:
        took = f" and back in {trace.round_trip_us:.0f} us" if trace.round_trip_us is not None else ""
        tail = f"{took}, smallest MTU on the way {trace.mtu}"
        by = f"answered by {escape(short(trace.answered_by))}" if trace.answered_by else "delivered"
        if trace.verdict is Verdict.REWRITTEN:
            yield f"[bold yellow]! {by}, rewritten on the way[/]{tail}"
        else:
            yield f"[bold green]✓ {by}[/]{tail}"
        return
    what = "the answer" if trace.loss and trace.loss.leg == "reply" else "the packet"
    yield f"[bold red]✗ {what} was {trace.verdict.value}: {escape(trace.reason or 'nobody says why')}[/]  ({trace.reason_code})"
    lost = trace.way(trace.loss.leg if trace.loss else "request") or trace.hops
    if lost:
        verb = "leaving by" if lost[-1].direction == "out" else "arriving at"
        yield f"  last seen {verb} {escape(short(str(lost[-1].place)))}"
    for line in trace.loss.evidence if trace.loss else ():
        yield f"  [dim]· {escape(line)}[/]"


def _spelled(line: str, console: Console) -> str:
    """In ASCII where the locale has no more."""
    return line.translate(_ASCII) if console.options.ascii_only else line
