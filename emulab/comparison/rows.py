"""A comparison as rows: what is compared, in which unit, which direction is better, and a cell per column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from typing import NamedTuple, Union

from emulab.comparison import BEYOND, FAR, KINDS, NEAR, Comparison, Counts, Measured, Way
from emulab.packet import INITIAL_TTL

Value = Union[float, int, str, bool, None]
LOWER, HIGHER = "lower", "higher"
NOTHING = "not measured"
_NOUNS = {
    "devices": ("device", "devices"),
    "routes": ("route", "routes"),
    "fdb": ("FDB", "FDB"),
    "neighbours": ("neighbour", "neighbours"),
    "rules": ("rule", "rules"),
    "elements": ("element", "elements"),
}
WIRE, TIMES, BROKEN, POLICIES = "packets", "time, on this machine", "when something breaks", "policies"
HELD, HERE, ELSEWHERE, NODE = (
    "held by each node",
    "more with each pod on the node",
    "more with each pod elsewhere",
    "more with each node and its first pod",
)
GROWTH = (HERE, ELSEWHERE, NODE)


@dataclass(frozen=True)
class Cell:
    """``value`` as a number (in the row's unit), a truth or words; None: there is none, and ``text`` says why."""

    value: Value
    text: str


@dataclass(frozen=True)
class Row:
    """One figure of all columns.  ``better`` is "lower", "higher" or "" (neither); ``family`` 4, 6 or None."""

    key: str
    group: str
    label: str
    unit: str
    better: str
    cells: tuple[Cell, ...]
    family: int | None = None
    timed: bool = False  # differs from run to run

    @property
    def numbers(self) -> list[float | None]:
        """The cells' numbers, None where there is none."""
        return [
            float(cell.value) if isinstance(cell.value, (int, float)) and not isinstance(cell.value, bool) else None
            for cell in self.cells
        ]

    @property
    def same(self) -> bool:
        """Whether all columns with a number have the same one: for times, within a quarter."""
        found = [number for number in self.numbers if number is not None]
        return len(found) < 2 or max(found) <= min(found) * (1.25 if self.timed else 1.0)

    @property
    def best(self) -> list[int]:
        """The columns that are best, by number; none where all are alike or nothing is better."""
        found = [(number, index) for index, number in enumerate(self.numbers) if number is not None]
        if not self.better or self.same:
            return []
        best = min(found)[0] if self.better == LOWER else max(found)[0]
        slack = 1.25 if self.timed else 1.0
        return [index for number, index in found if best <= number * slack and number <= best * slack]


def rows(comparison: Comparison) -> list[Row]:
    """All of them, in the order in which they are told."""
    made = []
    for figure in _figures(comparison):
        shown = [figure.show(column.measured) if column.measured else None for column in comparison.columns]
        if any(shown):
            cells = tuple(cell or Cell(None, NOTHING) for cell in shown)
            key, group, label, _, unit, better, family, timed = figure
            made.append(Row(key, group, label, unit, better, cells, family, timed))
    return made


@dataclass(frozen=True)
class Line:
    """A row as it is told: both families in one, "50 / 70" where they differ.  ``best`` are numbers of columns."""

    key: str
    group: str
    label: str
    unit: str
    texts: tuple[str, ...]
    known: tuple[bool, ...]  # whether there is a value
    best: tuple[int, ...]


def lines(comparison: Comparison) -> list[Line]:
    """All rows as they are told; those in which nothing grows are left out."""
    by_key: dict[str, list[Row]] = {}
    for row in rows(comparison):
        by_key.setdefault(row.key, []).append(row)
    return [_line(some) for some in by_key.values() if some[0].group not in GROWTH or any(some[0].numbers)]


def _line(some: Sequence[Row]) -> Line:
    first, columns = some[0], range(len(some[0].cells))
    texts = [list(dict.fromkeys(row.cells[index].text for row in some)) for index in columns]
    differ = any(len(found) > 1 for found in texts)
    label = f"{first.label}, {' / '.join(f'IPv{row.family}' for row in some)}" if differ else first.label
    best = tuple(index for index in columns if all(index in row.best for row in some))
    known = tuple(all(row.cells[index].value is not None for row in some) for index in columns)
    return Line(first.key, first.group, label, first.unit, tuple(" / ".join(found) for found in texts), known, best)


Show = Callable[[Measured], Union[Cell, None]]


class _Figure(NamedTuple):
    """A row to be: how a column's cell is made of what was measured."""

    key: str
    group: str
    label: str
    show: Show
    unit: str = ""
    better: str = ""
    family: int | None = None
    timed: bool = False


def _figures(comparison: Comparison) -> Iterator[_Figure]:
    measured = [column.measured for column in comparison.columns if column.measured]
    hows = [how for how in (NEAR, FAR, BEYOND) if any(how == key[0] for one in measured for key in one.ways)]
    ways = [(how, family) for how in hows for family in comparison.families]
    yield _Figure("reached", WIRE, "flows among pods, unchanged", _reached)
    for how, family in ways:
        yield from _of_way(how, family)
    for kind, label in KINDS.items():
        yield _Figure(f"held/{kind}", HELD, label, partial(_held, kind=kind), better=LOWER)
    yield _Figure("pods/neighbours_learned", HELD, "neighbours in each pod, learned", _in_pods, better=LOWER)
    for group, key, what, elsewhere in (
        (HERE, "pod", "pod", False),
        (ELSEWHERE, "pod-elsewhere", "pod", True),
        (NODE, "node", "node", True),
    ):
        for kind, label in KINDS.items():
            slope = partial(_slope, what=what, kind=kind, elsewhere=elsewhere)
            yield _Figure(f"growth/{key}/{kind}", group, label, slope, better=LOWER)
    yield _Figure("setup/lab", TIMES, "set-up of the lab", partial(_setup, index=0), "ms", LOWER, timed=True)
    yield _Figure("setup/data-plane", TIMES, "of that, the data plane", partial(_setup, index=1), "ms", LOWER, timed=True)
    for how, family in ways:
        for quantile in ("median", "p99"):
            trip = partial(_round_trip, way=(how, family), quantile=quantile)
            yield _Figure(f"rtt/{how}/{quantile}", TIMES, f"round trip, {how}, {quantile}", trip, "µs", LOWER, family, True)
    for how in hows:
        stream = partial(_throughput, how=how)
        yield _Figure(f"throughput/{how}", TIMES, f"TCP throughput, {how}", stream, "Gbit/s", HIGHER, timed=True)
    for title in dict.fromkeys(tried.title for one in measured for tried in one.policies):
        yield _Figure(f"policy/{title}", POLICIES, title, partial(_policy, title=title))
    yield _Figure("death/others", BROKEN, "a node dies: flows among the others", _survivors)
    yield _Figure("death/left", BROKEN, "a node dies: what others hold of it", _left, better=LOWER)
    yield _Figure("death/told", BROKEN, "a node dies: senders to its pods get", _told)
    for family in comparison.families:
        yield _Figure("cut", BROKEN, "a link is cut: its two nodes talk", partial(_cut, family=family), family=family)
    for family in comparison.families:
        silence = partial(_gap, family=family)
        yield _Figure("cut/gap", BROKEN, "a link is cut: silence until then", silence, "ms", LOWER, family, True)


def _of_way(how: str, family: int) -> Iterator[_Figure]:
    def of(show: Callable[[Way], Cell | None]) -> Show:
        def cell(measured: Measured) -> Cell | None:
            way = measured.ways.get((how, family))
            return None if way is None else Cell(None, way.lost.partition(", by ")[0]) if way.lost else show(way)

        return cell

    if how != NEAR:
        around = of(lambda way: Cell(way.encapsulation, way.encapsulation))
        yield _Figure(f"encapsulation/{how}", WIRE, f"encapsulation, {how}", around, family=family)
        overhead = of(lambda way: _number(way.overhead))
        yield _Figure(f"overhead/{how}", WIRE, f"overhead, {how}", overhead, "bytes", LOWER, family)
    yield _Figure(f"mtu/{how}", WIRE, f"MTU, {how}", of(lambda way: _number(way.mtu)), "bytes", HIGHER, family)
    yield _Figure(f"hops/{how}", WIRE, f"routers passed, {how}", of(_hops), "", LOWER, family)
    yield _Figure(f"ttl/{how}", WIRE, f"TTL on arrival, {how}", of(lambda way: _number(way.ttl)), family=family)


def _hops(way: Way) -> Cell | None:
    return None if way.ttl is None else _number(INITIAL_TTL - way.ttl)


def _held(measured: Measured, kind: str) -> Cell | None:
    return _number(_mean(measured.busy, kind)) or _uncounted(measured.busy)


def _in_pods(measured: Measured) -> Cell | None:
    return _number(_mean(measured.pods, "neighbours_learned")) or _uncounted(measured.pods)


def _setup(measured: Measured, index: int) -> Cell | None:
    return _number(median(build[index] for build in measured.builds) * 1000, 0)


def _round_trip(measured: Measured, way: tuple[str, int], quantile: str) -> Cell | None:
    found = measured.round_trips.get(way)
    if found is None:
        return None
    return _number(getattr(found, quantile) * 1e6) if found.answered else Cell(None, "no answer")


def _throughput(measured: Measured, how: str) -> Cell | None:
    found = next((one for (there, _), one in measured.throughput.items() if there == how), None)
    if found is None:
        return None
    return Cell(None, found.reason) if found.rate is None else _number(found.rate / 1e9, 2)


def _reached(measured: Measured) -> Cell:
    good, of = measured.reached
    return Cell(good == of, f"{good:,} of {of:,}")


def _mean(counts: Mapping[str, Counts], kind: str) -> float | None:
    return mean(one[kind] for one in counts.values()) if counts and all(kind in one for one in counts.values()) else None


def _uncounted(counts: Mapping[str, Counts]) -> Cell | None:
    """Neighbours of large clusters are entered beforehand (`emulab.probe.neighbours`), so that nothing can be said of them."""
    return Cell(None, "not counted") if counts else None


def _slope(measured: Measured, what: str, kind: str, elsewhere: bool) -> Cell | None:
    found = next((growth for growth in measured.growth if growth.what == what), None)
    if found is None:
        return Cell(None, measured.no_growth) if measured.no_growth else None
    value = found.slope(kind, elsewhere)
    counted = all(kind in counts for counts in measured.every_count())
    return _number(value, 2, "+") if value is not None else None if counted else Cell(None, "not counted")


def _policy(measured: Measured, title: str) -> Cell | None:
    found = next((tried for tried in measured.policies if tried.title == title), None)
    if found is None:
        return None
    if not found.of:
        return Cell(None, "nothing passed without it")
    if found.enforced:
        return Cell(True, "enforced")
    words = "not enforced" if found.passed == found.of else f"let {found.passed} of {found.of} pass"
    return Cell(False, words if found.words else f"{words}, though it should be")


def _survivors(measured: Measured) -> Cell | None:
    death = measured.death
    if death is None:
        return None
    return Cell(death.passed == death.of, "all go on" if death.passed == death.of else f"{death.passed} of {death.of}")


def _left(measured: Measured) -> Cell | None:
    if measured.death is None:
        return None
    left = {kind: number for kind, number in measured.death.kept.items() if number}
    words = ", ".join(f"{round(number, 1):g} {_NOUNS[kind][number != 1]}" for kind, number in left.items())
    return Cell(round(sum(left.values()), 2), words or "nothing")


def _told(measured: Measured) -> Cell | None:
    if measured.death is None:
        return None
    words = {"": "answers", "lost": "no answer"}.get(measured.death.told, measured.death.told)
    return Cell(words, words)


def _cut(measured: Measured, family: int) -> Cell | None:
    found = measured.cuts.get(family)
    if found is None:
        return None
    if found.gap is None:
        return Cell(False, "no more")
    return Cell(True, f"over {', '.join(found.over)}" if found.over else "as before")


def _gap(measured: Measured, family: int) -> Cell | None:
    found = measured.cuts.get(family)
    if found is None:
        return None
    return Cell(None, "no end") if found.gap is None else _number(found.gap * 1000, 0)


def _number(value: float | None, digits: int = 1, sign: str = "") -> Cell | None:
    if value is None:
        return None
    rounded = round(value, digits) or 0.0
    whole = int(rounded) if rounded == int(rounded) else rounded
    return Cell(whole, f"{whole:{sign if whole else ''},}")
