"""NetworkPolicy (networking.k8s.io/v1) as `emulab.objects.Policy`: defaulting and validation are the API server's.

Sources: kubernetes/pkg/apis/networking/v1/defaults.go and validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emulab.kube import syntax
from emulab.kube.document import Document
from emulab.objects import EGRESS, INGRESS, Peer, Policy, PortRange, Rule
from emulab.text import Path, shown

_TYPES = ("Ingress", "Egress")


def policy(found: Document) -> Policy:
    """The policy: a `Rule` per peer and port, with the place of both as its ``origin``."""
    spec = found.model.spec
    if spec is None:
        found.fail(("spec",), "required")
    types = spec.policyTypes
    if types:
        for index, one in enumerate(types):
            syntax.one_of(found, ("spec", "policyTypes", index), one, _TYPES)
    else:  # an egress *rule* makes it a policy for egress, `egress: []` does not
        types = ["Ingress", "Egress"] if spec.egress else ["Ingress"]
    selector = spec.podSelector
    ingress = tuple(_rules(found, INGRESS, "from", [(one.from_, one.ports) for one in spec.ingress or ()]))
    egress = tuple(_rules(found, EGRESS, "to", [(one.to, one.ports) for one in spec.egress or ()]))
    return Policy(
        api=found.kind.api,
        kind=found.kind.name,
        namespace=found.namespace,
        name=found.name,
        selector=syntax.selector(found, ("spec", "podSelector"), selector or _EMPTY),
        directions=tuple(one.lower() for one in _TYPES if one in types),
        ingress=ingress if "Ingress" in types else (),
        egress=egress if "Egress" in types else (),
        labels=found.labels,
        manifest=found.manifest,
    )


class _EMPTY:
    """No selector written is the empty one."""

    matchLabels = matchExpressions = None


def _rules(found: Document, direction: str, side: str, given: list[tuple[Any, Any]]) -> Iterator[Rule]:
    for index, (peers, ports) in enumerate(given):
        at: Path = ("spec", direction, index)
        sides: list[tuple[Path, Peer]] = [
            ((direction, index, side, i), _peer(found, (*at, side, i), one)) for i, one in enumerate(peers or ())
        ]
        ranges: list[tuple[Path, str | None, tuple[PortRange, ...]]] = [
            (("ports", i), *_port(found, (*at, "ports", i), one)) for i, one in enumerate(ports or ())
        ]
        for where, peer in sides or [((direction, index), Peer())]:
            for which, protocol, wanted in ranges or [((), None, ())]:
                there = Peer(ports=wanted)
                if direction == INGRESS:
                    yield Rule("allow", protocol, source=peer, destination=there, origin=shown((*where, *which)))
                else:
                    both = Peer(peer.pods, peer.namespaces, nets=peer.nets, not_nets=peer.not_nets, ports=wanted)
                    yield Rule("allow", protocol, destination=both, origin=shown((*where, *which)))


def _peer(found: Document, at: Path, peer: Any) -> Peer:
    pods, namespaces, block = peer.podSelector, peer.namespaceSelector, peer.ipBlock
    if block is None and pods is None and namespaces is None:
        found.fail(at, "podSelector, namespaceSelector or ipBlock expected")
    if block is None:
        return Peer(
            None if pods is None else syntax.selector(found, (*at, "podSelector"), pods),
            None if namespaces is None else syntax.selector(found, (*at, "namespaceSelector"), namespaces),
        )
    if pods is not None or namespaces is not None:
        found.fail((*at, "ipBlock"), "goes with no podSelector or namespaceSelector: write two items")
    net = syntax.network(found, (*at, "ipBlock", "cidr"), block.cidr)
    holes = []
    for index, text in enumerate(block.except_ or ()):
        place: Path = (*at, "ipBlock", "except", index)
        hole = syntax.network(found, place, text)
        if hole.version != net.version or hole == net or not hole.subnet_of(net):  # type: ignore[arg-type]
            found.fail(place, f"{hole} expected to be a part of {net}")
        holes.append(hole)
    return Peer(nets=(net,), not_nets=tuple(dict.fromkeys(holes)))


def _port(found: Document, at: Path, given: Any) -> tuple[str, tuple[PortRange, ...]]:
    """A protocol, and which of its ports: none means all."""
    protocol = syntax.protocol(found, (*at, "protocol"), given.protocol)
    port, end = given.port, given.endPort
    if port is None:
        if end is not None:
            found.fail((*at, "endPort"), "needs a port")
        return protocol, ()
    if isinstance(port, str):
        if end is not None:
            found.fail((*at, "endPort"), f"needs a number as port, got '{port[:60]}'")
        return protocol, (PortRange(name=syntax.port_name(found, (*at, "port"), port)),)
    syntax.number(found, (*at, "port"), port)
    if end is not None and not port <= syntax.number(found, (*at, "endPort"), end):
        found.fail((*at, "endPort"), f"{end} is smaller than port {port}")
    return protocol, (PortRange(port, port if end is None else end),)
