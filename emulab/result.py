"""What a run found out: the value that every report is a function of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from emulab.model import Cluster
from emulab.packet import Finding, FlowResult, MtuResult, Verdict


@dataclass
class RunResult:
    """A whole run.  ``timings`` in seconds by phase, in order; ``findings`` belong to the cluster rather than to a flow.

    ``flows`` may be any iterable that can be walked more than once; a large run keeps its healthy flows in a compact form.
    """

    plugin: str
    options: dict[str, object]
    cluster: Cluster
    flows: Iterable[FlowResult] = ()
    mtu: list[MtuResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    taps: str = "every"

    def summary(self) -> dict[str, int]:
        """Counts: flows, and of them each verdict."""
        counts = Counter(result.verdict for result in self.flows)
        return {"flows": sum(counts.values()), **{verdict.value: counts[verdict] for verdict in _ORDER}}

    def bad(self) -> Iterator[FlowResult]:
        """The flows with findings."""
        return (result for result in self.flows if result.findings)

    @property
    def ok(self) -> bool:
        """No finding anywhere: exit code 0."""
        return not self.findings and not any(m.findings for m in self.mtu) and next(self.bad(), None) is None


_ORDER = (Verdict.DELIVERED, Verdict.REWRITTEN, Verdict.DROPPED, Verdict.REFUSED, Verdict.DUPLICATED)
