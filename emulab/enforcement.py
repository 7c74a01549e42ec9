"""Whether policies are enforced: what became of a flow beside what they say of it.  Pure.

Denied and not delivered is as it should be; delivered although denied is a finding; lost although allowed is one, too, and says
so.  What a data plane does not enforce by design is named with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

from emulab.dataplane import DataPlane
from emulab.model import Cluster
from emulab.oracle import Decision, Oracle
from emulab.packet import Finding, Flow, FlowResult, Place, Verdict

ENFORCED = "enforced"
_LOST = (Verdict.DROPPED, Verdict.REFUSED)


class Enforcement:
    """The policies of a cluster, and how far its data plane goes with them."""

    def __init__(self, cluster: Cluster, plane: DataPlane) -> None:
        self._known = {node.name for node in cluster.nodes}
        self._homes = {endpoint.key: endpoint.node for endpoint in cluster.endpoints}
        self.oracle = Oracle(cluster)
        told = ((policy.key, plane.unenforced(policy)) for policy in cluster.topology.objects.policies)
        self.unenforced = {key: words for key, words in told if words}

    @property
    def active(self) -> bool:
        """Whether there is any policy at all: else nothing is judged."""
        return self.oracle.active

    def findings(self) -> Iterator[Finding]:
        """The policies that this data plane does not enforce, or not wholly."""
        for key, words in self.unenforced.items():
            yield Finding("policy", ENFORCED, words, key)

    def decision(self, flow: Flow) -> Decision:
        """What policies say of a flow; to pods of other nodes a node is the address that it sends from."""
        stranger = flow.source in self._known and self._homes.get(flow.destination) != flow.source
        source = "" if stranger else flow.source
        ends = ((source, flow.source_address), (flow.destination, flow.destination_address))
        here, there = (name if name in self._homes or name in self._known else ip_address(a) for name, a in ends)
        return self.oracle.decide(here, there, flow.protocol, flow.dport, flow.family)

    def judge(self, judged: FlowResult) -> FlowResult:
        """The same flow in the light of what policies say of it."""
        decision = self.decision(judged.flow)
        if decision.allowed:
            findings = tuple(self._although_allowed(one, decision) for one in judged.findings)
            return replace(judged, findings=findings, policy=str(decision))
        if _reached(judged):
            return replace(judged, findings=(self.breach(judged.flow, decision), *judged.findings), policy=str(decision))
        verdict = Verdict.DENIED if judged.verdict in _LOST else judged.verdict
        findings = tuple(one for one in judged.findings if one.field != "delivery")
        return replace(judged, verdict=verdict, findings=findings, policy=str(decision))

    def breach(self, flow: Flow, decision: Decision | None = None) -> Finding:
        """What is wrong with a flow that was delivered although it is denied."""
        decision = decision or self.decision(flow)
        why = self.why_not(decision)
        return Finding("policy", f"denied by {decision.denied_by}", "delivered", f"{flow.destination}:eth0", rule=why)

    def _although_allowed(self, finding: Finding, decision: Decision) -> Finding:
        if finding.field != "delivery":
            return finding
        why = self.why_not(decision)
        words = f"although policy allows it{f' ({why})' if why else ''}"
        return replace(finding, before=f"{finding.before}, {words}")

    def why_not(self, decision: Decision) -> str | None:
        """Why the policies that have a say here are not enforced, if they are not."""
        sides = [decision.denier] if decision.denier else decision.sides
        return next((self.unenforced[key] for side in sides for key in side.policies if key in self.unenforced), None)


def _reached(judged: FlowResult) -> bool:
    """Whether the request came to its destination, be it answered or not."""
    end = Place(judged.flow.destination, "eth0")
    arrived = any(one.place == end and one.direction == "in" and one.leg == "request" for one in judged.observations)
    return arrived or (judged.verdict not in _LOST and not any(one.field == "delivery" for one in judged.findings))
