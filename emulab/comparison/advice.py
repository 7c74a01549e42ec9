"""How to choose: sentences that follow from the figures, and from nothing else.

A sentence is there only where columns differ in what it is about; for what was not measured there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from emulab.comparison import BEYOND, FAR, Comparison, Measured
from emulab.comparison.growth import FUTURE, extrapolated
from emulab.comparison.rows import Row, rows

T = TypeVar("T")


def advice(comparison: Comparison) -> list[str]:
    """The sentences, the most decisive first."""
    measured = {column.name: column.measured for column in comparison.columns if column.measured}
    if len(measured) < 2:
        return []
    told = [*_reached(measured), *_policies(measured), *_wire(measured), *_cut(measured), *_death(measured)]
    return [*told, *_state(comparison), *_times(comparison)]


def _reached(measured: Mapping[str, Measured]) -> Iterator[str]:
    for name, one in measured.items():
        good, of = one.reached
        if good < of:
            yield f"{name} does not bring all packets between pods to their destination unchanged: {good:,} of {of:,} flows."


def _policies(measured: Mapping[str, Measured]) -> Iterator[str]:
    does = {
        name: tuple(tried.title for tried in one.policies if tried.enforced) for name, one in measured.items() if one.policies
    }
    if len(set(does.values())) < 2:
        return
    titles = next(tuple(tried.title for tried in one.policies) for one in measured.values() if one.policies)
    parts = []
    for enforced, names in _groups(does).items():
        verb = _verb(names, "enforces", "enforce")
        what = "all policies that were tried" if enforced == titles else _listed(enforced) if enforced else "none of them"
        parts.append((len(enforced), f"{_listed(names)} {verb} {what}"))
    yield f"Policies: {'; '.join(words for _, words in sorted(parts, key=lambda part: -part[0]))}."


def _wire(measured: Mapping[str, Measured]) -> Iterator[str]:
    for how in (FAR, BEYOND):
        added = {}
        for name, one in measured.items():
            by_family = {family: way for (there, family), way in one.ways.items() if there == how and way.overhead is not None}
            if by_family:
                added[name] = tuple((family, way.overhead or 0, way.mtu or 0) for family, way in sorted(by_family.items()))
        if len({tuple(figure[1:] for figure in figures) for figures in added.values()}) < 2:
            continue
        parts = []
        for figures, names in sorted(_groups(added).items(), key=lambda group: sum(figure[1] for figure in group[0])):
            cost = _by_family({family: overhead for family, overhead, _ in figures}, "nothing")
            mtu = _by_family({family: size for family, _, size in figures}, "?")
            parts.append(
                f"{_listed(names)} {_verb(names, 'adds', 'add')} {cost} to a packet and {_verb(names, 'carries', 'carry')} {mtu}"
            )
        where = "another node" if how == FAR else "another segment"
        yield f"Bytes on the way to {where}: {'; '.join(parts)}."


def _by_family(figures: Mapping[int, int], zero: str) -> str:
    if len(set(figures.values())) == 1:
        value = next(iter(figures.values()))
        return f"{value:,} bytes" if value else zero
    return " and ".join(f"{value:,} bytes (IPv{family})" for family, value in figures.items())


def _cut(measured: Mapping[str, Measured]) -> Iterator[str]:
    around = {name: all(cut.gap is not None for cut in one.cuts.values()) for name, one in measured.items() if one.cuts}
    if len(set(around.values())) < 2:
        return
    good, bad = ([name for name, value in around.items() if value is wanted] for wanted in (True, False))
    yield (
        f"When two nodes lose sight of each other, {_listed(good)} {_verb(good, 'goes', 'go')} around over a third one; "
        f"with {_listed(bad)} their pods are parted until the link is back."
    )


def _death(measured: Mapping[str, Measured]) -> Iterator[str]:
    left = {name: round(sum(one.death.kept.values()), 1) for name, one in measured.items() if one.death}
    for name, one in measured.items():
        if one.death and one.death.passed < one.death.of:
            yield f"With {name}, a dead node takes others with it: {one.death.passed} of {one.death.of} flows among them pass."
    if len(set(left.values())) < 2:
        return
    parts = [
        f"{number:g} {'entry' if number == 1 else 'entries'} with {_listed(names)}" if number else f"none with {_listed(names)}"
        for number, names in sorted(_groups(left).items())
    ]
    yield f"Of a node that died each other one keeps {_listed(parts)}, until the cluster is told that it is gone."


def _state(comparison: Comparison) -> Iterator[str]:
    columns = [column for column in comparison.columns if column.measured]
    found: list[Row] = rows(comparison)
    for group, words in (
        ("growth/pod-elsewhere/", "With each pod anywhere else in the cluster"),
        ("growth/node/", "With each node (and its first pod)"),
    ):
        of_group = [row for row in found if row.key.startswith(group)]
        sums = {
            column.name: round(sum(row.numbers[index] or 0.0 for row in of_group), 1)
            for index, column in enumerate(comparison.columns)
            if column.measured and of_group and of_group[0].numbers[index] is not None
        }
        if len(set(sums.values())) > 1:
            parts = [f"{number:g} with {_listed(names)}" for number, names in sorted(_groups(sums).items())]
            yield f"{words} every node holds more objects: {_listed(parts)}."
    sizes = {
        column.name: sum(extrapolated(comparison, column.measured, *FUTURE).values()) for column in columns if column.measured
    }
    known = sorted((number, name) for name, number in sizes.items() if number)
    if len(known) > 1 and known[0][0] < known[-1][0]:
        parts = [f"{_rounded(number)} with {name}" for number, name in known]
        nodes, pods = FUTURE
        yield f"Extrapolated to {nodes} nodes with {pods} pods each, a node would hold some {_listed(parts)} objects in all."


def _rounded(number: float) -> str:
    """To two digits: it is an estimate."""
    return f"{float(f'{number:.2g}'):,.0f}"


def _times(comparison: Comparison) -> Iterator[str]:
    wanted: list[tuple[str, str, Callable[[float], str]]] = [
        (f"rtt/{FAR}/median", "A round trip to another node", lambda value: f"{value:.0f} µs"),
        (f"throughput/{FAR}", "One TCP stream to another node", lambda value: f"{value:.1f} Gbit/s"),
    ]
    found = rows(comparison)
    for key, words, show in wanted:
        row = next((row for row in found if row.key == key), None)
        if row is None or sum(number is not None for number in row.numbers) < 2:
            continue
        if row.same:
            yield f"{words} is alike with all of them, within a quarter, on this machine."
            continue
        best = [comparison.columns[index].name for index in row.best]
        named = zip(comparison.columns, row.numbers, strict=True)
        rest = [
            f"{show(number)} with {column.name}" for column, number in named if number is not None and column.name not in best
        ]
        lead = _listed([f"{show(row.numbers[index] or 0.0)} with {comparison.columns[index].name}" for index in row.best])
        yield f"{words}, on this machine: {lead}, against {_listed(rest)}."


def _groups(values: Mapping[str, T]) -> dict[T, list[str]]:
    """The names by value, in the order of names."""
    found: dict[T, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return found


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many
