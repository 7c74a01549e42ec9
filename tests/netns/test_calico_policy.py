"""Calico's policies on the real kernel: who reaches whom under which policy, live, in both families, near and far."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, NamedTuple

import pytest

from emulab import change
from emulab.kernel import nftables
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import Pod
from emulab.objects import EGRESS, INGRESS, ContainerPort, Namespace, Objects, Peer, Policy, PortRange, Rule, Tier
from emulab.selector import Everything, In, Selector

WEB, CLIENT, TEAM = In("app", ("web",)), In("app", ("client",)), In("team", ("x",))
PODS = (
    Pod("web", "node-a", labels=(("app", "web"),), ports=(ContainerPort(80, name="http"), ContainerPort(53, "udp", "dns"))),
    Pod("near", "node-a", labels=(("app", "client"),)),
    Pod("far", "node-b", labels=(("app", "client"),), ports=(ContainerPort(443, name="http"),)),
    Pod("guest", "node-b", "team", labels=(("app", "client"),)),
)
NAMESPACES = (Namespace("default"), Namespace("team", (("team", "x"),)))
PORTS = ("tcp/80", "tcp/443", "udp/53")
TO_WEB = [(source, "web", port) for source in ("near", "far", "guest", "node-a", "node-b") for port in PORTS]
FROM_WEB = [("web", "far", port) for port in PORTS] + [("web", "node-a", "tcp/80"), ("web", "near", "tcp/80")]
CHECKS = TO_WEB + FROM_WEB
DEADLINE = 0.4  # seconds, for all checks of a round together


class Check(NamedTuple):
    source: str
    destination: str
    port: str
    family: int


class Prober:
    """TCP connects and UDP datagrams between namespaces; what is not there by the deadline has not passed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._listening: dict[tuple[str, str, int], socket.socket] = {}

    def _socket(self, name: str, port: str, family: int) -> socket.socket:
        kind = socket.SOCK_STREAM if port.startswith("tcp") else socket.SOCK_DGRAM
        with entered(self._lab.namespaces[self._namespace(name)].net):
            made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        return made

    def _namespace(self, name: str) -> str:
        return name if name.startswith("node-") else next(p.key for p in PODS if p.name == name)

    def _address(self, name: str, family: int) -> str:
        if name.startswith("node-"):
            return str(self._lab.cluster.topology.underlay_address(name, family))
        return str(next(e for e in self._lab.cluster.endpoints if e.pod.name == name).address(family))

    def listen(self, check: Check) -> socket.socket:
        key = (check.destination, check.port, check.family)
        if key not in self._listening:
            made = self._socket(check.destination, check.port, check.family)
            made.bind((self._address(check.destination, check.family), int(check.port[4:])))
            if check.port.startswith("tcp"):
                made.listen(64)
            self._listening[key] = made
        return self._listening[key]

    def connect(self, check: Check) -> socket.socket:
        """A connection that is being made; of UDP one packet that says which check it is."""
        self.listen(check)
        made = self._socket(check.source, check.port, check.family)
        made.connect_ex((self._address(check.destination, check.family), int(check.port[4:])))
        if check.port.startswith("udp"):
            made.send(repr(check).encode())
        return made

    def passed(self, checks: Iterable[Check]) -> set[Check]:
        """Which checks get through."""
        waiting = {self.connect(check): check for check in checks}
        by_text = {repr(check).encode(): check for check in waiting.values()}
        good: set[Check] = set()
        deadline = time.monotonic() + DEADLINE
        while len(good) < len(waiting) and (left := deadline - time.monotonic()) > 0:
            poll = select.poll()
            files = {one.fileno(): one for one, check in waiting.items() if check.port.startswith("tcp") and check not in good}
            files |= {one.fileno(): one for (_, port, _), one in self._listening.items() if port.startswith("udp")}
            for number, one in files.items():
                poll.register(number, select.POLLOUT if one in waiting else select.POLLIN)
            for number, _ in poll.poll(left * 1e3):
                one = files[number]
                if one not in waiting:
                    good.add(by_text.get(one.recv(200), Check("", "", "", 0)))
                elif one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    good.add(waiting[one])
        for one in waiting:
            one.close()
        for (_, port, _), one in self._listening.items():
            with suppress(BlockingIOError):
                while port.startswith("tcp"):
                    one.accept()[0].close()
        return good & set(waiting.values())


def checks(wanted: Iterable[tuple[str, str, str]] = CHECKS) -> list[Check]:
    return [Check(*one, family) for one in wanted for family in (4, 6)]


def policy(
    name: str = "p",
    *rules: Rule,
    selects: Selector = WEB,
    directions: tuple[str, ...] = (INGRESS,),
    namespaces: Selector | None = None,
    **values: Any,
) -> Policy:
    """A Kubernetes policy, or with a tier one of Calico's; the rules are those of its first direction."""
    api = "projectcalico.org/v3" if values else "networking.k8s.io/v1"
    values = {"namespace": "default", **values}
    sides = {INGRESS: (), EGRESS: (), directions[0]: rules}
    return Policy(
        api,
        "NetworkPolicy",
        name=name,
        selector=selects,
        namespaces=namespaces,
        directions=directions,
        ingress=sides[INGRESS],
        egress=sides[EGRESS],
        **values,
    )


def source(peer: Peer = Peer(), *ports: PortRange, protocol: str | None = None, action: str = "allow") -> Rule:
    return Rule(action, protocol, source=peer, destination=Peer(ports=ports), origin="ingress[0]")


def destination(peer: Peer = Peer(), protocol: str | None = None, action: str = "allow") -> Rule:
    return Rule(action, protocol, destination=peer, origin="egress[0]")


class Case(NamedTuple):
    """What of the checks towards web passes, "port: sources", and of those from web, "from web: destination port"."""

    policies: tuple[Policy, ...]
    expected: str
    tiers: tuple[Tier, ...] = ()


EVERYBODY = "near far guest node-a node-b"
OPEN = "; from web: far tcp/80, far tcp/443, far udp/53, node-a tcp/80, near tcp/80"
ALL_OPEN = f"tcp/80: {EVERYBODY}; tcp/443: {EVERYBODY}; udp/53: {EVERYBODY}" + OPEN
ONLY_NODE = "tcp/80: node-a; tcp/443: node-a; udp/53: node-a"  # a node's way to its own pods is not policed
NETS = (ip_network("10.65.0.0/16"), ip_network("10.1.0.0/16"), ip_network("fd00:10:1::/48"), ip_network("192.168.0.0/16"))
SECURITY = Tier("security", 100)
LENIENT = Tier("lenient", 50, "pass")


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
    "a name of the other protocol": Case(
        (policy("p", source(Peer(), PortRange(name="dns"), protocol="tcp")),), ONLY_NODE + OPEN
    ),
    "a protocol": Case(
        (policy("p", source(Peer(), protocol="udp")),), f"tcp/80: node-a; tcp/443: node-a; udp/53: {EVERYBODY}" + OPEN
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
        every_port("near far guest node-a") + "; from web: node-a tcp/80",
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
        (policy("s", source(Peer(pods=CLIENT), action="pass"), tier="security"),), every_port("near far node-a") + OPEN, (SECURITY,)
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


def said(good: set[Check]) -> str:
    """What passed, in both families, in the words of a `Case`; what passes in one only is marked with it."""

    def one(check: tuple[str, str, str]) -> str | None:
        families = [family for family in (4, 6) if Check(*check, family) in good]
        return None if not families else "" if len(families) == 2 else f"(IPv{families[0]} only)"

    parts = []
    for port in PORTS:
        named = [f"{s}{one((s, 'web', p))}" for s, _, p in TO_WEB if p == port and one((s, "web", p)) is not None]
        parts.append(f"{port}: {' '.join(named)}".strip())
    back = [f"{d} {p}{one((s, d, p))}" for s, d, p in FROM_WEB if one((s, d, p)) is not None]
    return "; ".join([*parts, f"from web: {', '.join(back)}".strip()])


def under(lab: Lab, policies: tuple[Policy, ...], tiers: tuple[Tier, ...] = (), pods: tuple[Pod, ...] = PODS) -> None:
    lab.change(change.reshape(lab.design, pods, Objects(namespaces=NAMESPACES, policies=policies, tiers=tiers)))


@pytest.mark.parametrize("setting", ["encap=never", "encap=vxlan"])
def test_who_reaches_whom(setting: str, in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> dict[str, str]:
        prober = Prober(lab)
        found = {}
        for name, case in CASES.items():
            under(lab, case.policies, case.tiers)
            found[name] = said(prober.passed(checks()))
        found["drift"] = "; ".join(map(str, lab.drift()))
        under(lab, ())
        found["in the end"] = said(prober.passed(checks()))
        return found

    cases = CASES if setting == "encap=never" else {name: CASES[name] for name in list(CASES)[::4]}
    found = in_lab("flat", "calico", check, setting)
    expected = {name: case.expected for name, case in cases.items()}
    assert {name: found[name] for name in expected} == expected
    assert found["drift"] == ""
    assert found["in the end"] == ALL_OPEN
