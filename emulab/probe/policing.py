"""Why a flow passes or does not: what policies say, and which rules one packet meets."""

from __future__ import annotations

from emulab.enforcement import Enforcement
from emulab.evidence import Evidence, Proof
from emulab.kernel import nftrace
from emulab.packet import Place
from emulab.probe import deciders
from emulab.probe.scene import Scene
from emulab.probe.tracing import trace
from emulab.probe.wanted import Running


def why(
    lab: Running,
    source: str,
    destination: str,
    *,
    family: int | None = None,
    protocol: str = "tcp",
    port: int | None = None,
    timeout: float = 1.0,
) -> Proof:
    """One packet as `trace` sends it, beside the words of the oracle.

    ``source`` and ``destination`` are pod keys, node names or "internet".  Raises `InputError` for what cannot be sent.
    """
    nodes = {endpoint.key: endpoint.node for endpoint in lab.cluster.endpoints}
    ends = [name for name in (nodes.get(source, source), nodes.get(destination, destination)) if name in lab.namespaces]
    found: list[Evidence] = []

    def look(scene: Scene, rules: nftrace.Watch) -> None:
        found.extend(deciders.evidence(scene, lab.plan, ends, {node: rules.risen(node) for node in ends}))

    told = trace(lab, source, destination, family=family, protocol=protocol, port=port, timeout=timeout, on_scene=look)
    policies = Enforcement(lab.cluster, lab.plane)
    decision = policies.decision(told.flow)
    end = Place(destination, "eth0")
    arrived = any(hop.place == end and hop.direction == "in" for hop in told.way("request"))
    lost = told.reason or ""
    return Proof(decision, told.delivered or arrived, tuple(found), nodes, lost, policies.why_not(decision) or "")
