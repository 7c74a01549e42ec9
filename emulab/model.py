"""The nouns of a cluster, frozen, IPv4 and IPv6 alike.

A `Topology` is what was asked for: segments, nodes, links, pods.  A `Cluster` is the same thing fully addressed: an IPAM
has given every pod its addresses and every node its leases.  Neither knows a kernel, a file or a clock.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Union

from emulab.errors import InputError
from emulab.objects import ContainerPort, Manifest, Objects

IPAddress = Union[IPv4Address, IPv6Address]
IPInterface = Union[IPv4Interface, IPv6Interface]
IPNetwork = Union[IPv4Network, IPv6Network]

OUTSIDE_HOST = "internet"
GATEWAY = "gateway"
SWITCHES = "underlay"  # the namespace in which the segments' bridges live
RESERVED_NAMES = frozenset({OUTSIDE_HOST, GATEWAY, SWITCHES})
OUTSIDE_ADDRESSES: tuple[IPInterface, ...] = (
    ipaddress.ip_interface("203.0.113.10/24"),  # TEST-NET-3, RFC 5737
    ipaddress.ip_interface("2001:db8:ffff::10/64"),  # documentation prefix, RFC 3849
)


@dataclass(frozen=True)
class Segment:
    """One layer-2 domain of the underlay: a switch.  ``subnets``: at most one per family."""

    name: str
    subnets: tuple[IPNetwork, ...]
    mtu: int = 1500


@dataclass(frozen=True)
class Link:
    """A node's attachment to a segment: its uplink.

    ``rate`` is in bit/s, ``delay`` in seconds (one way), ``loss`` a fraction 0..1; 0 means unshaped.  A link that is not
    ``up`` has no carrier: the switch's port is off.
    """

    node: str
    segment: str
    interface: str = "eth0"
    addresses: tuple[IPInterface, ...] = ()
    mtu: int = 1500
    rate: int = 0
    delay: float = 0.0
    loss: float = 0.0
    up: bool = True


@dataclass(frozen=True)
class Node:
    """A cluster node.  ``pod_cidrs``: its leases when the topology fixes them, else the IPAM chooses.

    ``number`` is its place in the topology, from 1, and stays when other nodes leave; 0: not numbered yet.  A node that is
    not ``running`` is switched off: it belongs to the cluster, but has no namespace.
    """

    name: str
    pod_cidrs: tuple[IPNetwork, ...] = ()
    number: int = 0
    running: bool = True
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def all_labels(self) -> dict[str, str]:
        """Its own labels and the one that the kubelet sets."""
        return {"kubernetes.io/hostname": self.name, **dict(self.labels)}


@dataclass(frozen=True)
class Attachment:
    """Who had a pod attached by CNI, in a network namespace that is not ours: ``sandbox`` is its path there."""

    network: str
    container: str
    interface: str
    sandbox: str


@dataclass(frozen=True)
class Pod:
    """A pod as asked for; ``addresses`` are the fixed ones (at most one per family).

    ``ports`` are declared by its containers and are served in its namespace.  A pod that is not ``ready`` gets no traffic
    of Services.  ``owner`` is the workload that made it, "Deployment/web", or "".  ``rates`` limit what it receives and what
    it sends, in bit/s; 0: unlimited.
    """

    name: str
    node: str
    namespace: str = "default"
    addresses: tuple[IPAddress, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    ready: bool = True
    owner: str = ""
    hostname: str = ""
    subdomain: str = ""
    rates: tuple[int, int] = (0, 0)
    attachment: Attachment | None = None
    manifest: Manifest = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def key(self) -> str:
        """The pod's cluster-wide name, ``namespace/name``; also the name of its network namespace in a `State`."""
        return f"{self.namespace}/{self.name}"

    @property
    def netns(self) -> str:
        """The name under which its node's ``ip netns list`` shows it (RFC 1123 labels hold no dots)."""
        return self.name if self.namespace == "default" else f"{self.namespace}.{self.name}"


@dataclass(frozen=True)
class Topology:
    """What was asked for.  ``cut`` holds the node pairs that have no direct underlay path, ``partitioned`` those that were
    parted later and will be joined again."""

    name: str
    segments: tuple[Segment, ...]
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    pods: tuple[Pod, ...]
    pod_cidrs: tuple[IPNetwork, ...]
    description: str = ""
    cut: frozenset[frozenset[str]] = frozenset()
    partitioned: frozenset[frozenset[str]] = frozenset()
    objects: Objects = field(default_factory=Objects)

    @property
    def families(self) -> tuple[int, ...]:
        """The pod network's families, in order: (4,), (6,) or (4, 6)."""
        return tuple(sorted({n.version for n in self.pod_cidrs}))

    @cached_property
    def _uplinks(self) -> dict[str, Link]:
        return {link.node: link for link in reversed(self.links)}

    @cached_property
    def _segments(self) -> dict[str, Segment]:
        return {segment.name: segment for segment in self.segments}

    def segment(self, name: str) -> Segment:
        return self._segments[name]

    def uplink(self, node: str) -> Link:
        """The node's first link: the one that carries pod traffic."""
        return self._uplinks[node]

    def underlay_address(self, node: str, family: int = 4) -> IPAddress:
        """The node's own address on its uplink in ``family``, or in the other one if it has none."""
        return self._underlay_addresses[family][node]

    @cached_property
    def _underlay_addresses(self) -> dict[int, dict[str, IPAddress]]:
        def own(link: Link, family: int) -> IPAddress:
            return next((a for a in link.addresses if a.version == family), link.addresses[0]).ip

        return {family: {node: own(link, family) for node, link in self._uplinks.items()} for family in (4, 6)}

    @cached_property
    def underlay_mtu(self) -> int:
        """The smallest MTU among the nodes' links, in bytes."""
        return min((link.mtu for link in self.links), default=1500)

    @cached_property
    def _underlay_families(self) -> tuple[int, ...]:
        return tuple(f for f in (4, 6) if all(self.underlay_address(node.name, f).version == f for node in self.nodes))

    def outer_family(self, family: int) -> int:
        """The underlay family that can carry pods of ``family``: the same if every node has it, else the other one.

        Raises `InputError` when the nodes have no underlay family in common.
        """
        if not self._underlay_families:
            raise InputError("no underlay family is common to all nodes, expected IPv4 or IPv6 addresses on every uplink")
        return family if family in self._underlay_families else self._underlay_families[0]

    def near(self, one: str, other: str) -> bool:
        """Whether two nodes' uplinks are on one segment: whatever keeps them apart, no router is between them."""
        return self.uplink(one).segment == self.uplink(other).segment

    @cached_property
    def apart(self) -> frozenset[frozenset[str]]:
        """The node pairs that the underlay keeps apart."""
        return self.cut | self.partitioned

    @cached_property
    def off(self) -> frozenset[str]:
        """The nodes that nobody reaches: switched off, or with an uplink that is down."""
        return frozenset(node.name for node in self.nodes if not (node.running and self.uplink(node.name).up))

    def connected(self, one: str, other: str) -> bool:
        """Whether the underlay carries packets between two nodes, directly or through the router."""
        if self.off and self.off.intersection((one, other)):
            return False
        return not self.apart or frozenset((one, other)) not in self.apart

    def running(self, node: str) -> bool:
        return self._nodes[node].running

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {node.name: node.number or place for place, node in enumerate(self.nodes, 1)}

    def number(self, node: str) -> int:
        """The node's number, from 1; nodes that have none are numbered by their place."""
        return self._numbers[node]

    @cached_property
    def _neighbours(self) -> dict[str, list[str]]:
        names = sorted(node.name for node in self.nodes)
        return {one: [other for other in names if other != one and self.connected(one, other)] for one in names}

    @cached_property
    def _trees(self) -> dict[str, dict[str, str]]:
        return {}

    def tree(self, root: str) -> dict[str, str]:
        """Shortest paths from ``root`` over connected pairs of nodes: each node that it reaches -> the one before it.

        Breadth first, neighbours in the order of their names; ``root`` is before itself.
        """
        if root not in self._trees:
            before, queue = {root: root}, [root]
            for node in queue:
                if len(before) == len(self.nodes):
                    break
                for peer in self._neighbours[node]:
                    if peer not in before:
                        before[peer] = node
                        queue.append(peer)
            self._trees[root] = before
        return self._trees[root]

    def peers(self, node: str) -> tuple[Node, ...]:
        """All nodes but ``node``, in topology order."""
        return tuple(other for other in self.nodes if other.name != node)


@dataclass(frozen=True)
class Lease:
    """A node's hold on a range of pod addresses: Flannel's subnet, Calico's block, a piece of Weave's ring."""

    node: str
    network: IPNetwork


@dataclass(frozen=True)
class Endpoint:
    """A pod's attachment: the pod with the addresses it really has, IPv4 first.

    ``hardware`` is its interface's MAC where somebody else chose it.
    """

    pod: Pod
    addresses: tuple[IPAddress, ...]
    hardware: str = ""

    @property
    def key(self) -> str:
        return self.pod.key

    @property
    def node(self) -> str:
        return self.pod.node

    @property
    def mac(self) -> str:
        """``0a:58`` and the IPv4 address in hex, so that it can be read in a capture (the old CNI bridge convention)."""
        return self.hardware or mac_of(self.addresses[0], "0a:58")

    def address(self, family: int) -> IPAddress:
        return next(a for a in self.addresses if a.version == family)

    def digest(self, length: int) -> str:
        """The first hex digits of SHA-1("namespace.name"): how Calico names a pod's host interface."""
        return _sha1(f"{self.pod.namespace}.{self.pod.name}")[:length]


@lru_cache(maxsize=65536)
def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


@dataclass(frozen=True)
class Cluster:
    """A topology in which everybody has addresses.

    ``gateways`` holds, per node, the node's own addresses inside the pod network: the pods' gateway on a bridge, or the
    address of the tunnel device.
    """

    topology: Topology
    leases: tuple[Lease, ...]
    endpoints: tuple[Endpoint, ...]
    gateways: dict[str, tuple[IPAddress, ...]] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.topology.nodes

    @cached_property
    def _by_node(self) -> dict[str, tuple[Endpoint, ...]]:
        table: dict[str, list[Endpoint]] = {}
        for endpoint in self.endpoints:
            table.setdefault(endpoint.node, []).append(endpoint)
        return {node: tuple(found) for node, found in table.items()}

    @cached_property
    def _leases_by_node(self) -> dict[str, tuple[Lease, ...]]:
        table: dict[str, list[Lease]] = {}
        for lease in self.leases:
            table.setdefault(lease.node, []).append(lease)
        return {node: tuple(found) for node, found in table.items()}

    def endpoints_on(self, node: str) -> tuple[Endpoint, ...]:
        return self._by_node.get(node, ())

    def leases_of(self, node: str, family: int | None = None) -> tuple[Lease, ...]:
        leases = self._leases_by_node.get(node, ())
        return leases if family is None else tuple(lease for lease in leases if lease.network.version == family)

    def gateway(self, node: str, family: int) -> IPAddress | None:
        """The node's own address in the pod network, if it has one in this family."""
        return next((a for a in self.gateways.get(node, ()) if a.version == family), None)

    def pod_cidr(self, family: int) -> IPNetwork:
        return next(n for n in self.topology.pod_cidrs if n.version == family)


def mac_of(address: IPAddress, prefix: str) -> str:
    """A MAC that shows an address: ``prefix`` (two octets) and the address' last four bytes."""
    return prefix + "".join(f":{byte:02x}" for byte in address.packed[-4:])


@lru_cache(maxsize=65536)
def mac_from(*parts: str) -> str:
    """A stable locally administered unicast MAC for whatever real software draws at random."""
    digest = hashlib.sha1("/".join(parts).encode()).digest()
    return ":".join(f"{byte:02x}" for byte in bytes([(digest[0] & 0xFC) | 0x02]) + digest[1:6])


def sort_addresses(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    """IPv4 first."""
    return tuple(sorted(addresses, key=lambda a: (a.version, int(a))))
