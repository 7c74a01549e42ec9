"""What of a comparison is worth a picture: bars as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import mean

from emulab.comparison import FAR, Comparison
from emulab.comparison.growth import FUTURE, extrapolated
from emulab.comparison.rows import HIGHER, LOWER, TIMES, Row, rows

# Kinds of object that are drawn in one colour.
PARTS = {
    "devices": ("devices",),
    "routes": ("routes",),
    "FDB entries": ("fdb", "fdb_learned"),
    "neighbours": ("neighbours", "neighbours_learned"),
    "nftables rules and elements": ("rules", "elements"),
}
_KEYS = {f"overhead/{FAR}": "", f"mtu/{FAR}": "", f"rtt/{FAR}/median": "p99", f"throughput/{FAR}": "", "setup/lab": ""}


@dataclass(frozen=True)
class Part:
    """A piece of a bar: ``share`` of the longest bar's length, from ``start``; ``number`` tells its colour."""

    name: str
    text: str
    start: float
    share: float
    number: int = 0


@dataclass(frozen=True)
class Bar:
    """A column's figure; without ``parts`` there is none, and ``text`` says why."""

    label: str
    text: str
    parts: tuple[Part, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Chart:
    """Bars that begin at zero; ``better`` is "lower is better", "higher is better" or ""; ``parts`` are names of colours."""

    title: str
    bars: tuple[Bar, ...]
    better: str = ""
    note: str = ""
    parts: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The whole chart in words."""
        said = [f"{bar.label}: {bar.text}" + "".join(f", {part.text}" for part in bar.parts if self.parts) for bar in self.bars]
        return f"{self.title}. {'; '.join(said)}."


def charts(comparison: Comparison) -> list[Chart]:
    """Those for which there are figures."""
    found: dict[str, list[Row]] = {}
    for row in rows(comparison):
        found.setdefault(row.key, []).append(row)
    made = [_of_rows(comparison, found[key]) for key in _KEYS if key in found]
    held = {
        column.name: {kind: mean(counts[kind] for counts in column.measured.busy.values()) for kind in comparison.kinds}
        for column in comparison.columns
        if column.measured and column.measured.busy
    }
    nodes, pods = FUTURE
    future = {c.name: extrapolated(comparison, c.measured, *FUTURE) for c in comparison.columns if c.measured}
    size = f"{comparison.nodes} nodes, {comparison.pods} pods"
    made.append(_stacked(f"Objects held by each node: {size}", held, "after all pods have talked"))
    estimate = "extrapolated from the growth that was measured"
    made.append(_stacked(f"The same with {nodes} nodes and {pods} pods on each", future, estimate))
    return [chart for chart in made if any(bar.parts for bar in chart.bars)]


def _of_rows(comparison: Comparison, some: list[Row]) -> Chart:
    """A bar for each column, or for each family of it where families differ."""
    first = some[0]
    alike = len(some) < 2 or all(row.numbers == first.numbers for row in some[1:])
    shown = some[:1] if alike else some
    longest = max((number for row in shown for number in row.numbers if number), default=1.0)
    bars = []
    for index, column in enumerate(comparison.columns):
        for row in shown:
            number, cell = row.numbers[index], row.cells[index]
            label = column.name if alike else f"{column.name}, IPv{row.family}"
            text = cell.text if number is None else f"{cell.text} {row.unit}"
            parts = () if number is None else (Part(column.name, text, 0.0, number / longest),)
            bars.append(Bar(label, text, parts, index in row.best))
    better = {LOWER: "lower is better", HIGHER: "higher is better"}.get(first.better, "")
    title = first.label[:1].upper() + first.label[1:]
    return Chart(title, tuple(bars), better, "on this machine" if first.group == TIMES else "")


def _stacked(title: str, held: Mapping[str, Mapping[str, float]], note: str) -> Chart:
    totals = {name: sum(kinds.values()) for name, kinds in held.items()}
    longest = max(totals.values(), default=0.0) or 1.0
    least = min((total for total in totals.values() if total), default=0.0)
    bars = tuple(
        Bar(
            name,
            f"{_rounded(totals[name])}" if kinds else "not measured",
            tuple(_parts(kinds, longest)) if kinds else (),
            totals[name] == least < longest,
        )
        for name, kinds in held.items()
    )
    return Chart(title, bars, "lower is better", note, tuple(PARTS))


def _parts(kinds: Mapping[str, float], longest: float) -> Iterator[Part]:
    start = 0.0
    for number, (name, members) in enumerate(PARTS.items()):
        value = sum(kinds.get(kind, 0.0) for kind in members)
        if value > 0:
            yield Part(name, f"{_rounded(value)} {name}", start / longest, value / longest, number)
        start += value


def _rounded(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 1000 else f"{round(value, 1):g}"
