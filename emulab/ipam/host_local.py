"""One pod CIDR per node: kube-controller-manager cuts it, the CNI plugin host-local hands out its addresses.

A node's piece of the pod network, its lease, is what the topology fixes (a node's pod CIDRs, or the piece in which its
pods' fixed addresses lie), else the next free piece in node order: a /24 and a /64, longer only where not all nodes
would fit.  Within a lease host-local goes round: a released address comes up again only after all others
(containernetworking/plugins, plugins/ipam/host-local).  The first address is the node's own, unless the topology gives
it to a pod; then it is the last.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

from emulab.errors import InputError, nearest
from emulab.model import IPAddress, IPNetwork, Lease, Pod, Topology, sort_addresses

_LEASE_LENGTH = {4: 24, 6: 64}
_ROOM = 2  # bits: the smallest lease, a /30 or /126, still holds the gateway and a pod


@dataclass(frozen=True)
class _Cut:
    """The pod CIDRs of one family, cut into numbered pieces of equal ``length``."""

    cidrs: tuple[IPNetwork, ...]
    length: int

    @classmethod
    def fitting(cls, cidrs: tuple[IPNetwork, ...], nodes: int) -> _Cut:
        """The usual length, or the first longer one with a piece for each node."""
        family, longest = cidrs[0].version, cidrs[0].max_prefixlen - _ROOM
        usual = max(_LEASE_LENGTH[family], *(cidr.prefixlen for cidr in cidrs))
        cuts = (cls(cidrs, length) for length in range(usual, longest))
        return next((cut for cut in cuts if cut.count >= nodes), cls(cidrs, longest))

    @property
    def count(self) -> int:
        return sum(self._pieces(cidr) for cidr in self.cidrs)

    def _pieces(self, cidr: IPNetwork) -> int:
        return 1 << self.length - cidr.prefixlen if cidr.prefixlen <= self.length else 0

    def piece(self, index: int) -> IPNetwork:
        for cidr in self.cidrs:
            if index < self._pieces(cidr):
                start = cidr.network_address + (index << cidr.max_prefixlen - self.length)
                return ipaddress.ip_network(f"{start}/{self.length}")
            index -= self._pieces(cidr)
        raise IndexError(index)

    def index(self, address: IPAddress) -> int | None:
        """The number of the piece that holds ``address``."""
        before = 0
        for cidr in self.cidrs:
            if address in cidr:
                return before + (int(address) - int(cidr.network_address) >> cidr.max_prefixlen - self.length)
            before += self._pieces(cidr)
        return None


class HostLocal:
    """Implements `emulab.ipam.contract.Ipam` for the pod CIDRs, fixed leases and fixed addresses of ``topology``.

    Raises `InputError` when fixed leases overlap, are too small or lie outside the pod network.
    """

    def __init__(self, topology: Topology) -> None:
        self._cuts = {
            family: _Cut.fitting(tuple(c for c in topology.pod_cidrs if c.version == family), len(topology.nodes))
            for family in topology.families
        }
        self._next = dict.fromkeys(self._cuts, 0)  # the number of the piece to try first
        self._claims = self._claimed(topology)
        self._leases: dict[str, tuple[IPNetwork, ...]] = {}
        self._gateways: dict[str, tuple[IPAddress, ...]] = {}
        self._pods: dict[str, tuple[IPAddress, ...]] = {}
        # Fixed addresses are spoken for from the start, in whatever order the pods come.
        self._holders: dict[IPAddress, str] = {}
        for pod in topology.pods:
            for address in pod.addresses:
                self._holders.setdefault(address, f"pod {pod.key}")
        self._turn: dict[IPNetwork, int] = {}  # offset at which the next search begins

    def add_node(self, node: str) -> None:
        claims = self._claims.get(node, {})
        leases = tuple(claims[family] if family in claims else self._free_lease(node, family) for family in self._cuts)
        gateways = tuple(self._free_gateway(node, lease) for lease in leases)
        for lease in leases:
            index = self._cuts[lease.version].index(lease.broadcast_address)
            self._next[lease.version] = (index or 0) + 1
        self._leases[node], self._gateways[node] = leases, gateways
        self._holders.update(dict.fromkeys(gateways, f"the gateway of node {node}"))

    def remove_node(self, node: str) -> None:
        del self._leases[node]
        for address in self._gateways.pop(node):
            del self._holders[address]

    def allocate(self, pod: Pod) -> tuple[IPAddress, ...]:
        if pod.node not in self._leases:
            raise InputError(f"pod {pod.key}: unknown node '{pod.node}'{nearest(pod.node, self._leases)}")
        if pod.key in self._pods:
            raise InputError(f"pod {pod.key}: has addresses already: {', '.join(map(str, self._pods[pod.key]))}")
        leases = self._leases[pod.node]
        for address in pod.addresses:
            self._check_fixed(pod, address)
        fixed = {address.version: address for address in pod.addresses}
        found = [fixed.get(lease.version) or self._free_address(pod, lease) for lease in leases]
        self._pods[pod.key] = addresses = sort_addresses(found)
        self._holders.update(dict.fromkeys(addresses, f"pod {pod.key}"))
        return addresses

    def release(self, pod: Pod) -> None:
        for address in self._pods.pop(pod.key):
            del self._holders[address]

    def leases(self) -> tuple[Lease, ...]:
        return tuple(Lease(node, network) for node, networks in self._leases.items() for network in networks)

    def gateway(self, node: str) -> tuple[IPAddress, ...]:
        return self._gateways[node]

    def _claimed(self, topology: Topology) -> dict[str, dict[int, IPNetwork]]:
        """Per node and family the lease that the topology fixes, openly or by a pod's address."""
        claims: dict[str, dict[int, IPNetwork]] = {node.name: {} for node in topology.nodes}
        for node in topology.nodes:
            for lease in node.pod_cidrs:
                self._piece_of(f"node {node.name}", lease)
                if lease.prefixlen > lease.max_prefixlen - _ROOM:
                    raise InputError(f"node {node.name}: {lease} is too small, /{lease.max_prefixlen - _ROOM} expected")
                claims[node.name][lease.version] = lease
        for pod in topology.pods:
            for address in pod.addresses:
                piece = self._piece_of(f"pod {pod.key}", ipaddress.ip_network(address))
                claims[pod.node].setdefault(address.version, piece)
        everything = sorted(
            ((node, lease) for node, leases in claims.items() for lease in leases.values()),
            key=lambda claim: (claim[1].version, int(claim[1].network_address)),
        )
        for (one, lower), (other, upper) in pairwise(everything):
            if lower.overlaps(upper):
                raise InputError(f"node {other}: lease {upper} overlaps {lower} of node {one}")
        return claims

    def _piece_of(self, who: str, network: IPNetwork) -> IPNetwork:
        """The piece of the pod network in which ``network`` begins; raises `InputError` if it is not inside one CIDR."""
        cut = self._cuts.get(network.version, _Cut((), 0))
        if not any(network.network_address in cidr and network.broadcast_address in cidr for cidr in cut.cidrs):
            raise InputError(f"{who}: {network} is not part of the pod network{_listed(self._cidrs)}")
        index = cut.index(network.network_address)
    def _free_lease(self, node: str, family: int) -> IPNetwork:
        cut = self._cuts[family]
        taken = {network for leases in self._leases.values() for network in leases if network.version == family}
        taken.update(claims[family] for claims in self._claims.values() if family in claims)
        odd = [network for network in taken if network.prefixlen != cut.length]
        for step in range(cut.count):
            piece = cut.piece((self._next[family] + step) % cut.count)
            if piece not in taken and not any(map(piece.overlaps, odd)):
                return piece
        raise InputError(f"node {node}: no free /{cut.length} left in the pod network{_listed(cut.cidrs)}")

    def _free_gateway(self, node: str, lease: IPNetwork) -> IPAddress:
        first, last = _usable(lease)
        downwards = (lease.network_address + offset for offset in range(last, first - 1, -1))
        for address in chain([lease.network_address + first], downwards):
            if address not in self._holders:
                return address
        raise InputError(f"node {node}: lease {lease} has no free address for the gateway")

    def _free_address(self, pod: Pod, lease: IPNetwork) -> IPAddress:
        first, last = _usable(lease)
        for offset in _round(first, last, self._turn.get(lease, first)):
            address: IPAddress = lease.network_address + offset
            if address not in self._holders:
                self._turn[lease] = offset + 1
                return address
        raise InputError(f"node {pod.node}: lease {lease} has no free address for pod {pod.key}")

    def _check_fixed(self, pod: Pod, address: IPAddress) -> None:
        lease = next((lease for lease in self._leases[pod.node] if address in lease), None)
        if lease is None:
            raise InputError(f"pod {pod.key}: {address} is outside node {pod.node}'s leases{_listed(self._leases[pod.node])}")
        first, last = _usable(lease)
        if not first <= int(address) - int(lease.network_address) <= last:
            raise InputError(f"pod {pod.key}: {address} is not a usable address of node {pod.node}'s lease {lease}")
        holder = self._holders.get(address, f"pod {pod.key}")
        if holder != f"pod {pod.key}":
            raise InputError(f"pod {pod.key}: {address} is taken by {holder}")


def _usable(lease: IPNetwork) -> tuple[int, int]:
    """Offsets of the first and last usable address: all but .0 and, in IPv4, the broadcast address."""
    return 1, lease.num_addresses - (2 if lease.version == 4 else 1)


def _round(first: int, last: int, start: int) -> Iterator[int]:
    yield from range(start, last + 1)
    yield from range(first, min(start, last + 1))


def _listed(networks: tuple[IPNetwork, ...]) -> str:
    return f" ({', '.join(map(str, networks))})"
