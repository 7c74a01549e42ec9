"""Who may talk to whom, and who does: what policies say of each pair of pods and port, beside what was measured.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from emulab.model import Cluster
from emulab.oracle import Decision, Oracle
from emulab.packet import Verdict

SCHEMA = "emulab/matrix/1"
ALLOWED, DENIED, SILENT = "allowed", "denied", "nothing listens"
LOST, LET_THROUGH, REWRITTEN = "lost although allowed", "let through although denied", "rewritten"
MISMATCHES = (LET_THROUGH, LOST, REWRITTEN)  # worst first
STATES = (*MISMATCHES, DENIED, SILENT, ALLOWED)


class Column(NamedTuple):
    """A port of a pod."""

    pod: str
    protocol: str
    port: int


class Cell(NamedTuple):
    """One question and its two answers."""

    source: str
    column: Column
    family: int
    decision: Decision
    verdict: Verdict

    @property
    def state(self) -> str:
        """One of `STATES`.  A packet that is refused has come to the pod, where nothing listens."""
        if self.verdict is Verdict.DROPPED:
            return LOST if self.decision.allowed else DENIED
        if not self.decision.allowed:
            return LET_THROUGH
        return {Verdict.REFUSED: SILENT, Verdict.DELIVERED: ALLOWED}.get(self.verdict, REWRITTEN)

    def show(self) -> dict[str, object]:
        return {
            "from": self.source,
            "to": self.column.pod,
            "family": self.family,
            "protocol": self.column.protocol,
            "port": self.column.port,
            "expected": "allowed" if self.decision.allowed else "denied",
            "policy": str(self.decision),
            "verdict": self.verdict.value,
            "state": self.state,
            "agree": self.state not in MISMATCHES,
        }


@dataclass(frozen=True)
class Access:
    """All cells; ``unenforced`` has the policies that the data plane does not enforce, and why."""

    plugin: str
    topology: str
    policies: tuple[str, ...]
    cells: Sequence[Cell]
    unenforced: dict[str, str] = field(default_factory=dict)

    @property
    def mismatches(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.state in MISMATCHES]

    @cached_property
    def columns(self) -> list[Column]:
        return list(dict.fromkeys(cell.column for cell in self.cells))

    @cached_property
    def sources(self) -> list[str]:
        return list(dict.fromkeys(cell.source for cell in self.cells))

    @cached_property
    def by_pair(self) -> dict[tuple[str, Column], list[Cell]]:
        """The families' cells of each source and column."""
        found: dict[tuple[str, Column], list[Cell]] = {}
        for cell in self.cells:
            found.setdefault((cell.source, cell.column), []).append(cell)
        return found

    def counts(self) -> Counter[str]:
        return Counter(cell.state for cell in self.cells)

    def summary(self) -> dict[str, int]:
        denied = sum(not cell.decision.allowed for cell in self.cells)
        allowed = len(self.cells) - denied
        return {"checks": len(self.cells), "allowed": allowed, "denied": denied, "mismatches": len(self.mismatches)}


def columns(cluster: Cluster, wanted: Collection[str] | None, protocol: str | None, port: int | None, usual: int) -> list[Column]:
    """What is asked of each pod: one ``port``, else what it declares (of ``protocol``), else the ``usual`` port."""
    found = []
    for endpoint in cluster.endpoints:
        if wanted is not None and endpoint.key not in wanted:
            continue
        ports = [(one.protocol, one.number) for one in endpoint.pod.ports if protocol in (None, one.protocol)]
        if port is not None or not ports:
            ports = [(protocol or "tcp", port or usual)]
        found += [Column(endpoint.key, *one) for one in dict.fromkeys(ports)]
    return found


def questions(
    cluster: Cluster, asked: Sequence[Column], sources: Collection[str] | None, families: Collection[int]
) -> Iterator[tuple[str, Column, int]]:
    """Each pod to each column but its own, in each family that both have."""
    versions = {endpoint.key: {address.version for address in endpoint.addresses} for endpoint in cluster.endpoints}
    for source in versions:
        if sources is None or source in sources:
            for column in asked:
                if column.pod != source:
                    both = versions[source] & versions[column.pod]
                    yield from ((source, column, family) for family in families if family in both)


def decisions(oracle: Oracle, asked: Sequence[tuple[str, Column, int]]) -> list[Decision]:
    return [oracle.decide(source, to.pod, to.protocol, to.port, family) for source, to, family in asked]
