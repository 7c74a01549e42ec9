"""A run for people: phases, the matrix, one flow told hop by hop, the verdict."""

from __future__ import annotations

from collections import Counter
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emulab.packet import Finding, FlowResult, Kind, Verdict, short
from emulab.report.story import hops
from emulab.result import RunResult

_SYMBOL = {
    Verdict.DELIVERED: "[green]✓[/]",
    Verdict.REWRITTEN: "[red]R[/]",
    Verdict.DROPPED: "[red]✗[/]",
    Verdict.REFUSED: "[red]![/]",
    Verdict.DUPLICATED: "[yellow]D[/]",
}
_WORST = (Verdict.REWRITTEN, Verdict.DUPLICATED, Verdict.REFUSED, Verdict.DROPPED, Verdict.DELIVERED)
_MANY_PODS, _MANY_FINDINGS = 20, 8


def write(result: RunResult, out: TextIO, *, quiet: bool = False) -> None:
    """Print the report; ``quiet`` leaves out everything but findings and verdict."""
    terminal = out.isatty()
    console = Console(file=out, highlight=False, soft_wrap=True, force_terminal=terminal, no_color=None if terminal else True)
    if not quiet:
        _head(result, console)
        _matrix(result, console)
        _others(result, console)
        _mtu(result, console)
        _example(result, console)
    _findings(result, console)
    console.print(verdict(result), style="bold green" if result.ok else "bold red")


def verdict(result: RunResult) -> str:
    """The last line."""
    counts = result.summary()
    if result.ok:
        pods = sum(1 for _ in result.cluster.endpoints)
        return f"PASS  {counts['flows']:,} flows delivered, none rewritten: all {pods} pods see each other's own addresses"
    wrong = ", ".join(f"{counts[v.value]:,} {v.value}" for v in _WORST[:-1] if counts[v.value])
    return f"FAIL  of {counts['flows']:,} flows {wrong or 'all delivered, but promises were broken'}"


def _head(result: RunResult, console: Console) -> None:
    topology = result.cluster.topology
    options = " ".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in result.options.items() if v is not None)
    families = " and ".join(f"IPv{family}" for family in topology.families)
    size = f"{len(topology.nodes)} nodes, {len(result.cluster.endpoints)} pods, {families}"
    console.print(f"[bold]{escape(result.plugin)}[/] on [bold]{escape(topology.name)}[/]  {size}  [dim]{escape(options)}[/]")
    times = "  ".join(f"{name} {seconds:.2f} s" for name, seconds in result.timings.items())
    console.print(f"[dim]{times}[/]\n")


def _matrix(result: RunResult, console: Console) -> None:
    endpoints = result.cluster.endpoints
    if len(endpoints) > _MANY_PODS:
        _node_matrix(result, console)
        return
    cells: dict[tuple[str, str], Counter[Verdict]] = {}
    partly: dict[tuple[str, str], list[str]] = {}
    for one in result.flows:
        if one.flow.kind is Kind.POD:
            pair = (one.flow.source, one.flow.destination)
            cells.setdefault(pair, Counter())[one.verdict] += 1
            if one.verdict is not Verdict.DELIVERED:
                partly.setdefault(pair, []).append(f"{one.flow.protocol}/{one.flow.family}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("from \\ to")
    for endpoint in endpoints:
        table.add_column(escape(short(endpoint.key)), justify="center")
    for source in endpoints:
        row = [f"[bold]{escape(short(source.key))}[/]"]
        for destination in endpoints:
            found = cells.get((source.key, destination.key), Counter())
            worst = next((v for v in _WORST if found[v]), None)
            mark = _SYMBOL[worst] if worst else "·"
            if worst and worst is not Verdict.DELIVERED and found[Verdict.DELIVERED]:
                mark += f"[dim]{found.total() - found[Verdict.DELIVERED]}/{found.total()}[/]"
            row.append(mark)
        table.add_row(*row)
    console.print(table)
    shapes = sorted({f"{one.flow.protocol}/IPv{one.flow.family}" for one in result.flows.recorded if one.flow.kind is Kind.POD})
    shapes += [f"{block.protocol}/IPv{block.family}" for block in result.flows.blocks]
    legend = "✓ delivered as sent  R rewritten  ✗ dropped  ! refused  D duplicated"
    console.print(f"[dim]each mark: {', '.join(dict.fromkeys(shapes))}, replies too   {legend}[/]\n")


def _node_matrix(result: RunResult, console: Console) -> None:
    nodes = {endpoint.key: endpoint.node for endpoint in result.cluster.endpoints}
    found = result.flows.by_nodes(nodes)
    total = sum(counts.total() for counts in found.values())
    good = sum(counts[Verdict.DELIVERED] for counts in found.values())
    console.print(f"pod -> pod      {good:,} of {total:,} flows delivered as sent, over {len(found):,} node pairs")
    bad = [(pair, counts) for pair, counts in found.items() if counts.total() > counts[Verdict.DELIVERED]]
    for (source, destination), counts in bad[:_MANY_FINDINGS]:
        words = ", ".join(f"{number:,} {v.value}" for v, number in counts.items() if v is not Verdict.DELIVERED)
        console.print(f"  {source} -> {destination}: {words} of {counts.total():,}")
    if len(bad) > _MANY_FINDINGS:
        console.print(f"  … and {len(bad) - _MANY_FINDINGS:,} node pairs more")


def _others(result: RunResult, console: Console) -> None:
    for kind, title in ((Kind.NODE, "node -> pod"), (Kind.OUTSIDE, "pod -> outside")):
        flows = [one for one in result.flows.recorded if one.flow.kind is kind]
        if flows:
            good = sum(one.verdict is Verdict.DELIVERED for one in flows)
            line = f"{title:<15} {good:,} of {len(flows):,} delivered"
            console.print(line + _translation(flows))


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
    good = [one for one in result.mtu if not one.findings]
    if result.mtu:
        sizes = ", ".join(str(size) for size in sorted({one.mtu for one in good}))
        told = f"{len(good)} of {len(result.mtu)} paths pass a full packet with DF ({sizes} bytes) and report one byte more"
        console.print(f"{'MTU':<15} {told}")


def _example(result: RunResult, console: Console) -> None:
    nodes = {endpoint.key: endpoint.node for endpoint in result.cluster.endpoints}
    told = [one for one in result.flows.recorded if one.observations and one.flow.kind is Kind.POD]
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
        where = f"{escape(hop.place):<{places}}  {escape(hop.headers):<{headers}}"
        console.print(f"  [dim]{hop.time}[/]  {where}  [cyan]{escape(hop.change)}[/]")


def _findings(result: RunResult, console: Console) -> None:
    lines = [(str(one.flow), finding) for one in result.bad() for finding in one.findings]
    lines += [
        (f"{short(m.source)} -> {short(m.destination)} MTU/IPv{m.family}", finding) for m in result.mtu for finding in m.findings
    ]
    lines += [("cluster", finding) for finding in result.findings]
    if not lines:
        console.print()
        return
    console.print("\n[bold]findings[/]")
    seen: Counter[tuple[str, str]] = Counter()
    shown = 0
    for what, finding in lines:
        seen[finding.field, finding.place] += 1
        if seen[finding.field, finding.place] == 1 and shown < _MANY_FINDINGS:
            shown += 1
            console.print(f"  {escape(what)}: {escape(_tell(finding))}")
    if len(lines) > shown:
        console.print(f"  … and {len(lines) - shown:,} more like these (--format json has them all)")
    console.print()


def _tell(finding: Finding) -> str:
    if finding.field == "delivery":
        return f"{finding.before} expected, {finding.after}"
    return str(finding)
