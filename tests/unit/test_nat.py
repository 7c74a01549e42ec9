"""The counterpart that is not flat, as the text that a person would type."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from tables import each_row

from emulab.dataplane import Wire, build_cluster
from emulab.errors import InputError
from emulab.model import Cluster, Endpoint, Link, Node, Pod, Segment, Topology
from emulab.objects import Policy
from emulab.state import shell_lines
from emulab_plugins.nat import Nat

LAN = Segment("lan", (ipaddress.ip_network("192.168.50.0/24"), ipaddress.ip_network("fd00:50::/64")))


def link(node: str, *addresses: str) -> Link:
    return Link(node, "lan", addresses=tuple(map(ipaddress.ip_interface, addresses)))


DUAL = Topology(
    "dual",
    (LAN,),
    (Node("node-a"), Node("node-b"), Node("node-c")),
    tuple(link(f"node-{c}", f"192.168.50.{n}/24", f"fd00:50::{n}/64") for n, c in enumerate("abc", 1)),
    (Pod("a1", "node-a"), Pod("a2", "node-a"), Pod("b1", "node-b")),
    (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:10::/48")),
)
PRIVATE = ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("172.16.2.0/24")
NON_FLAT = Topology(
    "non-flat",
    (LAN,),
    (Node("node-a", PRIVATE[:1]), Node("node-b", PRIVATE[1:])),
    DUAL.links[:2],
    (
        Pod("p1", "node-a", addresses=(ipaddress.ip_address("192.168.1.1"),)),
        Pod("p2", "node-b", addresses=(ipaddress.ip_address("172.16.2.2"),)),
    ),
    PRIVATE,
)

NON_FLAT_NODE_A = """\
sysctl -qw net.ipv4.ip_forward=1
ip link add name docker0 address 02:42:c0:a8:01:fe mtu 1500 type bridge
ip link add name veth182c452 mtu 1500 type veth peer name eth0 address 0a:58:c0:a8:01:01 mtu 1500 netns p1
ip link set dev docker0 up
ip addr add 192.168.1.254/24 dev docker0
ip link set dev veth182c452 master docker0
bridge link set dev veth182c452 hairpin on
ip link set dev veth182c452 up
nft add table ip docker-bridges
nft 'add chain ip docker-bridges nat-prerouting-and-output'
nft 'add rule ip docker-bridges nat-prerouting-and-output meta l4proto { tcp, udp } th dport 30000 dnat to 192.168.1.1:8080'
nft 'add chain ip docker-bridges nat-PREROUTING { type nat hook prerouting priority dstnat ; }'
nft 'add rule ip docker-bridges nat-PREROUTING ip daddr 192.168.50.1 jump nat-prerouting-and-output'
nft 'add chain ip docker-bridges nat-OUTPUT { type nat hook output priority -100 ; }'
nft 'add rule ip docker-bridges nat-OUTPUT ip daddr 192.168.50.1 jump nat-prerouting-and-output'
nft 'add chain ip docker-bridges nat-POSTROUTING { type nat hook postrouting priority srcnat ; }'
nft 'add rule ip docker-bridges nat-POSTROUTING ip saddr 192.168.1.0/24 oifname != "docker0" masquerade'
nft 'add rule ip docker-bridges nat-POSTROUTING ip saddr 192.168.1.0/24 oifname "docker0" ct status dnat masquerade'
"""

NON_FLAT_P2 = """\
ip link set dev lo up
ip link set dev eth0 up
ip addr add 172.16.2.2/24 dev eth0
ip route add default via 172.16.2.1 dev eth0
"""

DUAL_TABLE_6 = """\
nft add table ip6 docker-bridges
nft 'add chain ip6 docker-bridges nat-prerouting-and-output'
nft 'add rule ip6 docker-bridges nat-prerouting-and-output meta l4proto { tcp, udp } th dport 30000 dnat to [fd00:10::2]:8080'
nft 'add rule ip6 docker-bridges nat-prerouting-and-output meta l4proto { tcp, udp } th dport 30001 dnat to [fd00:10::3]:8080'
nft 'add chain ip6 docker-bridges nat-PREROUTING { type nat hook prerouting priority dstnat ; }'
nft 'add rule ip6 docker-bridges nat-PREROUTING ip6 daddr fd00:50::1 jump nat-prerouting-and-output'
nft 'add chain ip6 docker-bridges nat-OUTPUT { type nat hook output priority -100 ; }'
nft 'add rule ip6 docker-bridges nat-OUTPUT ip6 daddr fd00:50::1 jump nat-prerouting-and-output'
nft 'add chain ip6 docker-bridges nat-POSTROUTING { type nat hook postrouting priority srcnat ; }'
nft 'add rule ip6 docker-bridges nat-POSTROUTING ip6 saddr fd00:10::/64 oifname != "docker0" masquerade'
nft 'add rule ip6 docker-bridges nat-POSTROUTING ip6 saddr fd00:10::/64 oifname "docker0" ct status dnat masquerade'
"""


def designed(topology: Topology, plane: Nat) -> Cluster:
    plane.check(topology)
    return build_cluster(topology, plane.ipam(topology))


def text(topology: Topology, plane: Nat, namespace: str) -> str:
    return "".join(f"{line}\n" for line in shell_lines(plane.plan(designed(topology, plane))[namespace]))


def endpoint(cluster: Cluster, name: str) -> Endpoint:
    return next(e for e in cluster.endpoints if e.pod.name == name)


@pytest.mark.parametrize(("namespace", "expected"), [("node-a", NON_FLAT_NODE_A), ("default/p2", NON_FLAT_P2)])
def test_plan(namespace: str, expected: str) -> None:
    assert text(NON_FLAT, Nat(), namespace) == expected


def test_ipv6_alike() -> None:
    assert text(DUAL, Nat(), "node-a").endswith(DUAL_TABLE_6)


def test_a_node_without_pods_publishes_nothing() -> None:
    lines = text(DUAL, Nat(), "node-c")
    assert "docker0 " not in lines
    assert "dnat to" not in lines


@each_row(
    "plane, destination, family, protocol, port, expected",
    [
        (Nat(), "a1", 4, "tcp", 8080, "192.168.50.1 30000"),
        (Nat(), "a2", 4, "udp", 8080, "192.168.50.1 30001"),
        (Nat(), "b1", 6, "udp", 8080, "fd00:50::2 30000"),
        (Nat(), "b1", 4, "icmp", 8080, "192.168.50.2 8080"),
        (Nat(), "b1", 4, "tcp", 80, "192.168.50.2 80"),
        (Nat(port=80, published=1024), "a2", 4, "tcp", 80, "192.168.50.1 1025"),
    ],
)
def test_target(plane: Nat, destination: str, family: int, protocol: str, port: int, expected: str) -> None:
    cluster = designed(DUAL, plane)
    found = plane.target(cluster, endpoint(cluster, destination), family, protocol, port)
    assert " ".join(map(str, found)) == expected


@each_row(
    "plane, pods, expected",
    [(Nat(), "a1 a2", Wire(1, 1500)), (Nat(), "a1 b1", Wire(2, 1500)), (Nat(mtu=1400), "b1 a1", Wire(2, 1400))],
)
def test_wire(plane: Nat, pods: str, expected: Wire) -> None:
    cluster = designed(DUAL, plane)
    source, destination = (endpoint(cluster, name) for name in pods.split())
    assert plane.wire(cluster, source, destination, 4) == expected


@each_row(
    "topology, plane, message",
    [
        (DUAL, Nat(port=0), "nat: port 0 is out of range, 1 to 65535 expected"),
        (DUAL, Nat(published=65536), "nat: published 65536 is out of range, 1 to 65535 expected"),
        (DUAL, Nat(published=65535), "nat: node node-a would publish ports up to 65536, at most 65535 expected"),
        (DUAL, Nat(mtu=1501), "mtu 1501 does not fit: the underlay carries 1500 bytes, 0 of them overhead"),
        (
            replace(DUAL, links=(*DUAL.links[:2], link("node-c", "192.168.50.3/24"))),
            Nat(),
            "nat: node node-c needs an IPv6 underlay address for its pods",
        ),
    ],
)
def test_refusals(topology: Topology, plane: Nat, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        plane.check(topology)
    assert str(refusal.value) == message


def test_unenforced() -> None:
    policy = Policy("networking.k8s.io/v1", "NetworkPolicy", "default", "deny")
    assert Nat().unenforced(policy) == "nat enforces no NetworkPolicy: nothing is blocked"
