"""Weave's ring: the whole pod network is one range, and every peer owns pieces of it.

The first ring halves the list of peers and the range together until each peer has one piece (weave ipam/ring/ring.go).  A
peer gives its lowest free address; one that has run out gets the upper half of the largest free piece of the peer with
most space (ipam/space/space.go; real Weave draws the donor by weighted lot).  Fixed addresses move the ownership of what
holds them.  The first and last address of the range are never given.  IPv6 is an extension of ours: Weave has IPv4 only.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from emulab.errors import InputError
from emulab.model import IPAddress, IPNetwork, Lease, Pod, Topology, sort_addresses


class Ring:
    """Implements `emulab.ipam.contract.Ipam`."""

    def __init__(self, topology: Topology) -> None:
        self._cidrs: dict[int, IPNetwork] = {cidr.version: cidr for cidr in topology.pod_cidrs}
        self._order = [node.name for node in topology.nodes]
        self._owners: dict[IPNetwork, str] = {}
        for cidr in self._cidrs.values():
            self._owners.update(_halved(cidr, self._order))
        self._fixed = {address: pod.key for pod in topology.pods for address in pod.addresses}
        self._used: dict[IPAddress, str] = {}
        self._gateways: dict[str, tuple[IPAddress, ...]] = {}
        for node in topology.nodes:
            for piece in node.pod_cidrs:
                self._move(piece, node.name)
        for pod in topology.pods:
            for address in pod.addresses:
                self._move(ip_network(address), pod.node)
        self._claims = {node.name: node.pod_cidrs for node in topology.nodes}

    def add_node(self, node: str) -> None:
        if node not in self._order:
            self._order.append(node)  # later peers start with nothing, and ask
        gateways = tuple(self._expose(node, family) for family in sorted(self._cidrs))
        self._gateways[node] = gateways
        self._used.update(dict.fromkeys(gateways, f"the bridge of node {node}"))

    def remove_node(self, node: str) -> None:
        """Its bridge's addresses are free again; its range stays its own, as with a peer that is lost."""
        for address in self._gateways.pop(node):
            del self._used[address]

    def allocate(self, pod: Pod) -> tuple[IPAddress, ...]:
        fixed: dict[int, IPAddress] = {address.version: address for address in pod.addresses}
        addresses = []
        for family in sorted(self._cidrs):
            address = fixed.get(family)
            if address is None:
                address = self._take(pod, family)
            elif address not in self._cidrs[family]:
                raise InputError(f"pod {pod.key}: {address} is outside the pod CIDR {self._cidrs[family]}")
            elif address in self._used:
                raise InputError(f"pod {pod.key}: {address} is taken by {self._used[address]}")
            elif address in _ends(self._cidrs[family]):
                raise InputError(f"pod {pod.key}: {address} is the first or last address of {self._cidrs[family]}")
            else:
                self._move(ip_network(address), pod.node)
            self._used[address] = f"pod {pod.key}"
            addresses.append(address)
        return sort_addresses(addresses)

    def release(self, pod: Pod) -> None:
        for address in [a for a, holder in self._used.items() if holder == f"pod {pod.key}"]:
            del self._used[address]

    def leases(self) -> tuple[Lease, ...]:
        return tuple(Lease(node, piece) for node in self._order for piece in self._pieces(node))

    def gateway(self, node: str) -> tuple[IPAddress, ...]:
        return self._gateways[node]

    def _pieces(self, node: str, family: int | None = None) -> list[IPNetwork]:
        owned = [p for p, owner in self._owners.items() if owner == node and family in (None, p.version)]
        return sorted(owned, key=lambda piece: (piece.version, int(piece.network_address)))

    def _free(self, piece: IPNetwork) -> Iterator[IPAddress]:
        for offset in range(piece.num_addresses):
            address: IPAddress = piece.network_address + offset
            if address not in self._used and address not in self._fixed and address not in _ends(self._cidrs[piece.version]):
                yield address

    def _take(self, pod: Pod, family: int) -> IPAddress:
        while True:
            for piece in self._pieces(pod.node, family):
                address = next(self._free(piece), None)
                if address is not None:
                    return address
            if not self._ask(pod.node, family):
                raise InputError(f"pod {pod.key}: no free address left in {self._cidrs[family]} for node {pod.node}")

    def _expose(self, node: str, family: int) -> IPAddress:
        """The bridge's address: the first of the node's range, or its last usable one when a pod holds that."""
        claimed = [piece for piece in self._claims.get(node, ()) if piece.version == family]
        pieces = claimed or self._pieces(node, family)
        if not pieces and self._ask(node, family):
            pieces = self._pieces(node, family)
        for piece in sorted(pieces, key=lambda piece: -piece.num_addresses):
            first = next(a for a in (piece.network_address, piece.network_address + 1) if a not in _ends(self._cidrs[family]))
            if first in piece and first not in self._fixed and first not in self._used:
                return first
            for offset in range(2, min(piece.num_addresses, 1024) + 1):
                address: IPAddress = piece.broadcast_address - offset + 1
                if address not in self._fixed and address not in self._used and address not in _ends(self._cidrs[family]):
                    return address
        raise InputError(f"node {node}: no free address left in {self._cidrs[family]} for its bridge")

    def _ask(self, node: str, family: int) -> bool:
        """Get a piece from the peer with the largest free piece; returns whether anybody had one."""
        used = {a for a in (*self._used, *self._fixed) if a.version == family}
        for piece in sorted(
            (p for p in self._owners if p.version == family), key=lambda p: (p.prefixlen, int(p.network_address))
        ):
            if self._owners[piece] == node:
                continue
            while piece.prefixlen < piece.max_prefixlen:
                lower, upper = piece.subnets()
                if not any(a in upper for a in used):
                    self._move(upper, node)
                    return True
                piece = upper if any(True for _ in self._free(upper)) else lower
            if next(self._free(piece), None) is not None:
                self._move(piece, node)
                return True
        return False

    def _move(self, piece: IPNetwork, node: str) -> None:
        """``piece`` belongs to ``node`` from now on; what surrounds it stays with whom it was."""
        for held, owner in list(self._owners.items()):
            if held.version != piece.version or (owner == node and piece.subnet_of(held)):  # type: ignore[arg-type]
                continue
            if held.subnet_of(piece):  # type: ignore[arg-type]
                self._owners[held] = node
            elif piece.subnet_of(held):  # type: ignore[arg-type]
                del self._owners[held]
                self._owners.update(dict.fromkeys(held.address_exclude(piece), owner))  # type: ignore[arg-type]
                self._owners[piece] = node


def _halved(network: IPNetwork, peers: list[str]) -> Iterator[tuple[IPNetwork, str]]:
    if len(peers) == 1:
        yield network, peers[0]
        return
    if network.prefixlen == network.max_prefixlen:
        raise InputError(f"pod CIDR {network} is too small for the nodes: each needs a piece of the ring")
    lower, upper = network.subnets()
    yield from _halved(lower, peers[: len(peers) // 2])
    yield from _halved(upper, peers[len(peers) // 2 :])


def _ends(network: IPNetwork) -> tuple[IPAddress, IPAddress]:
    return network.network_address, network.broadcast_address
