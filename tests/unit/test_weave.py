"""Weave's plan for hand-made clusters, as the text that a person would type, and what frames make of it."""

# ruff: noqa: E501 (a line that is typed is as long as it is)

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from itertools import combinations

import pytest
from meshed import LAN, lan, link
from tables import each_row

from emulab.dataplane import Tunnel, Wire, build_cluster
from emulab.errors import InputError
from emulab.model import Cluster, Endpoint, Node, Pod, Topology
from emulab.state import Vxlan, shell_lines
from emulab_plugins.weave import Weave

DUAL = replace(lan("abc"), pods=(Pod("a1", "node-a"), Pod("a2", "node-a"), Pod("b1", "node-b"), Pod("c1", "node-c")))
V4 = replace(DUAL, pod_cidrs=DUAL.pod_cidrs[:1])
V6 = replace(DUAL, pod_cidrs=DUAL.pod_cidrs[1:])
CHAIN = lan("abc", "ac")  # a - b - c
RING = lan("abcd", "ac", "bd")
V6_ONLY_NODE = replace(DUAL, links=(*DUAL.links[:2], link("node-c", "fd00:50::3/64")))
NO_COMMON = replace(DUAL, links=(DUAL.links[0], link("node-b", "192.168.50.2/24"), link("node-c", "fd00:50::3/64")))

MAC_A, MAC_B, MAC_C = "ca:60:6f:26:a1:6f", "a6:9d:1b:4b:35:10", "66:c7:6b:9d:db:6e"

NODE_A = f"""\
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.ipv6.conf.all.forwarding=1
ip link add name datapath mtu 1376 type bridge
ip link add name vethwe-bridge mtu 1376 type veth peer name vethwe-datapath mtu 1376
sysctl -qw net.ipv6.conf.datapath.disable_ipv6=1
ip link set dev datapath up
sysctl -qw net.ipv6.conf.vethwe-bridge.disable_ipv6=1
ip link set dev vethwe-bridge up
sysctl -qw net.ipv6.conf.vethwe-datapath.disable_ipv6=1
ip link set dev vethwe-datapath up
ip link set dev vethwe-datapath master datapath
ip link add name vxlan-2 mtu 1376 type vxlan id 8193 local 192.168.50.1 remote 192.168.50.2 dev eth0 dstport 6784 learning df set
sysctl -qw net.ipv6.conf.vxlan-2.disable_ipv6=1
ip link set dev vxlan-2 master datapath
bridge link set dev vxlan-2 isolated on
ip link set dev vxlan-2 up
ip link add name vxlan-3 mtu 1376 type vxlan id 12289 local 192.168.50.1 remote 192.168.50.3 dev eth0 dstport 6784 learning df set
sysctl -qw net.ipv6.conf.vxlan-3.disable_ipv6=1
ip link set dev vxlan-3 master datapath
bridge link set dev vxlan-3 isolated on
ip link set dev vxlan-3 up
ip link add name weave address {MAC_A} mtu 1376 type bridge
ip link add name vethwepl5cce677 mtu 1376 type veth peer name eth0 address 0a:58:0a:20:00:02 mtu 1376 netns a1
ip link add name vethweplf932eb6 mtu 1376 type veth peer name eth0 address 0a:58:0a:20:00:03 mtu 1376 netns a2
sysctl -qw net.ipv6.conf.weave.accept_ra=0
ip link set dev weave up
ip addr add 10.32.0.1/12 dev weave
ip addr add fd00:32::1/48 dev weave nodad
ip link set dev vethwepl5cce677 master weave
bridge link set dev vethwepl5cce677 hairpin on
ip link set dev vethwepl5cce677 up
ip link set dev vethweplf932eb6 master weave
bridge link set dev vethweplf932eb6 hairpin on
ip link set dev vethweplf932eb6 up
ip link set dev vethwe-bridge master weave
sysctl -qw net.ipv4.neigh.weave.base_reachable_time=5
sysctl -qw net.ipv4.neigh.weave.delay_first_probe_time=2
sysctl -qw net.ipv4.neigh.weave.ucast_solicit=1
nft add table ip weave
nft 'add set ip weave weaver-no-masq-local {{ type ipv4_addr ; }}'
nft 'add element ip weave weaver-no-masq-local {{ 10.32.0.2, 10.32.0.3 }}'
nft 'add chain ip weave WEAVE'
nft 'add rule ip weave WEAVE ip daddr @weaver-no-masq-local return'
nft 'add rule ip weave WEAVE ip saddr 10.32.0.0/12 ip daddr 224.0.0.0/4 return'
nft 'add rule ip weave WEAVE ip saddr != 10.32.0.0/12 ip daddr 10.32.0.0/12 masquerade'
nft 'add rule ip weave WEAVE ip saddr 10.32.0.0/12 ip daddr != 10.32.0.0/12 masquerade'
nft 'add chain ip weave POSTROUTING {{ type nat hook postrouting priority srcnat ; }}'
nft 'add rule ip weave POSTROUTING jump WEAVE'
nft 'add chain ip weave WEAVE-EXPOSE'
nft 'add rule ip weave WEAVE-EXPOSE ip daddr 10.32.0.0/12 accept'
nft 'add chain ip weave FORWARD {{ type filter hook forward priority filter ; }}'
nft 'add rule ip weave FORWARD iifname "weave" oifname "weave" accept'
nft 'add rule ip weave FORWARD oifname "weave" jump WEAVE-EXPOSE'
nft 'add rule ip weave FORWARD iifname "weave" oifname != "weave" accept'
nft 'add rule ip weave FORWARD oifname "weave" ct state related,established accept'
nft add table ip6 weave
nft 'add set ip6 weave weaver-no-masq-local {{ type ipv6_addr ; }}'
nft 'add element ip6 weave weaver-no-masq-local {{ fd00:32::2, fd00:32::3 }}'
nft 'add chain ip6 weave WEAVE'
nft 'add rule ip6 weave WEAVE ip6 daddr @weaver-no-masq-local return'
nft 'add rule ip6 weave WEAVE ip6 saddr fd00:32::/48 ip6 daddr ff00::/8 return'
nft 'add rule ip6 weave WEAVE ip6 saddr != fd00:32::/48 ip6 daddr fd00:32::/48 masquerade'
nft 'add rule ip6 weave WEAVE ip6 saddr fd00:32::/48 ip6 daddr != fd00:32::/48 masquerade'
nft 'add chain ip6 weave POSTROUTING {{ type nat hook postrouting priority srcnat ; }}'
nft 'add rule ip6 weave POSTROUTING jump WEAVE'
nft 'add chain ip6 weave WEAVE-EXPOSE'
nft 'add rule ip6 weave WEAVE-EXPOSE ip6 daddr fd00:32::/48 accept'
nft 'add chain ip6 weave FORWARD {{ type filter hook forward priority filter ; }}'
nft 'add rule ip6 weave FORWARD iifname "weave" oifname "weave" accept'
nft 'add rule ip6 weave FORWARD oifname "weave" jump WEAVE-EXPOSE'
nft 'add rule ip6 weave FORWARD iifname "weave" oifname != "weave" accept'
nft 'add rule ip6 weave FORWARD oifname "weave" ct state related,established accept'
"""

POD_A1 = """\
ip link set dev lo up
sysctl -qw net.ipv6.conf.eth0.accept_dad=0
ip link set dev eth0 up
ip addr add 10.32.0.2/12 dev eth0
ip addr add fd00:32::2/48 dev eth0 nodad
ethtool -K eth0 tx off
sysctl -qw net.ipv4.neigh.eth0.base_reachable_time=5
sysctl -qw net.ipv4.neigh.eth0.delay_first_probe_time=2
sysctl -qw net.ipv4.neigh.eth0.ucast_solicit=1
ip route add default via 10.32.0.1 dev eth0
ip -6 route add default via fd00:32::1 dev eth0
"""

# b relays between a and c: no isolation, and every MAC has its place.
RELAY = f"""\
ip link add name vxlan-1 mtu 1376 type vxlan id 8193 local 192.168.50.2 remote 192.168.50.1 dev eth0 dstport 6784 nolearning df set
sysctl -qw net.ipv6.conf.vxlan-1.disable_ipv6=1
ip link set dev vxlan-1 master datapath
bridge link set dev vxlan-1 learning off flood off
ip link set dev vxlan-1 up
ip link add name vxlan-3 mtu 1376 type vxlan id 12290 local 192.168.50.2 remote 192.168.50.3 dev eth0 dstport 6784 nolearning df set
sysctl -qw net.ipv6.conf.vxlan-3.disable_ipv6=1
ip link set dev vxlan-3 master datapath
bridge link set dev vxlan-3 learning off flood off
ip link set dev vxlan-3 up
bridge fdb replace {MAC_A} dev vxlan-1 master static
bridge fdb replace 0a:58:0a:20:00:02 dev vxlan-1 master static
bridge fdb replace {MAC_C} dev vxlan-3 master static
bridge fdb replace 0a:58:0a:2c:00:01 dev vxlan-3 master static
nft add table bridge weave
nft 'add set bridge weave trees {{ type ether_addr . ifname ; }}'
nft 'add element bridge weave trees {{ {MAC_A} . "vxlan-3", 0a:58:0a:20:00:02 . "vxlan-3", {MAC_B} . "vxlan-1", 0a:58:0a:28:00:01 . "vxlan-1", {MAC_B} . "vxlan-3", 0a:58:0a:28:00:01 . "vxlan-3", {MAC_C} . "vxlan-1", 0a:58:0a:2c:00:01 . "vxlan-1" }}'
nft 'add chain bridge weave forward {{ type filter hook forward priority 0 ; }}'
nft 'add rule bridge weave forward meta pkttype {{ broadcast, multicast }} oifname "vxlan-*" ether saddr . oifname != @trees drop'
"""


def designed(topology: Topology, plane: Weave) -> Cluster:
    plane.check(topology)
    return build_cluster(topology, plane.ipam(topology))


def text(topology: Topology, plane: Weave, namespace: str) -> str:
    return "".join(f"{line}\n" for line in shell_lines(plane.plan(designed(topology, plane))[namespace]))


def endpoint(cluster: Cluster, name: str) -> Endpoint:
    return next(e for e in cluster.endpoints if e.pod.name == name)


@pytest.mark.parametrize(("namespace", "expected"), [("node-a", NODE_A), ("default/a1", POD_A1)])
def test_plan(namespace: str, expected: str) -> None:
    assert text(DUAL, Weave(), namespace) == expected


def test_a_relay_s_tunnels() -> None:
    lines = text(CHAIN, Weave(), "node-b")
    assert lines[lines.index("ip link add name vxlan-1") : lines.index("ip link add name weave")] == RELAY


def test_the_ends_of_a_chain_have_one_tunnel() -> None:
    tunnels = re.findall(r"name (vxlan-\d)", text(CHAIN, Weave(), "node-a"))
    assert tunnels == ["vxlan-2"]


@each_row(
    "topology, absent",
    [(V4, "ip6|ipv6.conf.all|fd00"), (V6, "ip weave|ip_forward|10.32"), (DUAL, "bridge weave"), (RING, "isolated")],
)
def test_what_is_not_needed_is_not_there(topology: Topology, absent: str) -> None:
    lines = text(topology, Weave(), "node-a")
    assert [word for word in absent.split("|") if word in lines] == []


def test_a_node_without_pods_has_its_bridges_all_the_same() -> None:
    lines = text(replace(DUAL, pods=DUAL.pods[2:]), Weave(), "node-a")
    assert "ip addr add 10.32.0.1/12 dev weave" in lines
    assert "add element" not in lines


def test_one_connected_route_serves_the_whole_cluster() -> None:
    assert [line for line in text(DUAL, Weave(), "node-a").splitlines() if " route " in line] == []


AB, BC = ("192.168.50.1", "192.168.50.2", 8193), ("192.168.50.2", "192.168.50.3", 12290)
AC = ("192.168.50.1", "192.168.50.3", 12289)
AC6 = ("fd00:50::1", "fd00:50::3", 12289)


def back(hop: tuple[str, str, int]) -> tuple[str, str, int]:
    return hop[1], hop[0], hop[2]


@each_row(
    "topology, pods, hops",
    [
        (DUAL, "a1 a2", []),
        (DUAL, "a1 b1", [AB]),
        (DUAL, "b1 a1", [back(AB)]),
        (DUAL, "a1 c1", [AC]),
        (V6, "a1 c1", [AC]),
        (V6_ONLY_NODE, "a1 c1", [AC6]),
        (CHAIN, "a1 c1", [AB, BC]),
        (CHAIN, "c1 a1", [back(BC), back(AB)]),
        (RING, "a1 c1", [AB, BC]),
        (RING, "a1 d1", [("192.168.50.1", "192.168.50.4", 1 | 4 << 12)]),
    ],
)
def test_wire(topology: Topology, pods: str, hops: list[tuple[str, str, int]]) -> None:
    cluster = designed(topology, Weave())
    source, destination = (endpoint(cluster, name) for name in pods.split())
    tunnels = tuple(Tunnel(*map(ipaddress.ip_address, hop[:2]), 6784, hop[2]) for hop in hops)
    for family in topology.families:
        assert Weave().wire(cluster, source, destination, family) == Wire(0, 1376, tunnels)


@each_row(
    "topology, plane, mtu",
    [
        (DUAL, Weave(), 1376),
        (DUAL, Weave(mtu=None), 1450),
        (V6_ONLY_NODE, Weave(mtu=None), 1430),
        (replace(V4, links=tuple(replace(each, mtu=9000) for each in V4.links)), Weave(mtu=8916), 8916),
    ],
)
def test_mtu(topology: Topology, plane: Weave, mtu: int) -> None:
    cluster = designed(topology, plane)
    assert plane.wire(cluster, *cluster.endpoints[:2], topology.families[0]).mtu == mtu
    found = {int(m) for namespace in ("node-a", "node-b") for m in re.findall(r"mtu (\d+)", text(topology, plane, namespace))}
    assert found == {mtu}


def test_both_ends_of_every_tunnel_agree() -> None:
    plan = Weave(port=7000).plan(designed(V6_ONLY_NODE, Weave()))
    devices = [thing for objects in plan.values() for thing in objects if isinstance(thing, Vxlan)]
    assert {(d.local, d.remote, d.vni) for d in devices} == {(d.remote, d.local, d.vni) for d in devices}
    assert len({d.vni for d in devices}) == len(devices) / 2 == 3
    assert {d.port for d in devices} == {7000}


@each_row(
    "plane, topology, message",
    [
        (Weave(port=0), DUAL, "weave: port 0 is out of range, 1 to 65535 expected"),
        (Weave(port=65536), DUAL, "weave: port 65536 is out of range, 1 to 65535 expected"),
        (Weave(mtu=1451), DUAL, "mtu 1451 does not fit: the underlay carries 1500 bytes, 50 of them overhead"),
        (Weave(mtu=1279), DUAL, "1280 needed"),
        (Weave(mtu=67), V4, "68 needed"),
        (Weave(), lan("abc", "ac", "bc"), "weave: no path from node-a to node-c, not even over other nodes"),
        (
            Weave(),
            lan("abcd", "ac", "ad", "bc", "bd"),
            "weave: no path from node-a to node-c, not even over other nodes",
        ),
        (Weave(), NO_COMMON, "no underlay family is common to all nodes"),
        (
            Weave(),
            replace(V4, pod_cidrs=(*V4.pod_cidrs, ipaddress.ip_network("10.64.0.0/12"))),
            "weave: one pod CIDR per family expected, since all pods share one subnet",
        ),
    ],
)
def test_refused(plane: Weave, topology: Topology, message: str) -> None:
    with pytest.raises(InputError) as refused:
        plane.check(topology)
    assert message in str(refused.value)


def test_a_frame_takes_the_direct_way_where_there_is_one() -> None:
    for one, other in combinations("abcd", 2):
        cluster = designed(RING, Weave())
        wire = Weave().wire(cluster, endpoint(cluster, f"{one}1"), endpoint(cluster, f"{other}1"), 4)
        assert len(wire.tunnels) == (2 if one + other in ("ac", "bd") else 1)


def test_a_large_cluster_is_planned_with_a_tunnel_per_peer() -> None:
    letters = [f"n{n}" for n in range(1, 13)]
    topology = Topology(
        "large",
        (LAN,),
        tuple(Node(name) for name in letters),
        tuple(link(name, f"192.168.50.{n}/24") for n, name in enumerate(letters, 1)),
        (),
        V4.pod_cidrs,
    )
    plan = Weave().plan(designed(topology, Weave()))
    counted = [sum(isinstance(thing, Vxlan) for thing in plan[name]) for name in letters]
    assert counted == [11] * 12
    assert max(len(thing.name) for thing in plan["n1"] if isinstance(thing, Vxlan)) <= 15
