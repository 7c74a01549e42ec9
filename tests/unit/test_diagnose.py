"""Deviations in, names and plain words out: the name is right, the cause comes before its consequences, health is silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any, TypeVar

import pytest
from designed import CALICO, FLANNEL, VXLAN, WEAVE, planned
from tables import each_row

from emulab.diagnose import Diagnosis, diagnose
from emulab.drift import Deviation, Listing
from emulab.faults import FAULTS
from emulab.packet import Finding, Flow, FlowResult, Kind, MtuResult, Verdict
from emulab.result import RunResult
from emulab.state import (
    Address,
    Bridge,
    FdbEntry,
    KernelObject,
    Neighbor,
    NftTable,
    Route,
    State,
    Sysctl,
    Up,
    Veth,
)

T = TypeVar("T")
Find = Callable[[State], list[Deviation]]


def first(state: State, namespace: str, kind: type[T], **wanted: object) -> T:
    """The first planned object of a kind with these attributes, as text."""
    return next(
        thing
        for thing in state[namespace]
        if isinstance(thing, kind) and all(str(getattr(thing, name)) == str(value) for name, value in wanted.items())
    )


def missing(namespace: str, thing: Any) -> Deviation:
    return Deviation(namespace, "missing", thing, None, "")


def altered(namespace: str, thing: Any, **changes: Any) -> Deviation:
    return Deviation(namespace, "altered", thing, replace(thing, **changes), "")


def extra(namespace: str, thing: KernelObject) -> Deviation:
    return Deviation(namespace, "extra", None, thing, "")


def listing(namespace: str, family: str, name: str, chain: str, *rules: str) -> Deviation:
    """A table as `nft list table` shows it."""
    head, _, hook = chain.partition(" ")
    return extra(namespace, NftTable(family, name, (f"chain {head} {{", hook, *rules, "}")))


INPUT = "in type filter hook input priority filter; policy accept;"
FORWARD = "fwd type filter hook forward priority filter; policy accept;"
POST = "post type nat hook postrouting priority srcnat; policy accept;"
PRE = "pre type filter hook prerouting priority mangle; policy accept;"
BRIDGE = "fwd type filter hook forward priority 0; policy accept;"
OLD = "02:00:00:00:00:99"
BLACKHOLE = {"device": None, "via": None, "onlink": False, "kind": "blackhole"}

CASES: dict[str, tuple[tuple[str, ...], Find, tuple[str, str], str]] = {
    "a lost route": (
        FLANNEL,
        lambda s: [missing("node-a", first(s, "node-a", Route, destination="10.1.2.0/24"))],
        ("missing-route", "node-a"),
        "node-a has no route to node-b (10.1.2.0/24)",
    ),
    "a pod without its default route": (
        WEAVE,
        lambda s: [missing("default/a1", first(s, "default/a1", Route))],
        ("missing-route", "default/a1"),
        "no route to the rest (default)",
    ),
    "a lost entry of a tunnel": (
        FLANNEL,
        lambda s: [missing("node-a", first(s, "node-a", FdbEntry))],
        ("missing-fdb", "node-a"),
        "node-b",
    ),
    "a lost entry of a bridge": (
        ("partial-mesh", "weave"),
        lambda s: [missing("node-a", first(s, "node-a", FdbEntry, mac="0a:58:0a:01:40:01"))],
        ("missing-fdb", "node-a"),
        "tunnel end b1 is",
    ),
    "the MAC of a tunnel end that was": (
        VXLAN,
        lambda s: [
            missing("node-a", first(s, "node-a", FdbEntry)),
            extra("node-a", replace(first(s, "node-a", FdbEntry), mac=OLD)),
            altered("node-a", first(s, "node-a", Neighbor), mac=OLD),
        ],
        ("wrong-vtep-mac", "node-a"),
        f"node-a sends to {OLD}",
    ),
    "the MAC of a pod that was": (
        CALICO,
        lambda s: [extra("node-a", Neighbor("cali5cce677186e", ip_address("10.1.1.1"), OLD))],
        ("stale-neighbor", "default/a1"),
        f"node-a remembers a1 at {OLD}, which is 0a:58:0a:01:01:01",
    ),
    "a firewall that knows no tunnels": (
        WEAVE,
        lambda s: [listing("node-a", "inet", "t", INPUT, "udp dport 6784 counter packets 9 bytes 900 drop")],
        ("vxlan-port-blocked", "node-a"),
        "UDP 6784",
    ),
    "a firewall that lets in little": (
        FLANNEL,
        lambda s: [listing("node-a", "inet", "t", INPUT.replace("accept", "drop"), "tcp dport 22 accept")],
        ("vxlan-port-blocked", "node-a"),
        "takes in nothing that no rule allows",
    ),
    "a port blocked in the underlay": (
        FLANNEL,
        lambda s: [listing("underlay", "bridge", "t", BRIDGE, 'iifname "node-b" udp dport 8472 drop')],
        ("vxlan-port-blocked", "node-b"),
        "the underlay drops the tunnels' packets",
    ),
    "a smaller link": (
        FLANNEL,
        lambda s: [
            altered("underlay", first(s, "underlay", Bridge), mtu=1450),
            altered("underlay", first(s, "underlay", Veth, peer_namespace="node-b"), mtu=1450),
        ],
        ("mtu-mismatch", "node-b"),
        "node-b in underlay takes packets of 1450 bytes, those that are sent have up to 1500",
    ),
    "a strict filter and another way back": (
        FLANNEL,
        lambda s: [
            altered("node-a", first(s, "node-a", Sysctl, key="net.ipv4.conf.all.rp_filter"), value="1"),
            altered(
                "node-a",
                first(s, "node-a", Route, destination="10.1.2.0/24"),
                device="eth0",
                via=ip_address("192.168.50.2"),
                onlink=False,
            ),
        ],
        ("rp-filter-strict", "node-a"),
        "those from 10.1.2.0/24 are dropped",
    ),
    "no forwarding, on no device": (
        CALICO,
        lambda s: [
            altered("node-a", sysctl, value="0")
            for sysctl in s["node-a"]
            if isinstance(sysctl, Sysctl) and sysctl.key.endswith("forward") | sysctl.key.endswith("forwarding")
        ],
        ("ip-forward-off", "node-a"),
        "net.ipv4.ip_forward and net.ipv6.conf.all.forwarding off",
    ),
    "Docker's policy": (
        WEAVE,
        lambda s: [listing("node-b", "ip", "t", FORWARD.replace("accept", "drop"), 'oifname "docker0" accept')],
        ("forward-drop", "node-b"),
        "node-b drops what it should forward",
    ),
    "no proxy": (
        CALICO,
        lambda s: [altered("node-a", first(s, "node-a", Sysctl, key="net.ipv4.conf.calif932eb697ec.proxy_arp"), value="0")],
        ("proxy-arp-off", "default/a2"),
        "nobody answers when a2 asks for its gateway",
    ),
    "pods masqueraded": (
        FLANNEL,
        lambda s: [
            listing("node-a", "ip", "t", "post type nat hook postrouting priority 100;", "ip saddr 10.1.1.0/24 masquerade")
        ],
        ("masquerade-pods", "node-a"),
        "also towards other pods",
    ),
    "masquerading that spares pods": (
        FLANNEL,
        lambda s: [
            listing(
                "node-a",
                "ip",
                "t",
                POST,
                "ip saddr 10.1.1.0/24 ip daddr != 10.1.0.0/16 masquerade",
                "ip saddr 172.17.0.0/16 masquerade",
            )
        ],
        ("unknown-drift", "node-a"),
        "",
    ),
    "an address twice on a bridge": (
        FLANNEL,
        lambda s: [extra("default/a2", Address("eth0", ip_interface("10.1.1.1/24")))],
        ("duplicate-pod-ip", "default/a1"),
        "a2 has the address of a1, 10.1.1.1, too",
    ),
    "an address twice among routes": (
        CALICO,
        lambda s: [
            altered("node-a", first(s, "node-a", Route, destination="10.1.1.1/32"), device="calif932eb697ec"),
            extra("default/a2", Address("eth0", ip_interface("10.1.1.1/32"))),
        ],
        ("duplicate-pod-ip", "default/a1"),
        "",
    ),
    "a lease claimed twice": (
        FLANNEL,
        lambda s: [
            altered("node-a", first(s, "node-a", Route, destination="10.1.2.0/24"), via=ip_address("10.1.3.0")),
            altered("node-c", first(s, "node-c", Route, destination="10.1.2.0/24"), device="cni0", via=None, onlink=False),
        ],
        ("overlapping-pod-cidr", "node-c"),
        "10.1.2.0/24 is the range of node-b, but node-a, node-c has it at node-c",
    ),
    "a block claimed twice, found as another route": (
        CALICO,
        lambda s: [
            missing("node-c", first(s, "node-c", Route, destination="10.1.2.0/26")),
            extra("node-c", replace(first(s, "node-c", Route, destination="10.1.2.0/26"), metric=5, **BLACKHOLE)),  # type: ignore[arg-type]
        ],
        ("overlapping-pod-cidr", "node-c"),
        "10.1.2.0/26 is the range of node-b",
    ),
    "a service that was": (
        CALICO,
        lambda s: [
            listing("node-a", "ip", "t", "pre type nat hook prerouting priority -100;", "ip daddr 10.1.1.2 dnat to 10.1.1.62")
        ],
        ("dnat-leftover", "default/a2"),
        "a rule on node-a sends what is for 10.1.1.2, the address of a2, to another destination",
    ),
    "a bad line": (
        FLANNEL,
        lambda s: [listing("underlay", "bridge", "t", BRIDGE, 'iifname "node-b" numgen random mod 2 0 drop')],
        ("one-way-loss", "node-b"),
        "loses some of what node-b sends",
    ),
    "a line that is dead in one direction": (
        FLANNEL,
        lambda s: [listing("underlay", "bridge", "t", BRIDGE, 'oifname "node-b" drop')],
        ("one-way-loss", "node-b"),
        "loses all of what node-b should get",
    ),
    "a partition": (
        ("two-racks", "flannel"),
        lambda s: [
            listing(
                "underlay",
                "bridge",
                "t",
                BRIDGE,
                'iifname "node-b" oifname { "node-a", "node-c", "node-d" } drop',
                'iifname { "node-a", "node-c", "node-d" } oifname "node-b" drop',
            ),
        ],
        ("node-partition", "node-b"),
        "carries nothing between node-b and node-a, node-c, node-d",
    ),
    "an unplugged cable": (
        CALICO,
        lambda s: [missing("underlay", Up("node-c"))],
        ("node-partition", "node-c"),
        "the uplink of node-c is down",
    ),
    "a tunnel that is down, and what went with it": (
        FLANNEL,
        lambda s: [
            *(missing("node-a", thing) for thing in s["node-a"] if isinstance(thing, Route) and "flannel" in str(thing.device)),
            missing("node-a", first(s, "node-a", Neighbor)),
            missing("node-a", Up("flannel.1")),
            missing("node-a", Up("flannel-v6.1")),
        ],
        ("tunnel-down", "node-a"),
        "the tunnel from node-a to all other nodes is down (flannel.1, flannel-v6.1)",
    ),
    "a tunnel that is gone": (
        WEAVE,
        lambda s: [missing("node-a", thing) for thing in s["node-a"] if "vxlan-2" in str(thing)],
        ("tunnel-down", "node-a"),
        "the tunnel from node-a to node-b is gone (vxlan-2)",
    ),
    "a pod's pair that is gone, from both ends": (
        CALICO,
        lambda s: [
            *(missing("node-a", thing) for thing in s["node-a"][2:] if "cali5cce677186e" in str(thing)[:99]),
            *(missing("default/a1", thing) for thing in s["default/a1"] if "eth0" in str(thing)),
        ],
        ("unknown-drift", "node-a"),
        "cali5cce677186e in node-a is gone",
    ),
    "too many connections": (
        WEAVE,
        lambda s: [listing("node-c", "inet", "t", PRE, "ct state new ct count over 9 drop")],
        ("conntrack-full", "node-c"),
        "node-c drops new connections",
    ),
    "something else": (
        FLANNEL,
        lambda s: [missing("node-a", first(s, "node-a", Address, device="cni0"))],
        ("unknown-drift", "node-a"),
        "node-a is not as planned",
    ),
}


@each_row("name", CASES)
def test_one_cause_with_its_name(name: str) -> None:
    case, deviations, expected, words = CASES[name]
    cluster, plane, plan = planned(*case)
    found = diagnose(cluster, plane, plan, deviations(plan), None)
    assert [(one.fault, one.where) for one in found] == [expected]
    assert words in found[0].words
    assert found[0].repair.startswith("emulab repair ")
    assert found[0].evidence


def flow(
    source: str, destination: str, finding: Finding, kind: Kind = Kind.POD, verdict: Verdict = Verdict.DROPPED, family: int = 4
) -> FlowResult:
    return FlowResult(Flow(1, kind, source, destination, family, "udp", b"", b"", 1, 2), verdict, findings=(finding,))


def lost(place: str) -> Finding:
    return Finding("delivery", "arrival", f"last seen at {place}", place)


def run(
    case: tuple[str, ...], *flows: FlowResult, deviations: Find = lambda _: [], mtu: tuple[MtuResult, ...] = ()
) -> list[Diagnosis]:
    cluster, plane, plan = planned(*case)
    result = RunResult(plane.name, plane.options(), cluster, mtu=list(mtu))
    result.flows.recorded += flows
    return diagnose(cluster, plane, plan, deviations(plan), result)


def test_health_is_silent() -> None:
    assert run(FLANNEL) == []


def test_the_packet_is_evidence_the_nearest_first() -> None:
    far = flow("default/b1", "default/c1", lost("node-b:eth0"))
    near = flow("default/a1", "default/b1", lost("node-a:flannel.1"))
    found = run(FLANNEL, far, near, deviations=CASES["a lost entry of a tunnel"][1])
    assert [one.fault for one in found] == ["missing-fdb"]
    packets = [line for line in found[0].evidence if "last seen" in line]
    assert len(packets) == 1
    assert packets[0].startswith("a1 -> b1 udp/IPv4: last seen at node-a:flannel.1")


def test_the_rule_is_evidence_and_the_repair_is_exact() -> None:
    found = run(WEAVE, deviations=CASES["a firewall that knows no tunnels"][1])
    assert found[0].evidence == ("node-a: inet t in: udp dport 6784 drop",)
    assert found[0].repair == "emulab repair node-a  # in node-a: nft delete table inet t"


def test_an_object_is_shown_as_planned_and_as_found() -> None:
    found = run(FLANNEL, deviations=CASES["a lease claimed twice"][1])
    assert found[0].evidence[:2] == (
        "node-a: altered: ip route add 10.1.2.0/24 via 10.1.2.0 dev flannel.1 onlink  (found: via 10.1.3.0)",
        "node-c: altered: ip route add 10.1.2.0/24 via 10.1.2.0 dev flannel.1 onlink  "
        "(found: device cni0, no via, onlink off, link scope on)",
    )
    line = "ip route replace 10.1.2.0/24 via 10.1.2.0 dev flannel.1 onlink"
    assert found[0].repair == f"emulab repair node-a node-c  # in node-a: {line}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rules: (*rules, "add rule ip flannel-ipv4 postrtg ip saddr 10.1.1.0/24 counter masquerade"), "masquerade-pods"),
        (lambda rules: rules[:-1], "unknown-drift"),
    ],
    ids=["more", "less"],
)
def test_a_planned_table_is_judged_by_what_it_has_more(change: Callable[[Any], Any], expected: str) -> None:
    def deviations(state: State) -> list[Deviation]:
        table = first(state, "node-a", NftTable)
        found = Listing(table.family, table.name, change(table.rules), wanted=table.rules)
        return [Deviation("node-a", "altered", table, found)]

    assert [one.fault for one in run(FLANNEL, deviations=deviations)] == [expected]


def test_two_faults_are_two_diagnoses_the_deeper_first() -> None:
    def both(state: State) -> list[Deviation]:
        return CASES["a lost route"][1](state) + CASES["no forwarding, on no device"][1](state)

    assert [one.fault for one in run(FLANNEL, deviations=both)] == ["ip-forward-off", "missing-route"]


def test_loss_without_drift_is_told_with_its_place() -> None:
    found = run(FLANNEL, flow("default/a1", "default/b1", lost("node-b:eth0")))
    assert [(one.fault, one.where) for one in found] == [("unreachable", "node-b")]
    outside = run(FLANNEL, flow("default/a1", "internet", lost("gateway:eth0"), Kind.OUTSIDE))
    assert [(one.fault, one.where) for one in outside] == [("unreachable", "gateway")]


TOO_BIG = Finding("MTU", "1500 bytes delivered", "lost", "default/a1 -> default/c1")


@each_row(
    "case, result, words",
    [
        (("two-racks", "calico"), flow("default/a1", "default/c1", lost("node-a:eth0")), "the router between"),
        (("two-racks", "calico"), flow("node-a", "default/c1", lost("node-a:eth0"), Kind.NODE), "the router between"),
        (("partial-mesh", "flannel"), flow("default/a1", "default/c1", lost("underlay:node-a")), "nobody relays"),
        (("non-flat", "nat"), flow("default/a1", "default/b1", Finding("source", "a", "b", "node-a:eth0")), "a published port"),
    ],
    ids=["two racks", "a node in one", "mesh", "nat"],
)
def test_what_cannot_work_is_no_alarm(case: tuple[str, ...], result: FlowResult, words: str) -> None:
    found = run(case, result)
    assert [one.fault for one in found] == ["by-design"]
    assert words in found[0].words and found[0].words.startswith("not a fault")


def test_a_full_size_packet_that_cannot_get_there_is_no_alarm_either() -> None:
    measured = MtuResult("default/a1", "default/c1", 4, 1500, "lost", "lost", findings=(TOO_BIG,))
    assert [one.fault for one in run(("two-racks", "calico"), mtu=(measured,))] == ["by-design"]
    assert [one.fault for one in run(("two-racks", "flannel"), mtu=(measured,))] == ["unreachable"]


def test_a_fault_comes_before_what_cannot_work() -> None:
    found = run(
        ("two-racks", "calico"), flow("default/a1", "default/c1", lost("node-a:eth0")), deviations=CASES["Docker's policy"][1]
    )
    assert [one.fault for one in found] == ["forward-drop", "by-design"]


def test_every_fault_is_in_the_table() -> None:
    assert {expected[0] for _, _, expected, _ in CASES.values()} == {*FAULTS, "unknown-drift"}
