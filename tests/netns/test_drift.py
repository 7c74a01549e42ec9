"""Drift on the real kernel: every alteration by hand is named, alone.  (test_planes.py: healthy labs show none.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from sandboxed import repaired

from emulab.lab import Lab


class Altered(NamedTuple):
    """Command lines typed on node-a, the deviations that they make, and whether a repair can put them back."""

    plugin: str
    commands: str
    shown: list[str]
    topology: str = "flat"
    mended: bool = True


PAIR = "ip link add name veth5cce6771 mtu 1450 type veth peer name eth0 address 0a:58:0a:01:01:01 mtu 1450 netns a1"
IN_POD = "ip link add name eth0 address 0a:58:0a:01:01:01 mtu 1450 type veth peer name veth5cce6771 mtu 1450 netns node-a"
PORT = "ip link set dev veth5cce6771 master cni0; bridge link set dev veth5cce6771 hairpin on"
BRIDGE = "ip link add name cni0 address 0a:58:0a:01:01:fe mtu 1450 type bridge"
ROUTE = "ip route add 10.1.2.0/24 via 10.1.2.0 dev flannel.1 onlink"
NEIGHBOUR = "ip neigh replace 10.1.2.0 dev flannel.1 lladdr 42:0e:62:44:7b:79 nud permanent"
ENTRY = "bridge fdb replace 42:0e:62:44:7b:79 dev flannel.1 dst 192.168.50.2 self permanent"
TABLE = "nft table ip flannel-ipv4"
OF_THE_POD = [
    "sysctl -qw net.ipv6.conf.eth0.accept_dad=0",
    "ip link set dev eth0 up",
    "ip addr add 10.1.1.1/24 dev eth0",
    "ip addr add fd00:10:1::2/64 dev eth0 nodad",
    "ip route add 10.1.0.0/16 via 10.1.1.254 dev eth0",
    "ip -6 route add fd00:10:1::/56 via fd00:10:1::1 dev eth0",
    "ip route add default via 10.1.1.254 dev eth0",
    "ip -6 route add default via fd00:10:1::1 dev eth0",
]
OF_THE_UPLINK = [
    "ip link set dev eth0 up",
    "ip addr add fd00:50::1/64 dev eth0 nodad",
    "ip route add default via 192.168.50.254 dev eth0",
    "ip -6 route add default via fd00:50::fe dev eth0",
]
OF_VXLAN_2 = "ip link add name vxlan-2 mtu 1376 type vxlan id 8193 local 192.168.50.1 remote 192.168.50.2 dev eth0 dstport 6784"


def on(place: str, kind: str, *lines: str) -> list[str]:
    return [f"{place}: {kind}: {line}" for line in lines]


def missing(*lines: str) -> list[str]:
    return on("node-a", "missing", *lines)


def altered(planned: str, found: str) -> list[str]:
    return on("node-a", "altered", f"{planned}  (found: {found})")


def extra(*lines: str) -> list[str]:
    return on("node-a", "extra", *lines)


def rules(*said: str) -> list[str]:
    return on("node-a", "altered", f"{TABLE} ({'; '.join(said)})")


CASES = [
    Altered("flannel", "ip route del 10.1.2.0/24", missing(ROUTE)),
    Altered(
        "flannel",
        "ip route replace 10.1.2.0/24 via 192.168.50.2",
        altered(ROUTE, "device eth0, via 192.168.50.2, onlink off"),
    ),
    Altered(
        "flannel",
        "ip route replace 10.1.2.0/24 nexthop via 192.168.50.2 nexthop via 192.168.50.3",
        altered(ROUTE, "ip route add 10.1.2.0/24 nexthop via 192.168.50.2 dev eth0 nexthop via 192.168.50.3 dev eth0"),
    ),
    Altered(
        "flannel", "ip route append 10.1.2.0/24 via 192.168.50.2", extra("ip route add 10.1.2.0/24 via 192.168.50.2 dev eth0")
    ),
    Altered("flannel", "ip route add blackhole 10.1.2.7/32", extra("ip route add blackhole 10.1.2.7/32")),
    Altered(
        "flannel",
        "ip route del 192.168.50.0/24",
        missing("ip route add 192.168.50.0/24 dev eth0 proto 2 scope link src 192.168.50.1"),
    ),
    Altered(
        "flannel",
        "ip -6 route change fd00:10:1:1::/64 via fd00:50::3 dev eth0",
        altered(
            "ip -6 route add fd00:10:1:1::/64 via fd00:10:1:1:: dev flannel-v6.1 onlink",
            "device eth0, via fd00:50::3, onlink off",
        ),
    ),
    Altered("flannel", "ip -6 route add fd00:9::/64 dev eth0 metric 7", extra("ip -6 route add fd00:9::/64 dev eth0 metric 7")),
    Altered("calico", "ip route del blackhole 10.1.1.0/26 proto 80", missing("ip route add blackhole 10.1.1.0/26 proto 80")),
    Altered("flannel", "bridge fdb del 42:0e:62:44:7b:79 dev flannel.1 dst 192.168.50.2", missing(ENTRY)),
    Altered(
        "flannel",
        "bridge fdb replace 42:0e:62:44:7b:79 dev flannel.1 dst 192.168.50.9",
        altered(ENTRY, "remote 192.168.50.9"),
    ),
    Altered(
        "flannel",
        "bridge fdb add 02:00:00:00:00:01 dev veth5cce6771 master static",
        extra("bridge fdb replace 02:00:00:00:00:01 dev veth5cce6771 master static"),
    ),
    Altered(
        "weave",
        "bridge fdb del 0a:58:0a:01:40:01 dev vxlan-2 master",
        missing("bridge fdb replace 0a:58:0a:01:40:01 dev vxlan-2 master static"),
        topology="partial-mesh",
    ),
    Altered(
        "weave",
        "bridge fdb del 00:00:00:00:00:00 dev vxlan-2 dst 192.168.50.2 via eth0",
        altered(f"{OF_VXLAN_2} learning df set", "no remote"),
    ),
    Altered(
        "flannel",
        "ip neigh replace 10.1.2.0 dev flannel.1 lladdr 02:00:00:00:00:01 nud permanent",
        altered(NEIGHBOUR, "mac 02:00:00:00:00:01"),
    ),
    Altered("flannel", "ip neigh replace 10.1.2.0 dev flannel.1 lladdr 42:0e:62:44:7b:79 nud stale", missing(NEIGHBOUR)),
    Altered(
        "flannel",
        "ip neigh add 10.1.1.9 dev cni0 lladdr 02:00:00:00:00:01",
        extra("ip neigh replace 10.1.1.9 dev cni0 lladdr 02:00:00:00:00:01 nud permanent"),
    ),
    Altered("flannel", "ip addr add 10.7.7.7/24 dev eth0", extra("ip addr add 10.7.7.7/24 dev eth0")),
    Altered("flannel", "ip addr del 10.1.1.254/24 dev cni0", missing("ip addr add 10.1.1.254/24 dev cni0")),
    Altered("flannel", "ip link set dev veth5cce6771 down", missing("ip link set dev veth5cce6771 up")),
    Altered("flannel", "ip link set dev eth0 down", missing(*OF_THE_UPLINK)),
    Altered("flannel", "ip link set dev veth5cce6771 mtu 1400", altered(PAIR, "mtu 1400")),  # cni0 follows: no deviation
    Altered("flannel", "ip link set dev cni0 mtu 1400", altered(BRIDGE, "mtu 1400")),
    Altered("flannel", "ip link set dev cni0 address 02:00:00:00:00:01", altered(BRIDGE, "mac 02:00:00:00:00:01")),
    Altered(
        "flannel",
        "ip netns exec a1 ip link set dev eth0 mtu 1300",
        on("default/a1", "altered", f"{IN_POD}  (found: mtu 1300)"),
    ),
    Altered(
        "flannel",
        "ip netns exec a1 ip link set dev eth0 address 02:00:00:00:00:01",
        on("default/a1", "altered", f"{IN_POD}  (found: mac 02:00:00:00:00:01)"),
    ),
    Altered(
        "flannel",
        "ip link del veth5cce6771",
        missing(PAIR, PORT, "ip link set dev veth5cce6771 up") + on("default/a1", "missing", *OF_THE_POD),
    ),
    Altered(
        "flannel",
        "ip link set veth5cce6771 address 02:00:00:00:00:02; "
        "ip netns exec a1 ip link set eth0 netns a2 name eth1 address 02:00:00:00:00:01",
        missing(PAIR)
        + on("default/a1", "missing", *OF_THE_POD)
        + on(
            "default/a2",
            "extra",
            "ip link add name eth1 address 02:00:00:00:00:01 mtu 1450 type veth peer name veth5cce6771 "
            "address 02:00:00:00:00:02 mtu 1450 netns node-a",
        ),
    ),
    Altered(
        "flannel",
        "ip link del cni0",
        missing(
            BRIDGE,
            "sysctl -qw net.ipv6.conf.cni0.accept_ra=0",
            "ip link set dev cni0 up",
            "ip addr add 10.1.1.254/24 dev cni0",
            "ip addr add fd00:10:1::1/64 dev cni0 nodad",
            PORT,
            PORT.replace("veth5cce6771", "vethf932eb69"),
        ),
    ),
    Altered(
        "flannel",
        "ip link add br7 address 02:00:00:00:00:01 type bridge && ip link set br7 up",
        extra("ip link add name br7 address 02:00:00:00:00:01 mtu 1500 type bridge", "ip link set dev br7 up"),
    ),
    Altered(
        "flannel",
        "ip link add x7 address 02:00:00:00:00:01 type veth peer name y7 address 02:00:00:00:00:02 netns a1",
        extra(
            "ip link add name x7 address 02:00:00:00:00:01 mtu 1500 type veth peer name y7 address 02:00:00:00:00:02 "
            "mtu 1500 netns a1"
        ),
    ),
    Altered(
        "flannel",
        "ip link add vx7 address 02:00:00:00:00:01 type vxlan id 7 dev eth0 local 192.168.50.1 dstport 4789",
        extra(
            "ip link add name vx7 address 02:00:00:00:00:01 mtu 1450 type vxlan id 7 local 192.168.50.1 dev eth0 "
            "dstport 4789 learning"
        ),
    ),
    Altered("flannel", "ip link set dev veth5cce6771 nomaster", missing(PORT)),
    Altered("flannel", "bridge link set dev veth5cce6771 hairpin off", altered(PORT, "hairpin off")),
    Altered("flannel", "sysctl -qw net.ipv4.ip_forward=0", altered("sysctl -qw net.ipv4.ip_forward=1", "value 0")),
    Altered(
        "flannel",
        "sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
        altered("sysctl -qw net.ipv4.conf.eth0.rp_filter=0", "value 1"),
    ),
    Altered(
        "flannel",
        "sysctl -qw net.ipv6.conf.flannel/1.accept_ra=1",
        altered("sysctl -qw net.ipv6.conf.flannel/1.accept_ra=0", "value 1"),
    ),
    Altered(
        "weave",
        "ip ntable change name arp_cache dev weave queue 10 base_reachable 44000",
        altered("sysctl -qw net.ipv4.neigh.weave.base_reachable_time=5", "value 44"),
    ),
    Altered(
        "weave",
        "ip netns exec a1 ethtool -K eth0 tx on >/dev/null",
        on("default/a1", "altered", "ethtool -K eth0 tx off  (found: enabled on)"),
    ),
    Altered(
        "flannel",
        "nft add rule ip flannel-ipv4 forward counter udp dport 8472 drop",
        rules("chain forward: extra: counter udp dport 8472 drop"),
    ),
    Altered(
        "flannel",
        "nft flush chain ip flannel-ipv4 forward",
        rules("chain forward: missing: ip saddr 10.1.0.0/16 accept", "chain forward: missing: ip daddr 10.1.0.0/16 accept"),
    ),
    Altered(
        "flannel",
        "nft add chain ip flannel-ipv4 forward '{ policy drop ; }'",
        rules(
            "chain forward: missing: { type filter hook forward priority filter; policy accept; }",
            "chain forward: extra: { type filter hook forward priority filter; policy drop; }",
        ),
    ),
    Altered("flannel", "nft add table ip flannel-ipv4 '{ flags dormant ; }'", rules("extra: { flags dormant; }")),
    Altered(
        "weave",
        "nft delete element ip weave weaver-no-masq-local '{ 10.1.1.2 }'",
        on("node-a", "altered", "nft table ip weave (set weaver-no-masq-local: missing: { 10.1.1.2 })"),
    ),
    Altered("flannel", "nft delete table ip flannel-ipv4", missing(TABLE)),
    Altered(
        "flannel",
        "nft add table ip evil; nft add chain ip evil forward; nft add rule ip evil forward udp dport 8472 drop",
        extra("nft table ip evil (chain forward: udp dport 8472 drop)"),
    ),
    Altered("flannel", "ip netns exec a1 nft add table inet evil", on("default/a1", "extra", "nft table inet evil")),
    Altered(
        "flannel",
        "tc qdisc add dev eth0 root tbf rate 1mbit burst 131072 latency 50ms",
        extra("tc qdisc add dev eth0 root tbf rate 1000000bit burst 131072 latency 50ms"),
    ),
    Altered(
        "flannel",
        "tc qdisc add dev eth0 root tbf rate 1mbit burst 4000 latency 50ms",
        extra("tc qdisc add dev eth0 root tbf rate 1000000bit burst 4000"),
    ),
    Altered("flannel", "tc qdisc add dev eth0 clsact", extra("tc qdisc add dev eth0 clsact"), mended=False),
]


def kind(case: Altered) -> list[str]:
    """What is altered there, by its command's first words."""
    words = case.commands.removeprefix("ip netns exec a1 ").split()
    return words[: 3 if words[0] == "nft" else 2]


def by_lab() -> dict[tuple[str, str, str], list[Altered]]:
    """All cases as root, as an ordinary user one of each kind, by (user, topology, plugin)."""
    found: dict[tuple[str, str, str], list[Altered]] = {}
    for user, cases in (
        ("root", CASES),
        ("user", [case for case in CASES if next(one for one in CASES if kind(one) == kind(case)) is case]),
    ):
        for case in cases:
            found.setdefault((user, case.topology, case.plugin), []).append(case)
    return found


@pytest.mark.parametrize(("user", "topology", "plugin"), by_lab())
def test_an_alteration_is_named(user: str, topology: str, plugin: str, in_lab: Callable[..., Any]) -> None:
    """One after another in one lab, which is repaired in between: what that leaves behind, the next one shows as well."""
    cases = by_lab()[user, topology, plugin]

    def check(lab: Lab) -> tuple[list[tuple[str, list[str]]], list[str]]:
        found = []
        for case in cases:
            said = lab.network["node-a"].cmd(case.commands).strip()
            found.append((said, [str(one) for one in repaired(lab)]))
        return found, [str(one) for one in lab.drift()]

    found, left = in_lab(topology, plugin, check)
    assert [case for case in cases if not case.mended] in ([], cases[-1:])
    for case, one in zip(cases, found, strict=True):
        assert one == ("", case.shown), case.commands
    assert left == [line for case in cases if not case.mended for line in case.shown]
