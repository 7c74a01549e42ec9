"""Who may talk to whom: as tables, as JSON (schema ``emulab/matrix/1``), and as one page of HTML that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape as html_escape
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emulab.access import ALLOWED, DENIED, LET_THROUGH, LOST, MISMATCHES, REWRITTEN, SCHEMA, SILENT, STATES, Access, Cell, Column
from emulab.packet import short
from emulab.report.text import console_for, spelled

SYMBOLS = {ALLOWED: "✓", SILENT: "○", DENIED: "⊘", LOST: "✗", LET_THROUGH: "‼", REWRITTEN: "R"}
_STYLES = {ALLOWED: "green", SILENT: "green", DENIED: "blue", LOST: "bold red", LET_THROUGH: "bold red", REWRITTEN: "bold red"}
_MANY = 10  # mismatches told one by one, ports named


def write_json(access: Access, out: TextIO) -> None:
    """One JSON object, a check per line."""
    head = {
        "schema": SCHEMA,
        "plugin": access.plugin,
        "topology": access.topology,
        "policies": [{"name": key, "unenforced": access.unenforced.get(key)} for key in access.policies],
        "summary": access.summary(),
    }
    out.write(json.dumps(head, indent=1)[:-2] + ',\n "checks": [')
    separator = "\n  "
    for cell in access.cells:
        out.write(separator + json.dumps(cell.show()))
        separator = ",\n  "
    out.write("]\n}\n")


def write_text(access: Access, out: TextIO, columns: int | None = None) -> None:
    """A table for each port, or for several that look alike, sources down and destinations across."""
    console = console_for(out, columns)
    count = len(access.policies)
    what = f"{count} polic{'y' if count == 1 else 'ies'}"
    console.print(f"[bold]{escape(access.plugin)}[/] on [bold]{escape(access.topology)}[/]  {what}\n")
    ports: dict[tuple[int, str], list[Column]] = {}
    for column in access.columns:
        ports.setdefault((column.port, column.protocol), []).append(column)
    alike: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for port, asked in sorted(ports.items()):
        texts = (_text(access.by_pair.get((source, column), ())) for source in access.sources for column in asked)
        alike.setdefault((*(column.pod for column in asked), *texts), []).append(port)
    for same in alike.values():
        names = [f"{protocol}/{number}" for number, protocol in same]
        more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
        console.print(f"[bold]{', '.join(names[:_MANY])}{more}[/]")
        _table(access, ports[same[0]], console)
        console.print()
    counts = access.counts()
    legend = "  ".join(f"{SYMBOLS[state]} {state} {counts[state]:,}" for state in reversed(STATES) if counts[state])
    console.print(f"[dim]{spelled(legend, console)}[/]")
    for words in dict.fromkeys(access.unenforced.values()):
        named = [policy for policy, why in access.unenforced.items() if why == words]
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        console.print(f"[yellow]policy {escape(named[0])}{more}: {escape(words)}[/]")
    _verdict(access, console)


def _table(access: Access, asked: Sequence[Column], console: Console) -> None:
    """One port's table; destinations are numbered where their names have no room."""
    pairs = access.by_pair
    names = [short(source) for source in access.sources]
    pods = [short(column.pod) for column in asked]
    widest = max(len(_text(pairs.get((source, column), ()))) for source in access.sources for column in asked)
    for heads in (pods, [str(number) for number in range(1, len(pods) + 1)]):
        if max(map(len, ["from \\ to", *names])) + sum(max(len(head), widest) + 2 for head in heads) <= console.width:
            console.print(_grid(access, names, heads, asked, console))
            if heads is not pods:
                console.print(escape("to: " + "  ".join(f"{head} {pod}" for head, pod in zip(heads, pods, strict=True))))
            return
    console.print(f"{len(names)} pods to {len(pods)}: no room for a table (-o html has one)")


def _verdict(access: Access, console: Console) -> None:
    wrong = access.mismatches
    for cell in wrong[:_MANY]:
        console.print(f"  [red]{escape(_question(cell))}: {cell.verdict.value}, but {escape(str(cell.decision))}[/]")
    if len(wrong) > _MANY:
        console.print(f"  and {len(wrong) - _MANY:,} more (-o json has them all)")
    if wrong:
        console.print(f"[bold red]FAIL  {len(wrong):,} of {len(access.cells):,} checks are not as policies say[/]")
    else:
        console.print(f"[bold green]PASS  all {len(access.cells):,} checks are as policies say[/]")


def _head(column: Column) -> str:
    return f"{short(column.pod)} {column.protocol}/{column.port}"


def _question(cell: Cell) -> str:
    return f"{short(cell.source)} -> {_head(cell.column)} IPv{cell.family}"


def _worst(cells: Sequence[Cell]) -> str:
    return min((cell.state for cell in cells), key=STATES.index)


def _text(cells: Sequence[Cell]) -> str:
    """One symbol, or one for each family where they differ: "4✓ 6⊘"."""
    if not cells:
        return "·"
    if len({cell.state for cell in cells}) == 1:
        return SYMBOLS[cells[0].state]
    return " ".join(f"{cell.family}{SYMBOLS[cell.state]}" for cell in cells)


def _grid(access: Access, names: Sequence[str], heads: Sequence[str], asked: Sequence[Column], console: Console) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("from \\ to", *heads):
        table.add_column(escape(head), no_wrap=True)
    for name, source in zip(names, access.sources, strict=True):
        row = []
        for column in asked:
            cells = access.by_pair.get((source, column), ())
            style = _STYLES[_worst(cells)] if cells else "dim"
            row.append(f"[{style}]{spelled(_text(cells), console)}[/]")
        table.add_row(f"[bold]{escape(name)}[/]", *row)
    return table


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }}
table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid #ccc; padding: .3em .6em; text-align: center; white-space: nowrap; }}
thead th {{ position: sticky; top: 0; background: #f4f4f4; }}
tbody th {{ position: sticky; left: 0; background: #f4f4f4; text-align: left; }}
.allowed, .silent {{ background: #d9f2dd; }} .denied {{ background: #dde6f5; }} .none {{ background: #fafafa; color: #aaa; }}
.wrong {{ background: #d33; color: #fff; font-weight: bold; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="{verdict_class}">{verdict}</p>
<table>
<thead><tr><th>from \\ to</th>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p>{legend}</p>
{notes}</body>
</html>
"""


def write_html(access: Access, out: TextIO) -> None:
    """One page; what a cell means, by which policy and rule, is its title."""
    wrong, pairs = len(access.mismatches), access.by_pair
    rows = []
    for source in access.sources:
        cells = "".join(_cell(pairs.get((source, column), ())) for column in access.columns)
        rows.append(f"<tr><th>{html_escape(short(source))}</th>{cells}</tr>")
    counts, total = access.counts(), len(access.cells)
    words = "as policies say"
    out.write(
        _PAGE.format(
            title=html_escape(f"Policies on {access.topology}, {access.plugin}"),
            verdict_class="wrong" if wrong else "allowed",
            verdict=f"{wrong:,} of {total:,} checks are not {words}" if wrong else f"all {total:,} checks are {words}",
            heads="".join(f"<th>{html_escape(_head(column))}</th>" for column in access.columns),
            rows="\n".join(rows),
            legend=" &nbsp; ".join(f"{SYMBOLS[s]} {s} {counts[s]:,}" for s in reversed(STATES) if counts[s]),
            notes="".join(f"<p>policy {html_escape(k)}: {html_escape(v)}</p>\n" for k, v in access.unenforced.items()),
        )
    )


def _cell(cells: Sequence[Cell]) -> str:
    if not cells:
        return '<td class="none">·</td>'
    worst = _worst(cells)
    kind = "wrong" if worst in MISMATCHES else {ALLOWED: "allowed", SILENT: "silent"}.get(worst, "denied")
    told = "\n".join(f"IPv{cell.family}: {cell.verdict.value}; {cell.decision}" for cell in cells)
    return f'<td class="{kind}" title="{html_escape(told)}">{_text(cells)}</td>'
