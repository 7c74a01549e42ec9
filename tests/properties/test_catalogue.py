"""The largest fleet."""

from __future__ import annotations

from emulab import registry
from emulab.dataplane import build_cluster
from emulab.ipam.host_local import HostLocal


def test_there_are_addresses_for_ten_thousand_pods() -> None:
    topology = registry.topology("fleet,200,50")
    assert (len(topology.nodes), len(topology.pods), topology.families) == (200, 10_000, (4, 6))
    cluster = build_cluster(topology, HostLocal(topology))
    given = [address for endpoint in cluster.endpoints for address in endpoint.addresses]
    assert len(given) == len(set(given)) >= 10_000
    assert {lease.node for lease in cluster.leases} == {node.name for node in topology.nodes}
