"""One pod CIDR per node: kube-controller-manager cuts it, the CNI plugin host-local hands out its addresses.

A node's piece of the pod network, its lease, is what the topology fixes (a node's pod CIDRs, or the piece in which its
pods' fixed addresses lie), else the next free piece in node order: a /24 and a /64, longer only where not all nodes
would fit.  Within a lease host-local goes round: a released address comes up again only after all others
(containernetworking/plugins, plugins/ipam/host-local).  The first address is the node's own, unless the topology gives
it to a pod; then it is the last.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise

from emulab.errors import InputError, nearest
from emulab.model import IPAddress, IPNetwork, Lease, Pod, Topology

_LEASE_LENGTH = {4: 24, 6: 64}
_LONGEST = {4: 30, 6: 126}  # still room for the gateway and a pod


@dataclass(frozen=True)
class _Cut:
    """The pod CIDRs of one family, cut into numbered pieces of equal ``length``."""

    cidrs: tuple[IPNetwork, ...]
    length: int

    @classmethod
    def fitting(cls, cidrs: tuple[IPNetwork, ...], nodes: int) -> _Cut:
        """The usual length, or the first longer one with a piece for each node."""
        family = cidrs[0].version
        usual = max(_LEASE_LENGTH[family], *(cidr.prefixlen for cidr in cidrs))
        cuts = [cls(cidrs, length) for length in range(usual, _LONGEST[family] + 1)]
        return next((cut for cut in cuts if cut.count >= nodes), cuts[-1])

    @property
    def count(self) -> int:
        return sum(self._pieces(cidr) for cidr in self.cidrs)

    def _pieces(self, cidr: IPNetwork) -> int:
        return 1 << (self.length - cidr.prefixlen)

    def piece(self, index: int) -> IPNetwork:
        for cidr in self.cidrs:
            if index < self._pieces(cidr):
                start = cidr.network_address + (index << (cidr.max_prefixlen - self.length))
                return ipaddress.ip_network(f"{start}/{self.length}")
            index -= self._pieces(cidr)
        raise IndexError(index)

    def index(self, network: IPNetwork) -> int | None:
        """The number of the piece in which ``network`` ends; None if it is not inside one of the CIDRs."""
        before = 0
        for cidr in self.cidrs:
            if network.network_address in cidr and network.broadcast_address in cidr:
                offset = int(network.broadcast_address) - int(cidr.network_address)
                return before + (offset >> (cidr.max_prefixlen - self.length))
            before += self._pieces(cidr)
        return None


class HostLocal:
    """Implements `emulab.ipam.contract.Ipam` for the pod CIDRs, fixed leases and fixed addresses of ``topology``.

    Raises `InputError` when fixed leases overlap, are too small or lie outside the pod network.
    """

    def __init__(self, topology: Topology) -> None:
        for cidr in topology.pod_cidrs:
            _check_room("pod CIDR", cidr)
        self._cuts = {
            family: _Cut.fitting(tuple(c for c in topology.pod_cidrs if c.version == family), len(topology.nodes))
            for family in topology.families
        }
        self._next = dict.fromkeys(self._cuts, 0)  # the number of the piece to try first
        self._claims = self._claimed(topology)
        self._leases: dict[str, tuple[IPNetwork, ...]] = {}
        self._gateways: dict[str, tuple[IPAddress, ...]] = {}
        self._pods: dict[str, tuple[IPAddress, ...]] = {}
        self._turn: dict[IPNetwork, int] = {}  # per lease, the offset at which the next search begins
        # Fixed addresses are spoken for from the start, in whatever order the pods come.
        self._holders: dict[IPAddress, str] = {}
        for pod in topology.pods:
            for address in pod.addresses:
                self._holders.setdefault(address, f"pod {pod.key}")

    def add_node(self, node: str) -> None:
        claims = self._claims.get(node, {})
        leases = tuple(claims[family] if family in claims else self._free_lease(node, family) for family in self._cuts)
        gateways = tuple(self._free_gateway(node, lease) for lease in leases)
        for lease in leases:
            self._next[lease.version] = (self._cuts[lease.version].index(lease) or 0) + 1
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
            raise InputError(f"pod {pod.key}: has addresses already: {_listed(self._pods[pod.key])}")
        for address in pod.addresses:
            self._check_fixed(pod, address)
        fixed = {address.version: address for address in pod.addresses}
        leases = self._leases[pod.node]
        addresses = tuple(fixed.get(lease.version) or self._free_address(pod, lease) for lease in leases)
        self._pods[pod.key] = addresses
        self._holders.update(dict.fromkeys(addresses, f"pod {pod.key}"))
        return addresses

    def release(self, pod: Pod) -> None:
        for address in self._pods.pop(pod.key):
            self._holders.pop(address, None)

    def correct(self, pods: Mapping[Pod, tuple[IPAddress, ...]]) -> None:
        """These pods have other addresses than was foreseen: a CNI plugin has handed them out."""
        for pod in pods:
            self.release(pod)
        for pod, addresses in pods.items():
            self._pods[pod.key] = addresses
            self._holders.update(dict.fromkeys(addresses, f"pod {pod.key}"))

    def leases(self) -> tuple[Lease, ...]:
        return tuple(Lease(node, network) for node, networks in self._leases.items() for network in networks)

    def gateway(self, node: str) -> tuple[IPAddress, ...]:
        return self._gateways[node]

    def _claimed(self, topology: Topology) -> dict[str, dict[int, IPNetwork]]:
        """Per node and family the lease that the topology fixes, openly or by a pod's address."""
        claims: dict[str, dict[int, IPNetwork]] = {node.name: {} for node in topology.nodes}
        reasons: list[tuple[IPNetwork, str]] = []
        for node in topology.nodes:
            for lease in node.pod_cidrs:
                self._piece(f"node {node.name}", lease)
                _check_room(f"node {node.name}: pod CIDR", lease)
                claims[node.name][lease.version] = lease
                reasons.append((lease, f"node {node.name}"))
        for pod in topology.pods:
            for address in pod.addresses:
                piece = self._piece(f"pod {pod.key}", ipaddress.ip_network(address))
                if address.version not in claims[pod.node]:
                    claims[pod.node][address.version] = piece
                    reasons.append((piece, f"node {pod.node} (for pod {pod.key})"))
        reasons.sort(key=lambda reason: (reason[0].version, int(reason[0].network_address)))
        for (lower, one), (upper, other) in pairwise(reasons):
            if lower.version == upper.version and lower.overlaps(upper):
                raise InputError(f"{other}: lease {upper} overlaps {lower} of {one}")
        return claims

    def _piece(self, owner: str, network: IPNetwork) -> IPNetwork:
        """The piece of the pod network in which ``network`` ends."""
        cut = self._cuts.get(network.version)
        index = cut.index(network) if cut else None
        if cut is None or index is None:
            what = network.network_address if network.prefixlen == network.max_prefixlen else network
            cidrs = _listed(cidr for cut in self._cuts.values() for cidr in cut.cidrs)
            raise InputError(f"{owner}: {what} is not part of the pod network, which is {cidrs}")
        return cut.piece(index)

    def _free_lease(self, node: str, family: int) -> IPNetwork:
        cut = self._cuts[family]
        taken = {network for leases in self._leases.values() for network in leases if network.version == family}
        taken.update(claims[family] for claims in self._claims.values() if family in claims)
        odd = [network for network in taken if network.prefixlen != cut.length]
        for step in range(cut.count):
            piece = cut.piece((self._next[family] + step) % cut.count)
            if piece not in taken and not any(map(piece.overlaps, odd)):
                return piece
        raise InputError(f"node {node}: no free /{cut.length} left in the pod network, which is {_listed(cut.cidrs)}")

    def _free_gateway(self, node: str, lease: IPNetwork) -> IPAddress:
        usable = _usable(lease)
        for offset in chain(usable[:1], reversed(usable)):
            if lease[offset] not in self._holders:
                return lease[offset]
        raise InputError(f"node {node}: lease {lease} has no free address left for the gateway")

    def _free_address(self, pod: Pod, lease: IPNetwork) -> IPAddress:
        usable = _usable(lease)
        turn = self._turn.get(lease, 0)
        for offset in chain(usable[turn:], usable[:turn]):
            if lease[offset] not in self._holders:
                self._turn[lease] = offset
                return lease[offset]
        raise InputError(f"node {pod.node}: lease {lease} has no free address left for pod {pod.key}")

    def _check_fixed(self, pod: Pod, address: IPAddress) -> None:
        leases = self._leases[pod.node]
        lease = next((lease for lease in leases if address in lease), None)
        if lease is None:
            raise InputError(f"pod {pod.key}: {address} is not in node {pod.node}'s lease, which is {_listed(leases)}")
        if int(address) - int(lease.network_address) not in _usable(lease):
            raise InputError(f"pod {pod.key}: {address} is no usable address of node {pod.node}'s lease {lease}")
        holder = self._holders.get(address, f"pod {pod.key}")
        if holder != f"pod {pod.key}":
            raise InputError(f"pod {pod.key}: {address} is taken by {holder}")


def _usable(lease: IPNetwork) -> range:
    """Offsets of the usable addresses: all but the first and, in IPv4, the broadcast address."""
    return range(1, lease.num_addresses - (lease.version == 4))


def _check_room(what: str, network: IPNetwork) -> None:
    if network.prefixlen > _LONGEST[network.version]:
        raise InputError(f"{what} {network} is too small, at most a /{_LONGEST[network.version]} expected")


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
