"""A few pods under policies, and who of them reaches whom: TCP connects and UDP datagrams on the real kernel."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from emulab import change
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import Pod
from emulab.objects import EGRESS, INGRESS, ContainerPort, Namespace, Objects, Peer, Policy, PortRange, Rule, Tier
from emulab.selector import In, Selector

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
QUIET = 0.4  # seconds in which nothing more gets through


class Check(NamedTuple):
    source: str
    destination: str
    port: str
    family: int


class Prober:
    """TCP connects and UDP datagrams between namespaces; what is not there when all is quiet has not passed."""

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
        last = time.monotonic()
        while len(good) < len(waiting) and (left := last + QUIET - time.monotonic()) > 0:
            poll = select.poll()
            files = {one.fileno(): one for one, check in waiting.items() if check.port.startswith("tcp") and check not in good}
            files |= {one.fileno(): one for (_, port, _), one in self._listening.items() if port.startswith("udp")}
            for number, one in files.items():
                poll.register(number, select.POLLOUT if one in waiting else select.POLLIN)
            for number, _ in poll.poll(left * 1e3):
                one, last = files[number], time.monotonic()
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
