"""Flannel's plan for a hand-made cluster, as the text that a person would type."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from tables import each_row

from emulab.dataplane import Tunnel, Wire, build_cluster
from emulab.errors import InputError
from emulab.model import Cluster, Endpoint, Link, Node, Pod, Segment, Topology
from emulab.objects import Policy
from emulab.state import shell_lines
from emulab_plugins.flannel import Flannel

LAN = Segment("lan", (ipaddress.ip_network("192.168.50.0/24"), ipaddress.ip_network("fd00:50::/64")))
FAR = Segment("far", (ipaddress.ip_network("192.168.60.0/24"), ipaddress.ip_network("fd00:60::/64")))


def link(node: str, addresses: str, segment: str = "lan", mtu: int = 1500) -> Link:
    return Link(node, segment, addresses=tuple(map(ipaddress.ip_interface, addresses.split())), mtu=mtu)


DUAL = Topology(
    "dual",
    (LAN, FAR),
    (Node("node-a"), Node("node-b"), Node("node-c")),
    tuple(link(f"node-{c}", f"192.168.50.{n}/24 fd00:50::{n}/64") for n, c in enumerate("abc", 1)),
    (Pod("a1", "node-a"), Pod("a2", "node-a"), Pod("b1", "node-b"), Pod("c1", "node-c")),
    (ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_network("fd00:244::/48")),
)
V4 = replace(DUAL, pod_cidrs=DUAL.pod_cidrs[:1])
V6 = replace(DUAL, pod_cidrs=DUAL.pod_cidrs[1:])
ROUTED = replace(DUAL, links=(*DUAL.links[:2], link("node-c", "192.168.60.3/24 fd00:60::3/64", "far")))
V4_UNDERLAY = replace(DUAL, links=tuple(link(f"node-{c}", f"192.168.50.{n}/24") for n, c in enumerate("abc", 1)))
NO_COMMON = replace(V4, links=(*DUAL.links[:1], link("node-b", "192.168.50.2/24"), link("node-c", "fd00:50::3/64")))

MAC_A, MAC_B, MAC_C = "66:82:65:68:83:cf", "42:0e:62:44:7b:79", "9a:1e:7c:71:f2:c1"
MAC6_A, MAC6_B, MAC6_C = "6a:01:fd:f4:34:34", "aa:f9:50:63:b0:80", "7e:1d:42:50:9c:82"

NODE_A = f"""\
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.ipv6.conf.all.forwarding=1
ip link add name flannel.1 address {MAC_A} mtu 1450 type vxlan id 1 local 192.168.50.1 dev eth0 dstport 8472 nolearning
sysctl -qw net.ipv6.conf.flannel/1.accept_ra=0
ip addr add 10.244.0.0/32 dev flannel.1
ip link set dev flannel.1 up
ip link add name flannel-v6.1 address {MAC6_A} mtu 1430 type vxlan id 1 local fd00:50::1 dev eth0 dstport 8472 nolearning
sysctl -qw net.ipv6.conf.flannel-v6/1.accept_ra=0
ip addr add fd00:244::/128 dev flannel-v6.1 nodad
ip link set dev flannel-v6.1 up
nft add table ip flannel-ipv4
nft 'add chain ip flannel-ipv4 forward {{ type filter hook forward priority filter ; }}'
nft 'add rule ip flannel-ipv4 forward ip saddr 10.244.0.0/16 accept'
nft 'add rule ip flannel-ipv4 forward ip daddr 10.244.0.0/16 accept'
nft 'add chain ip flannel-ipv4 postrtg {{ type nat hook postrouting priority srcnat ; }}'
nft 'add rule ip flannel-ipv4 postrtg meta mark 0x4000 return'
nft 'add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/24 ip daddr 10.244.0.0/16 return'
nft 'add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/24 return'
nft 'add rule ip flannel-ipv4 postrtg ip saddr != 10.244.0.0/24 ip daddr 10.244.0.0/16 return'
nft 'add rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random'
nft 'add rule ip flannel-ipv4 postrtg ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random'
nft add table ip6 flannel-ipv6
nft 'add chain ip6 flannel-ipv6 forward {{ type filter hook forward priority filter ; }}'
nft 'add rule ip6 flannel-ipv6 forward ip6 saddr fd00:244::/48 accept'
nft 'add rule ip6 flannel-ipv6 forward ip6 daddr fd00:244::/48 accept'
nft 'add chain ip6 flannel-ipv6 postrtg {{ type nat hook postrouting priority srcnat ; }}'
nft 'add rule ip6 flannel-ipv6 postrtg meta mark 0x4000 return'
nft 'add rule ip6 flannel-ipv6 postrtg ip6 saddr fd00:244::/64 ip6 daddr fd00:244::/48 return'
nft 'add rule ip6 flannel-ipv6 postrtg ip6 saddr fd00:244::/48 ip6 daddr fd00:244::/64 return'
nft 'add rule ip6 flannel-ipv6 postrtg ip6 saddr != fd00:244::/64 ip6 daddr fd00:244::/48 return'
nft 'add rule ip6 flannel-ipv6 postrtg ip6 saddr fd00:244::/48 ip6 daddr != ff00::/8 masquerade fully-random'
nft 'add rule ip6 flannel-ipv6 postrtg ip6 saddr != fd00:244::/48 ip6 daddr fd00:244::/48 masquerade fully-random'
ip neigh replace 10.244.1.0 dev flannel.1 lladdr {MAC_B} nud permanent
bridge fdb replace {MAC_B} dev flannel.1 dst 192.168.50.2 self permanent
ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
ip neigh replace fd00:244:0:1:: dev flannel-v6.1 lladdr {MAC6_B} nud permanent
bridge fdb replace {MAC6_B} dev flannel-v6.1 dst fd00:50::2 self permanent
ip -6 route add fd00:244:0:1::/64 via fd00:244:0:1:: dev flannel-v6.1 onlink
ip neigh replace 10.244.2.0 dev flannel.1 lladdr {MAC_C} nud permanent
bridge fdb replace {MAC_C} dev flannel.1 dst 192.168.50.3 self permanent
ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
ip neigh replace fd00:244:0:2:: dev flannel-v6.1 lladdr {MAC6_C} nud permanent
bridge fdb replace {MAC6_C} dev flannel-v6.1 dst fd00:50::3 self permanent
ip -6 route add fd00:244:0:2::/64 via fd00:244:0:2:: dev flannel-v6.1 onlink
ip link add name cni0 address 0a:58:0a:f4:00:01 mtu 1450 type bridge
ip link add name veth5cce6771 mtu 1450 type veth peer name eth0 address 0a:58:0a:f4:00:02 mtu 1450 netns a1
ip link add name vethf932eb69 mtu 1450 type veth peer name eth0 address 0a:58:0a:f4:00:03 mtu 1450 netns a2
sysctl -qw net.ipv6.conf.cni0.accept_ra=0
ip link set dev cni0 up
ip addr add 10.244.0.1/24 dev cni0
ip addr add fd00:244::1/64 dev cni0 nodad
ip link set dev veth5cce6771 master cni0
bridge link set dev veth5cce6771 hairpin on
ip link set dev veth5cce6771 up
ip link set dev vethf932eb69 master cni0
bridge link set dev vethf932eb69 hairpin on
ip link set dev vethf932eb69 up
"""

POD_A1 = """\
ip link set dev lo up
sysctl -qw net.ipv6.conf.eth0.accept_dad=0
ip link set dev eth0 up
ip addr add 10.244.0.2/24 dev eth0
ip addr add fd00:244::2/64 dev eth0 nodad
ip route add 10.244.0.0/16 via 10.244.0.1 dev eth0
ip -6 route add fd00:244::/48 via fd00:244::1 dev eth0
ip route add default via 10.244.0.1 dev eth0
ip -6 route add default via fd00:244::1 dev eth0
"""


def designed(topology: Topology, plane: Flannel) -> Cluster:
    plane.check(topology)
    return build_cluster(topology, plane.ipam(topology))


def text(topology: Topology, plane: Flannel, namespace: str) -> str:
    return "".join(f"{line}\n" for line in shell_lines(plane.plan(designed(topology, plane))[namespace]))


def grep(words: str, lines: str) -> list[str]:
    return [line for line in lines.splitlines() if any(line.startswith(word) for word in words.split("|"))]


def endpoint(cluster: Cluster, name: str) -> Endpoint:
    return next(e for e in cluster.endpoints if e.pod.name == name)


@pytest.mark.parametrize(("namespace", "expected"), [("node-a", NODE_A), ("default/a1", POD_A1)])
def test_plan(namespace: str, expected: str) -> None:
    assert text(DUAL, Flannel(), namespace) == expected


def test_a_node_without_pods_has_no_bridge() -> None:
    assert "cni0" not in text(replace(DUAL, pods=DUAL.pods[2:]), Flannel(), "node-a")


ROUTES = "ip neigh|bridge fdb|ip route|ip -6 route"


@pytest.mark.parametrize(
    ("topology", "plane", "expected"),
    [
        pytest.param(
            ROUTED,
            Flannel(direct_routing=True),
            f"""\
ip route add 10.244.1.0/24 via 192.168.50.2 dev eth0
ip -6 route add fd00:244:0:1::/64 via fd00:50::2 dev eth0
ip neigh replace 10.244.2.0 dev flannel.1 lladdr {MAC_C} nud permanent
bridge fdb replace {MAC_C} dev flannel.1 dst 192.168.60.3 self permanent
ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
ip neigh replace fd00:244:0:2:: dev flannel-v6.1 lladdr {MAC6_C} nud permanent
bridge fdb replace {MAC6_C} dev flannel-v6.1 dst fd00:60::3 self permanent
ip -6 route add fd00:244:0:2::/64 via fd00:244:0:2:: dev flannel-v6.1 onlink
""",
            id="direct routing within the segment, a tunnel beyond it",
        ),
        pytest.param(
            DUAL,
            Flannel(backend="host-gw"),
            """\
ip route add 10.244.1.0/24 via 192.168.50.2 dev eth0
ip -6 route add fd00:244:0:1::/64 via fd00:50::2 dev eth0
ip route add 10.244.2.0/24 via 192.168.50.3 dev eth0
ip -6 route add fd00:244:0:2::/64 via fd00:50::3 dev eth0
""",
            id="host-gw",
        ),
        pytest.param(
            ROUTED,
            Flannel(backend="host-gw"),
            """\
ip route add 10.244.1.0/24 via 192.168.50.2 dev eth0
ip -6 route add fd00:244:0:1::/64 via fd00:50::2 dev eth0
""",
            id="host-gw has no way through a router",
        ),
        pytest.param(
            replace(V4, nodes=V4.nodes[:2], pods=V4.pods[:3]),
            Flannel(vni=7),
            """\
ip neigh replace 10.244.1.0 dev flannel.7 lladdr e2:2d:d6:0a:02:c7 nud permanent
bridge fdb replace e2:2d:d6:0a:02:c7 dev flannel.7 dst 192.168.50.2 self permanent
ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.7 onlink
""",
            id="another VNI",
        ),
        pytest.param(
            replace(V4_UNDERLAY, nodes=DUAL.nodes[:2], pods=DUAL.pods[:3]),
            Flannel(),
            f"""\
ip neigh replace 10.244.1.0 dev flannel.1 lladdr {MAC_B} nud permanent
bridge fdb replace {MAC_B} dev flannel.1 dst 192.168.50.2 self permanent
ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
ip neigh replace fd00:244:0:1:: dev flannel.1 lladdr {MAC_B} nud permanent
ip -6 route add fd00:244:0:1::/64 via fd00:244:0:1:: dev flannel.1 onlink
""",
            id="IPv6 pods over an IPv4 underlay",
        ),
    ],
)
def test_ways_to_other_nodes(topology: Topology, plane: Flannel, expected: str) -> None:
    assert grep(ROUTES, text(topology, plane, "node-a")) == expected.splitlines()


@each_row(
    "topology, plane, expected",
    [
        (V4, Flannel(), ["ip link add name flannel.1 address", "ip link add name cni0 address"]),
        (V6, Flannel(), ["ip link add name flannel-v6.1 address", "ip link add name cni0 address"]),
        (V4, Flannel(backend="host-gw"), ["ip link add name cni0 address"]),
    ],
)
def test_devices(topology: Topology, plane: Flannel, expected: list[str]) -> None:
    lines = grep("ip link add name flannel|ip link add name cni", text(topology, plane, "node-a"))
    assert [" ".join(line.split()[:6]) for line in lines] == expected


def test_a_pod_network_of_several_cidrs() -> None:
    cidrs = (ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("172.16.2.0/24"))
    topology = replace(DUAL, nodes=DUAL.nodes[:2], links=DUAL.links[:2], pods=DUAL.pods[:3], pod_cidrs=cidrs)
    assert grep("ip route", text(topology, Flannel(), "default/a1")) == [
        "ip route add 172.16.2.0/24 via 192.168.1.1 dev eth0",  # its own /24 came with the address
        "ip route add default via 192.168.1.1 dev eth0",
    ]
    assert (
        "nft 'add rule ip flannel-ipv4 postrtg ip saddr 192.168.1.0/24 ip daddr { 192.168.1.0/24, 172.16.2.0/24 } return'\n"
        in text(topology, Flannel(), "node-a")
    )


def tunnel(source: str, destination: str, port: int = 8472, vni: int = 1) -> tuple[Tunnel, ...]:
    return (Tunnel(ipaddress.ip_address(source), ipaddress.ip_address(destination), port, vni),)


@each_row(
    "topology, plane, pods, family, expected",
    [
        (DUAL, Flannel(), "a1 a2", 4, Wire(0, 1450)),
        (DUAL, Flannel(), "a1 a2", 6, Wire(0, 1450)),
        (DUAL, Flannel(), "a1 b1", 4, Wire(2, 1450, tunnel("192.168.50.1", "192.168.50.2"))),
        (DUAL, Flannel(), "c1 b1", 6, Wire(2, 1430, tunnel("fd00:50::3", "fd00:50::2"))),
        (DUAL, Flannel(mtu=1400), "c1 b1", 6, Wire(2, 1400, tunnel("fd00:50::3", "fd00:50::2"))),
        (DUAL, Flannel(vni=7, port=4789), "a1 b1", 4, Wire(2, 1450, tunnel("192.168.50.1", "192.168.50.2", 4789, 7))),
        (V4_UNDERLAY, Flannel(), "a1 b1", 6, Wire(2, 1450, tunnel("192.168.50.1", "192.168.50.2"))),
        (V4_UNDERLAY, Flannel(direct_routing=True), "a1 b1", 6, Wire(2, 1450, tunnel("192.168.50.1", "192.168.50.2"))),
        (ROUTED, Flannel(direct_routing=True), "a1 b1", 4, Wire(2, 1450)),
        (ROUTED, Flannel(direct_routing=True), "a1 c1", 4, Wire(2, 1450, tunnel("192.168.50.1", "192.168.60.3"))),
        (DUAL, Flannel(backend="host-gw"), "a1 b1", 6, Wire(2, 1500)),
        (DUAL, Flannel(backend="host-gw"), "a1 a2", 4, Wire(0, 1500)),
        (
            replace(V4, links=(*V4.links[:2], link("node-c", "192.168.50.3/24", mtu=9000))),
            Flannel(),
            "a1 a2",
            4,
            Wire(0, 1450),
        ),
    ],
)
def test_wire(topology: Topology, plane: Flannel, pods: str, family: int, expected: Wire) -> None:
    cluster = designed(topology, plane)
    source, destination = (endpoint(cluster, name) for name in pods.split())
    assert plane.wire(cluster, source, destination, family) == expected


@each_row(
    "topology, plane, message",
    [
        (DUAL, Flannel(backend="hostgw"), "flannel: unknown backend 'hostgw' (did you mean 'host-gw'?)"),
        (DUAL, Flannel(backend="?"), "flannel: unknown backend '?' (known: host-gw, vxlan)"),
        (DUAL, Flannel(vni=0), "flannel: vni 0 is out of range, 1 to 16777215 expected"),
        (DUAL, Flannel(vni=2**24), "flannel: vni 16777216 is out of range, 1 to 16777215 expected"),
        (DUAL, Flannel(port=65536), "flannel: port 65536 is out of range, 1 to 65535 expected"),
        (DUAL, Flannel(mtu=1451), "mtu 1451 does not fit: the underlay carries 1500 bytes, 50 of them overhead"),
        (
            DUAL,
            Flannel(mtu=1279),
            "MTU too small: 1500 on the underlay leaves 1279 bytes to pods, at least 1280 needed",
        ),
        (
            replace(DUAL, links=tuple(replace(one, mtu=1340) for one in DUAL.links)),
            Flannel(),
            "MTU too small: 1340 on the underlay leaves 1270 bytes to pods, at least 1280 needed",
        ),
        (V4_UNDERLAY, Flannel(backend="host-gw"), "flannel: host-gw needs an IPv6 underlay address on every node"),
        (
            NO_COMMON,
            Flannel(),
            "no underlay family is common to all nodes, expected IPv4 or IPv6 addresses on every uplink",
        ),
    ],
)
def test_refusals(topology: Topology, plane: Flannel, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        plane.check(topology)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("api", "kind", "message"),
    [
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "flannel enforces no NetworkPolicy: nothing is blocked (kube-network-policies or Calico beside it would)",
        ),
        (
            "projectcalico.org/v3",
            "GlobalNetworkPolicy",
            "flannel enforces no GlobalNetworkPolicy: nothing is blocked (Calico beside it would)",
        ),
    ],
)
def test_unenforced(api: str, kind: str, message: str) -> None:
    assert Flannel().unenforced(Policy(api, kind, "default", "deny")) == message
