"""The library of faults: where each applies, and exactly what is typed."""

from __future__ import annotations

import shlex

import pytest
from designed import CALICO, FLANNEL, VXLAN, WEAVE, planned
from tables import each_row

from emulab.errors import InputError
from emulab.faults import FAULTS, Fault, fault

NODES, PODS = ["node-a", "node-b", "node-c"], [f"default/{name}" for name in ("a1", "a2", "b1", "b2", "c1", "c2")]
NOWHERE: list[str] = []
CASES = (FLANNEL, CALICO, VXLAN, WEAVE)
PLACES = {
    "missing-route": (NODES + PODS, NODES + PODS, NODES + PODS, PODS),
    "missing-fdb": (NODES, NOWHERE, NODES, NOWHERE),
    "wrong-vtep-mac": (NODES, NOWHERE, NODES, NOWHERE),
    "stale-neighbor": (PODS, PODS, PODS, PODS),
    "vxlan-port-blocked": (NODES, NOWHERE, NODES, NODES),
    "mtu-mismatch": (NODES, NODES, NODES, NODES),
    "rp-filter-strict": (NODES, NOWHERE, NODES, NOWHERE),
    "ip-forward-off": (NODES, NODES, NODES, NODES),
    "forward-drop": (NODES, NODES, NODES, NODES),
    "proxy-arp-off": (NOWHERE, PODS, PODS, NOWHERE),
    "masquerade-pods": (NODES, NODES, NODES, NOWHERE),
    "duplicate-pod-ip": (PODS, PODS, PODS, PODS),
    "overlapping-pod-cidr": (NODES, NODES, NODES, NOWHERE),
    "dnat-leftover": (PODS, PODS, PODS, PODS),
    "one-way-loss": (NODES, NODES, NODES, NODES),
    "node-partition": (NODES, NODES, NODES, NODES),
    "tunnel-down": (NODES, NOWHERE, NODES, NODES),
    "conntrack-full": (NODES, NODES, NODES, NODES),
}


@each_row("name", FAULTS)
def test_where_it_can_be_injected(name: str) -> None:
    assert tuple(FAULTS[name].places(*planned(*case)) for case in CASES) == PLACES[name]


TYPED = [
    ("missing-route", FLANNEL, "node-a", ["node-a: ip route del 10.1.2.0/24", "node-a: ip -6 route del fd00:10:1:1::/64"]),
    ("missing-route", WEAVE, "default/a1", ["default/a1: ip route del default", "default/a1: ip -6 route del default"]),
    (
        "missing-fdb",
        FLANNEL,
        "node-a",
        [
            "node-a: bridge fdb del 42:0e:62:44:7b:79 dev flannel.1 dst 192.168.50.2 self",
            "node-a: bridge fdb del aa:f9:50:63:b0:80 dev flannel-v6.1 dst fd00:50::2 self",
        ],
    ),
    (
        "missing-fdb",
        ("partial-mesh", "weave"),
        "node-a",
        ["node-a: bridge fdb del 0a:58:0a:01:40:01 dev vxlan-2 master"],
    ),
    (
        "stale-neighbor",
        CALICO,
        "default/a1",
        [
            f"node-a: ip neigh replace {address} dev cali5cce677186e lladdr 16:29:63:e9:59:ee nud permanent"
            for address in ("10.1.1.1", "fd00:10:1::")
        ],
    ),
    (
        "vxlan-port-blocked",
        WEAVE,
        "node-b",
        [
            "node-b: nft add table inet filter",
            "node-b: nft 'add chain inet filter input { type filter hook input priority filter ; policy accept ; }'",
            "node-b: nft 'add rule inet filter input udp dport 6784 counter drop'",
        ],
    ),
    ("mtu-mismatch", FLANNEL, "node-c", ["underlay: ip link set dev node-c mtu 1450"]),
    ("mtu-mismatch", WEAVE, "node-c", ["underlay: ip link set dev node-c mtu 1376"]),
    (
        "rp-filter-strict",
        FLANNEL,
        "node-b",
        [
            "node-b: sysctl -qw net.ipv4.conf.all.rp_filter=1",
            "node-b: ip route del 10.1.1.0/24",
            "node-b: ip route add 10.1.1.0/24 via 192.168.50.1 dev eth0",
        ],
    ),
    (
        "ip-forward-off",
        CALICO,
        "node-a",
        ["node-a: sysctl -qw net.ipv4.ip_forward=0", "node-a: sysctl -qw net.ipv6.conf.all.forwarding=0"],
    ),
    (
        "proxy-arp-off",
        CALICO,
        "default/a1",
        ["node-a: sysctl -qw net.ipv4.conf.cali5cce677186e.proxy_arp=0", "default/a1: ip -4 neigh flush dev eth0"],
    ),
    (
        "duplicate-pod-ip",
        CALICO,
        "default/a1",
        [
            "default/a2: ip addr add 10.1.1.1/32 dev eth0",
            "node-a: ip route del 10.1.1.1",
            "node-a: ip route add 10.1.1.1/32 dev calif932eb697ec scope link",
            "default/a2: ip addr add fd00:10:1::/128 dev eth0 nodad",
            "node-a: ip -6 route del fd00:10:1::",
            "node-a: ip -6 route add fd00:10:1::/128 dev calif932eb697ec",
        ],
    ),
    (
        "overlapping-pod-cidr",
        FLANNEL,
        "node-b",
        [
            "node-b: ip route del 10.1.1.0/24",
            "node-b: ip route add 10.1.1.0/24 dev cni0 scope link",
            "node-b: ip -6 route del fd00:10:1::/64",
            "node-b: ip -6 route add fd00:10:1::/64 dev cni0",
            "node-c: ip route del 10.1.1.0/24",
            "node-c: ip route add 10.1.1.0/24 via 10.1.2.0 dev flannel.1 onlink",
            "node-c: ip -6 route del fd00:10:1::/64",
            "node-c: ip -6 route add fd00:10:1::/64 via fd00:10:1:1:: dev flannel-v6.1 onlink",
        ],
    ),
    ("tunnel-down", WEAVE, "node-a", ["node-a: ip link set dev vxlan-2 down"]),
    ("tunnel-down", FLANNEL, "node-a", [f"node-a: ip link set dev {name} down" for name in ("flannel.1", "flannel-v6.1")]),
]


@each_row("name, case, at, lines", TYPED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_typed(name: str, case: tuple[str, ...], at: str, lines: list[str]) -> None:
    assert [f"{step.namespace}: {step.line}" for step in fault(name).steps(*planned(*case), at)] == lines


@each_row("case", [*CASES, ("two-racks", "calico"), ("single-node", "calico"), ("non-flat", "nat")], ids=" ".join)
def test_every_line_is_one_of_four_programs_and_names_no_fault(case: tuple[str, ...]) -> None:
    cluster, plane, plan = planned(*case)
    for one in FAULTS.values():
        for place in one.places(cluster, plane, plan):
            for step in one.steps(cluster, plane, plan, place):
                assert step.namespace in plan
                assert step.line.split()[0] in ("ip", "bridge", "nft", "sysctl")
                assert not any(word in step.line for word in FAULTS)


def test_a_partition_reaches_over_the_router_and_spares_the_outside() -> None:
    steps = fault("node-partition").steps(*planned("two-racks", "flannel"), "node-a")
    lines = [f"{step.namespace}: {shlex.split(step.line)[-1]}" for step in steps]
    assert (
        'underlay: add rule bridge filter FORWARD iifname { "node-a" } oifname { "node-b", "node-c", "node-d" } counter drop'
        in lines
    )
    assert any(line.startswith("gateway: add rule inet filter FORWARD ip saddr { 192.168.") for line in lines)


def test_where_pods_are_alone_the_double_is_elsewhere() -> None:
    """In two racks every node has one pod: in a cluster of routes the double's node gets the route, too."""
    lines = [f"{s.namespace}: {s.line}" for s in fault("duplicate-pod-ip").steps(*planned("two-racks", "calico"), "default/a1")]
    assert lines[0].startswith("default/d1: ip addr add ")
    assert lines[1].startswith("node-d: ip route add ")
    assert fault("duplicate-pod-ip").places(*planned("two-racks", "flannel")) == []


def test_what_has_no_other_node_cannot_be_cut_off() -> None:
    cluster, plane, plan = planned("single-node", "flannel")
    for name in ("node-partition", "mtu-mismatch", "masquerade-pods", "overlapping-pod-cidr", "missing-fdb"):
        assert fault(name).places(cluster, plane, plan) == []


def test_mistakes_are_told() -> None:
    with pytest.raises(InputError, match=r"unknown fault 'missing-rout' \(did you mean 'missing-route'\?\)"):
        fault("missing-rout")
    with pytest.raises(InputError, match=r"fault tunnel-down cannot be injected at 'node-x' \(did you mean 'node-"):
        fault("tunnel-down").steps(*planned(*FLANNEL), "node-x")
    with pytest.raises(InputError, match=r"cannot be injected at 'node-a': nothing here can break in this way"):
        fault("proxy-arp-off").steps(*planned(*FLANNEL), "node-a")


@each_row("one", FAULTS.values(), ids=lambda one: one.name)
def test_each_says_what_happens_and_what_is_seen(one: Fault) -> None:
    for words in (one.summary, one.symptom):
        assert 30 < len(words) < 130 and "\n" not in words
