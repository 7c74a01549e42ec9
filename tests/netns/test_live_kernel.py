"""What an engineer looks at on a node of each plugin, typed there, compared line by line with what the real one shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, NamedTuple

import pytest

from emulab.lab import Lab

MAC = "([0-9a-f]{2}:){5}[0-9a-f]{2}"
UPLINK = [r"default via 192\.168\.50\.254 dev eth0", r"192\.168\.50\.0/24 dev eth0 proto kernel scope link src 192\.168\.50\.1"]


class Typed(NamedTuple):
    """A command on node-a, what its output has to match line by line, and what it must not contain.

    ``whole``: the output has exactly those lines, each once and in that order; else they are found in it, in that order.
    """

    command: str
    lines: list[str]
    absent: str = ""
    whole: bool = False


def routes(command: str, *lines: str) -> Typed:
    """All routes; their order is the kernel's: by address."""
    return Typed(command, sorted(lines, key=lambda line: not line.startswith("default")), whole=True)


FLANNEL = [
    Typed(
        "ip -d link show flannel.1",
        [
            r"flannel\.1: <.*\bUP\b.*> mtu 1450 .*state UNKNOWN",
            rf"link/ether {MAC} ",
            r"vxlan id 1 local 192\.168\.50\.1 dev eth0 .*dstport 8472 nolearning ",
        ],
    ),
    Typed("ip -4 addr show flannel.1", [r"inet 10\.1\.1\.0/32 scope global flannel\.1"]),
    routes(
        "ip route",
        UPLINK[0],
        r"10\.1\.1\.0/24 dev cni0 proto kernel scope link src 10\.1\.1\.254",
        r"10\.1\.2\.0/24 via 10\.1\.2\.0 dev flannel\.1 onlink",
        r"10\.1\.3\.0/24 via 10\.1\.3\.0 dev flannel\.1 onlink",
        UPLINK[1],
    ),
    Typed("ip neigh show dev flannel.1 | sort", [rf"10\.1\.{n}\.0 lladdr {MAC} PERMANENT" for n in (2, 3)], whole=True),
    Typed(
        "bridge fdb show dev flannel.1 | sort -k3",
        [rf"{MAC} dst 192\.168\.50\.{n} self permanent" for n in (2, 3)],
        whole=True,
    ),
    Typed(
        "nft list table ip flannel-ipv4",
        [
            r"type filter hook forward priority (filter|0);",
            r"ip saddr 10\.1\.0\.0/16 accept",
            r"ip daddr 10\.1\.0\.0/16 accept",
            r"type nat hook postrouting priority (srcnat|100);",
            r"mark 0x0*4000 return",
            r"ip saddr 10\.1\.1\.0/24 ip daddr 10\.1\.0\.0/16 return",
            r"ip saddr 10\.1\.0\.0/16 ip daddr 10\.1\.1\.0/24 return",
            r"ip saddr != 10\.1\.1\.0/24 ip daddr 10\.1\.0\.0/16 return",
            r"ip saddr 10\.1\.0\.0/16 ip daddr != 224\.0\.0\.0/4 masquerade fully-random",
            r"ip saddr != 10\.1\.0\.0/16 ip daddr 10\.1\.0\.0/16 masquerade fully-random",
        ],
    ),
    routes(
        "ip netns exec a1 ip route",
        r"default via 10\.1\.1\.254 dev eth0",
        r"10\.1\.0\.0/16 via 10\.1\.1\.254 dev eth0",
        r"10\.1\.1\.0/24 dev eth0 proto kernel scope link src 10\.1\.1\.1",
    ),
    Typed("ip netns exec a1 ip link show eth0", [r"eth0@.* mtu 1450 "]),
    Typed("ip netns exec a1 ping -c 1 -W 2 10.1.2.1", [r"ttl=62 "]),
    Typed("ip netns exec a1 ping -c 1 -W 2 10.1.1.2", [r"ttl=64 "]),
    Typed("ip netns exec a1 ping -c 1 -W 2 -M do -s 1422 10.1.2.1", [r"1430 bytes from"]),
    Typed("ip netns exec a1 ping -c 1 -W 2 -M do -s 1423 10.1.2.1", [r"mtu[=: ]+1450"], absent="bytes from"),
]

CALICO = [
    Typed("ip link", [r"cali[0-9a-f]{11}@", r"link/ether ee:ee:ee:ee:ee:ee "] * 2),
    Typed("ip -o link show type bridge", [], whole=True),
    Typed("ip -o link show type vxlan", [], whole=True),
    routes(
        "ip route",
        UPLINK[0],
        r"blackhole 10\.1\.1\.0/26 proto 80",
        r"10\.1\.1\.1 dev cali[0-9a-f]{11} scope link",
        r"10\.1\.1\.2 dev cali[0-9a-f]{11} scope link",
        r"10\.1\.2\.0/26 via 192\.168\.50\.2 dev eth0 proto 80 onlink",
        r"10\.1\.3\.0/26 via 192\.168\.50\.3 dev eth0 proto 80 onlink",
        UPLINK[1],
    ),
    routes("ip netns exec a1 ip route", r"default via 169\.254\.1\.1 dev eth0", r"169\.254\.1\.1 dev eth0 scope link"),
    Typed("ip netns exec a1 ip -4 addr show eth0", [r"inet 10\.1\.1\.1/32 "]),
    Typed("ip netns exec a1 ping -c 1 -W 2 10.1.2.1", [r"ttl=62 "]),
    Typed("ip netns exec a1 ping -c 1 -W 2 10.1.1.2", [r"ttl=63 "]),
    Typed("ip netns exec a1 ip -4 neigh", [r"169\.254\.1\.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee [A-Z]+"], whole=True),
    Typed("ip netns exec a1 ping -c 1 -W 1 10.1.1.9", [r"1 packets transmitted, 0 received"], absent="(?i)unreachable|errors"),
    Typed("nft list chain ip calico nat-POSTROUTING", [r"priority srcnat \+ 10;", r"jump nat-cali-POSTROUTING"]),
    Typed("nft list chain ip calico nat-cali-POSTROUTING", [r"jump nat-cali-nat-outgoing"]),
    Typed(
        "nft list chain ip calico nat-cali-nat-outgoing",
        [r"ip saddr @cali40masq-ipam-pools ip daddr != @cali40all-ipam-pools masquerade fully-random"],
    ),
    Typed("nft list chain ip calico filter-cali-FORWARD", [r"filter-cali-from-wl-dispatch", r"filter-cali-to-wl-dispatch"]),
]

WEAVE = [
    Typed("ip -o link show master weave | sort -k2", [r"vethwe-bridge@", r"vethwepl[0-9a-f]{7}@", r"vethwepl[0-9a-f]{7}@"]),
    Typed("ip -o link show master datapath | sort -k2", [r"vethwe-datapath@", r"vxlan-2:", r"vxlan-3:"], whole=True),
    Typed("ip -o link show type bridge | sort -k2", [r"datapath: .*mtu 1376 ", r"weave: .*mtu 1376 "], whole=True),
    Typed("ip -o link show type veth | sort -k2", [r"eth0@.*mtu 1500 ", *[r"vethwe.*mtu 1376 "] * 4], whole=True),
    Typed(
        "ip -d link show vxlan-2", [r"mtu 1376 ", r"vxlan id 8193 remote 192\.168\.50\.2 local 192\.168\.50\.1 .*dstport 6784 "]
    ),
    routes("ip route", UPLINK[0], r"10\.1\.0\.0/16 dev weave proto kernel scope link src 10\.1\.1\.0", UPLINK[1]),
    Typed("ip netns exec a1 ip -4 addr show eth0", [r"mtu 1376 ", r"inet 10\.1\.1\.1/16 "]),
    routes(
        "ip netns exec a1 ip route",
        r"default via 10\.1\.1\.0 dev eth0",
        r"10\.1\.0\.0/16 dev eth0 proto kernel scope link src 10\.1\.1\.1",
    ),
    Typed("ip netns exec a1 ping -c 1 -W 2 10.1.2.1", [r"ttl=64 "]),
    Typed("ip netns exec a1 ping -c 1 -W 2 10.1.1.2", [r"ttl=64 "]),
    Typed("nft list chain ip weave WEAVE", [r"ip daddr @weaver-no-masq-local return", *[r"masquerade"] * 2]),
]

EVERYWHERE = [
    Typed("ip netns list | sort", [r"a1( \(id: \d+\))?", r"a2( \(id: \d+\))?"], whole=True),
    Typed("ls /run", ["netns"], whole=True),
    Typed("sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding", ["1", "1"], whole=True),
    Typed("ip netns exec a1 ip -o link | cut -d: -f 2", [r" lo", r" eth0@if\d+"], whole=True),
]


@pytest.mark.parametrize(
    ("plugin", "table"), [("flannel", FLANNEL), ("calico", CALICO), ("weave", WEAVE)], ids=["flannel", "calico", "weave"]
)
def test_a_node_shows_what_the_real_one_shows(plugin: str, table: list[Typed], in_lab: Callable[..., Any]) -> None:
    typed = table + EVERYWHERE

    def check(lab: Lab) -> list[str]:
        return [lab.network["node-a"].cmd(one.command) for one in typed]

    outputs = in_lab("flat", plugin, check)
    assert [wrong for one, output in zip(typed, outputs, strict=True) for wrong in mistakes(one, output)] == []


def mistakes(typed: Typed, output: str) -> list[str]:
    """What does not match, with the command that showed it."""
    lines = [line.rstrip() for line in output.replace("\r", "").splitlines() if line.strip()]
    wrong = []
    if typed.whole:
        pairs = zip_longest(typed.lines, lines, fillvalue="(nothing)")
        missing = [want for want, line in pairs if not re.search(want, line)]
    else:
        rest = iter(lines)
        missing = [want for want in typed.lines if not any(re.search(want, line) for line in rest)]
    if missing:
        wrong.append(f"$ {typed.command}\n{output}\nexpected: {missing}")
    if typed.absent and re.search(typed.absent, output):
        wrong.append(f"$ {typed.command}\n{output}\nunexpected: {typed.absent}")
    return wrong
