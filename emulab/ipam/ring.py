"""Weave's ring: every peer owns ranges of the one pod network, and hands out addresses of its own without asking.

The ring is a list of tokens, each the start of a range and its owner (weave ipam/ring/ring.go).  The first ring halves
the list of peers and the network together, until each peer has one CIDR.  A peer gives its lowest free address, so a
released one may be the next; the first and the last address of the network are never given.  A peer without space gets
some of the peer that has most (real Weave draws lots, weighted by free space): its largest free CIDR, or the upper half
of that when it is more than half of what is free (ipam/space/space.go).  A node's bridge has the first address of its
range.

What is fixed comes before the ring: a fixed address, and a node's own pod CIDR, belong to their node whoever had them.
IPv6 works the same way, as an extension: Weave itself has IPv4 only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from ipaddress import ip_network, summarize_address_range
from itertools import groupby

from emulab.errors import InputError, nearest
from emulab.model import IPAddress, IPNetwork, Lease, Pod, Topology


class Ring:
    """Implements `emulab.ipam.contract.Ipam`; one pod CIDR per family.

    Raises `InputError` when the pod CIDR has no piece for each node, or a fixed address lies outside.
    """

    def __init__(self, topology: Topology) -> None:
        nodes = [node.name for node in topology.nodes]
        self._rings = {cidr.version: _Tokens(cidr, nodes) for cidr in topology.pod_cidrs}
        self._gateways: dict[str, tuple[IPAddress, ...]] = {}  # its keys are the nodes
        self._pods: dict[str, tuple[IPAddress, ...]] = {}
        for node in topology.nodes:
            for cidr in node.pod_cidrs:
                self._rings[cidr.version].claim(cidr, node.name)
        # Fixed addresses are spoken for from the start, in whatever order the pods come.
        for pod in topology.pods:
            for address in pod.addresses:
                ring = self._ring_of(pod, address)
                ring.give(ip_network(address), pod.node)
                ring.holders.setdefault(address, f"pod {pod.key}")

    def add_node(self, node: str) -> None:
        """A node that the topology did not name starts with nothing, and asks."""
        self._gateways[node] = tuple(self._rings[family].bridge(node) for family in sorted(self._rings))
        for address in self._gateways[node]:
            self._rings[address.version].holders[address] = f"the bridge of node {node}"

    def remove_node(self, node: str) -> None:
        """What it owns goes to the first of the others, as if `weave rmpeer` were typed there."""
        for address in self._gateways.pop(node):
            del self._rings[address.version].holders[address]
        for heir in list(self._gateways)[:1]:
            for ring in self._rings.values():
                ring.inherit(node, heir)

    def allocate(self, pod: Pod) -> tuple[IPAddress, ...]:
        if pod.node not in self._gateways:
            raise InputError(f"pod {pod.key}: unknown node '{pod.node}'{nearest(pod.node, self._gateways)}")
        if pod.key in self._pods:
            raise InputError(f"pod {pod.key}: has addresses already: {', '.join(map(str, self._pods[pod.key]))}")
        holder = f"pod {pod.key}"
        for address in pod.addresses:
            ring = self._ring_of(pod, address)
            if ring.holders.get(address, holder) != holder:
                raise InputError(f"{holder}: {address} is taken by {ring.holders[address]}")
        fixed = {address.version: address for address in pod.addresses}
        found = [fixed.get(family) or self._rings[family].lowest(pod.node, holder) for family in sorted(self._rings)]
        for address in found:
            ring = self._rings[address.version]
            ring.give(ip_network(address), pod.node)
            ring.holders[address] = holder
        self._pods[pod.key] = tuple(found)
        return self._pods[pod.key]

    def release(self, pod: Pod) -> None:
        for address in self._pods.pop(pod.key):
            del self._rings[address.version].holders[address]

    def leases(self) -> tuple[Lease, ...]:
        """A range of the ring is as many leases as it takes CIDRs."""
        rings = [self._rings[family] for family in sorted(self._rings)]
        held = ((node, network) for node in self._gateways for ring in rings for network in ring.networks(node))
        return tuple(Lease(node, network) for node, network in held)

    def gateway(self, node: str) -> tuple[IPAddress, ...]:
        return self._gateways[node]

    def _ring_of(self, pod: Pod, address: IPAddress) -> _Tokens:
        ring = self._rings.get(address.version)
        if ring is None or address not in ring.cidr:
            cidrs = ", ".join(str(ring.cidr) for ring in self._rings.values())
            raise InputError(f"pod {pod.key}: {address} is outside the pod CIDR {cidrs}")
        if int(address) - ring.base in ring.ends:
            raise InputError(f"pod {pod.key}: {address} is the first or last address of {ring.cidr}, no pod's")
        return ring


class _Tokens:
    """The ring of one family; inside, an address is its offset in the pod CIDR, and a range is a `range` of offsets."""

    def __init__(self, cidr: IPNetwork, nodes: list[str]) -> None:
        self.cidr, self.base, self.size = cidr, int(cidr.network_address), cidr.num_addresses
        self.ends = (0, self.size - 1)
        self.holders: dict[IPAddress, str] = {}
        self._tokens = [(int(piece.network_address) - self.base, node) for piece, node in _halved(cidr, nodes)]
        self._claims: dict[str, range] = {}

    def claim(self, network: IPNetwork, node: str) -> None:
        """``network`` is the node's, and where its addresses come from first."""
        self._claims[node] = self._range(network)
        self.give(network, node)

    def give(self, network: IPNetwork, node: str) -> None:
        """``network`` belongs to ``node`` from now on; what surrounds it stays with whom it was."""
        given = self._range(network)
        first, after = (bisect_left(self._tokens, (end, "")) for end in (given.start, given.stop))
        rest = [] if given.stop == self.size else [(given.stop, self._tokens[after - 1][1])]
        if self._tokens[after : after + 1] and self._tokens[after][0] == given.stop:
            rest = []
        self._tokens[first:after] = [(given.start, node), *rest]
        self._merge(self._tokens)

    def inherit(self, node: str, heir: str) -> None:
        self._claims.pop(node, None)
        self._merge((start, heir if owner == node else owner) for start, owner in self._tokens)

    def lowest(self, node: str, holder: str) -> IPAddress:
        """The node's lowest free address; it asks for space when it has none."""
        while True:
            for ranges in self._search(node):
                for offset in (offset for owned in ranges for offset in owned if self._free(offset)):
                    return self._address(offset)
            self._ask(node, holder)

    def bridge(self, node: str) -> IPAddress:
        """The first address of the node's range, or the last that is free when the first is a pod's."""
        while True:
            for ranges in self._search(node):
                # What was given for a fixed address is no range to be at home in.
                homes = [owned for owned in ranges if any(map(self._free, owned))]
                if homes:
                    first = max(homes[0].start, 1)
                    last = (offset for home in reversed(homes) for offset in reversed(home) if self._free(offset))
                    return self._address(first if self._free(first) else next(last))
            self._ask(node, f"the bridge of node {node}")

    def networks(self, node: str) -> Iterator[IPNetwork]:
        for owned in self._owned(node):
            yield from self._cidrs(owned)

    def _ranges(self) -> Iterator[tuple[range, str]]:
        stops = [start for start, _ in self._tokens[1:]] + [self.size]
        for (start, owner), stop in zip(self._tokens, stops, strict=True):
            yield range(start, stop), owner

    def _owned(self, node: str) -> list[range]:
        return [owned for owned, owner in self._ranges() if owner == node]

    def _search(self, node: str) -> Iterator[list[range]]:
        """Where to look for an address: in the node's claim, then in all that it owns."""
        ranges, claim = self._owned(node), self._claims.get(node, range(0))
        yield [range(max(r.start, claim.start), min(r.stop, claim.stop)) for r in ranges]
        yield ranges

    def _ask(self, node: str, holder: str) -> None:
        """Get a piece of the peer with most free space.  Raises `InputError` when nobody has any."""
        space: dict[str, int] = {}
        largest: dict[str, IPNetwork] = {}
        for gap, owner in self._gaps():
            if owner != node:
                space[owner] = space.get(owner, 0) + gap.stop - gap.start
                known = [largest[owner]] if owner in largest else []
                largest[owner] = max([*known, *self._cidrs(gap)], key=lambda network: network.num_addresses)
        if not space:
            raise InputError(f"{holder}: no free address left for node {node} in {self.cidr}")
        donor = max(space, key=lambda peer: space[peer])
        piece = largest[donor]
        if piece.num_addresses > max(space[donor] // 2, 1):
            _, piece = piece.subnets()
        self.give(piece, node)

    def _gaps(self) -> Iterator[tuple[range, str]]:
        """The runs of free addresses, with their owners."""
        taken = sorted({int(address) - self.base for address in self.holders} | set(self.ends))
        for owned, owner in self._ranges():
            inside = taken[bisect_left(taken, owned.start) : bisect_left(taken, owned.stop)]
            for start, stop in zip([owned.start - 1, *inside], [*inside, owned.stop], strict=True):
                if start + 1 < stop:
                    yield range(start + 1, stop), owner

    def _free(self, offset: int) -> bool:
        return offset not in self.ends and self._address(offset) not in self.holders

    def _address(self, offset: int) -> IPAddress:
        return self.cidr.network_address + offset

    def _range(self, network: IPNetwork) -> range:
        start = int(network.network_address) - self.base
        return range(start, start + network.num_addresses)

    def _cidrs(self, offsets: range) -> Iterator[IPNetwork]:
        ends = self._address(offsets.start), self._address(offsets.stop - 1)
        return summarize_address_range(*ends)

    def _merge(self, tokens: Iterable[tuple[int, str]]) -> None:
        """Neighbouring ranges of one owner are one range."""
        self._tokens = [next(run) for _, run in groupby(tokens, key=lambda token: token[1])]


def _halved(network: IPNetwork, peers: list[str]) -> Iterator[tuple[IPNetwork, str]]:
    if len(peers) == 1:
        yield network, peers[0]
        return
    if network.prefixlen == network.max_prefixlen:
        raise InputError(f"pod CIDR {network} is too small for the nodes: each needs a piece of the ring")
    lower, upper = network.subnets()
    yield from _halved(lower, peers[: len(peers) // 2])
    yield from _halved(upper, peers[len(peers) // 2 :])
