"""Calico's plan as the text that a person would type, its promises, and its refusals."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from designed import catalogued
from tables import each_row

from emulab.dataplane import Tunnel, Wire, build_cluster
from emulab.errors import InputError
from emulab.model import Cluster, Link, Node, Pod, Segment, Topology
from emulab.planning import design
from emulab.state import NftTable, Route, shell_lines
from emulab_plugins.calico import Calico

RACKS = {"a": 50, "b": 50, "c": 60}  # node -> third octet of its subnet


def topology(*, racks: int = 1, pods: str = "a b c", families: tuple[int, ...] = (4, 6), mtu: int = 1500) -> Topology:
    """Nodes a, b and c in one segment, or c in another; pods p0, p1, ... on the nodes named."""
    here = {node: subnet if racks == 2 else 50 for node, subnet in RACKS.items()}
    segments = tuple(
        Segment(f"rack-{subnet}", (ip_network(f"192.168.{subnet}.0/24"), ip_network(f"fd00:{subnet}::/64")), mtu)
        for subnet in sorted(set(here.values()))
    )
    links = tuple(
        Link(
            node,
            f"rack-{subnet}",
            addresses=(ip_interface(f"192.168.{subnet}.{index}/24"), ip_interface(f"fd00:{subnet}::{index}/64")),
            mtu=mtu,
        )
        for index, (node, subnet) in enumerate(here.items(), 1)
    )
    placed = tuple(Pod(f"p{index}", node) for index, node in enumerate(pods.split()))
    pools = tuple(p for p in (ip_network("10.65.0.0/16"), ip_network("fd00:65::/48")) if p.version in families)
    return Topology("t", segments, tuple(map(Node, here)), links, placed, pools)


def cluster(plane: Calico, wanted: Topology) -> Cluster:
    plane.check(wanted)
    return build_cluster(wanted, plane.ipam(wanted))


def text(plane: Calico, wanted: Topology, namespace: str, *, nft: bool) -> str:
    """One namespace's plan, either its nftables or all the rest."""
    objects = plane.plan(cluster(plane, wanted))[namespace]
    return "\n".join(shell_lines(o for o in objects if isinstance(o, NftTable) == nft))


def lines(expected: str) -> str:
    return textwrap.dedent(expected).strip()


def test_a_node() -> None:
    assert text(Calico(), topology(), "a", nft=False) == lines(
        """
        sysctl -qw net.ipv4.ip_forward=1
        sysctl -qw net.ipv6.conf.all.forwarding=1
        ip link add name cali2c1f6c05f3a address ee:ee:ee:ee:ee:ee mtu 1500 type veth peer name eth0 address 0a:58:0a:41:00:00 mtu 1500 netns p0
        sysctl -qw net.ipv4.conf.cali2c1f6c05f3a.route_localnet=1
        sysctl -qw net.ipv4.neigh.cali2c1f6c05f3a.proxy_delay=0
        sysctl -qw net.ipv4.conf.cali2c1f6c05f3a.proxy_arp=1
        sysctl -qw net.ipv4.conf.cali2c1f6c05f3a.forwarding=1
        sysctl -qw net.ipv6.conf.cali2c1f6c05f3a.accept_ra=0
        sysctl -qw net.ipv6.conf.cali2c1f6c05f3a.accept_dad=0
        sysctl -qw net.ipv6.conf.cali2c1f6c05f3a.proxy_ndp=1
        sysctl -qw net.ipv6.conf.cali2c1f6c05f3a.forwarding=1
        ip link set dev cali2c1f6c05f3a up
        ip route add 10.65.0.0/32 dev cali2c1f6c05f3a scope link
        ip -6 route add fd00:65::/128 dev cali2c1f6c05f3a
        ip route add blackhole 10.65.0.0/26 proto 80
        ip -6 route add blackhole fd00:65::/122 proto 80
        ip route add 10.65.0.64/26 via 192.168.50.2 dev eth0 proto 80 onlink
        ip -6 route add fd00:65::40/122 via fd00:50::2 dev eth0 proto 80 onlink
        ip route add 10.65.0.128/26 via 192.168.50.3 dev eth0 proto 80 onlink
        ip -6 route add fd00:65::80/122 via fd00:50::3 dev eth0 proto 80 onlink
        """  # noqa: E501
    )


def test_a_pod() -> None:
    assert text(Calico(), topology(), "default/p1", nft=False) == lines(
        """
        ip link set dev lo up
        sysctl -qw net.ipv6.conf.eth0.accept_dad=0
        ip link set dev eth0 up
        ip route add 169.254.1.1/32 dev eth0 scope link
        ip route add default via 169.254.1.1 dev eth0
        ip addr add 10.65.0.64/32 dev eth0
        ip -6 route add default via fe80::ecee:eeff:feee:eeee dev eth0
        ip addr add fd00:65::40/128 dev eth0 nodad
        """
    )


def test_a_node_with_tunnels() -> None:
    wanted = topology(racks=2, pods="", families=(4,))
    assert text(Calico("cross-subnet"), wanted, "a", nft=False) == lines(
        """
        sysctl -qw net.ipv4.ip_forward=1
        ip link add name vxlan.calico address 66:86:f7:e4:37:fa mtu 1450 type vxlan id 4096 local 192.168.50.1 dev eth0 dstport 4789 nolearning
        ip addr add 10.65.0.0/32 dev vxlan.calico
        ip link set dev vxlan.calico up
        ip neigh replace 10.65.0.64 dev vxlan.calico lladdr 66:e9:d7:1f:5e:e7 nud permanent
        bridge fdb replace 66:e9:d7:1f:5e:e7 dev vxlan.calico dst 192.168.50.2 self permanent
        ip neigh replace 10.65.0.128 dev vxlan.calico lladdr 66:84:a5:16:84:1b nud permanent
        bridge fdb replace 66:84:a5:16:84:1b dev vxlan.calico dst 192.168.60.3 self permanent
        ip route add blackhole 10.65.0.0/26 proto 80
        ip route add 10.65.0.64/26 via 192.168.50.2 dev eth0 proto 80 onlink
        ip route add 10.65.0.128/26 via 10.65.0.128 dev vxlan.calico onlink mtu 1450
        """  # noqa: E501
    )


def test_a_nodes_ruleset() -> None:
    assert text(Calico("vxlan"), topology(families=(4,)), "a", nft=True) == lines(
        """
        nft add table ip calico
        nft 'add set ip calico cali40all-ipam-pools { type ipv4_addr ; flags interval ; }'
        nft 'add set ip calico cali40masq-ipam-pools { type ipv4_addr ; flags interval ; }'
        nft 'add set ip calico cali40all-vxlan-net { type ipv4_addr ; flags interval ; }'
        nft 'add map ip calico filter-cali-from-wl-dispatch { type ifname : verdict ; }'
        nft 'add map ip calico filter-cali-to-wl-dispatch { type ifname : verdict ; }'
        nft 'add chain ip calico raw-PREROUTING { type filter hook prerouting priority raw ; }'
        nft 'add chain ip calico raw-cali-PREROUTING'
        nft 'add chain ip calico filter-INPUT { type filter hook input priority filter ; }'
        nft 'add chain ip calico filter-cali-INPUT'
        nft 'add chain ip calico filter-cali-wl-to-host'
        nft 'add chain ip calico filter-FORWARD { type filter hook forward priority filter ; }'
        nft 'add chain ip calico filter-cali-FORWARD'
        nft 'add chain ip calico nat-POSTROUTING { type nat hook postrouting priority srcnat + 10 ; }'
        nft 'add chain ip calico nat-cali-POSTROUTING'
        nft 'add chain ip calico nat-cali-nat-outgoing'
        nft 'add chain ip calico filter-cali-from-wl-dispatch'
        nft 'add chain ip calico filter-cali-pro-kns.default'
        nft 'add chain ip calico filter-cali-fw-cali2c1f6c05f3a'
        nft 'add chain ip calico filter-cali-to-wl-dispatch'
        nft 'add chain ip calico filter-cali-pri-kns.default'
        nft 'add chain ip calico filter-cali-tw-cali2c1f6c05f3a'
        nft 'add rule ip calico raw-PREROUTING jump raw-cali-PREROUTING'
        nft 'add rule ip calico raw-cali-PREROUTING meta mark set meta mark & 0xffe0ffff'
        nft 'add rule ip calico raw-cali-PREROUTING udp dport 4789 fib daddr type local notrack'
        nft 'add rule ip calico raw-cali-PREROUTING iifname "cali*" meta mark set meta mark | 0x00080000'
        nft 'add rule ip calico raw-cali-PREROUTING meta mark & 0x00080000 == 0x00080000 fib saddr . mark . iif oif 0 drop'
        nft 'add rule ip calico filter-INPUT jump filter-cali-INPUT'
        nft 'add rule ip calico filter-cali-INPUT udp dport 4789 ip saddr @cali40all-vxlan-net fib daddr type local accept'
        nft 'add rule ip calico filter-cali-INPUT udp dport 4789 fib daddr type local drop comment "VXLAN from non-allowed hosts"'
        nft 'add rule ip calico filter-cali-INPUT iifname "cali*" goto filter-cali-wl-to-host'
        nft 'add rule ip calico filter-cali-wl-to-host jump filter-cali-from-wl-dispatch'
        nft 'add rule ip calico filter-cali-wl-to-host accept'
        nft 'add rule ip calico filter-FORWARD jump filter-cali-FORWARD'
        nft 'add rule ip calico filter-FORWARD meta mark & 0x00010000 == 0x00010000 accept comment "Policy explicitly accepted packet."'
        nft 'add rule ip calico filter-FORWARD meta mark set meta mark | 0x00010000'
        nft 'add rule ip calico filter-cali-FORWARD meta mark set meta mark & 0xffe1ffff'
        nft 'add rule ip calico filter-cali-FORWARD iifname "cali*" jump filter-cali-from-wl-dispatch'
        nft 'add rule ip calico filter-cali-FORWARD oifname "cali*" jump filter-cali-to-wl-dispatch'
        nft 'add rule ip calico nat-POSTROUTING jump nat-cali-POSTROUTING'
        nft 'add rule ip calico nat-cali-POSTROUTING jump nat-cali-nat-outgoing'
        nft 'add rule ip calico nat-cali-POSTROUTING oifname "vxlan.calico" fib saddr . oif type != local fib saddr type local masquerade fully-random'
        nft 'add rule ip calico nat-cali-nat-outgoing ip saddr @cali40masq-ipam-pools ip daddr != @cali40all-ipam-pools masquerade fully-random'
        nft 'add rule ip calico filter-cali-from-wl-dispatch iifname vmap @filter-cali-from-wl-dispatch'
        nft 'add rule ip calico filter-cali-from-wl-dispatch drop comment "Unknown interface"'
        nft 'add rule ip calico filter-cali-pro-kns.default meta mark set meta mark | 0x00010000'
        nft 'add rule ip calico filter-cali-pro-kns.default return'
        nft 'add rule ip calico filter-cali-fw-cali2c1f6c05f3a ct state established,related accept'
        nft 'add rule ip calico filter-cali-fw-cali2c1f6c05f3a ct state invalid drop'
        nft 'add rule ip calico filter-cali-fw-cali2c1f6c05f3a meta mark set meta mark & 0xfffcffff'
        nft 'add rule ip calico filter-cali-fw-cali2c1f6c05f3a udp dport 4789 drop comment "VXLAN encapped packets originating in workloads"'
        nft 'add rule ip calico filter-cali-fw-cali2c1f6c05f3a meta l4proto 4 drop comment "IPinIP encapped packets originating in workloads"'
        nft 'add rule ip calico filter-cali-fw-cali2c1f6c05f3a jump filter-cali-pro-kns.default'
        nft 'add rule ip calico filter-cali-fw-cali2c1f6c05f3a meta mark & 0x00010000 == 0x00010000 return'
        nft 'add rule ip calico filter-cali-fw-cali2c1f6c05f3a drop comment "Drop if no profiles matched"'
        nft 'add rule ip calico filter-cali-to-wl-dispatch oifname vmap @filter-cali-to-wl-dispatch'
        nft 'add rule ip calico filter-cali-to-wl-dispatch drop comment "Unknown interface"'
        nft 'add rule ip calico filter-cali-pri-kns.default meta mark set meta mark | 0x00010000'
        nft 'add rule ip calico filter-cali-pri-kns.default return'
        nft 'add rule ip calico filter-cali-tw-cali2c1f6c05f3a ct state established,related accept'
        nft 'add rule ip calico filter-cali-tw-cali2c1f6c05f3a ct state invalid drop'
        nft 'add rule ip calico filter-cali-tw-cali2c1f6c05f3a meta mark set meta mark & 0xfffcffff'
        nft 'add rule ip calico filter-cali-tw-cali2c1f6c05f3a jump filter-cali-pri-kns.default'
        nft 'add rule ip calico filter-cali-tw-cali2c1f6c05f3a meta mark & 0x00010000 == 0x00010000 return'
        nft 'add rule ip calico filter-cali-tw-cali2c1f6c05f3a drop comment "Drop if no profiles matched"'
        nft 'add element ip calico cali40all-ipam-pools { 10.65.0.0/16 }'
        nft 'add element ip calico cali40masq-ipam-pools { 10.65.0.0/16 }'
        nft 'add element ip calico cali40all-vxlan-net { 192.168.50.2, 192.168.50.3 }'
        nft 'add element ip calico filter-cali-from-wl-dispatch { "cali2c1f6c05f3a" : goto filter-cali-fw-cali2c1f6c05f3a }'
        nft 'add element ip calico filter-cali-to-wl-dispatch { "cali2c1f6c05f3a" : goto filter-cali-tw-cali2c1f6c05f3a }'
        """  # noqa: E501
    )


def test_both_families_have_a_table() -> None:
    tables = [o for o in Calico().plan(cluster(Calico(), topology()))["a"] if isinstance(o, NftTable)]
    assert [(table.family, table.name) for table in tables] == [("ip", "calico"), ("ip6", "calico")]
    assert "add element ip6 calico cali60all-ipam-pools { fd00:65::/48 }" in tables[1].rules
    assert not any("vxlan" in rule and "cali60" in rule for rule in tables[1].rules)
    to_host = [rule.partition("wl-to-host ")[2] for rule in tables[1].rules if "rule ip6 calico filter-cali-wl-to-host" in rule]
    assert to_host == ["icmpv6 type { 130, 131, 132, 133, 135, 136 } accept", "jump filter-cali-from-wl-dispatch", "accept"]


@each_row(
    "plane, wanted, element",
    [
        (Calico(nat_outgoing=True), True, "cali40masq-ipam-pools { 10.65.0.0/16 }"),
        (Calico(nat_outgoing=False), False, "cali40masq-ipam-pools {"),
        (Calico(nat_outgoing=False), True, "cali40all-ipam-pools { 10.65.0.0/16 }"),
        (Calico("never"), False, "cali40all-vxlan-net"),
        (Calico("vxlan"), True, "cali40all-vxlan-net { 192.168.50.2, 192.168.50.3 }"),
    ],
)
def test_sets(plane: Calico, wanted: bool, element: str) -> None:
    assert (f"add element ip calico {element}" in text(plane, topology(), "a", nft=True)) is wanted


@each_row("encap", ["never", "cross-subnet", "vxlan"])
def test_a_pod_costs_other_nodes_nothing(encap: str) -> None:
    plane = Calico(encap)
    few, many = (plane.plan(cluster(plane, topology(pods=pods))) for pods in ("a b", "a b b b b"))
    assert few["a"] == many["a"] and few["c"] == many["c"]
    assert few["b"] != many["b"]


@each_row(
    "encap, expected",
    [
        ("never", "10.65.0.2/32 via 192.168.50.1 dev eth0 proto 80 onlink"),
        ("cross-subnet", "10.65.0.3/32 via 192.168.50.1 dev eth0 proto 80 onlink"),
        ("vxlan", "10.65.0.3/32 via 10.65.0.0 dev vxlan.calico onlink mtu 1450"),
    ],
)
def test_a_borrowed_address_has_a_route_of_its_own(encap: str, expected: str) -> None:
    plane = Calico(encap, block_size=31)
    wanted = replace(topology(pods="a a a", families=(4,)), pod_cidrs=(ip_network("10.65.0.0/30"),))
    if encap != "never":
        wanted = replace(wanted, nodes=wanted.nodes[:2], pods=wanted.pods[:2])
    assert f"ip route add {expected}" in text(plane, wanted, "b", nft=False)


def test_blocks_of_one_address_have_no_blackhole() -> None:
    plane = Calico(block_size=32)
    assert "blackhole" not in text(plane, topology(families=(4,)), "a", nft=False)


@each_row(
    "plane, families, source, destination, family, ttl_loss, mtu, tunnel",
    [
        (Calico(), (4, 6), "p0", "p1", 4, 1, 1500, ""),
        (Calico(), (4, 6), "p0", "p2", 4, 2, 1500, ""),
        (Calico(), (4, 6), "p0", "p3", 6, 2, 1500, ""),
        (Calico("cross-subnet"), (4,), "p0", "p1", 4, 1, 1450, ""),
        (Calico("cross-subnet"), (4,), "p0", "p2", 4, 2, 1450, ""),
        (Calico("cross-subnet"), (4,), "p0", "p3", 4, 2, 1450, "192.168.50.1 192.168.60.3"),
        (Calico("vxlan"), (4,), "p3", "p2", 4, 2, 1450, "192.168.60.3 192.168.50.2"),
        (Calico("vxlan"), (6,), "p0", "p2", 6, 2, 1430, "fd00:50::1 fd00:50::2"),
        (Calico("vxlan"), (4, 6), "p0", "p2", 4, 2, 1430, "192.168.50.1 192.168.50.2"),
        (Calico("vxlan", mtu=1400), (4, 6), "p0", "p1", 4, 1, 1400, ""),
    ],
)
def test_wire(
    plane: Calico,
    families: tuple[int, ...],
    source: str,
    destination: str,
    family: int,
    ttl_loss: int,
    mtu: int,
    tunnel: str,
) -> None:
    found = cluster(plane, topology(racks=2, pods="a a b c", families=families))
    pods = {endpoint.pod.name: endpoint for endpoint in found.endpoints}
    ends = [ip_address(end) for end in tunnel.split()]
    tunnels = (Tunnel(ends[0], ends[1], 4789, 4096),) if ends else ()
    assert plane.wire(found, pods[source], pods[destination], family) == Wire(ttl_loss, mtu, tunnels)


def test_never_routes_across_the_router_all_the_same() -> None:
    """As Felix does: the next hop is onlink, and its ARP request finds nobody."""
    routes = [o for o in Calico().plan(cluster(Calico(), topology(racks=2)))["a"] if isinstance(o, Route)]
    lost = Route(ip_network("10.65.0.128/26"), "eth0", ip_address("192.168.60.3"), onlink=True, protocol=80)
    assert lost in routes


@each_row(
    "plane, message",
    [
        (Calico("vxlann"), "calico: unknown encap 'vxlann' (did you mean 'vxlan'?)"),
        (Calico("ipip"), "calico: unknown encap 'ipip' (known: cross-subnet, never, vxlan)"),
        (Calico(vni=0), "calico: vni 0 is out of range, 1 to 16777215 expected"),
        (Calico(port=65536), "calico: port 65536 is out of range, 1 to 65535 expected"),
        (Calico(block_size=19), "calico: block_size 19 is out of range, 20 to 32 expected"),
        (Calico(block_size_v6=64), "calico: block_size_v6 64 is out of range, 116 to 128 expected"),
        (Calico("vxlan", mtu=1500), "mtu 1500 does not fit: the underlay carries 1500 bytes, 50 of them overhead"),
    ],
)
def test_refusals(plane: Calico, message: str) -> None:
    with pytest.raises(InputError) as caught:
        plane.check(topology())
    assert str(caught.value) == message


def test_pods_need_an_underlay_of_their_family() -> None:
    wanted = topology()
    links = tuple(replace(link, addresses=link.addresses[:1]) for link in wanted.links)
    with pytest.raises(InputError, match="node a needs an IPv6 address for its IPv6 pods"):
        Calico().check(replace(wanted, links=links))


@pytest.mark.parametrize(
    ("namespace", "name", "device"),
    [
        ("namespace", "podname", "cali82111e10a96"),  # a vector of Calico's own unit tests
        ("default", "nginx", "calic440f455693"),
    ],
)
def test_interface_names(namespace: str, name: str, device: str) -> None:
    wanted = replace(topology(), pods=(Pod(name, "a", namespace),))
    assert f"dev {device} scope link" in text(Calico(), wanted, "a", nft=False)


def test_vtep_macs_follow_the_nodes_names() -> None:
    """'f' and the first five bytes of SHA-1."""
    wanted = topology(pods="")
    renamed = replace(
        wanted,
        nodes=tuple(Node(f"h{index}") for index in range(1, 4)),
        links=tuple(replace(link, node=f"h{index}") for index, link in enumerate(wanted.links, 1)),
    )
    shown = text(Calico("vxlan"), renamed, "h2", nft=False)
    assert "10.65.0.0 dev vxlan.calico lladdr 66:ac:4a:e9:72:85" in shown
    assert "name vxlan.calico address 66:bf:1c:36:57:41" in shown


def test_a_pod_answers_its_router_whatever_policies_say() -> None:
    """Neighbour discovery of IPv6 is ICMP to the node itself: an egress policy would have the pod lost to it."""
    plan = design(catalogued("flat"), Calico()).plan
    tables = {table.family: table.rules for table in plan["node-a"] if isinstance(table, NftTable)}
    allowed = "add rule ip6 calico filter-cali-wl-to-host icmpv6 type { 130, 131, 132, 133, 135, 136 } accept"
    judged = "add rule ip6 calico filter-cali-wl-to-host jump filter-cali-from-wl-dispatch"
    assert tables["ip6"].index(allowed) < tables["ip6"].index(judged)
    assert not any("icmp" in rule for rule in tables["ip"])
