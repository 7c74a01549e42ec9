"""The catalogue: every topology is valid, has a summary, and shows what it says."""

from __future__ import annotations

from collections import deque
from itertools import combinations

from tables import each_row

from emulab import registry
from emulab.dataplane import build_cluster
from emulab.ipam.host_local import HostLocal
from emulab.model import Topology
from emulab.topology import validate

NAMES = ("flat", "fleet", "non-flat", "partial-mesh", "single-node", "two-racks")


def addresses(topology: Topology) -> dict[str, list[str]]:
    return {pod.name: [str(address) for address in pod.addresses] for pod in topology.pods}


def nodes_of(topology: Topology) -> list[str]:
    return [node.name for node in topology.nodes]


def test_the_list() -> None:
    assert tuple(registry.topologies()) == NAMES


@each_row("name", NAMES)
def test_each_is_valid_and_has_one_line_that_says_what_it_is(name: str) -> None:
    topology = registry.topology(name)
    validate(topology)
    assert topology.name.split(",")[0] == name
    assert topology.description
    assert 0 < len(registry.topologies()[name]) <= 100


@each_row(
    "name, nodes, pods, families",
    [
        ("flat", 3, 6, (4, 6)),
        ("non-flat", 2, 2, (4,)),
        ("single-node", 1, 3, (4, 6)),
        ("two-racks", 4, 4, (4, 6)),
        ("partial-mesh", 4, 4, (4, 6)),
        ("fleet,1,1", 1, 1, (4, 6)),
    ],
)
def test_sizes(name: str, nodes: int, pods: int, families: tuple[int, ...]) -> None:
    topology = registry.topology(name)
    assert (len(topology.nodes), len(topology.pods), topology.families) == (nodes, pods, families)


def test_flat() -> None:
    topology = registry.topology("flat")
    assert addresses(topology) == {
        "a1": ["10.1.1.1"],
        "a2": ["10.1.1.2"],
        "b1": ["10.1.2.1"],
        "b2": ["10.1.2.2"],
        "c1": ["10.1.3.1"],
        "c2": ["10.1.3.2"],
    }
    assert [str(node.pod_cidrs[0]) for node in topology.nodes] == ["10.1.1.0/24", "10.1.2.0/24", "10.1.3.0/24"]


def test_non_flat() -> None:
    topology = registry.topology("non-flat")
    assert addresses(topology) == {"a1": ["192.168.1.1"], "b1": ["172.16.2.2"]}
    assert [pod.node for pod in topology.pods] == ["node-a", "node-b"]
    assert [str(node.pod_cidrs[0]) for node in topology.nodes] == ["192.168.1.0/24", "172.16.2.0/24"]


def test_two_racks() -> None:
    topology = registry.topology("two-racks")
    racks = [{link.node for link in topology.links if link.segment == s.name} for s in topology.segments]
    assert [len(rack) for rack in racks] == [2, 2]
    for one, other in combinations(nodes_of(topology), 2):
        assert topology.connected(one, other)
        assert topology.near(one, other) == any({one, other} <= rack for rack in racks)


def test_partial_mesh_leaves_a_way_by_a_relay() -> None:
    topology = registry.topology("partial-mesh")
    assert topology.cut
    start, *_ = nodes = nodes_of(topology)
    reached, queue = {start}, deque([start])
    while queue:
        here = queue.popleft()
        found = {n for n in nodes if n != here and topology.connected(here, n)} - reached
        reached |= found
        queue.extend(found)
    assert reached == set(nodes)


@each_row("name", NAMES)
def test_there_are_addresses_for_everybody(name: str) -> None:
    topology = registry.topology(name)
    cluster = build_cluster(topology, HostLocal(topology))
    given = [address for endpoint in cluster.endpoints for address in endpoint.addresses]
    assert len(given) == len(set(given)) >= len(topology.pods)
    assert {lease.node for lease in cluster.leases} == set(nodes_of(topology))
