"""What a topology has to be, whoever wrote it: names, addresses and links that make sense together.

`Complaint` is how a reader of files learns where a mistake is: `problems` names the thing, the reader knows its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_interface
from itertools import combinations
from typing import NamedTuple

from emulab.errors import InputError, nearest
from emulab.model import GATEWAY, OUTSIDE_ADDRESSES, RESERVED_NAMES, IPAddress, IPInterface, IPNetwork, Link, Segment, Topology

MAX_INTERFACE_NAME = 15  # bytes: IFNAMSIZ - 1, linux/if.h
MIN_MTU, MIN_IPV6_MTU, MAX_MTU = 68, 1280, 65535  # RFC 791, RFC 8200, and what veth and bridge take
_INTERFACE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_]*")
_LONGEST_PREFIX = {4: 30, 6: 120}  # still room for the gateway (::fe in IPv6) and a node
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


def free_addresses(topology: Topology, segment: str, wanted: Sequence[IPAddress] = ()) -> tuple[IPInterface, ...]:
    """For one more link: the first free address in each subnet of ``segment``, or the one ``wanted`` there."""
    place = topology.segment(segment)
    taken = {a.ip for a in gateway_addresses(place)} | {a.ip for link in topology.links for a in link.addresses}
    found = []
    for subnet in place.subnets:
        free = next((address for address in subnet.hosts() if address not in taken), None)
        chosen = next((address for address in wanted if address in subnet), free)
        if chosen is None:
            raise InputError(f"segment {segment}: {subnet} has no free address left")
        found.append(ip_interface(f"{chosen}/{subnet.prefixlen}"))
    for address in wanted:
        if not any(address in subnet for subnet in place.subnets):
            raise InputError(f"{address} is not in segment {segment} ({_listed(place.subnets)})")
    return tuple(found)


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
    named = [("segment", s.name, s.name) for s in topology.segments] + [("node", n.name, n.name) for n in topology.nodes]
    named += [("pod", p.key, p.name) for p in topology.pods]
    named += [("pod", p.key, p.namespace) for p in topology.pods]
    for kind, key, name in named:
        if not is_label(name):
            yield Complaint((kind, key), f"{name!r} is no name for a {kind}: expected {rule}")
        elif kind == "node" and name in RESERVED_NAMES:
            yield Complaint((kind, key), f"'{name}' is a name of the underlay: a node cannot have it")
    for kind, keys in (
        ("segment", [s.name for s in topology.segments]),
        ("node", [n.name for n in topology.nodes]),
        ("pod", [p.key for p in topology.pods]),
    ):
        for key in sorted({key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else ()):
            yield Complaint((kind, key), f"there are two {kind}s '{key}'")
    # Nodes and segments meet as interfaces of one namespace: a segment is a bridge, its ports have the nodes' names.
    ports = {"lo": "the loopback interface"} | {s.name: f"segment {s.name}" for s in topology.segments}
    ports |= {f"{GATEWAY}-{s.name}": f"the gateway's port on segment {s.name}" for s in topology.segments}
    for node in topology.nodes:
        if node.name in ports:
            yield Complaint(("node", node.name), f"node {node.name}: the name of {ports[node.name]} already")


def _networks(topology: Topology) -> Iterator[Complaint]:
    if not topology.pod_cidrs:
        yield Complaint(("topology", "pod-cidrs"), "no pod-cidrs: at least one network expected, e.g. 10.1.0.0/16")
    if not _one_per_family(topology.pod_cidrs) and not all(node.pod_cidrs for node in topology.nodes):
        message = "pod-cidrs: one network per family expected, unless every node has pod-cidrs of its own"
        yield Complaint(("topology", "pod-cidrs"), message)
    pods = [(("topology", "pod-cidrs"), "pod CIDR", network) for network in topology.pod_cidrs]
    under = [(("segment", s.name), f"segment {s.name}'s subnet", subnet) for s in topology.segments for subnet in s.subnets]
    outside = [(("topology", "outside"), "the outside", address.network) for address in OUTSIDE_ADDRESSES]
    for thing, what, network in [*under, *pods]:
        special = network.is_multicast or network.is_loopback or network.is_link_local
        if special or network.network_address.is_unspecified:
            yield Complaint(thing, f"{what} {network}: no host can have an address in it")
    for (_, what, network), (other_thing, other_what, other) in combinations([*outside, *under, *pods], 2):
        if network.version == other.version and network.overlaps(other):
            yield Complaint(other_thing, f"{other_what} {other} overlaps {what} {network}")
    for segment in topology.segments:
        yield from _mtu(("segment", segment.name), segment.mtu, segment)
        for subnet in segment.subnets:
            if subnet.prefixlen > (longest := _LONGEST_PREFIX[subnet.version]):
                message = f"segment {segment.name}: {subnet} has no room for nodes, a /{longest} or larger expected"
                yield Complaint(("segment", segment.name), message)
        if not segment.subnets or not _one_per_family(segment.subnets):
            yield Complaint(("segment", segment.name), f"segment {segment.name}: one subnet per family expected")
    leased: list[tuple[str, IPNetwork]] = []
    for node in topology.nodes:
        if not _one_per_family(node.pod_cidrs):
            message = f"node {node.name}: one pod CIDR per family expected, got {_listed(node.pod_cidrs)}"
            yield Complaint(("node", node.name), message)
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
            yield Complaint(thing, f"node {link.node}: unknown segment '{link.segment}'{nearest(link.segment, segments)}")
            continue
        if (link.node, link.interface) in linked:
            yield Complaint(thing, f"node {link.node}: two links on interface {link.interface}")
        linked.add((link.node, link.interface))
        name = link.interface
        if not _INTERFACE.fullmatch(name) or len(name) > MAX_INTERFACE_NAME or name == "lo":
            rule = f"1 to {MAX_INTERFACE_NAME} letters, digits, '-' and '_' expected"
            yield Complaint(thing, f"node {link.node}: {name!r} is no name for an interface: {rule}")
        yield from _mtu(thing, link.mtu, segments[link.segment])
        yield from _shaping(link)
        if not link.addresses or not _one_per_family(tuple(a.network for a in link.addresses)):
            yield Complaint(thing, f"node {link.node}: link to {link.segment}: one address per family expected")
        if link.mtu > segments[link.segment].mtu:
            yield Complaint(
                thing,
                f"node {link.node}: MTU {link.mtu} exceeds {segments[link.segment].mtu} of segment {link.segment}",
            )
        for address in link.addresses:
            subnets = segments[link.segment].subnets
            if address.network not in subnets:
                yield Complaint(thing, f"node {link.node}: {address} is not in segment {link.segment} ({_listed(subnets)})")
            elif address.ip == address.network.network_address or (
                address.version == 4 and address.ip == address.network.broadcast_address
            ):
                message = f"{address.ip} is the first or last of {address.network}, no host's"
                yield Complaint(thing, f"node {link.node}: {message}")
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
                yield Complaint(thing, f"pod {pod.key}: {address} is outside the pod CIDRs {_listed(topology.pod_cidrs)}")
            elif address in taken:
                yield Complaint(thing, f"pod {pod.key}: {address} is taken by pod {taken[address]}")
            taken[address] = pod.key
        if len({a.version for a in pod.addresses}) < len(pod.addresses):
            yield Complaint(thing, f"pod {pod.key}: one address per family expected, got {', '.join(map(str, pod.addresses))}")


def _cuts(topology: Topology) -> Iterator[Complaint]:
    nodes = {n.name for n in topology.nodes}
    for pair in topology.cut:
        for name in sorted(pair - nodes):
            yield Complaint(("topology", "cut"), f"cut: unknown node '{name}'{nearest(name, nodes)}")
        if len(pair) != 2:
            yield Complaint(("topology", "cut"), "cut: pairs of two different nodes expected")


def _mtu(thing: tuple[str, str], mtu: int, segment: Segment) -> Iterator[Complaint]:
    six = any(subnet.version == 6 for subnet in segment.subnets)
    least, why = (MIN_IPV6_MTU, " with IPv6") if six else (MIN_MTU, "")
    if not least <= mtu <= MAX_MTU:
        yield Complaint(thing, f"{thing[0]} {thing[1]}: MTU {mtu}, {least} to {MAX_MTU} bytes expected{why}")


def _shaping(link: Link) -> Iterator[Complaint]:
    for what, value, most, shown in (
        ("rate", link.rate, 10**12, "1000gbit"),
        ("delay", link.delay, 60, "60s"),
        ("loss", link.loss, 1, "100%"),
    ):
        if not 0 <= value <= most:
            yield Complaint(("node", link.node), f"node {link.node}: {what} from 0 to {shown} expected, got {value:g}")


def _one_per_family(networks: tuple[IPNetwork, ...]) -> bool:
    families = [network.version for network in networks]
    return len(families) == len(set(families))


def _inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _listed(networks: tuple[IPNetwork, ...]) -> str:
    return ", ".join(map(str, networks)) or "(none)"
