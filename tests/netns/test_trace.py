"""Traces on the real kernel: what arrives is told with its reasons, what is lost with the one that stopped it."""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from emulab.errors import InputError
from emulab.kernel import nftables
from emulab.kernel.decisions import Route, View
from emulab.kernel.nftrace import TABLE
from emulab.lab import Lab
from emulab.packet import Verdict
from emulab.probe.tracing import trace
from emulab.report import trace_pcapng, trace_text
from emulab.trace import Trace

PLUGINS = [("flannel",), ("flannel", "backend=host-gw"), ("calico",), ("calico", "encap=vxlan"), ("weave",)]
WAYS = [
    ("default/a1", "default/a2"),
    ("default/a1", "default/b1"),
    ("node-a", "default/b1"),
    ("default/a1", "node-b"),
    ("default/a1", "internet"),
    ("node-a", "node-b"),
    ("default/a1", "default/a1"),
]


def patient(lab: Lab, source: str, destination: str, **options: Any) -> Trace:
    """A trace; again, where other labs on this machine left no room in the neighbour table that they all share."""
    deadline = time.monotonic() + 60
    while True:
        one = trace(lab, source, destination, **options)
        if not one.reason or "neighbour table is full" not in one.reason or time.monotonic() > deadline:
            return one
        time.sleep(0.5)


def told(one: Trace) -> str:
    """The report as text."""
    out = io.StringIO()
    trace_text.write(one, out)
    return " ".join(out.getvalue().split())


# Whoever traces sees the same: an ordinary user has one of the planes.
@pytest.mark.parametrize(
    ("user", "plugin"),
    [("user" if plugin == ("weave",) else "root", plugin) for plugin in PLUGINS],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_delivered_has_no_reason(user: str, plugin: tuple[str, ...], in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> tuple[list[tuple[Trace, float]], list[Trace]]:
        found = []
        outside = [patient(lab, "default/a1", "internet", family=4, protocol=protocol) for protocol in ("icmp", "udp", "tcp")]
        for number, (source, destination) in enumerate(WAYS):
            protocols = ("icmp", "icmp") if destination.startswith("node") else ("icmp", "udp", "tcp")
            for family, protocol in zip(itertools.cycle((4, 6) if number % 2 else (6, 4)), protocols):
                start = time.perf_counter()
                one = patient(lab, source, destination, family=family, protocol=protocol)
                found.append((one, time.perf_counter() - start))
        left = [name for name in lab.namespaces if TABLE in nftables.text(lab.namespaces[name])]
        assert left == [], "the tracing tables are gone"
        return found, outside

    found, outside = in_lab("flat", plugin[0], check, *plugin[1:])
    assert len(found) == len(WAYS) * 3 - 2
    assert {(o.flow.protocol, o.flow.family) for o, _ in found} == {(p, f) for p in ("icmp", "udp", "tcp") for f in (4, 6)}
    for one, _ in found:
        what = f"{one.title} {one.flow.protocol}/IPv{one.flow.family}: {told(one)}"
        assert one.verdict is Verdict.DELIVERED, what
        assert one.reason is one.reason_code is None
        assert {hop.leg for hop in one.hops} == {"request", "reply"}, what
        assert one.hops[0].place.namespace == one.flow.source, what
        assert one.way("request")[-1].place.namespace == one.flow.destination, what
        assert one.hops[-1].place.namespace == one.flow.source, what
        for leg in ("request", "reply"):
            times = [hop.time_us for hop in one.way(leg)]
            assert times == sorted(times), what
        assert one.round_trip_us is not None and one.round_trip_us > 0
        assert one.hops[0].why and all(hop.mtu for hop in one.hops), what
    # Of the middle one: the machine may be busy with other tests.
    assert sorted(seconds for _, seconds in found)[len(found) // 2] < 1
    for one in outside:
        is_masqueraded(one, "masquerade fully-random" if plugin[0] == "flannel" else "masquerade")


def is_masqueraded(one: Trace, rule: str) -> None:
    """It is shown with its rule, and the way back with what undid it."""
    (out,) = (hop for hop in one.way("request") if hop.translated)
    assert str(out.place) == "node-a:eth0"
    assert any("source" in change and "-> 192.168.50.1" in change for change in out.changed)
    assert out.translator is not None and out.translator.startswith("nft ip ") and rule in out.translator
    (back,) = (hop for hop in one.way("reply") if hop.translated)
    assert back.translator is not None and back.translator.startswith("conntrack SNAT ")


@pytest.mark.parametrize("user", ["user"])
def test_the_way_through_a_tunnel(in_lab: Callable[..., Any]) -> None:
    one = in_lab("flat", "flannel", lambda lab: patient(lab, "default/a1", "default/b1"))
    places = [str(hop.place) for hop in one.way("request")]
    assert [place for place in places if ":veth" not in place] == [
        "default/a1:eth0",
        "node-a:cni0",
        "node-a:flannel.1",
        "node-a:eth0",
        "underlay:node-a",
        "underlay:node-b",
        "node-b:eth0",
        "node-b:flannel.1",
        "node-b:cni0",
        "default/b1:eth0",
    ]
    why = {str(hop.place): " | ".join(hop.why) for hop in one.way("request")}
    assert "route 10.1.2.0/24 via 10.1.2.0 dev flannel.1 onlink" in why["node-a:flannel.1"]
    assert "nft ip flannel-ipv4 forward: ip saddr 10.1.0.0/16 accept" in why["node-a:flannel.1"]
    assert "neighbour 10.1.2.0 dev flannel.1 lladdr" in why["node-a:flannel.1"]
    assert "dev flannel.1 dst 192.168.50.2 self permanent" in why["node-a:eth0"]
    assert "route 192.168.50.0/24 dev eth0 proto kernel scope link src 192.168.50.1" in why["node-a:eth0"]
    assert "fdb 02:00:c0:a8:32:02 dev node-b master lan" in why["underlay:node-b"]
    assert one.mtu == 1450
    assert [hop.inner.ttl for hop in one.way("request")][-1] == 62
    assert "! " not in told(one) and "delivered and back in" in told(one)


@pytest.mark.parametrize("user", ["root"])
def test_a_rewritten_packet_is_no_healthy_one(in_lab: Callable[..., Any]) -> None:
    """Nor is an echo that somebody else answers."""

    def check(lab: Lab) -> list[Trace]:
        return [patient(lab, "default/a1", "default/b1", protocol=protocol) for protocol in ("tcp", "icmp")]

    one, echo = in_lab("non-flat", "nat", check)
    assert (one.verdict, one.delivered, one.reason) == (Verdict.REWRITTEN, True, None)
    translators = [hop.translator for hop in one.way("request") if hop.translated]
    assert "masquerade" in translators[0] and "dnat to 172.16.2.2:8080" in translators[1]
    assert "rewritten on the way" in told(one)
    assert echo.answered_by == "node-b"
    assert "answered by node-b" in told(echo)


@pytest.mark.parametrize("user", ["root"])
def test_an_overlay_of_several_hops(in_lab: Callable[..., Any]) -> None:
    one = in_lab("partial-mesh", "weave", lambda lab: patient(lab, "default/a1", "default/c1"))
    assert one.verdict is Verdict.DELIVERED
    tunnels = [change for hop in one.way("request") for change in hop.changed if change.startswith("vxlan 192")]
    assert len(tunnels) == 2


class Planted(NamedTuple):
    """Commands on nodes that stop a packet, the reason code, words that the report has to have, and commands that undo it."""

    commands: tuple[tuple[str, str], ...]
    code: str
    words: tuple[str, ...]
    plugin: tuple[str, ...] = ("flannel",)
    topology: str = "flat"
    way: tuple[str, str] = ("default/a1", "default/b1")
    options: dict[str, Any] = {}  # noqa: RUF012
    undone: tuple[tuple[str, str], ...] = ()  # beforehand: what no repair does


def _chain(hook: str, rule: str, family: str = "ip", within: str = "") -> str:
    """Command lines for a rule in a chain of its own."""
    chain = f"add chain {family} evil c '{{ type filter hook {hook} priority 0 ; }}'"
    commands = (f"add table {family} evil", chain, f"add rule {family} evil c '{rule}'")
    return "; ".join(f"{within}nft {command}" for command in commands)


IN_B1 = "ip netns exec b1"
BAD_MAC = "02:11:22:33:44:55"
FDB_OF_B = "$(ip neigh get 10.1.2.0 dev flannel.1 | awk '{print $5}')"
LOSSES = {
    "route gone": Planted(
        (("node-a", "ip route del 10.1.2.0/24"),),
        "no-route",
        ("node-a lacks its route to 10.1.2.1", "10.1.2.0/24 via 10.1.2.0 dev flannel.1", "took route default via"),
    ),
    "no route in the pod": Planted(
        (("node-a", "ip netns exec a1 ip route flush table main"),), "no-route", ("a1 lacks its route", "unreachable")
    ),
    "no route back": Planted(
        (("node-b", f"{IN_B1} ip route del 10.1.0.0/16; {IN_B1} ip route del default"),),
        "no-route",
        ("the answer was dropped", "b1 lacks its route to 10.1.1.1"),
    ),
    "IPv6 route gone": Planted(
        (("node-a", "ip -6 route del fd00:10:1:1::/64"),), "no-route", ("fd00:10:1:1::/64",), options={"family": 6}
    ),
    "blackhole": Planted(
        (("node-b", "ip route del 10.1.2.1/32"),), "blackhole", ("node-b: route blackhole 10.1.2.0/26 proto 80",), ("calico",)
    ),
    "blackhole added": Planted(
        (("node-a", "ip route add blackhole 10.1.2.1/32"),), "blackhole", ("node-a: route blackhole 10.1.2.1",)
    ),
    "prohibit": Planted((("node-a", "ip route add prohibit 10.1.2.1/32"),), "blackhole", ("route prohibit 10.1.2.1",)),
    "IPv6 blackhole": Planted(
        (("node-a", "ip -6 route add blackhole fd00:10:1:1::/96"),),
        "blackhole",
        ("route blackhole fd00:10:1:1::/96",),
        options={"family": 6},
    ),
    "ARP": Planted(
        (("node-b", f"{IN_B1} ip addr del 10.1.2.1/24 dev eth0"),),
        "arp-unanswered",
        ("nobody answered ARP for 10.1.2.1", "node-b:cni0"),
    ),
    "ARP across the router": Planted(
        (), "arp-unanswered", ("ARP for 192.168.52.3", "node-a:eth0"), ("calico",), "two-racks", ("default/a1", "default/c1")
    ),
    "NDP": Planted(
        (("node-b", f"{IN_B1} ip addr flush dev eth0 scope global"),),
        "ndp-unanswered",
        ("nobody answered NDP for fd00:10:1:1::2", "node-b:cni0"),
        options={"family": 6},
    ),
    "VTEP's fdb entry gone": Planted(
        (("node-a", f"bridge fdb del {FDB_OF_B} dev flannel.1"),), "fdb-missing", ("node-a:flannel.1", "dst 192.168.50.2 self")
    ),
    "VTEP's MAC wrong": Planted(
        (("node-a", f"ip neigh replace 10.1.2.0 dev flannel.1 lladdr {BAD_MAC} nud permanent"),), "fdb-missing", (BAD_MAC,)
    ),
    "neighbour's MAC wrong": Planted(
        (("node-a", f"ip neigh replace 192.168.50.2 dev eth0 lladdr {BAD_MAC} nud permanent"),),
        "wrong-mac",
        (f"node-a has neighbour 192.168.50.2 dev eth0 lladdr {BAD_MAC} PERMANENT",),
        ("calico",),
    ),
    "pod's neighbour's MAC wrong": Planted(
        (("node-a", f"ip netns exec a1 ip neigh replace 10.1.1.254 dev eth0 lladdr {BAD_MAC} nud permanent"),),
        "wrong-mac",
        (f"a1 has neighbour 10.1.1.254 dev eth0 lladdr {BAD_MAC}",),
    ),
    "rp_filter": Planted(
        (("node-b", "sysctl -w net.ipv4.conf.flannel/1.rp_filter=1; ip route add 10.1.1.1/32 via 192.168.50.254"),),
        "rp-filter",
        ("net.ipv4.conf.flannel.1.rp_filter = 1", "the way back to 10.1.1.1 is route 10.1.1.1 via 192.168.50.254 dev eth0"),
    ),
    "rp_filter at the uplink": Planted(
        (("node-b", "sysctl -w net.ipv4.conf.eth0.rp_filter=1; ip route add 10.1.1.1/32 dev lo"),),
        "rp-filter",
        ("net.ipv4.conf.eth0.rp_filter = 1",),
        ("calico",),
    ),
    "rule where it is forwarded": Planted(
        (("node-b", _chain("forward", "ip daddr 10.1.2.1 counter drop")),),
        "rule",
        ("node-b: nft ip evil c: ip daddr 10.1.2.1 counter drop",),
    ),
    "rule against the tunnel": Planted(
        (("node-b", _chain("input", "udp dport 8472 drop")),), "rule", ("node-b: nft ip evil c: udp dport 8472 drop",)
    ),
    "rule at the sender": Planted(
        (("node-a", _chain("output", "ip daddr 10.1.2.1 drop", within="ip netns exec a1 ")),),
        "rule",
        ("a1: nft ip evil c: ip daddr 10.1.2.1 drop",),
    ),
    "rule against the tunnel where it begins": Planted(
        (("node-a", _chain("output", "ip daddr 192.168.50.2 udp dport 8472 drop")),),
        "rule",
        ("node-a: nft ip evil c: ip daddr 192.168.50.2 udp dport 8472 drop",),
    ),
    "rule of a bridge": Planted(
        (("node-a", _chain("forward", "ether type ip drop", "bridge")),),
        "rule",
        ("node-a: nft bridge evil c: ether type ip drop",),
        way=("default/a1", "default/a2"),
    ),
    "rejected": Planted(
        (("node-b", _chain("forward", "tcp dport 8080 reject with tcp reset")),),
        "rule",
        ("node-b: nft ip evil c: tcp dport 8080 reject with tcp reset",),
        options={"protocol": "tcp"},
    ),
    "policy": Planted(
        (("node-b", "nft add table ip evil; nft add chain ip evil c '{ type filter hook forward priority 0 ; policy drop ; }'"),),
        "rule",
        ("node-b: nft ip evil c: policy drop",),
    ),
    "rule against the answer": Planted(
        (("node-b", _chain("forward", "ip saddr 10.1.2.1 drop")),),
        "rule",
        ("the answer was dropped", "node-b: nft ip evil c: ip saddr 10.1.2.1 drop"),
    ),
    "pair cut by the underlay": Planted(
        (), "rule", ("nft bridge cuts forward",), ("calico",), "partial-mesh", ("default/a1", "default/c1")
    ),
    "too big for the pod": Planted(
        (), "mtu-exceeded", ("1451 bytes do not fit the MTU 1450 of a1:eth0",), options={"size": 1451, "protocol": "udp"}
    ),
    "too big for a tunnel": Planted(
        (), "mtu-exceeded", ("1440 bytes do not fit the MTU 1430 of node-a:flannel-v6.1",), options={"size": 1440, "family": 6}
    ),
    "too big for a link": Planted(
        (("node-a", "ip link set eth0 mtu 1400"),),
        "mtu-exceeded",
        ("1450 bytes do not fit the MTU 1400 of node-a:eth0",),
        ("calico",),
        options={"size": 1450},
        undone=(("node-a", "ip netns exec a1 ip route flush cache"),),  # it was told, and remembers
    ),
    "tunnel device down there": Planted((("node-b", "ip link set flannel.1 down"),), "link-down", ("node-b:flannel.1 is down",)),
    "tunnel device down here": Planted(
        (("node-a", "ip link set flannel.1 down"),), "link-down", ("node-a:flannel.1 is down", "10.1.2.0/24 via")
    ),
    "uplink down there": Planted(
        (("node-b", "ip link set eth0 down"),), "link-down", ("node-b:eth0, which has 192.168.50.2, is down",)
    ),
    "uplink down here": Planted((("node-a", "ip link set eth0 down"),), "link-down", ("node-a:eth0 is down",)),
    "pod's link down": Planted(
        (("node-b", f"{IN_B1} ip link set eth0 down"),), "link-down", ("b1:eth0, which has 10.1.2.1, is down",)
    ),
    "bridge down": Planted((("node-b", "ip link set cni0 down"),), "link-down", ("node-b:cni0 is down",)),
    "node stopped": Planted(
        (("node-b", "for i in $(ls /sys/class/net); do ip link set $i down; done"),), "node-stopped", ("node-b",)
    ),
    "forwarding off": Planted(
        (("node-b", "sysctl -w net.ipv4.ip_forward=0"),),
        "forwarding-off",
        ("node-b does not forward", "net.ipv4.conf.flannel.1.forwarding = 0"),
    ),
    "IPv6 forwarding off": Planted(
        (("node-a", "sysctl -w net.ipv6.conf.all.forwarding=0"),),
        "forwarding-off",
        ("node-a does not forward", "net.ipv6.conf.all.forwarding = 0"),
        options={"family": 6},
    ),
    "checksum": Planted(
        (("node-b", _chain("forward", "udp checksum set 0x1234")),),
        "checksum",
        ("b1: the checksum is wrong (UdpInCsumErrors)",),
        options={"protocol": "udp"},
    ),
    "TCP port closed": Planted(
        (), "refused", ("b1 refuses TCP port 99: nothing listens there",), options={"protocol": "tcp", "port": 99}
    ),
    "UDP port closed": Planted(
        (), "no-listener", ("nothing listens on UDP port 99 of b1",), options={"protocol": "udp", "port": 99, "family": 6}
    ),
    "node has no server": Planted(
        (), "refused", ("node-b refuses TCP port 8080",), way=("default/a1", "node-b"), options={"protocol": "tcp"}
    ),
    "no echo": Planted(
        (("node-b", f"{IN_B1} sysctl -w net.ipv4.icmp_echo_ignore_all=1"),),
        "refused",
        ("b1 answers no echo requests: net.ipv4.icmp_echo_ignore_all = 1",),
        ("weave",),
        undone=(("node-b", f"{IN_B1} sysctl -w net.ipv4.icmp_echo_ignore_all=0"),),
    ),
    "nobody routes back from outside": Planted(
        (), "no-route", ("gateway has no route to 10.1.1.1",), way=("internet", "default/a1")
    ),
}


# One of a code for an ordinary user, where it is not routes and links alone that tell it: those are read alike by everybody.
CODES = {planted.code: name for name, planted in reversed(LOSSES.items())}
AS_USER = [CODES[code] for code in ("arp-unanswered", "fdb-missing", "rp-filter", "rule", "mtu-exceeded", "forwarding-off")]
AS_USER += [CODES[code] for code in ("checksum", "refused")]


def by_lab() -> list[tuple[str, list[str]]]:
    """Users and the names of losses that are planted in one lab, one after another."""
    found: dict[tuple[str, ...], list[str]] = {}
    for user, names in (("root", LOSSES), ("user", AS_USER)):
        for name in names:
            found.setdefault((user, LOSSES[name].topology, *LOSSES[name].plugin), []).append(name)
    return [(user, names[half::2]) for (user, *_), names in found.items() for half in (0, 1) if names[half::2]]


@pytest.mark.parametrize(("user", "names"), by_lab(), ids=lambda v: v if isinstance(v, str) else v[0])
def test_what_is_lost_is_told_with_the_reason(user: str, names: list[str], in_lab: Callable[..., Any]) -> None:
    """What is planted is undone before the next one; in the end nothing is lost any more."""

    def check(lab: Lab) -> tuple[list[tuple[Trace, list[str]]], list[Trace]]:
        found = []
        for planted in map(LOSSES.__getitem__, names):
            said = [lab.network[node].cmd(command) for node, command in planted.commands]
            found.append((trace(lab, *planted.way, timeout=0.3, **planted.options), said))
            for node, command in planted.undone:
                lab.network[node].cmd(command)
            if planted.commands:
                lab.repair()
        broken = {str((one.way, one.options)): one for one in map(LOSSES.__getitem__, names) if one.commands}
        return found, [patient(lab, *one.way, **one.options) for one in broken.values()]

    first = LOSSES[names[0]]
    found, healthy = in_lab(first.topology, first.plugin[0], check, *first.plugin[1:])
    for name, (one, said) in zip(names, found, strict=True):
        planted, report = LOSSES[name], told(one)
        assert not one.delivered, (name, said, report)
        assert one.reason_code == planted.code, (name, said, report)
        assert [words for words in planted.words if words not in report] == [], (name, said, report)
    for one in healthy:
        assert one.verdict is Verdict.DELIVERED, told(one)


@pytest.mark.parametrize("user", ["user"])
def test_routes_are_worded_as_ip_words_them(in_lab: Callable[..., Any]) -> None:
    """And the one that matches is named."""

    def check(lab: Lab) -> tuple[list[tuple[set[str], set[str]]], Any, Any]:
        view, found = View(lab.namespaces["node-a"]), []
        there, nowhere = view.route(bytes((10, 1, 2, 9))), view.route(bytes((10, 1, 1, 9)))
        for family, plain in ((4, "ip -4 route show table all"), (6, "ip -6 route show table all")):
            lab.network["node-a"].cmd("ip route add 10.9.0.0/16 nexthop via 192.168.50.2 nexthop via 192.168.50.3 weight 2")
            lab.network["node-a"].cmd("ip route add 10.8.0.0/16 via 192.168.50.2 mtu 1300 metric 7 proto static")
            lab.network["node-a"].cmd("ip route add unreachable 10.7.0.0/16")
            shown = lab.network["node-a"].cmd(plain).replace("\r", "").replace("\n\tnexthop", " nexthop")
            typed = {" ".join(line.split()) for line in shown.splitlines()}
            ours = {route.text for route in View(lab.namespaces["node-a"]).routes(family)}
            found.append((typed, ours))
        return found, there, nowhere

    found, there, nowhere = in_lab("flat", "calico", check)
    for typed, ours in found:
        plain = {line for line in typed if not line.startswith(("multicast", "broadcast"))}
        assert plain - {""} <= ours, sorted(plain - ours)
    assert isinstance(there, Route) and there.text == "10.1.2.0/26 via 192.168.50.2 dev eth0 proto 80 onlink"
    assert nowhere.entry.text == "blackhole 10.1.1.0/26 proto 80"


@pytest.mark.parametrize("user", ["root"])
def test_bad_questions(in_lab: Callable[..., Any]) -> None:
    questions: list[tuple[str, str, dict[str, Any], str]] = [
        ("default/zz", "default/a1", {}, "nobody is called 'zz'"),
        ("default/a1", "default/b1", {"protocol": "sctp"}, "protocol 'sctp': expected icmp, udp, tcp"),
        ("default/a1", "default/b1", {"port": 80}, "ICMP has no ports"),
        ("default/a1", "default/b1", {"protocol": "tcp", "port": 0}, "port 0: expected 1 to 65535"),
        ("default/a1", "default/b1", {"size": 10}, "size 10: expected 60 to 65535 bytes"),
        ("default/a1", "default/b1", {"protocol": "tcp", "size": 100}, "a size goes with icmp and udp"),
        ("default/a1", "default/b1", {"family": 5}, "a1 and b1 have no IPv5 address"),
    ]

    def check(lab: Lab) -> list[str]:
        said = []
        for source, destination, options, _ in questions:
            try:
                said.append(str(trace(lab, source, destination, **options).verdict))
            except InputError as error:
                said.append(str(error))
        return said

    for words, (*_, expected) in zip(in_lab("flat", "flannel", check), questions, strict=True):
        assert words.startswith(expected)


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
@pytest.mark.parametrize("user", ["root"])
def test_the_capture_says_why(in_lab: Callable[..., Any], tmp_path: Path) -> None:
    def check(lab: Lab) -> tuple[Trace, list[Any]]:
        frames: list[Any] = []
        return patient(lab, "default/a1", "internet", on_frame=frames.append), frames

    one, frames = in_lab("flat", "flannel", check)
    trace_pcapng.write(one, frames, (tmp_path / "emulab.pcapng").open("wb"))
    command = ["tshark", "-n", "-r", str(tmp_path / "emulab.pcapng"), "-Y", "icmp", "-T", "fields", "-e", "frame.comment"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "request leaves by node-a:eth0: source 10.1.1.1 -> 192.168.50.1" in shown
    assert "masquerade fully-random" in shown
