"""A few pods under policies, and who of them reaches whom on the real kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emulab import change
from emulab.lab import Lab
from emulab.model import Pod
from emulab.objects import EGRESS, INGRESS, ContainerPort, Namespace, Objects, Peer, Policy, PortRange, Rule, Tier
from emulab.packet import Verdict
from emulab.probe import ports
from emulab.probe.ports import Check
from emulab.selector import In, Selector

WEB, CLIENT, TEAM = In("app", ("web",)), In("app", ("client",)), In("team", ("x",))
DNS = ContainerPort(53, "udp", "dns")
PODS = (
    Pod("web", "node-a", labels=(("app", "web"),), ports=(ContainerPort(80, name="http"), ContainerPort(443), DNS)),
    Pod("near", "node-a", labels=(("app", "client"),), ports=(ContainerPort(80),)),
    Pod("far", "node-b", labels=(("app", "client"),), ports=(ContainerPort(80), ContainerPort(443, name="http"), DNS)),
    Pod("guest", "node-b", "team", labels=(("app", "client"),)),
)
ANYBODY = Peer()
NAMESPACES = (Namespace("default"), Namespace("team", (("team", "x"),)))
PORTS = ("tcp/80", "tcp/443", "udp/53")
TO_WEB = [(source, "web", port) for source in ("near", "far", "guest", "node-a", "node-b") for port in PORTS]
FROM_WEB = [("web", "far", port) for port in PORTS] + [("web", "near", "tcp/80")]
CHECKS = TO_WEB + FROM_WEB
Way = tuple[str, str, str]  # from, to, "tcp/80"


def key(name: str) -> str:
    """The namespace of a pod or node."""
    return next((pod.key for pod in PODS if pod.name == name), name)


def passed(lab: Lab, wanted: Iterable[Way] = CHECKS) -> set[tuple[Way, int]]:
    """What gets through, in which family."""
    asked = [
        ((way, family), Check(key(way[0]), key(way[1]), family, way[2][:3], int(way[2][4:])))
        for way in wanted
        for family in (4, 6)
    ]
    outcomes = ports.probe(lab.namespaces, lab.cluster, [check for _, check in asked])
    return {one for (one, _), outcome in zip(asked, outcomes, strict=True) if outcome.verdict is Verdict.DELIVERED}


def sources(lab: Lab, port: str = "tcp/80") -> str:
    """Who reaches web, in all families of whom it has."""
    good = passed(lab, [way for way in TO_WEB if way[2] == port])
    return " ".join(way[0] for way, family in sorted(good) if family == 4 and (way, 6) in good)


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


def said(good: set[tuple[Way, int]]) -> str:
    """What passed, in both families, in the words of a `Case`; what passes in one only is marked with it."""

    def one(way: Way) -> str | None:
        families = [family for family in (4, 6) if (way, family) in good]
        return None if not families else "" if len(families) == 2 else f"(IPv{families[0]} only)"

    parts = []
    for port in PORTS:
        named = [f"{way[0]}{one(way)}" for way in TO_WEB if way[2] == port and one(way) is not None]
        parts.append(f"{port}: {' '.join(named)}".strip())
    back = [f"{way[1]} {way[2]}{one(way)}" for way in FROM_WEB if one(way) is not None]
    return "; ".join([*parts, f"from web: {', '.join(back)}".strip()])


def under(lab: Lab, policies: tuple[Policy, ...], tiers: tuple[Tier, ...] = (), pods: tuple[Pod, ...] = PODS) -> None:
    lab.change(change.reshape(lab.design, pods, Objects(namespaces=NAMESPACES, policies=policies, tiers=tiers)))
