"""Calico's policies on the real kernel: who reaches whom under which policy, live, in both families, near and far."""

from __future__ import annotations

import re
import select
import socket
import threading
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
from emulab.model import IPNetwork, Pod
from emulab.objects import EGRESS, INGRESS, ContainerPort, Namespace, Objects, Peer, Policy, PortRange, Rule, Tier
from emulab.selector import Everything, In, Selector

WEB, CLIENT, TEAM = In("app", ("web",)), In("app", ("client",)), In("team", ("x",))
PODS = (
    Pod("web", "node-a", labels=(("app", "web"),), ports=(ContainerPort(80, name="http"), ContainerPort(53, "udp", "dns"))),
    Pod("near", "node-a", labels=(("app", "client"),)),
    Pod("far", "node-b", labels=(("app", "client"),), ports=(ContainerPort(443, name="http"),)),
    Pod("guest", "node-b", "team", labels=(("app", "client"),)),
)
ANYBODY = Peer()
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


def source(peer: Peer = ANYBODY, *ports: PortRange, protocol: str | None = None, action: str = "allow") -> Rule:
    return Rule(action, protocol, source=peer, destination=Peer(ports=ports), origin="ingress[0]")


def destination(peer: Peer = ANYBODY, protocol: str | None = None, action: str = "allow") -> Rule:
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


ALLOWED = policy("p", source(Peer(pods=CLIENT), PortRange(1, 100)))


def test_labels_and_policies_change_while_they_are_in_force(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[str]:
        prober = Prober(lab)
        found = []

        def sources() -> None:
            good = prober.passed(checks([(source, "web", "tcp/80") for source in ("near", "far", "guest", "node-b")]))
            found.append(" ".join(dict.fromkeys(f"{one.source}" for one in sorted(good))))

        allowed = policy("p", source(Peer(pods=CLIENT)))
        under(lab, (allowed,))
        sources()
        other = tuple(replace(pod, labels=(("app", "other"),)) if pod.name == "far" else pod for pod in PODS)
        under(lab, (allowed,), pods=other)  # a client is none any more
        sources()
        unselected = tuple(replace(pod, labels=()) if pod.name == "web" else pod for pod in PODS)
        under(lab, (allowed,), pods=unselected)  # the policy selects nobody
        sources()
        under(lab, (allowed,))
        teams = policy("p", source(Peer(namespaces=TEAM)))
        under(lab, (teams,))  # another rule
        sources()
        lab.change(change.reshape(lab.design, PODS, Objects(policies=(teams,))))  # the namespace has lost its label
        sources()
        under(lab, ())
        sources()
        return found

    found = in_lab("flat", "calico", check)
    assert found == ["far near", "near", "far guest near node-b", "guest", "", "far guest near node-b"]


def test_an_established_connection_outlives_a_new_policy(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> tuple[bytes, bytes, set[Check], set[Check]]:
        under(lab, ())
        prober = Prober(lab)
        wanted = Check("far", "web", "tcp/80", 4)
        listener = prober.listen(wanted)
        client = prober.connect(wanted)
        listener.settimeout(2)
        server, _ = listener.accept()
        for one in (client, server):
            one.settimeout(2)
        under(lab, (policy(), policy("out", selects=CLIENT, directions=(EGRESS,))))
        client.send(b"request")
        heard = server.recv(100)
        server.send(b"reply")
        answered = client.recv(100)
        listener.setblocking(False)
        denied = prober.passed([wanted])
        under(lab, ())
        return heard, answered, denied, prober.passed([wanted])

    heard, answered, denied, allowed = in_lab("flat", "calico", check)
    assert (heard, answered) == (b"request", b"reply")
    assert denied == set()
    assert allowed == {Check("far", "web", "tcp/80", 4)}


class Newcomers(threading.Thread):
    """A new UDP flow every few milliseconds, from a port of its own, so that policy decides on each packet."""

    def __init__(self, prober: Prober, check: Check) -> None:
        super().__init__()
        self._prober, self._check, self._over = prober, check, threading.Event()
        self._listener = prober.listen(check)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sent = 0

    def run(self) -> None:
        while not self._over.wait(0.002):
            self._prober.connect(self._check).close()
            self.sent += 1

    def lost(self) -> int:
        """End it; how many did not arrive."""
        self._over.set()
        self.join()
        arrived, deadline = 0, time.monotonic() + DEADLINE
        while arrived < self.sent and time.monotonic() < deadline:
            with suppress(BlockingIOError):
                self._listener.recv(200)
                arrived += 1
        return self.sent - arrived


def test_a_change_disturbs_nobody_else(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> dict[str, Any]:
        kept = policy("kept", source(Peer(pods=CLIENT), PortRange(53, 53), protocol="udp"))
        other = policy("other", selects=In("app", ("client",)))
        pods = (*PODS, Pod("late", "node-a", labels=(("app", "client"),)))
        steps = [((kept, other), PODS), ((kept, other), pods), ((kept, ALLOWED), pods), ((kept,), PODS)]
        under(lab, (kept,))
        prober = Prober(lab)
        flows = [Newcomers(prober, Check("far", "web", "udp/53", family)) for family in (4, 6)]
        for flow in flows:
            flow.start()
        for policies, there in steps * 3:
            under(lab, policies, pods=there)
        undisturbed = [flow.lost() for flow in flows]
        victim = Newcomers(prober, Check("far", "web", "udp/53", 4))
        victim.start()
        under(lab, (policy("kept"),))
        seen = victim.sent
        while victim.sent < seen + 20:
            time.sleep(0.001)
        under(lab, (kept,))
        return {"lost": undisturbed, "sent": min(flow.sent for flow in flows), "denied": victim.lost()}

    found = in_lab("flat", "calico", check)
    assert found["lost"] == [0, 0]
    assert found["sent"] > 50
    assert found["denied"] >= 20


def rules(lab: Lab) -> dict[str, int]:
    """The rules of node-a's table with their handles, and how many packets they have counted."""
    with entered(lab.namespaces["node-a"].net), nftables.Nftables() as nft:
        lines = [line.strip() for line in nft.listing().splitlines() if " # handle " in line]
    found = {}
    for line in lines:
        counted = re.search(r"counter packets (\d+) bytes \d+ ?", line)
        if counted:
            found[line.replace(counted[0], "")] = int(counted[1])
    return found


def test_other_labels_touch_only_elements_of_sets(in_lab: Callable[..., Any]) -> None:
    """Rules keep their handles and counters, and whoever reads them finds the policy's place in the comment."""

    def check(lab: Lab) -> tuple[dict[str, int], dict[str, int]]:
        under(lab, (ALLOWED,))
        prober = Prober(lab)
        prober.passed(checks([("near", "web", "tcp/80"), ("guest", "web", "tcp/80")]))
        before = rules(lab)
        other = tuple(replace(pod, labels=()) if pod.name == "far" else pod for pod in PODS)
        under(lab, (ALLOWED,), pods=other)
        return before, rules(lab)

    before, after = in_lab("flat", "calico", check)
    assert before == after
    counted = {re.search(r'comment "(.*)"', rule)[1]: number for rule, number in before.items() if number}  # type: ignore[index]
    assert counted == {
        "default|default/p|ingress|ingress[0]": 1,
        "End of tier default. Drop if no policies passed packet": 1,
    }


def test_many_policies_at_once(in_lab: Callable[..., Any]) -> None:
    """More than one netlink message of an ordinary user holds."""

    def check(lab: Lab) -> tuple[str, str]:
        prober = Prober(lab)
        many = [
            policy(f"p{number}", *(source(Peer(pods=CLIENT), PortRange(1000 + port, 1000 + port)) for port in range(10)))
            for number in range(100)
        ]
        under(lab, (*many, ALLOWED))
        found = said(prober.passed(checks()))
        under(lab, ())
        return found, said(prober.passed(checks()))

    assert in_lab("flat", "calico", check) == (
        "tcp/80: near far node-a; tcp/443: node-a; udp/53: near far node-a" + OPEN,
        ALL_OPEN,
    )
