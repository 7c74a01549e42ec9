"""What a run found out: the value that every report is a function of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from emulab.model import Cluster, Endpoint
from emulab.packet import LET_THROUGH, Finding, Flow, FlowResult, Kind, MtuResult, Verdict


@dataclass(frozen=True)
class Block:
    """All pod pairs of one family and protocol in compact form.

    ``delivered[destination][source]`` is 1 where a flow arrived as sent, 0 where nothing came; ``dports`` holds the destination
    port by source.  ``denied`` is 1 where policies do not let a flow pass; then ``breach`` makes the finding, if it did.
    """

    endpoints: Sequence[Endpoint]
    family: int
    protocol: str
    sport: int
    dports: Sequence[int]
    delivered: Sequence[bytes | bytearray]
    denied: Sequence[bytes] = ()
    breach: Callable[[Flow], Finding] | None = None

    def __len__(self) -> int:
        return sum(self.states.values())

    @cached_property
    def states(self) -> Counter[str]:
        """How many flows ended how: those that are told of here."""
        counts: Counter[str] = Counter()
        for _, _, state, number in self.by_nodes():
            counts[state] += number
        return counts

    def _state(self, destination: int, source: int) -> str | None:
        arrived = self.delivered[destination][source]
        if self.denied and self.denied[destination][source]:
            return {0: Verdict.DENIED.value, 1: LET_THROUGH}.get(arrived)
        return Verdict.DELIVERED.value if arrived == 1 else None

    def breaches(self) -> Iterator[FlowResult]:
        """The flows that were delivered although they are denied."""
        return (result for result in self if result.findings) if self.states[LET_THROUGH] else iter(())

    def __iter__(self) -> Iterator[FlowResult]:
        addresses = [endpoint.address(self.family).packed for endpoint in self.endpoints]
        number = 0
        for j, row in enumerate(self.delivered):
            there, destination = self.endpoints[j].key, addresses[j]
            for i in range(len(row)):
                state = self._state(j, i)
                if state:
                    number += 1
                    flow = Flow(
                        number,
                        Kind.POD,
                        self.endpoints[i].key,
                        there,
                        self.family,
                        self.protocol,
                        addresses[i],
                        destination,
                        self.sport,
                        self.dports[i],
                    )
                    findings = (self.breach(flow),) if state == LET_THROUGH and self.breach else ()
                    denied = state == Verdict.DENIED.value
                    yield FlowResult(flow, Verdict.DENIED if denied else Verdict.DELIVERED, findings=findings)

    def by_nodes(self) -> Iterator[tuple[str, str, str, int]]:
        """(source node, destination node, state, flows), with repetitions."""
        groups: dict[str, list[int]] = {}
        for index, endpoint in enumerate(self.endpoints):
            groups.setdefault(endpoint.node, []).append(index)
        for j, row in enumerate(self.delivered):
            for node, members in groups.items():
                there = self.endpoints[j].node
                if self.denied:
                    states = Counter(state for i in members if (state := self._state(j, i)))
                    yield from ((node, there, state, number) for state, number in states.items())
                    continue
                first, last = members[0], members[-1] + 1
                if last - first == len(members):
                    yield node, there, Verdict.DELIVERED.value, row.count(1, first, last)
                else:
                    yield node, there, Verdict.DELIVERED.value, sum(row[i] == 1 for i in members)


@dataclass
class Flows:
    """The flows of a run: those ``recorded`` with all that was seen of them, and ``blocks`` of those that are as they should."""

    recorded: list[FlowResult] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def __iter__(self) -> Iterator[FlowResult]:
        yield from self.recorded
        for block in self.blocks:
            yield from block

    def __len__(self) -> int:
        return len(self.recorded) + sum(map(len, self.blocks))

    def counts(self) -> Counter[Verdict]:
        """How many flows ended in each verdict."""
        counts = Counter(result.verdict for result in self.recorded)
        for block in self.blocks:
            counts[Verdict.DENIED] += block.states[Verdict.DENIED.value]
            counts[Verdict.DELIVERED] += len(block) - block.states[Verdict.DENIED.value]
        return counts

    def by_nodes(self, nodes: dict[str, str]) -> dict[tuple[str, str], Counter[str]]:
        """Pod-to-pod flows by (source node, destination node) and state; ``nodes`` tells the node of each pod."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for result in self.recorded:
            flow = result.flow
            if flow.kind is Kind.POD:
                found.setdefault((nodes[flow.source], nodes[flow.destination]), Counter())[result.state] += 1
        for block in self.blocks:
            for source, destination, state, count in block.by_nodes():
                found.setdefault((source, destination), Counter())[state] += count
        return found


@dataclass
class RunResult:
    """A whole run.  ``timings`` in seconds by phase, in order; ``findings`` belong to the cluster rather than to a flow."""

    plugin: str
    options: dict[str, object]
    cluster: Cluster
    flows: Flows = field(default_factory=Flows)
    mtu: list[MtuResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    taps: str = "every"
    whole: bool = True  # every pod pair was probed

    def summary(self) -> dict[str, int]:
        """Counts: flows, and of them each verdict."""
        counts = self.flows.counts()
        return {"flows": sum(counts.values()), **{verdict.value: counts[verdict] for verdict in _ORDER}}

    def bad(self) -> Iterator[FlowResult]:
        """The flows with findings."""
        yield from (result for result in self.flows.recorded if result.findings)
        for block in self.flows.blocks:
            yield from block.breaches()

    @property
    def ok(self) -> bool:
        """No finding anywhere: exit code 0."""
        return not self.findings and not any(m.findings for m in self.mtu) and next(self.bad(), None) is None


_ORDER = (Verdict.DELIVERED, Verdict.REWRITTEN, Verdict.DROPPED, Verdict.REFUSED, Verdict.DUPLICATED, Verdict.DENIED)
