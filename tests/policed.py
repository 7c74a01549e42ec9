"""Policies on paper: a cluster of five pods on two nodes, and policies of both kinds, as they are written."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from emulab.model import Cluster, Endpoint, Link, Node, Pod, Segment, Topology
from emulab.objects import ContainerPort, Namespace, Objects, Policy, Tier

NODES = ("node-a", "node-b")
PODS = (  # key, node, labels
    ("default/web", "node-a", {"app": "web"}),
    ("default/db", "node-b", {"app": "db", "tier": "back"}),
    ("default/bare", "node-a", {}),
    ("shop/web", "node-b", {"app": "web"}),
    ("shop/api", "node-a", {"app": "api", "tier": "back"}),
)
NAMESPACES = {"default": {}, "shop": {"team": "red"}}
PORTS = {  # the same name, another number: resolved at the destination
    "default/db": (ContainerPort(5432, "tcp", "sql"), ContainerPort(53, "udp", "sql")),
    "shop/api": (ContainerPort(8000, "tcp", "sql"),),
}


def cluster(
    *policies: Policy, pods: Any = PODS, namespaces: dict[str, dict[str, str]] = NAMESPACES, tiers: tuple[Tier, ...] = ()
) -> Cluster:
    """Two nodes, five pods in two namespaces; 10.0.0.x and fd00::x by their order."""
    made = []
    for number, (key, node, labels) in enumerate(pods, 1):
        namespace, _, name = key.partition("/")
        pod = Pod(name, node, namespace, labels=tuple(labels.items()), ports=PORTS.get(key, ()))
        made.append(Endpoint(pod, (ip_address(f"10.0.{number >> 8}.{number & 255}"), ip_address(f"fd00::{number:x}"))))
    links = tuple(Link(node, "lan", addresses=(ip_interface(f"192.168.0.{i}/24"),)) for i, node in enumerate(NODES, 1))
    topology = Topology(
        "pair",
        (Segment("lan", (ip_network("192.168.0.0/24"),)),),
        tuple(map(Node, NODES)),
        links,
        tuple(endpoint.pod for endpoint in made),
        (ip_network("10.0.0.0/16"), ip_network("fd00::/64")),
        objects=Objects(
            tuple(Namespace(name, tuple(labels.items())) for name, labels in namespaces.items()), policies=policies, tiers=tiers
        ),
    )
    return Cluster(topology, (), tuple(made), {"node-a": (ip_address("10.0.255.1"),), "node-b": (ip_address("10.0.255.2"),)})


def policy(spec: dict[str, Any], key: str = "default/one") -> Policy:
    namespace, _, name = key.partition("/")
    manifest = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}
    return Policy("networking.k8s.io/v1", "NetworkPolicy", namespace, name, manifest=manifest)


def calico(spec: dict[str, Any], key: str = "rule") -> Policy:
    namespace, _, name = key.rpartition("/")
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    manifest = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return Policy("projectcalico.org/v3", kind, namespace, name, manifest=manifest)


def ingress(*rules: Any, select: Any = None, **more: Any) -> dict[str, Any]:
    """A policy of default/db, or of whom ``select`` says."""
    return {"podSelector": {"matchLabels": {"app": "db"}} if select is None else select, "ingress": list(rules), **more}


def egress(*rules: Any, select: Any = None) -> dict[str, Any]:
    chosen = {"matchLabels": {"app": "web"}} if select is None else select
    return {"podSelector": chosen, "policyTypes": ["Egress"], "egress": list(rules)}


def pods(**labels: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": labels}}


def many(count: int) -> tuple[Any, ...]:
    """Pods of which each has labels of its own, and few that policies ask for."""
    return tuple((f"default/p{i}", NODES[i % 2], {"app": f"a{i % 7}", "instance": str(i)}) for i in range(count))
