"""Random clusters with random policies, by seed: manifests with every feature of NetworkPolicy, legal for the API server.

The pods' names, namespaces and nodes are always the same, so that a lab can go from case to case; labels, ports and policies
are not.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

Manifest = dict[str, Any]

NAMESPACES = ("default", "red", "blue")
PODS = (  # key, node
    ("default/a", "node-a"),
    ("default/b", "node-b"),
    ("default/c", "node-c"),
    ("red/a", "node-a"),
    ("red/b", "node-b"),
    ("blue/a", "node-a"),
    ("blue/c", "node-c"),
    ("blue/d", "node-c"),
)
LABELS = {"app": ("web", "db", "api"), "tier": ("front", "back"), "env": ("test",)}
NAMESPACE_LABELS = {"team": ("x", "y"), "env": ("test",)}
PORTS = (("TCP", 80), ("TCP", 81), ("TCP", 90), ("UDP", 80), ("UDP", 53), ("SCTP", 80))
NAMES = ("http", "dns", "other")
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


class Case(NamedTuple):
    """``manifests``: namespaces, pods and policies."""

    seed: int
    manifests: tuple[Manifest, ...]

    @property
    def text(self) -> str:
        """As JSON documents, which are YAML."""
        return "\n---\n".join(json.dumps(one, indent=1) for one in self.manifests)

    def __str__(self) -> str:
        return f"seed {self.seed}\n{self.text}"


def case(seed: int, addresses: Sequence[str], names: bool = True) -> Case:
    """``addresses``: those of pods and nodes, for blocks that matter; ``names``: ports by name, too."""
    return Generator(random.Random(seed), addresses, names).case(seed)


def namespace(name: str, labels: dict[str, str] | None = None) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}


def pod(key: str, node: str, labels: dict[str, str], ports: Sequence[Manifest]) -> Manifest:
    home, _, name = key.partition("/")
    containers = [{"name": "main", "image": "any", "ports": list(ports)}]
    metadata = {"namespace": home, "name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node, "containers": containers}}


def policy(key: str, spec: Manifest) -> Manifest:
    home, _, name = key.partition("/")
    metadata = {"namespace": home, "name": name}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


class Generator:
    """Every method draws one part of a case."""

    def __init__(self, draw: random.Random, addresses: Sequence[str], names: bool) -> None:
        self._draw, self._addresses, self._names = draw, list(addresses), names

    def case(self, seed: int) -> Case:
        found = [namespace(name, self._some(NAMESPACE_LABELS)) for name in NAMESPACES]
        found += [pod(key, node, self._some(LABELS), self._ports_of_pod()) for key, node in PODS]
        keys = [f"{name}/p{number}" for name in NAMESPACES for number in range(3)]
        count = self._draw.choice((1, 1, 2, 2, 3, 4, 6))
        return Case(seed, (*found, *(policy(key, self._spec()) for key in self._draw.sample(keys, count))))

    def _chance(self, probability: float) -> bool:
        return self._draw.random() < probability

    def _some(self, values: dict[str, tuple[str, ...]]) -> dict[str, str]:
        return {key: self._draw.choice(found) for key, found in values.items() if self._chance(0.6)}

    def _ports_of_pod(self) -> list[Manifest]:
        """All of them are served; which have names, and which, is drawn: the same name at different numbers, too."""
        found = []
        taken = set()
        for protocol, number in PORTS:
            port: Manifest = {"containerPort": number, "protocol": protocol}
            name = self._draw.choice(NAMES)
            if self._chance(0.5) and name not in taken:
                taken.add(name)
                port["name"] = name
            found.append(port)
        return found

    def _spec(self) -> Manifest:
        spec: Manifest = {"podSelector": self._selector(LABELS)}
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            drawn = self._draw.random()
            if drawn < 0.65:
                spec[direction] = [self._rule(peers) for _ in range(self._draw.choice((1, 1, 2, 3)))]
            elif drawn < 0.8:
                spec[direction] = []
            elif drawn < 0.85:
                spec[direction] = None
        types = self._draw.choice((None, None, None, ["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Egress", "Ingress"], []))
        if types is not None:
            spec["policyTypes"] = types
        return spec

    def _rule(self, peers: str) -> Manifest:
        rule: Manifest = {}
        drawn = self._draw.random()
        if drawn < 0.75:
            rule[peers] = [self._peer() for _ in range(self._draw.choice((1, 1, 2, 3)))]
        elif drawn < 0.85:
            rule[peers] = self._draw.choice(([], None))
        drawn = self._draw.random()
        if drawn < 0.55:
            rule["ports"] = [self._port() for _ in range(self._draw.choice((1, 1, 2, 3)))]
        elif drawn < 0.65:
            rule["ports"] = self._draw.choice(([], None))
        return rule

    def _peer(self) -> Manifest:
        kind = self._draw.choice(("pods", "namespaces", "both", "block"))
        if kind == "block":
            return {"ipBlock": self._block()}
        found: Manifest = {}
        if kind in ("pods", "both"):
            found["podSelector"] = self._selector(LABELS)
        if kind in ("namespaces", "both"):
            named = {"kubernetes.io/metadata.name": NAMESPACES}
            found["namespaceSelector"] = self._selector(NAMESPACE_LABELS if self._chance(0.7) else named)
        return found

    def _selector(self, values: dict[str, tuple[str, ...]]) -> Manifest:
        drawn = self._draw.random()
        if drawn < 0.25:
            return self._draw.choice(({}, {"matchLabels": {}}, {"matchExpressions": []}))  # type: ignore[arg-type]
        found: Manifest = {}
        if drawn < 0.7:
            key = self._draw.choice(list(values))
            found["matchLabels"] = {key: self._draw.choice(values[key])}
        if drawn > 0.5:
            found["matchExpressions"] = [self._expression(values) for _ in range(self._draw.choice((1, 1, 2)))]
        return found

    def _expression(self, values: dict[str, tuple[str, ...]]) -> Manifest:
        key, operator = self._draw.choice(list(values)), self._draw.choice(OPERATORS)
        found: Manifest = {"key": key, "operator": operator}
        if operator in ("In", "NotIn"):
            offered = [*values[key], "nobody"]
            found["values"] = self._draw.sample(offered, self._draw.choice((1, 1, 2)))
        return found

    def _block(self) -> Manifest:
        address = ip_address(self._draw.choice(self._addresses))
        width = address.max_prefixlen
        prefix = self._draw.choice((0, width // 2, width - 8, width - 4, width - 2, width - 1, width))
        cidr = f"{address}/{prefix}"  # with host bits, more often than not
        net = ip_network(cidr, strict=False)
        found: Manifest = {"cidr": cidr}
        inside = [other for other in map(ip_address, self._addresses) if other.version == net.version and other in net]
        holes = []
        for _ in range(self._draw.choice((0, 0, 1, 2, 3)) if prefix < width else 0):
            longer = self._draw.choice(
                [length for length in (width, width - 1, width - 4, prefix + 1) if prefix < length <= width]
            )
            holes.append(f"{ip_network(f'{self._draw.choice(inside)}/{longer}', strict=False)}")
        if holes:
            found["except"] = holes
        return found

    def _port(self) -> Manifest:
        protocol, number = self._draw.choice(PORTS)
        found: Manifest = {} if protocol == "TCP" and self._chance(0.5) else {"protocol": protocol}
        drawn = self._draw.random()
        if self._names and drawn < 0.25:
            found["port"] = self._draw.choice(NAMES)
        elif drawn < 0.85:
            found["port"] = number
            if self._chance(0.3):
                found["endPort"] = self._draw.choice((number, number + 1, number + 10))
        return found
