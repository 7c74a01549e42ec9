"""What a topology has to be, whoever wrote it: names, addresses and links that make sense together.

`Complaint` is how a reader of files learns where a mistake is: `problems` names the thing, the reader knows its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_interface
from itertools import combinations
from typing import NamedTuple

from emulab.errors import InputError, nearest
from emulab.model import OUTSIDE_ADDRESSES, RESERVED_NAMES, IPInterface, IPNetwork, Segment, Topology

MAX_INTERFACE_NAME = 15  # bytes: IFNAMSIZ - 1, linux/if.h
MIN_MTU, MAX_MTU = 68, 65535  # RFC 791
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 as Kubernetes has it


class Complaint(NamedTuple):
    """One mistake and the thing that it is about: ("node", "node-a"), ("pod", "default/a1"), ("segment", …), …"""

    thing: tuple[str, str]
    message: str


def gateway_addresses(segment: Segment) -> tuple[IPInterface, ...]:
    """The gateway's address in each subnet of a segment: the last usable in IPv4, ``::fe`` in IPv6."""
    return tuple(
        ip_interface(f"{net.broadcast_address - 1 if net.version == 4 else net.network_address + 0xFE}/{net.prefixlen}")
        for net in segment.subnets
    )


def validate(topology: Topology) -> None:
    """Raise `InputError` for the first mistake."""
    for complaint in problems(topology):
        raise InputError(f"topology {topology.name}: {complaint.message}")


def problems(topology: Topology) -> Iterator[Complaint]:
    """Every mistake that is visible without a data plane."""
    yield from _names(topology)
    yield from _networks(topology)
    yield from _links(topology)
    yield from _pods(topology)
    yield from _cuts(topology)


def is_label(name: str) -> bool:
    """Whether ``name`` is an RFC 1123 label."""
    return bool(_LABEL.fullmatch(name))


def _names(topology: Topology) -> Iterator[Complaint]:
    if not topology.nodes:
        yield Complaint(("topology", "nodes"), "no nodes: at least one expected")
    rule = "at most 63 of a-z, 0-9 and '-', a letter or digit at both ends (RFC 1123)"
    named = [("segment", s.name, s.name) for s in topology.segments] + [
        ("node", n.name, n.name) for n in topology.nodes
    ]
    named += [("pod", p.key, p.name) for p in topology.pods]
    named += [("pod", p.key, p.namespace) for p in topology.pods]
    for kind, key, name in named:
        if not is_label(name):
            yield Complaint((kind, key), f"'{name}' is no name for a {kind}: expected {rule}")
        elif kind == "node" and name in RESERVED_NAMES:
            yield Complaint((kind, key), f"'{name}' is a name of the underlay: a node cannot have it")
    for kind, keys in (
        ("segment", [s.name for s in topology.segments]),
        ("node", [n.name for n in topology.nodes]),
        ("pod", [p.key for p in topology.pods]),
    ):
        for key in sorted({key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else ()):
            yield Complaint((kind, key), f"there are two {kind}s '{key}'")


def _networks(topology: Topology) -> Iterator[Complaint]:
    if not topology.pod_cidrs:
        yield Complaint(("topology", "pod-cidrs"), "no pod-cidrs: at least one network expected, e.g. 10.1.0.0/16")
    pods = [(("topology", "pod-cidrs"), "pod CIDR", network) for network in topology.pod_cidrs]
    under = [
        (("segment", s.name), f"segment {s.name}'s subnet", subnet) for s in topology.segments for subnet in s.subnets
    ]
    outside = [(("topology", "outside"), "the outside", address.network) for address in OUTSIDE_ADDRESSES]
    for (thing, what, network), (other_thing, other_what, other) in combinations([*outside, *under, *pods], 2):
        if network.version == other.version and network.overlaps(other):
            yield Complaint(other_thing, f"{other_what} {other} overlaps {what} {network}")
    for segment in topology.segments:
        yield from _mtu(("segment", segment.name), segment.mtu)
        families = [subnet.version for subnet in segment.subnets]
        if not families or len(families) != len(set(families)):
            yield Complaint(("segment", segment.name), f"segment {segment.name}: one subnet per family expected")
    leased: list[tuple[str, IPNetwork]] = []
    for node in topology.nodes:
        for lease in node.pod_cidrs:
            if not any(_inside(lease, cidr) for cidr in topology.pod_cidrs):
                message = f"node {node.name}: {lease} is in none of the pod CIDRs {_listed(topology.pod_cidrs)}"
                yield Complaint(("node", node.name), message)
            for owner, other in leased:
                if other.version == lease.version and other.overlaps(lease):
                    yield Complaint(("node", node.name), f"node {node.name}: {lease} overlaps {other} of node {owner}")
            leased.append((node.name, lease))


def _links(topology: Topology) -> Iterator[Complaint]:
    nodes, segments = {n.name for n in topology.nodes}, {s.name: s for s in topology.segments}
    taken = {a.ip: "the gateway" for segment in topology.segments for a in gateway_addresses(segment)}
    linked = set()
    for link in topology.links:
        thing = ("node", link.node)
        if link.node not in nodes:
            yield Complaint(thing, f"a link to an unknown node '{link.node}'{nearest(link.node, nodes)}")
            continue
        if link.segment not in segments:
            yield Complaint(
                thing, f"node {link.node}: unknown segment '{link.segment}'{nearest(link.segment, segments)}"
            )
            continue
        if (link.node, link.interface) in linked:
            yield Complaint(thing, f"node {link.node}: two links on interface {link.interface}")
        linked.add((link.node, link.interface))
        length = len(link.interface.encode())
        if not 0 < length <= MAX_INTERFACE_NAME or set(link.interface) & set("/ :%"):
            message = f"'{link.interface}' is no interface name: 1 to {MAX_INTERFACE_NAME} bytes without '/' expected, got {length}"
            yield Complaint(thing, f"node {link.node}: {message}")
        yield from _mtu(thing, link.mtu)
        if link.mtu > segments[link.segment].mtu:
            yield Complaint(
                thing,
                f"node {link.node}: MTU {link.mtu} exceeds {segments[link.segment].mtu} of segment {link.segment}",
            )
        for address in link.addresses:
            subnets = segments[link.segment].subnets
            if not any(address.version == s.version and address.ip in s for s in subnets):
                yield Complaint(
                    thing, f"node {link.node}: {address.ip} is not in segment {link.segment} {_listed(subnets)}"
                )
            elif address.ip in taken:
                yield Complaint(thing, f"node {link.node}: {address.ip} is taken by {taken[address.ip]}")
            taken[address.ip] = f"node {link.node}"
    for name in sorted(nodes - {node for node, _ in linked}):
        yield Complaint(("node", name), f"node {name} has no link: its uplink is missing")


def _pods(topology: Topology) -> Iterator[Complaint]:
    nodes = {n.name for n in topology.nodes}
    taken: dict[object, str] = {}
    for pod in topology.pods:
        thing = ("pod", pod.key)
        if pod.node not in nodes:
            yield Complaint(thing, f"pod {pod.key}: unknown node '{pod.node}'{nearest(pod.node, nodes)}")
        for address in pod.addresses:
            if not any(address.version == cidr.version and address in cidr for cidr in topology.pod_cidrs):
                yield Complaint(
                    thing, f"pod {pod.key}: {address} is outside the pod CIDRs {_listed(topology.pod_cidrs)}"
                )
            elif address in taken:
                yield Complaint(thing, f"pod {pod.key}: {address} is taken by pod {taken[address]}")
            taken[address] = pod.key
        if len({a.version for a in pod.addresses}) < len(pod.addresses):
            yield Complaint(
                thing, f"pod {pod.key}: one address per family expected, got {', '.join(map(str, pod.addresses))}"
            )


def _cuts(topology: Topology) -> Iterator[Complaint]:
    nodes = {n.name for n in topology.nodes}
    for pair in topology.cut:
        for name in sorted(pair - nodes):
            yield Complaint(("topology", "cut"), f"cut: unknown node '{name}'{nearest(name, nodes)}")
        if len(pair) != 2:
            yield Complaint(("topology", "cut"), "cut: pairs of two different nodes expected")


def _mtu(thing: tuple[str, str], mtu: int) -> Iterator[Complaint]:
    if not MIN_MTU <= mtu <= MAX_MTU:
        yield Complaint(thing, f"{thing[0]} {thing[1]}: MTU {mtu}, {MIN_MTU} to {MAX_MTU} bytes expected")


def _inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _listed(networks: tuple[IPNetwork, ...]) -> str:
    return ", ".join(map(str, networks)) or "(none)"
