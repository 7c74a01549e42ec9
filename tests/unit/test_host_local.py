"""host-local: who gets which lease, which address, which gateway."""

from __future__ import annotations

import ipaddress

import pytest
from tables import each_row

from emulab.dataplane import build_cluster
from emulab.errors import InputError
from emulab.ipam.contract import Ipam
from emulab.ipam.host_local import HostLocal
from emulab.model import Node, Pod, Topology


def topology(cidrs: str, nodes: dict[str, str], pods: dict[str, str] | None = None) -> Topology:
    """``nodes``: name -> fixed leases; ``pods``: "pod@node" -> fixed addresses; all lists separated by spaces."""
    return Topology(
        "t",
        (),
        tuple(Node(name, tuple(map(ipaddress.ip_network, leases.split()))) for name, leases in nodes.items()),
        (),
        tuple(pod(name, fixed) for name, fixed in (pods or {}).items()),
        tuple(map(ipaddress.ip_network, cidrs.split())),
    )


def pod(name: str, fixed: str = "") -> Pod:
    own, _, node = name.partition("@")
    return Pod(own, node, addresses=tuple(map(ipaddress.ip_address, fixed.split())))


def leases(ipam: Ipam) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for lease in ipam.leases():
        found.setdefault(lease.node, []).append(str(lease.network))
    return {node: " ".join(networks) for node, networks in found.items()}


def allocated(ipam: Ipam, name: str) -> str:
    return " ".join(map(str, ipam.allocate(pod(name))))


ABC = {"a": "", "b": "", "c": ""}
FIXED_ABC = {"p@a": "10.1.1.1", "q@a": "10.1.1.2", "r@b": "10.1.2.1", "s@c": "10.1.3.1"}


@pytest.mark.parametrize(
    ("cidrs", "nodes", "pods", "expected"),
    [
        pytest.param("10.1.0.0/16", ABC, {}, {"a": "10.1.0.0/24", "b": "10.1.1.0/24", "c": "10.1.2.0/24"}, id="sequential"),
        pytest.param(
            "10.1.0.0/16 fd00:10::/48",
            ABC,
            {},
            {
                "a": "10.1.0.0/24 fd00:10::/64",
                "b": "10.1.1.0/24 fd00:10:0:1::/64",
                "c": "10.1.2.0/24 fd00:10:0:2::/64",
            },
            id="dual stack",
        ),
        pytest.param(
            "10.1.0.0/16",
            ABC,
            {"p@a": "10.1.1.1", "q@a": "10.1.1.2"},
            {"a": "10.1.1.0/24", "b": "10.1.2.0/24", "c": "10.1.3.0/24"},
            id="fixed addresses show the way",
        ),
        pytest.param(
            "10.1.0.0/16",
            ABC,
            FIXED_ABC,
            {"a": "10.1.1.0/24", "b": "10.1.2.0/24", "c": "10.1.3.0/24"},
            id="fixed addresses everywhere",
        ),
        pytest.param(
            "fd00:10::/48",
            ABC,
            {"p@b": "fd00:10::1"},
            {"a": "fd00:10:0:1::/64", "b": "fd00:10::/64", "c": "fd00:10:0:2::/64"},
            id="no node takes another one's fixed lease",
        ),
        pytest.param(
            "10.1.0.0/16",
            {"a": "10.1.8.0/22", "b": "", "c": ""},
            {},
            {"a": "10.1.8.0/22", "b": "10.1.12.0/24", "c": "10.1.13.0/24"},
            id="fixed lease of another size",
        ),
        pytest.param(
            "192.168.1.0/24 172.16.2.0/24",
            {"a": "192.168.1.0/24", "b": "172.16.2.0/24"},
            {"p@a": "192.168.1.1", "q@b": "172.16.2.2"},
            {"a": "192.168.1.0/24", "b": "172.16.2.0/24"},
            id="several pod CIDRs, fixed",
        ),
        pytest.param(
            "192.168.1.0/24 172.16.2.0/24",
            {"a": "", "b": ""},
            {},
            {"a": "192.168.1.0/24", "b": "172.16.2.0/24"},
            id="several pod CIDRs, cut in their order",
        ),
        pytest.param(
            "10.1.0.0/24",
            ABC,
            {},
            {"a": "10.1.0.0/26", "b": "10.1.0.64/26", "c": "10.1.0.128/26"},
            id="small pod CIDR: all nodes fit",
        ),
        pytest.param(
            "fd00:10::/64",
            {"a": "", "b": ""},
            {},
            {"a": "fd00:10::/65", "b": "fd00:10:0:0:8000::/65"},
            id="small pod CIDR, IPv6",
        ),
        pytest.param("10.1.0.0/24", {"a": ""}, {}, {"a": "10.1.0.0/24"}, id="one node"),
    ],
)
def test_leases(cidrs: str, nodes: dict[str, str], pods: dict[str, str], expected: dict[str, str]) -> None:
    plan = topology(cidrs, nodes, pods)
    ipam = HostLocal(plan)
    build_cluster(plan, ipam)
    assert leases(ipam) == expected


@each_row(
    "fixed, gateway, automatic",
    [
        ({}, "10.1.0.1 fd00:10::1", "10.1.0.2 fd00:10::2"),
        ({"p@a": "10.1.0.1"}, "10.1.0.254 fd00:10::1", "10.1.0.2 fd00:10::3"),
        ({"p@a": "10.1.0.1 fd00:10::1"}, "10.1.0.254 fd00:10::ffff:ffff:ffff:ffff", "10.1.0.2 fd00:10::2"),
        ({"p@a": "10.1.0.1", "q@a": "10.1.0.254"}, "10.1.0.253 fd00:10::1", "10.1.0.2 fd00:10::4"),
        ({"p@a": "10.1.0.2"}, "10.1.0.1 fd00:10::1", "10.1.0.3 fd00:10::3"),
    ],
)
def test_gateway_and_first_free_address(fixed: dict[str, str], gateway: str, automatic: str) -> None:
    plan = topology("10.1.0.0/16 fd00:10::/48", {"a": ""}, {**fixed, "auto@a": ""})
    cluster = build_cluster(plan, HostLocal(plan))
    assert " ".join(map(str, cluster.gateways["a"])) == gateway
    assert " ".join(map(str, cluster.endpoints[-1].addresses)) == automatic


def test_a_fixed_address_waits_for_its_pod() -> None:
    plan = topology("10.1.0.0/16 fd00:10::/48", {"a": ""}, {"p@a": "fd00:10::9", "q@a": "10.1.0.2"})
    cluster = build_cluster(plan, HostLocal(plan))
    assert [" ".join(map(str, e.addresses)) for e in cluster.endpoints] == [
        "10.1.0.3 fd00:10::9",
        "10.1.0.2 fd00:10::2",
    ]


def test_round_robin() -> None:
    ipam = HostLocal(topology("10.1.0.0/28", {"a": "10.1.0.0/29"}))
    ipam.add_node("a")
    assert [allocated(ipam, f"p{n}@a") for n in range(3)] == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]
    ipam.release(pod("p1@a"))
    assert [allocated(ipam, f"q{n}@a") for n in range(3)] == ["10.1.0.5", "10.1.0.6", "10.1.0.3"]
    with pytest.raises(InputError, match=r"^node a: lease 10.1.0.0/29 has no free address left for pod default/r$"):
        ipam.allocate(pod("r@a"))


def test_nodes_come_and_go() -> None:
    plan = topology("10.1.0.0/22", {"a": "", "b": ""})
    ipam = HostLocal(plan)
    for name in ("a", "b"):
        ipam.add_node(name)
    ipam.remove_node("a")
    for name in ("c", "d", "a"):
        ipam.add_node(name)
    assert leases(ipam) == {"b": "10.1.1.0/24", "c": "10.1.2.0/24", "d": "10.1.3.0/24", "a": "10.1.0.0/24"}
    with pytest.raises(InputError, match=r"^node e: no free /24 left in the pod network, which is 10.1.0.0/22$"):
        ipam.add_node("e")


def test_a_released_fixed_address_is_free() -> None:
    plan = topology("10.1.0.0/16", {"a": ""}, {"p@a": "10.1.0.1"})
    ipam = HostLocal(plan)
    build_cluster(plan, ipam)
    ipam.release(plan.pods[0])
    assert ipam.allocate(pod("q@a", "10.1.0.1")) == plan.pods[0].addresses
    assert [str(a) for a in ipam.gateway("a")] == ["10.1.0.254"]


@each_row(
    "cidrs, nodes, pods, message",
    [
        (
            "10.1.0.0/16",
            ABC,
            {"p@a": "10.2.0.1"},
            "pod default/p: 10.2.0.1 is not part of the pod network, which is 10.1.0.0/16",
        ),
        (
            "10.1.0.0/16",
            ABC,
            {"p@a": "fd00::1"},
            "pod default/p: fd00::1 is not part of the pod network, which is 10.1.0.0/16",
        ),
        (
            "10.1.0.0/16",
            ABC,
            {"p@a": "10.1.1.1", "q@a": "10.1.2.1"},
            "pod default/q: 10.1.2.1 is not in node a's lease, which is 10.1.1.0/24",
        ),
        (
            "10.1.0.0/16",
            ABC,
            {"p@a": "10.1.1.1", "q@a": "10.1.1.1"},
            "pod default/q: 10.1.1.1 is taken by pod default/p",
        ),
        (
            "10.1.0.0/16",
            ABC,
            {"p@a": "10.1.1.0"},
            "pod default/p: 10.1.1.0 is no usable address of node a's lease 10.1.1.0/24",
        ),
        (
            "10.1.0.0/16",
            ABC,
            {"p@a": "10.1.1.255"},
            "pod default/p: 10.1.1.255 is no usable address of node a's lease 10.1.1.0/24",
        ),
        (
            "10.1.0.0/16",
            ABC,
            {"p@a": "10.1.1.1", "q@b": "10.1.1.2"},
            "node b (for pod default/q): lease 10.1.1.0/24 overlaps 10.1.1.0/24 of node a (for pod default/p)",
        ),
        (
            "10.1.0.0/16",
            {"a": "10.1.0.0/20", "b": "10.1.8.0/24"},
            {},
            "node b: lease 10.1.8.0/24 overlaps 10.1.0.0/20 of node a",
        ),
        (
            "10.1.0.0/16",
            {"a": "10.2.0.0/24"},
            {},
            "node a: 10.2.0.0/24 is not part of the pod network, which is 10.1.0.0/16",
        ),
        ("10.1.0.0/16", {"a": "10.1.0.0/31"}, {}, "node a: pod CIDR 10.1.0.0/31 is too small, at most a /30 expected"),
        ("10.1.0.0/31", {"a": ""}, {}, "pod CIDR 10.1.0.0/31 is too small, at most a /30 expected"),
        ("10.1.0.0/29", ABC, {}, "node c: no free /30 left in the pod network, which is 10.1.0.0/29"),
        (
            "10.1.0.0/30",
            {"a": ""},
            {"p@a": "", "q@a": ""},
            "node a: lease 10.1.0.0/30 has no free address left for pod default/q",
        ),
        (
            "10.1.0.0/30",
            {"a": ""},
            {"p@a": "10.1.0.1", "q@a": "10.1.0.2"},
            "node a: lease 10.1.0.0/30 has no free address left for the gateway",
        ),
        (
            "10.1.0.0/16",
            {"node-a": ""},
            {"p@node-b": ""},
            "pod default/p: unknown node 'node-b' (did you mean 'node-a'?)",
        ),
    ],
)
def test_refusals(cidrs: str, nodes: dict[str, str], pods: dict[str, str], message: str) -> None:
    plan = topology(cidrs, nodes, pods)
    with pytest.raises(InputError) as refusal:
        build_cluster(plan, HostLocal(plan))
    assert str(refusal.value) == message


def test_live_refusals() -> None:
    plan = topology("10.1.0.0/16", {"a": ""}, {"p@a": ""})
    ipam = HostLocal(plan)
    build_cluster(plan, ipam)
    with pytest.raises(InputError, match=r"^pod default/q: 10.1.0.1 is taken by the gateway of node a$"):
        ipam.allocate(pod("q@a", "10.1.0.1"))
    with pytest.raises(InputError, match=r"^pod default/p: has addresses already: 10.1.0.2$"):
        ipam.allocate(pod("p@a"))
