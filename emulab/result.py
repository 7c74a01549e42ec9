"""What a run found out: the value that every report is a function of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from emulab.model import Cluster, Endpoint
from emulab.packet import Finding, Flow, FlowResult, Kind, MtuResult, Verdict


@dataclass(frozen=True)
class Block:
    """All pod pairs of one family and protocol in compact form.

    ``delivered[destination][source]`` is 1 where a flow arrived as sent; ``dports`` holds the destination port by source.
    """

    endpoints: Sequence[Endpoint]
    family: int
    protocol: str
    sport: int
    dports: Sequence[int]
    delivered: Sequence[bytes | bytearray]

    def __len__(self) -> int:
        return sum(row.count(1) for row in self.delivered)

    def __iter__(self) -> Iterator[FlowResult]:
        addresses = [endpoint.address(self.family).packed for endpoint in self.endpoints]
        number = 0
        for j, row in enumerate(self.delivered):
            there, destination = self.endpoints[j].key, addresses[j]
            for i, arrived in enumerate(row):
                if arrived == 1:
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
                    yield FlowResult(flow, Verdict.DELIVERED)

    def by_nodes(self) -> Iterator[tuple[str, str, int]]:
        """(source node, destination node, delivered flows), with repetitions."""
        groups: dict[str, list[int]] = {}
        for index, endpoint in enumerate(self.endpoints):
            groups.setdefault(endpoint.node, []).append(index)
        for j, row in enumerate(self.delivered):
            for node, members in groups.items():
                first, last = members[0], members[-1] + 1
                if last - first == len(members):
                    yield node, self.endpoints[j].node, row.count(1, first, last)
                else:
                    yield node, self.endpoints[j].node, sum(row[i] == 1 for i in members)


@dataclass
class Flows:
    """The flows of a run: those ``recorded`` with all that was seen of them, and ``blocks`` of delivered ones."""

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
        counts[Verdict.DELIVERED] += sum(map(len, self.blocks))
        return counts

    def by_nodes(self, nodes: dict[str, str]) -> dict[tuple[str, str], Counter[Verdict]]:
        """Pod-to-pod flows by (source node, destination node); ``nodes`` tells the node of each pod."""
        found: dict[tuple[str, str], Counter[Verdict]] = {}
        for result in self.recorded:
            flow = result.flow
            if flow.kind is Kind.POD:
                found.setdefault((nodes[flow.source], nodes[flow.destination]), Counter())[result.verdict] += 1
        for block in self.blocks:
            for source, destination, count in block.by_nodes():
                found.setdefault((source, destination), Counter())[Verdict.DELIVERED] += count
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
        return (result for result in self.flows.recorded if result.findings)

    @property
    def ok(self) -> bool:
        """No finding anywhere: exit code 0."""
        return not self.findings and not any(m.findings for m in self.mtu) and next(self.bad(), None) is None


_ORDER = (Verdict.DELIVERED, Verdict.REWRITTEN, Verdict.DROPPED, Verdict.REFUSED, Verdict.DUPLICATED)
