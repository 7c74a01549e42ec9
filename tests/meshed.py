"""Nodes on one LAN, of which some have no direct path to each other."""

from __future__ import annotations

import ipaddress

from emulab.model import Link, Node, Pod, Segment, Topology

LAN = Segment("lan", (ipaddress.ip_network("192.168.50.0/24"), ipaddress.ip_network("fd00:50::/64")))


def link(node: str, addresses: str, mtu: int = 1500) -> Link:
    return Link(node, "lan", addresses=tuple(map(ipaddress.ip_interface, addresses.split())), mtu=mtu)


def cut(*pairs: str) -> frozenset[frozenset[str]]:
    """``cut("ac")``: nodes a and c have no direct path."""
    return frozenset(frozenset(f"node-{c}" for c in pair) for pair in pairs)


def lan(letters: str, *pairs: str) -> Topology:
    """A node with one pod per letter; the pairs are cut."""
    return Topology(
        "lan",
        (LAN,),
        tuple(Node(f"node-{c}") for c in letters),
        tuple(link(f"node-{c}", f"192.168.50.{n}/24 fd00:50::{n}/64") for n, c in enumerate(letters, 1)),
        tuple(Pod(f"{c}1", f"node-{c}") for c in letters),
        (ipaddress.ip_network("10.32.0.0/12"), ipaddress.ip_network("fd00:32::/48")),
        cut=cut(*pairs),
    )
