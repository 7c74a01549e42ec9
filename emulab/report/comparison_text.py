"""A comparison for people: one table, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TextIO

from rich.markup import escape
from rich.table import Table

from emulab.comparison import Comparison
from emulab.comparison.advice import advice
from emulab.comparison.rows import Line, lines
from emulab.report.text import console_for


def write(comparison: Comparison, out: TextIO, *, quiet: bool = False, columns: int | None = None) -> None:
    """Print it; ``quiet`` leaves out the table."""
    console = console_for(out, columns)
    failed = [column for column in comparison.columns if column.failed]
    if not quiet:
        console.print(escape(head(comparison)), style="bold")
        console.print(_table(comparison), soft_wrap=False)
        console.print(f"[dim]{escape(remarks(comparison))}[/]", soft_wrap=False)
    for column in failed:
        console.print(f"[red]{escape(column.name)} was not measured: {escape(column.failed)}[/]")
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


def confessions(comparison: Comparison) -> list[tuple[str, str]]:
    """Columns, and what their plugins say that they do not enforce."""
    by_words: dict[str, dict[str, None]] = {}
    for column in comparison.columns:
        for tried in column.measured.policies if column.measured else ():
            if tried.words:
                by_words.setdefault(tried.words, {})[column.name] = None
    return [(", ".join(names), words) for words, names in by_words.items()]


def _table(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for column in comparison.columns:
        table.add_column(escape(column.name), justify="right")
    for group, members in groupby(lines(comparison), lambda line: line.group):
        table.add_row(f"[bold]{escape(group)}[/]")
        for line in members:
            table.add_row(f"  {escape(line.label)}", f"[dim]{line.unit}[/]", *_cells(line))
    return table


def _cells(line: Line) -> Iterator[str]:
    for index, text in enumerate(line.texts):
        style = "green" if index in line.best else "" if line.known[index] else "dim"
        yield f"[{style}]{escape(text)}[/]" if style else escape(text)
