"""Pods and topologies of nodes a, b, c, …, as IPAM sees them."""

from __future__ import annotations

import ipaddress

from emulab.model import Node, Pod, Topology

V4, V6 = "10.32.0.0/12", "fd00:32::/48"


def pod(name: str, node: str = "a", *addresses: str) -> Pod:
    return Pod(name, node, addresses=tuple(map(ipaddress.ip_address, addresses)))


def topology(nodes: str = "abc", *pods: Pod, cidrs: str = V4, own: dict[str, str] | None = None) -> Topology:
    """``own``: nodes' own pod CIDRs."""
    held = {node: (ipaddress.ip_network(cidr),) for node, cidr in (own or {}).items()}
    return Topology(
        "t",
        (),
        tuple(Node(node, held.get(node, ())) for node in nodes),
        (),
        pods,
        tuple(map(ipaddress.ip_network, cidrs.split())),
    )
