"""Who reaches whom, at a glance: one symbol for each ordered pair of pods, or of nodes when the pods are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from emulab.packet import BROKEN_PROMISE, LET_THROUGH, Kind, short
from emulab.report.verdict import GOOD, STATES
from emulab.result import RunResult

DELIVERED = STATES[-1]
SYMBOLS = {DELIVERED: "✓", "denied": "⊘", "rewritten": "R", "dropped": "✗", "refused": "!", "duplicated": "D"}
SYMBOLS |= {LET_THROUGH: "‼", BROKEN_PROMISE: "~"}
MANY_PODS = 20
MAX_NOTES = 10


@dataclass
class Matrix:
    """``rows[i][j]`` is (text, worst state) from ``names[i]`` to ``names[j]``; ``notes`` tell what a symbol cannot."""

    names: Sequence[str]
    rows: list[list[tuple[str, str]]]
    notes: list[str] = field(default_factory=list)

    def legend(self) -> str:
        """The symbols that occur, explained."""
        met = {state for row in self.rows for _, state in row}
        return "  ".join(f"{SYMBOLS[name]} {name}" for name in reversed(STATES) if name in met)

    def bad(self) -> Iterator[tuple[str, str, str]]:
        """(source, destination, text) of the pairs that are not all well."""
        for source, row in zip(self.names, self.rows, strict=True):
            for destination, (text, state) in zip(self.names, row, strict=True):
                if state not in ("", *GOOD):
                    yield source, destination, text


def of(result: RunResult) -> Matrix:
    """Pods by pods, or nodes by nodes with counts for more than `MANY_PODS`."""
    return pods(result) if len(result.cluster.endpoints) <= MANY_PODS else nodes(result)


def pods(result: RunResult) -> Matrix:
    """A symbol stands for all protocols and families of a pair; where they differ, for the worst, with a numbered note."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for judged in result.flows:
        flow = judged.flow
        if flow.kind is Kind.POD:
            shapes = found.setdefault((flow.source, flow.destination), {}).setdefault(judged.state, [])
            shapes.append(f"{flow.protocol}/IPv{flow.family}")
    patterns: dict[str, int] = {}

    def cell(shapes: dict[str, list[str]]) -> tuple[str, str]:
        if not shapes:
            return "·", ""
        worst = min(shapes, key=STATES.index)
        if len(shapes) == 1:
            return SYMBOLS[worst], worst
        pattern = ", ".join(f"{' '.join(shapes[name])} {name}" for name in STATES if name in shapes)
        return f"{SYMBOLS[worst]}{patterns.setdefault(pattern, len(patterns) + 1)}", worst

    keys = [endpoint.key for endpoint in result.cluster.endpoints]
    rows = [[cell(found.get((source, destination), {})) for destination in keys] for source in keys]
    return Matrix([short(key) for key in keys], rows, [f"{number}: {pattern}" for pattern, number in patterns.items()])


def nodes(result: RunResult) -> Matrix:
    """A cell counts the flows between the pods of two nodes: all of them, or those that went wrong of all."""
    found = result.flows.by_nodes({endpoint.key: endpoint.node for endpoint in result.cluster.endpoints})
    names = [node.name for node in result.cluster.nodes]
    matrix = Matrix(names, [])
    for source in names:
        row = []
        for destination in names:
            counts = Counter({state: n for state, n in found.get((source, destination), Counter()).items() if n})
            worst = min(counts, key=STATES.index, default="")
            wrong, total = counts.total() - sum(counts[name] for name in GOOD), counts.total()
            row.append((f"{SYMBOLS[worst]} {f'{wrong}/' if wrong else ''}{total}" if worst else "·", worst))
            if len(counts) > 1:
                told = ", ".join(f"{counts[name]:,} {name}" for name in STATES if counts[name])
                matrix.notes.append(f"{source} -> {destination}: {told}")
        matrix.rows.append(row)
    if len(matrix.notes) > MAX_NOTES:
        matrix.notes[MAX_NOTES:] = [f"and {len(matrix.notes) - MAX_NOTES} more pairs of nodes"]
    return matrix
