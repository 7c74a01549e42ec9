"""Namespaces and nodes, and the topology that a file of nodes describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network

from emulab.errors import InputError
from emulab.kube import syntax
from emulab.kube.document import Document
from emulab.model import RESERVED_NAMES, IPAddress, IPNetwork, Link, Node, Segment, Topology
from emulab.objects import Namespace
from emulab.text import Path
from emulab.topology import free_addresses

_WIDEST = {4: 8, 6: 32}
_USUAL = {4: 24, 6: 64}


@dataclass(frozen=True)
class AskedNode:
    """A node of a manifest, with the addresses and the pod CIDRs that it is to have."""

    node: Node
    addresses: tuple[IPAddress, ...]
    document: Document = field(compare=False, repr=False)


def namespace(found: Document) -> Namespace:
    syntax.label(found, ("metadata", "name"), found.name, "name for a namespace")
    return Namespace(found.name, found.labels, found.manifest)


def node(found: Document) -> AskedNode:
    """A Node: its labels, its InternalIP addresses, its pod CIDRs."""
    syntax.label(found, ("metadata", "name"), found.name, "name for a node")
    if found.name in RESERVED_NAMES:
        found.fail(("metadata", "name"), f"'{found.name}' is a name of the underlay: a node cannot have it")
    spec, status = found.model.spec, found.model.status
    texts = list((spec.podCIDRs or ([spec.podCIDR] if spec.podCIDR else ())) if spec else ())
    path: Path = ("spec", "podCIDRs" if spec and spec.podCIDRs else "podCIDR")
    cidrs = []
    for text in texts:
        cidrs.append(syntax.network(found, path, text))
    if len({one.version for one in cidrs}) < len(cidrs):
        found.fail(path, "at most one pod CIDR per family expected")
    if spec is not None:
        for name in ("taints", "unschedulable"):
            if getattr(spec, name, None):
                found.warn(("spec", name), "has no effect here: pods go to any node")
    addresses = []
    for index, one in enumerate((status.addresses if status else None) or ()):
        if one.type == "InternalIP":
            addresses.append(syntax.address(found, ("status", "addresses", index, "address"), one.address))
    if len({one.version for one in addresses}) < len(addresses):
        found.fail(("status", "addresses"), "at most one InternalIP per family expected")
    return AskedNode(Node(found.name, tuple(cidrs), labels=found.labels), tuple(addresses), found)


def topology(asked: Sequence[AskedNode], usual: Topology) -> Topology:
    """Those nodes on one segment; pod CIDRs and subnets are those of ``usual`` where none are given."""
    cidrs = _cover([one.node.pod_cidrs for one in asked], [one.document for one in asked]) or usual.pod_cidrs
    subnets = _subnets(asked) or usual.segments[0].subnets
    segment = Segment(usual.segments[0].name, subnets)
    made = Topology("manifests", (segment,), (), (), (), cidrs)
    for one in sorted(asked, key=lambda one: not one.addresses):  # whoever asks for an address comes first
        made = joined(made, one)
    order = {one.node.name: place for place, one in enumerate(asked)}
    return replace(
        made,
        nodes=tuple(sorted(made.nodes, key=lambda node: order[node.name])),
        links=tuple(sorted(made.links, key=lambda link: order[link.node])),
    )


def joined(before: Topology, asked: AskedNode) -> Topology:
    """A topology with one more node, on its first segment."""
    segment = before.segments[0]
    try:
        addresses = free_addresses(before, segment.name, asked.addresses)
    except InputError as error:
        asked.document.fail(("status", "addresses") if asked.addresses else (), str(error))
    link = Link(asked.node.name, segment.name, addresses=addresses, mtu=segment.mtu)
    return replace(before, nodes=(*before.nodes, asked.node), links=(*before.links, link))


def _cover(given: Sequence[tuple[IPNetwork, ...]], documents: Sequence[Document]) -> tuple[IPNetwork, ...]:
    """One network per family that holds all pod CIDRs; () when nobody has any."""
    if not any(given):
        return ()
    families = sorted({one.version for cidrs in given for one in cidrs})
    for cidrs, document in zip(given, documents, strict=True):
        if sorted(one.version for one in cidrs) != families:
            document.fail(("spec",), "podCIDRs: one per family expected, as the other nodes have")
    return tuple(
        _widened([one for cidrs in given for one in cidrs if one.version == family], {4: 16, 6: 56}) for family in families
    )


def _subnets(asked: Sequence[AskedNode]) -> tuple[IPNetwork, ...]:
    """One subnet per family that holds all the nodes' addresses, with some room."""
    found = []
    for family in (4, 6):
        given = [address for one in asked for address in one.addresses if address.version == family]
        if given:
            found.append(_widened([ip_network(address) for address in given], _USUAL))
    return tuple(found)


def _widened(networks: Sequence[IPNetwork], usual: dict[int, int]) -> IPNetwork:
    """The smallest network around all of them, of the ``usual`` length or wider."""
    first = networks[0]
    length = min(usual[first.version], *(one.prefixlen for one in networks), 128)
    while True:
        around: IPNetwork = ip_interface(f"{first.network_address}/{length}").network
        if length <= _WIDEST[first.version] or all(one.subnet_of(around) for one in networks):  # type: ignore[arg-type]
            return around
        length -= 1
