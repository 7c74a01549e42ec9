"""Calico's policies on the real kernel: who reaches whom under which policy, in both families, near and far."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, NamedTuple

import pytest
from clients import CLIENT, PORTS, TEAM, WEB, destination, key, passed, policy, said, source, sources, under
from talking import Servers, ask

from emulab.kernel import applier
from emulab.lab import Lab
from emulab.model import IPNetwork
from emulab.objects import EGRESS, Peer, Policy, PortRange, Rule, Tier
from emulab.selector import Everything, In


class Case(NamedTuple):
    """What of the checks towards web passes, "port: sources", and of those from web, "from web: destination port"."""

    policies: tuple[Policy, ...]
    expected: str
    tiers: tuple[Tier, ...] = ()


EVERYBODY = "near far guest node-a node-b"
OPEN = "; from web: far tcp/80, far tcp/443, far udp/53, near tcp/80"
ALL_OPEN = f"tcp/80: {EVERYBODY}; tcp/443: {EVERYBODY}; udp/53: {EVERYBODY}" + OPEN
ONLY_NODE = "tcp/80: node-a; tcp/443: node-a; udp/53: node-a"  # a node's way to its own pods is not policed
SECURITY = Tier("security", 100)
LENIENT = Tier("lenient", 50, "pass")


def nets(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, texts))


def every_port(sources: str) -> str:
    return "; ".join(f"{port}: {sources}" for port in PORTS)


CASES = {
    "no policy": Case((), ALL_OPEN),
    "a policy for nobody": Case((policy(selects=In("app", ("none",))),), ALL_OPEN),
    "deny all": Case((policy(),), ONLY_NODE + OPEN),
    "a rule for everybody": Case((policy("p", source()),), ALL_OPEN),
    "pods of the own namespace": Case((policy("p", source(Peer(pods=CLIENT))),), every_port("near far node-a") + OPEN),
    "pods of another namespace": Case(
        (policy("p", source(Peer(pods=CLIENT, namespaces=TEAM))),), every_port("guest node-a") + OPEN
    ),
    "all pods, but no nodes": Case(
        (policy("p", source(Peer(pods=Everything(), namespaces=Everything()))),), every_port("near far guest node-a") + OPEN
    ),
    "a port": Case(
        (policy("p", source(Peer(), PortRange(80, 80), protocol="tcp")),),
        f"tcp/80: {EVERYBODY}; tcp/443: node-a; udp/53: node-a" + OPEN,
    ),
    "a range of ports": Case(
        (policy("p", source(Peer(), PortRange(79, 500), protocol="tcp")),),
        f"tcp/80: {EVERYBODY}; tcp/443: {EVERYBODY}; udp/53: node-a" + OPEN,
    ),
    "a named port": Case(
        (policy("p", source(Peer(pods=CLIENT), PortRange(name="http"), protocol="tcp")),),
        "tcp/80: near far node-a; tcp/443: node-a; udp/53: node-a" + OPEN,
    ),
    "a name and a number": Case(
        (policy("p", source(Peer(), PortRange(name="http"), PortRange(443, 443), protocol="tcp")),),
        f"tcp/80: {EVERYBODY}; tcp/443: {EVERYBODY}; udp/53: node-a" + OPEN,
    ),
    "a name of the other protocol": Case((policy("p", source(Peer(), PortRange(name="dns"), protocol="tcp")),), ONLY_NODE + OPEN),
    "a protocol": Case(
        (policy("p", source(Peer(), protocol="udp")),), f"tcp/80: node-a; tcp/443: node-a; udp/53: {EVERYBODY}" + OPEN
    ),
    "a block with a hole": Case(
        (
            policy(
                "p",
                source(Peer(nets=nets("10.1.0.0/16"), not_nets=nets("10.1.2.0/24"))),
                source(Peer(nets=nets("fd00:10:1::/56"), not_nets=nets("fd00:10:1::40/122"))),
            ),
        ),
        every_port("near node-a") + OPEN,
    ),
    "blocks, with holes": Case(
        (
            policy(
                "p",
                source(
                    Peer(
                        nets=nets("10.1.0.0/16", "10.1.2.0/24", "192.168.50.0/24", "fd00:10:1::/56", "fd00:50::/64"),
                        not_nets=nets("10.1.1.0/26", "192.168.50.2/32", "fd00:10:1::/122", "fd00:50::2/128"),
                    )
                ),
            ),
        ),
        every_port("far guest node-a") + OPEN,
    ),
    "a block of one family": Case(
        (policy("p", source(Peer(nets=nets("10.1.2.0/24")))),),
        every_port("far(IPv4 only) guest(IPv4 only) node-a") + OPEN,
    ),
    "pods in a block": Case(
        (policy("p", source(Peer(pods=CLIENT, nets=nets("10.1.2.0/24", "fd00:10:1::40/122")))),),
        every_port("far node-a") + OPEN,
    ),
    "egress to a named port": Case(
        (policy("p", destination(Peer(ports=(PortRange(name="http"),)), "tcp"), directions=(EGRESS,)),),
        every_port(EVERYBODY) + "; from web: far tcp/443",
    ),
    "egress denied": Case((policy("p", directions=(EGRESS,)),), every_port(EVERYBODY) + "; from web:"),
    "egress to pods": Case(
        (policy("p", destination(Peer(pods=CLIENT)), directions=(EGRESS,)),),
        every_port(EVERYBODY) + "; from web: far tcp/80, far tcp/443, far udp/53, near tcp/80",
    ),
    "egress of clients": Case(
        (policy("p", destination(Peer(pods=WEB, ports=(PortRange(80, 80),)), "tcp"), selects=CLIENT, directions=(EGRESS,)),),
        f"tcp/80: {EVERYBODY}; tcp/443: guest node-a node-b; udp/53: guest node-a node-b" + OPEN,
    ),
    "both ends decide": Case(
        (
            policy("in", source(Peer(pods=CLIENT), PortRange(80, 80), PortRange(443, 443), protocol="tcp")),
            policy("out", destination(Peer(ports=(PortRange(1, 100),)), "tcp"), selects=CLIENT, directions=(EGRESS,)),
        ),
        "tcp/80: near far node-a; tcp/443: node-a; udp/53: node-a" + OPEN,
    ),
    "rules are not pooled": Case(
        (
            policy("p", source(Peer(pods=CLIENT), PortRange(80, 80), protocol="tcp")),
            policy("q", source(Peer(pods=CLIENT, namespaces=TEAM), PortRange(443, 443), protocol="tcp")),
        ),
        "tcp/80: near far node-a; tcp/443: guest node-a; udp/53: node-a" + OPEN,
    ),
    "a global policy": Case(
        (policy("g", source(Peer(pods=CLIENT)), selects=Everything(), namespace="", order=1.0),),
        every_port("near far guest node-a") + "; from web:",
    ),
    "a global policy for a namespace": Case(
        (policy("g", selects=Everything(), namespaces=TEAM, namespace="", directions=(EGRESS,), order=1.0),),
        every_port("near far node-a node-b") + OPEN,
    ),
    "deny before allow": Case(
        (
            policy("a", source(Peer(pods=CLIENT), PortRange(80, 80), protocol="tcp", action="deny"), order=1.0),
            policy("b", source(Peer(pods=CLIENT))),
        ),
        "tcp/80: node-a; tcp/443: near far node-a; udp/53: near far node-a" + OPEN,
    ),
    "order decides, not the name": Case(
        (
            policy("a", source(Peer(pods=CLIENT), action="deny"), order=2000.0),
            policy("b", source(Peer(pods=CLIENT))),
        ),
        every_port("near far node-a") + OPEN,
    ),
    "log goes on": Case(
        (policy("l", source(action="log"), source(Peer(pods=CLIENT)), order=1.0),), every_port("near far node-a") + OPEN
    ),
    "a tier denies, pass leads to the next": Case(
        (
            policy("s", source(Peer(pods=CLIENT), action="pass"), tier="security"),
            policy("p", source(Peer(), PortRange(80, 80), protocol="tcp")),
        ),
        "tcp/80: near far node-a; tcp/443: node-a; udp/53: node-a" + OPEN,
        (SECURITY,),
    ),
    "pass after the last tier leads to the profiles": Case(
        (policy("s", source(Peer(pods=CLIENT), action="pass"), tier="security"),),
        every_port("near far node-a") + OPEN,
        (SECURITY,),
    ),
    "a tier that lets pass": Case(
        (policy("s", source(Peer(pods=CLIENT), action="deny"), tier="lenient"),),
        every_port("guest node-a node-b") + OPEN,
        (LENIENT,),
    ),
    "allowed in the first tier": Case(
        (policy("s", source(Peer(pods=CLIENT)), tier="security"), policy("p")), every_port("near far node-a") + OPEN, (SECURITY,)
    ),
    "all but some pods": Case(
        (policy("p", source(Peer(not_pods=CLIENT)), namespace="", order=1.0),), every_port("node-a node-b") + OPEN
    ),
    "all but some ports": Case(
        (
            policy(
                "p",
                Rule("allow", "tcp", destination=Peer(not_ports=(PortRange(80, 80), PortRange(1, 22))), origin="ingress[0]"),
                order=1.0,
            ),
        ),
        f"tcp/80: node-a; tcp/443: {EVERYBODY}; udp/53: node-a" + OPEN,
    ),
    "not a protocol": Case(
        (policy("p", Rule("allow", None, "tcp", origin="ingress[0]"), order=1.0),),
        f"tcp/80: node-a; tcp/443: node-a; udp/53: {EVERYBODY}" + OPEN,
    ),
}


def answered_by_node(lab: Lab) -> list[bool]:
    """What the node sends is never policed; what a pod sends to it is, by its egress, and another node's by both."""
    servers = Servers(lab.namespaces, [("node-a", "tcp", 9000)])
    try:
        found = []
        for family in (4, 6):
            node = str(lab.cluster.topology.underlay_address("node-a", family))
            ways = (("near", 6.0), ("far", 6.0), ("web", 0.3))
            found += [ask(lab.namespaces, key(name), node, 9000, timeout=patience) != "silent" for name, patience in ways]
        return found
    finally:
        servers.close()


def discovering(lab: Lab) -> str:
    """Who reaches web when nobody knows a MAC: a pod that may send nothing still has to answer when its node asks for its own."""
    for name in ("node-a", "default/web"):
        applier.forget_neighbours(lab.namespaces[name])
    return sources(lab)


@pytest.mark.parametrize(("user", "setting"), [("root", "encap=never"), ("user", "encap=vxlan")])
def test_who_reaches_whom(setting: str, in_lab: Callable[..., Any]) -> None:
    cases = CASES if setting == "encap=never" else {name: CASES[name] for name in list(CASES)[::4]}

    def check(lab: Lab) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, case in cases.items():
            under(lab, case.policies, case.tiers)
            found[name] = said(passed(lab))
        found["drift"] = "; ".join(map(str, lab.drift()))
        under(lab, (policy("p", directions=(EGRESS,)),))
        found["node and pods"] = answered_by_node(lab)
        found["discovered"] = discovering(lab)
        under(lab, ())
        found["in the end"] = said(passed(lab))
        return found

    found = in_lab("flat", "calico", check, setting)
    expected = {name: case.expected for name, case in cases.items()}
    assert {name: found[name] for name in expected} == expected
    assert found["drift"] == ""
    assert found["node and pods"] == [True, True, False] * 2
    assert found["discovered"] == "far guest near node-a node-b"
    assert found["in the end"] == ALL_OPEN
