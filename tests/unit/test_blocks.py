"""Blocks: affinity, overflow, borrowing, queues.  Every case is a topology and what comes out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import pytest
from tables import each_row

from emulab.dataplane import build_cluster
from emulab.errors import InputError
from emulab.ipam.blocks import Blocks
from emulab.model import Link, Node, Pod, Segment, Topology

LAN = Segment("lan", (ip_network("192.168.50.0/24"),))


def topology(nodes: str, pods: Iterable[Pod], *pools: str) -> Topology:
    names = nodes.split()
    links = tuple(
        Link(name, "lan", addresses=(ipaddress.ip_interface(f"192.168.50.{index}/24"),)) for index, name in enumerate(names, 1)
    )
    cidrs = tuple(map(ip_network, pools))
    return Topology("t", (LAN,), tuple(map(Node, names)), links, tuple(pods), cidrs)


def pods(placement: str) -> list[Pod]:
    """ "a b=10.0.0.9": one pod on node a, one with a fixed address on node b; they are called p0, p1, ..."""
    found = []
    for index, word in enumerate(placement.split()):
        node, _, fixed = word.partition("=")
        found.append(Pod(f"p{index}", node, addresses=(ip_address(fixed),) if fixed else ()))
    return found


@pytest.mark.parametrize(
    ("nodes", "placement", "pool", "length", "tunnels", "addresses", "leases", "gateways"),
    [
        pytest.param(
            "a b",
            "a b a",
            "10.0.0.0/24",
            26,
            False,
            "10.0.0.0 10.0.0.64 10.0.0.1",
            "a:10.0.0.0/26 b:10.0.0.64/26",
            "- -",
            id="in order, .0 included",
        ),
        pytest.param(
            "a b",
            "a b a",
            "10.0.0.0/24",
            26,
            True,
            "10.0.0.1 10.0.0.65 10.0.0.2",
            "a:10.0.0.0/26 b:10.0.0.64/26",
            "10.0.0.0 10.0.0.64",
            id="tunnels",
        ),
        pytest.param(
            "a b",
            "b=10.0.0.5 a",
            "10.0.0.0/24",
            26,
            True,
            "10.0.0.5 10.0.0.65",
            "a:10.0.0.64/26 b:10.0.0.0/26",
            "10.0.0.64 10.0.0.0",
            id="fixed: its block",
        ),
        pytest.param(
            "a",
            "a=10.0.0.0",
            "10.0.0.0/24",
            26,
            True,
            "10.0.0.0",
            "a:10.0.0.0/26",
            "10.0.0.1",
            id="a fixed address before the tunnel",
        ),
        pytest.param(
            "a b",
            "a=10.0.0.5 b=10.0.0.6 b",
            "10.0.0.0/24",
            26,
            False,
            "10.0.0.5 10.0.0.6 10.0.0.64",
            "a:10.0.0.0/26 b:10.0.0.64/26",
            "- -",
            id="fixed but borrowed",
        ),
        pytest.param(
            "a",
            "a=10.0.0.5 a=10.0.0.200",
            "10.0.0.0/24",
            26,
            False,
            "10.0.0.5 10.0.0.200",
            "a:10.0.0.0/26 a:10.0.0.192/26",
            "-",
            id="two fixed blocks",
        ),
        pytest.param(
            "a b",
            "a a a b",
            "10.0.0.0/29",
            31,
            False,
            "10.0.0.0 10.0.0.1 10.0.0.4 10.0.0.2",
            "a:10.0.0.0/31 a:10.0.0.4/31 b:10.0.0.2/31",
            "- -",
            id="a second block when the first is full",
        ),
        pytest.param(
            "a b",
            "a a a b",
            "10.0.0.0/30",
            31,
            False,
            "10.0.0.0 10.0.0.1 10.0.0.2 10.0.0.3",
            "a:10.0.0.0/31 b:10.0.0.2/31",
            "- -",
            id="borrowed",
        ),
        pytest.param(
            "a b",
            "b b",
            "10.0.0.0/31",
            31,
            False,
            "10.0.0.0 10.0.0.1",
            "a:10.0.0.0/31",
            "- -",
            id="a node without a block borrows everything",
        ),
        pytest.param(
            "a b",
            "a b",
            "10.0.0.0/31",
            32,
            False,
            "10.0.0.0 10.0.0.1",
            "a:10.0.0.0/32 b:10.0.0.1/32",
            "- -",
            id="blocks of one address",
        ),
        pytest.param("a", "a", "fd00:10::/48", 122, True, "fd00:10::1", "a:fd00:10::/122", "fd00:10::", id="IPv6"),
    ],
)
def test_clusters(
    nodes: str, placement: str, pool: str, length: int, tunnels: bool, addresses: str, leases: str, gateways: str
) -> None:
    wanted = topology(nodes, pods(placement), pool)
    cluster = build_cluster(wanted, Blocks(wanted, {4: length, 6: length}, tunnels=tunnels))
    assert " ".join(str(e.addresses[0]) for e in cluster.endpoints) == addresses
    assert " ".join(f"{lease.node}:{lease.network}" for lease in cluster.leases) == leases
    assert " ".join("".join(map(str, found)) or "-" for found in cluster.gateways.values()) == gateways


def test_dual_stack_gives_ipv4_first() -> None:
    wanted = topology("a", pods("a"), "fd00:10::/64", "10.0.0.0/24")
    cluster = build_cluster(wanted, Blocks(wanted, tunnels=True))
    assert [str(a) for a in cluster.endpoints[0].addresses] == ["10.0.0.1", "fd00:10::1"]
    assert [str(a) for a in cluster.gateways["a"]] == ["10.0.0.0", "fd00:10::"]
    assert [str(lease.network) for lease in cluster.leases] == ["10.0.0.0/26", "fd00:10::/122"]


def test_a_node_claims_at_most_twenty_blocks_and_then_borrows() -> None:
    ipam = Blocks(topology("a b", (), "10.0.0.0/24"), {4: 31, 6: 127})
    for node in "ab":
        ipam.add_node(node)
    for index in range(42):
        ipam.allocate(Pod(f"q{index}", "a"))
    assert len([lease for lease in ipam.leases() if lease.node == "a"]) == 20
    with pytest.raises(InputError, match="at most 20 blocks"):
        ipam.allocate(Pod("q42", "a"))


def test_a_released_address_goes_to_the_end_of_its_blocks_queue() -> None:
    wanted = topology("a", pods("a a a"), "10.0.0.0/30")
    ipam = Blocks(wanted, {4: 30, 6: 126})
    ipam.add_node("a")
    first, second, third = (Pod(f"p{index}", "a") for index in range(3))
    assert [str(ipam.allocate(pod)[0]) for pod in (first, second)] == ["10.0.0.0", "10.0.0.1"]
    ipam.release(first)
    again = [ipam.allocate(pod)[0] for pod in (third, first, Pod("p3", "a"))]
    assert [str(address) for address in again] == ["10.0.0.2", "10.0.0.3", "10.0.0.0"]


def test_a_left_block_is_claimed_again_after_all_others() -> None:
    ipam = Blocks(topology("a b", (), "10.0.0.0/30"), {4: 31, 6: 127}, tunnels=True)
    ipam.add_node("a")
    ipam.remove_node("a")
    for node in "bcd":
        ipam.add_node(node)
    assert [(lease.node, str(lease.network)) for lease in ipam.leases()] == [("b", "10.0.0.2/31"), ("c", "10.0.0.0/31")]
    assert [str(ipam.gateway(node)[0]) for node in "bcd"] == ["10.0.0.2", "10.0.0.1", "10.0.0.0"]


def test_a_borrowed_address_outlives_its_blocks_owner() -> None:
    ipam = Blocks(topology("a b", (), "10.0.0.0/30"), {4: 31, 6: 127})
    for node in "ab":
        ipam.add_node(node)
    for name in ("p0", "p1", "p2"):
        ipam.allocate(Pod(name, "b"))
    ipam.remove_node("a")
    ipam.add_node("c")
    assert [str(a) for a in ipam.allocate(Pod("p3", "c"))] == ["10.0.0.1"]


@each_row(
    "placement, pool, message",
    [
        ("a=10.9.0.1", "10.0.0.0/24", "pod default/p0: 10.9.0.1 is not part of the pod network (10.0.0.0/24)"),
        ("a=fd00::1", "10.0.0.0/24", "pod default/p0: fd00::1 is not part of the pod network (10.0.0.0/24)"),
        ("a=10.0.0.1 b=10.0.0.1", "10.0.0.0/24", "pod default/p1: 10.0.0.1 is taken by pod default/p0"),
        ("a", "10.0.0.0/27", "pod CIDR 10.0.0.0/27 is smaller than a block: at least a /26 expected"),
        ("bb", "10.0.0.0/24", "pod default/p0: unknown node 'bb' (did you mean 'b'?)"),
        ("a " * 65, "10.0.0.0/26", "pod default/p64: no free address left for node a in 10.0.0.0/26 (at most 20 blocks of /26)"),
    ],
)
def test_mistakes(placement: str, pool: str, message: str) -> None:
    wanted = topology("a b", pods(placement), pool)
    with pytest.raises(InputError) as caught:
        build_cluster(wanted, Blocks(wanted))
    assert str(caught.value) == message


def test_a_pod_is_allocated_once() -> None:
    ipam = Blocks(topology("a", (), "10.0.0.0/24"))
    ipam.add_node("a")
    ipam.allocate(Pod("p0", "a"))
    with pytest.raises(InputError, match="has addresses already"):
        ipam.allocate(Pod("p0", "a"))
