"""Who reaches which declared port: a matrix per port for people; JSON is that of `emulab.report.probe`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.markup import escape

from emulab.packet import FlowResult, short
from emulab.report.matrix import SYMBOLS
from emulab.report.text import console_for
from emulab.report.verdict import GOOD, STATES

MANY_PODS = 40
_MANY_TOLD = 20  # flows that are told one by one
_NONE = "·"
_STYLES = {"delivered": "green", "denied": ""}

Cells = dict[tuple[str, str], list[FlowResult]]


def write(checks: Iterable[FlowResult], out: TextIO, columns: int | None = None, notes: Sequence[str] = ()) -> None:
    """A matrix for each port, or one for those that look alike; with more than `MANY_PODS` ends, how many ended how.

    A sign stands for both families, the worse one where they differ, and then there is a line for each below.
    """
    console = console_for(out, columns)
    ports: dict[tuple[str, int], list[FlowResult]] = {}
    for judged in checks:
        ports.setdefault((judged.flow.protocol, judged.flow.dport), []).append(judged)
    everybody = {name for one in ports.values() for judged in one for name in (judged.flow.source, judged.flow.destination)}
    if not ports:
        console.print("no pod declares a port (spec.containers[].ports)")
    elif len(everybody) > MANY_PODS:
        _summary(ports, console)
    else:
        _matrices(ports, console)
    met = {judged.state for found in ports.values() for judged in found}
    if met:
        console.print("  ".join(f"{SYMBOLS[state]} {state}" for state in reversed(STATES) if state in met), style="dim")
    for note in notes:
        console.print(escape(note), style="yellow")


def _matrices(ports: dict[tuple[str, int], list[FlowResult]], console: Console) -> None:
    alike: dict[str, list[str]] = {}
    for (protocol, port), found in sorted(ports.items(), key=lambda item: (item[0][1], item[0][0])):
        alike.setdefault(_matrix(found, console.width), []).append(f"{protocol}/{port}")
    for drawn, names in alike.items():
        console.print(f"[bold]{escape(', '.join(names))}[/]")
        for line in drawn.splitlines():
            console.print(escape(line))
        console.print()


def _matrix(found: Sequence[FlowResult], width: int) -> str:
    """Sources down, destinations across; those are numbered where their names have no room."""
    sources = list(dict.fromkeys(judged.flow.source for judged in found))
    destinations = list(dict.fromkeys(judged.flow.destination for judged in found))
    cells: Cells = {}
    for judged in found:
        cells.setdefault((judged.flow.source, judged.flow.destination), []).append(judged)
    names = [short(key) for key in destinations]
    first = max(map(len, ("from \\ to", *map(short, sources))))
    heads = names if first + sum(len(name) + 2 for name in names) <= width else [str(n + 1) for n in range(len(names))]
    lines = ["  ".join(["from \\ to".ljust(first), *heads])]
    told = []
    for source in sources:
        row = [short(source).ljust(first)]
        for destination, head in zip(destinations, heads, strict=True):
            shapes = cells.get((source, destination), [])
            worst = min(shapes, key=lambda judged: STATES.index(judged.state), default=None)
            row.append((SYMBOLS[worst.state] if worst else _NONE).ljust(len(head)))
            if len({judged.state for judged in shapes}) > 1 or (worst and worst.state not in (*GOOD, "refused", "dropped")):
                told += [line for judged in shapes if (line := _words(judged))]
        lines.append("  ".join(row).rstrip())
    if heads is not names:
        lines.append("to: " + "  ".join(f"{head} {name}" for head, name in zip(heads, names, strict=True)))
    lines += told[:_MANY_TOLD]
    if len(told) > _MANY_TOLD:
        lines.append(f"and {len(told) - _MANY_TOLD} more (--format json has them all)")
    return "\n".join(lines)


def _words(judged: FlowResult) -> str:
    flow = judged.flow
    finding = f": {judged.findings[0]}" if judged.findings and judged.state not in (*GOOD, "dropped", "refused") else ""
    return f"{short(flow.source)} -> {short(flow.destination)} IPv{flow.family}: {judged.state}{finding}"


def _summary(ports: dict[tuple[str, int], list[FlowResult]], console: Console) -> None:
    names = [f"{protocol}/{port}" for protocol, port in ports]
    widest = max(map(len, names))
    for name, (_, found) in sorted(zip(names, ports.items(), strict=True), key=lambda pair: (pair[1][0][1], pair[0])):
        counts = Counter(judged.state for judged in found)
        told = ", ".join(f"{counts[state]:,} {state}" for state in reversed(STATES) if counts[state])
        pods = len({judged.flow.destination for judged in found})
        console.print(f"{name.ljust(widest)}  {len(found):,} checks to {pods:,} pods: {told}")
