"""A comparison for people: one table, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TextIO

from rich.markup import escape
from rich.table import Table

from emulab.comparison import Comparison
from emulab.comparison.advice import advice
from emulab.comparison.rows import Line, lines
from emulab.report.text import console_for

_LABELS, _NARROWEST = 56, 14  # columns of a terminal: what labels and units take, and what a data plane needs


def write(comparison: Comparison, out: TextIO, *, quiet: bool = False, columns: int | None = None) -> None:
    """Print it; ``quiet`` leaves out the table."""
    console = console_for(out, columns)
    if not quiet:
        console.print(escape(head(comparison)), style="bold")
        for columns_ in _fitting(comparison, console.width):
            console.print(_table(comparison, columns_), soft_wrap=False)
        console.print(f"[dim]{escape(remarks(comparison))}[/]", soft_wrap=False)
    for words in missing(comparison):
        console.print(f"[red]{escape(words)}[/]")
    for name, words in confessions(comparison):
        console.print(f"[dim]{escape(name)}: {escape(words)}[/]")
    console.print()
    sentences = advice(comparison)
    if sentences:
        console.print("[bold]How to choose[/]")
    for sentence in sentences:
        console.print(escape(f"- {sentence}"), soft_wrap=False)


def head(comparison: Comparison) -> str:
    """What was compared on what."""
    families = " and ".join(f"IPv{family}" for family in comparison.families)
    size = f"{comparison.nodes} nodes, {comparison.pods} pods, {families}"
    return f"{len(comparison.columns)} data planes on {comparison.topology}: {size}"


def remarks(comparison: Comparison) -> str:
    """What a reader has to know about the figures."""
    machine = comparison.machine
    where = f"Linux {machine['kernel']}, {machine['cpus']} CPUs, shared by all nodes and pods"
    told = f"Counts are per node, the mean, after all pods have talked. Times are of this machine ({where})"
    return f"{told}. What control planes take to notice is not in them. Measured in {comparison.seconds:.1f} s."


def missing(comparison: Comparison) -> list[str]:
    """What could not be measured, and why."""
    failed = [f"{column.name} was not measured: {column.failed}" for column in comparison.columns if column.failed]
    stuck = [(column.name, column.measured.no_growth) for column in comparison.columns if column.measured]
    return failed + [f"{name}: not all growth was measured: {words}" for name, words in stuck if words]


def confessions(comparison: Comparison) -> list[tuple[str, str]]:
    """Columns, and what their plugins say that they do not enforce."""
    by_words: dict[str, dict[str, None]] = {}
    for column in comparison.columns:
        for tried in column.measured.policies if column.measured else ():
            if tried.words:
                by_words.setdefault(tried.words, {})[column.name] = None
    return [(", ".join(names), words) for words, names in by_words.items()]


def _fitting(comparison: Comparison, width: int) -> Iterator[list[int]]:
    """The columns by number, as many together as have room; those that failed are told of elsewhere."""
    measured = [index for index, column in enumerate(comparison.columns) if column.measured]
    room = max(1, (width - _LABELS) // _NARROWEST)
    yield from (measured[start : start + room] for start in range(0, len(measured), room))


def _table(comparison: Comparison, columns: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True, min_width=_LABELS - 10)
    table.add_column("", no_wrap=True)
    for index in columns:
        table.add_column(escape(comparison.columns[index].name), justify="right", overflow="fold")
    for group, members in groupby(lines(comparison), lambda line: line.group):
        table.add_row(f"[bold]{escape(group)}[/]")
        for line in members:
            table.add_row(f"  {escape(line.label)}", f"[dim]{line.unit}[/]", *(_cell(line, index) for index in columns))
    return table


def _cell(line: Line, index: int) -> str:
    style = "green" if index in line.best else "" if line.known[index] else "dim"
    return f"[{style}]{escape(line.texts[index])}[/]" if style else escape(line.texts[index])
