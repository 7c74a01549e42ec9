"""A run for people: phases, the matrix, one flow told hop by hop, the verdict."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emulab.packet import BROKEN_PROMISE, FlowResult, Kind, MtuResult, Verdict
from emulab.report import matrix, verdict
from emulab.report.story import hops
from emulab.result import RunResult

_STYLES = {matrix.DELIVERED: "green", Verdict.DENIED.value: "blue", BROKEN_PROMISE: "yellow", "": "dim"}
_ASCII = str.maketrans({"✓": "+", "✗": "x", "·": "-", "⊘": "o", "‼": "#"})
_WIDTH = 100  # columns, where no terminal says otherwise
_MANY_FINDINGS = 8


def console_for(out: TextIO, columns: int | None = None) -> Console:
    """Where a report is printed: in colour on a terminal, which may be another machine's of ``columns`` columns."""
    terminal = columns is not None or out.isatty()
    if (out.encoding or "utf-8").lower().partition("-")[0] != "utf" and isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="replace")  # a check mark that this locale lacks must not end the run
    return Console(
        file=out,
        width=columns if terminal else _WIDTH,
        highlight=False,
        soft_wrap=True,
        force_terminal=terminal,
        no_color=None if terminal else True,
    )


def write(result: RunResult, out: TextIO, *, quiet: bool = False, columns: int | None = None) -> None:
    """Print the report; ``quiet`` leaves out everything but findings and verdict."""
    console = console_for(out, columns)
    if not quiet:
        _head(result, console)
        _matrix(result, console)
        _others(result, console)
        _mtu(result, console)
        _example(result, console)
    _findings(result, console)
    console.print(escape(verdict.line(result)), style="bold green" if result.ok else "bold red")


def _head(result: RunResult, console: Console) -> None:
    topology = result.cluster.topology
    options = " ".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in result.options.items() if v is not None)
    families = " and ".join(f"IPv{family}" for family in topology.families)
    size = f"{len(topology.nodes)} nodes, {len(result.cluster.endpoints)} pods, {families}"
    console.print(f"[bold]{escape(result.plugin)}[/] on [bold]{escape(topology.name)}[/]  {size}  [dim]{escape(options)}[/]")
    times = "  ".join(f"{name} {seconds:.2f} s" for name, seconds in result.timings.items())
    console.print(f"[dim]{times}[/]\n")


def _matrix(result: RunResult, console: Console) -> None:
    """With names above the columns, or numbers, or only the pairs that are wrong: whatever the width has room for."""
    shown = matrix.of(result)
    cells = [text for row in shown.rows for text, _ in row]
    widest = max(map(len, cells), default=0)
    numbers = [str(number) for number in range(1, len(shown.names) + 1)]
    numbered = [f"{number} {name}" for number, name in enumerate(shown.names, 1)]
    for labels, heads in ((shown.names, shown.names), (numbered, numbers)):
        needed = max(9, *map(len, labels)) + sum(max(len(head), widest) + 2 for head in heads) if labels else 0
        if needed <= console.width:
            console.print(_grid(shown, labels, heads, console))
            break
    else:
        pairs, bad = len(cells) - cells.count("·"), list(shown.bad())
        console.print(f"{pairs - len(bad):,} of {pairs:,} pairs of nodes all well")
        for source, destination, text in bad[:_MANY_FINDINGS]:
            console.print(f"  {escape(source)} -> {escape(destination)}  {spelled(text, console)}")
    for note in shown.notes:
        console.print(f"  {note}")
    first = next(iter(result.cluster.endpoints), None)
    recorded = (one.flow for one in result.flows.recorded if one.flow.kind is Kind.POD and first and one.flow.source == first.key)
    shapes = dict.fromkeys(
        [f"{flow.protocol}/IPv{flow.family}" for flow in recorded]
        + [f"{block.protocol}/IPv{block.family}" for block in result.flows.blocks]
    )
    console.print(f"[dim]{spelled(shown.legend(), console)}   (each: {', '.join(shapes)}, and the replies)[/]\n")


def _grid(shown: matrix.Matrix, labels: Sequence[str], heads: Sequence[str], console: Console) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("from \\ to", *heads):
        table.add_column(escape(head), no_wrap=True)
    for label, row in zip(labels, shown.rows, strict=True):
        marks = (f"[{_STYLES.get(state, 'red')}]{spelled(text, console)}[/]" for text, state in row)
        table.add_row(f"[bold]{escape(label)}[/]", *marks)
    return table


def spelled(text: str, console: Console) -> str:
    """In ASCII where the locale has no more."""
    return text.translate(_ASCII) if console.options.ascii_only else text


def _others(result: RunResult, console: Console) -> None:
    for kind, title in ((Kind.NODE, "node -> pod"), (Kind.OUTSIDE, "pod -> outside")):
        flows = [one for one in result.flows.recorded if one.flow.kind is kind]
        if flows:
            good = sum(one.verdict is Verdict.DELIVERED for one in flows)
            denied = sum(one.verdict is Verdict.DENIED for one in flows)
            line = f"{title:<15} {good:,} of {len(flows):,} delivered" + (f", {denied:,} denied by policy" if denied else "")
            console.print(line + _translation(flows))
    _services(result, console)


def _services(result: RunResult, console: Console) -> None:
    """What became of flows to Services, and an example of how one was led on."""
    flows = [one for one in result.flows.recorded if one.flow.kind is Kind.SERVICE]
    if not flows:
        return
    good = [one for one in flows if one.verdict is Verdict.DELIVERED and not one.findings]
    line = f"{'-> service':<15} {len(good):,} of {len(flows):,} delivered, translated as a Service should be"
    for verdict_, words in (
        (Verdict.REFUSED, "refused: they have no endpoint"),
        (Verdict.DROPPED, "dropped: no endpoint may serve them"),
        (Verdict.DENIED, "denied by policy"),
    ):
        number = sum(one.verdict is verdict_ and not one.findings for one in flows)
        line += f"; {number:,} {words}" if number else ""
    console.print(line)
    told = next((one for one in good if any(change.field == "destination" for change in one.translations)), None)
    if told:
        change = next(change for change in told.translations if change.field == "destination")
        back = next((change for change in told.translations if change.leg == "reply"), None)
        by = f" [dim]by {escape((change.rule or '').partition(': ')[0])}[/]" if change.rule else ""
        answer = f", and the answer back at {escape(back.place)}" if back else ""
        console.print(
            f"{'':<15} e.g. {escape(str(told.flow))} port {told.flow.dport}: {change.before} -> {change.after} "
            f"at {escape(change.place)}{by}{answer}"
        )


def _translation(flows: list[FlowResult]) -> str:
    """Where addresses are translated on a way on which that is expected: one example."""
    translated = [one for one in flows if one.translations]
    if not translated:
        return ", none translated"
    change = next((f for f in translated[0].translations if f.field == "source"), translated[0].translations[0])
    by = f" [dim]({escape(change.rule)})[/]" if change.rule else ""
    example = f"{change.field} {change.before} -> {change.after} at {escape(change.place)}"
    return f", {len(translated):,} translated as they should, e.g. {example}{by}"


def _mtu(result: RunResult, console: Console) -> None:
    """A line for each family and MTU."""
    alike: dict[tuple[int, int], list[MtuResult]] = {}
    for checked in result.mtu:
        alike.setdefault((checked.family, checked.mtu), []).append(checked)
    for (family, mtu), checks in alike.items():
        full = sum(checked.full == "delivered" for checked in checks)
        over = [checked.reported_by for checked in checks if checked.over == "too big"]
        by = list(dict.fromkeys(filter(None, over)))
        reporters = ", ".join(by[:3]) + (f" and {len(by) - 3} more" if len(by) > 3 else "")
        console.print(
            f"{f'MTU IPv{family}':<15} {mtu} bytes with DF delivered on {_of(full, checks)} node pairs; "
            f"{mtu + 1} reported as too big on {_of(len(over), checks)}{f', by {reporters}' if by else ''}"
        )


def _of(number: int, checks: list[MtuResult]) -> str:
    return f"all {number}" if number == len(checks) else f"{number} of {len(checks)}"


def _example(result: RunResult, console: Console) -> None:
    nodes = {endpoint.key: endpoint.node for endpoint in result.cluster.endpoints}
    told = [one for one in result.flows.recorded if one.observations and one.flow.kind is Kind.POD]
    told = [one for one in told if one.verdict is not Verdict.DENIED] or told
    if not told:
        return
    one = next(
        (r for r in told if r.findings),
        next((r for r in told if nodes[r.flow.source] != nodes[r.flow.destination]), told[0]),
    )
    console.print(f"\n[bold]{escape(str(one.flow))}[/], hop by hop:")
    story = list(hops(one))
    places, headers = max(len(hop.place) for hop in story), max(len(hop.headers) for hop in story)
    for hop in story:
        where = escape(f"{hop.place:<{places}}  {hop.headers:<{headers}}")
        console.print(f"  [dim]{hop.time}[/]  {where}  [cyan]{escape(hop.change)}[/]")


def _findings(result: RunResult, console: Console) -> None:
    found = list(verdict.groups(result))
    if found:
        console.print("\n[bold]findings[/]")
    for group in found[:_MANY_FINDINGS]:
        more = f" and {group.number - 1:,} more" if group.number > 1 else ""
        console.print(f"  {group.label}: {escape(group.subject)}{more}: {escape(group.text)}")
    if len(found) > _MANY_FINDINGS:
        rest = sum(group.number for group in found[_MANY_FINDINGS:])
        console.print(f"  and {rest:,} more of other sorts (--format json has them all)")
    console.print()
