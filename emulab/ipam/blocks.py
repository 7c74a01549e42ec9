"""Blocks of the pod CIDRs with an affinity to a node: Calico's IPAM.

The pools are the topology's pod CIDRs, cut into small blocks (/26 and /122, all 64 addresses usable).  A node takes a
block when it joins and another when its own are full; when the pools have no block left it borrows single addresses
from other nodes' blocks, whose affinity stays where it is.  A block hands out its addresses in order, and a released
one goes to the end of the queue (libcalico-go/lib/ipam/{ipam,ipam_block}.go, design/ipam of projectcalico/calico).

A node's own pod CIDRs (kube-controller-manager's) mean nothing to Calico's IPAM and are ignored.  Two deviations make
clusters readable and repeatable: blocks are claimed in order, where the real first choice follows a hash of the host's
name, except that the blocks of fixed addresses belong to their pods' nodes from the start; and before borrowing, empty
blocks are not taken away from the nodes that hold them.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain

from emulab.errors import InputError, nearest
from emulab.model import IPAddress, IPNetwork, Lease, Pod, Topology, sort_addresses

BLOCK_LENGTH = {4: 26, 6: 122}
MAX_BLOCKS = 20  # per node and family: IPAMConfig's default MaxBlocksPerHost; it limits claims, not borrowing


class Blocks:
    """Implements `emulab.ipam.contract.Ipam`.

    ``lengths`` are the blocks' prefix lengths per family; with ``tunnels`` each node has an address for its tunnel
    device, the first of its first block unless a pod has that one fixed.  Raises `InputError` when a pool is smaller
    than a block or a fixed address lies outside the pools.
    """

    def __init__(self, topology: Topology, lengths: Mapping[int, int] = BLOCK_LENGTH, *, tunnels: bool = False) -> None:
        self._lengths, self._with_tunnels = lengths, tunnels
        self._pools = {f: tuple(c for c in topology.pod_cidrs if c.version == f) for f in topology.families}
        for pool in topology.pod_cidrs:
            if pool.prefixlen > lengths[pool.version]:
                length = lengths[pool.version]
                raise InputError(f"pod CIDR {pool} is smaller than a block: at least a /{length} expected")
        self._unclaimed = dict.fromkeys(self._pools, 0)  # the number of the block to try next
        self._returned: dict[IPNetwork, None] = {}  # a queue of blocks whose node has left
        self._owners: dict[IPNetwork, str] = {}
        self._blocks: dict[str, list[IPNetwork]] = {}  # per node, in the order of claims
        self._free: dict[IPNetwork, deque[int]] = {}  # per block in use: its free ordinals, next one first
        self._holders: dict[IPAddress, str] = {}
        self._tunnels: dict[str, tuple[IPAddress, ...]] = {}  # its keys are the nodes
        self._pods: dict[str, tuple[IPAddress, ...]] = {}
        # Fixed addresses are spoken for from the start, in whatever order nodes and pods come.
        for pod in topology.pods:
            for address in pod.addresses:
                self._check_fixed(pod, address)
                self._take(address, f"pod {pod.key}", pod.node)

    def add_node(self, node: str) -> None:
        for family in self._pools:
            if not self._owned(node, family):
                self._claim_next(node, family)
        holder = f"the tunnel of node {node}"
        found = [self._next(node, family, holder) for family in self._pools] if self._with_tunnels else []
        for address in found:
            self._take(address, holder, node)
        self._tunnels[node] = sort_addresses(found)

    def remove_node(self, node: str) -> None:
        for address in self._tunnels.pop(node):
            self._give_back(address)
        for block in self._blocks.pop(node, ()):
            del self._owners[block]
            self._returned[block] = None

    def allocate(self, pod: Pod) -> tuple[IPAddress, ...]:
        if pod.node not in self._tunnels:
            raise InputError(f"pod {pod.key}: unknown node '{pod.node}'{nearest(pod.node, self._tunnels)}")
        if pod.key in self._pods:
            raise InputError(f"pod {pod.key}: has addresses already: {', '.join(map(str, self._pods[pod.key]))}")
        holder = f"pod {pod.key}"
        for address in pod.addresses:
            self._check_fixed(pod, address)
            if self._holders.get(address, holder) != holder:
                raise InputError(f"{holder}: {address} is taken by {self._holders[address]}")
        fixed: dict[int, IPAddress] = {address.version: address for address in pod.addresses}
        found = [fixed.get(family) or self._next(pod.node, family, holder) for family in self._pools]
        for address in found:
            self._take(address, holder, pod.node)
        self._pods[pod.key] = sort_addresses(found)
        return self._pods[pod.key]

    def release(self, pod: Pod) -> None:
        for address in self._pods.pop(pod.key):
            self._give_back(address)

    def leases(self) -> tuple[Lease, ...]:
        held = ((node, block) for node in self._tunnels for f in self._pools for block in self._owned(node, f))
        return tuple(Lease(node, block) for node, block in held)

    def gateway(self, node: str) -> tuple[IPAddress, ...]:
        return self._tunnels[node]

    def _owned(self, node: str, family: int) -> list[IPNetwork]:
        return [block for block in self._blocks.get(node, ()) if block.version == family]

    def _claim(self, block: IPNetwork, node: str) -> None:
        self._returned.pop(block, None)
        self._owners[block] = node
        self._blocks.setdefault(node, []).append(block)

    def _claim_next(self, node: str, family: int) -> IPNetwork | None:
        """Give ``node`` the next block that nobody has, the longest returned one when all have been in use."""
        returned = [block for block in self._returned if block.version == family]
        for block in chain(self._fresh(family), returned):
            if block not in self._owners:
                self._claim(block, node)
                return block
        return None

    def _fresh(self, family: int) -> Iterator[IPNetwork]:
        """The blocks that nobody has asked for yet, one by one: an IPv6 pool has more of them than anybody could list."""
        while block := _nth(self._pools[family], self._lengths[family], self._unclaimed[family]):
            self._unclaimed[family] += 1
            yield block

    def _next(self, node: str, family: int, holder: str) -> IPAddress:
        """The next free address for ``node``, still free."""
        for block in self._candidates(node, family):
            for ordinal in self._ordinals(block):
                address: IPAddress = block.network_address + ordinal
                return address
        pools = ", ".join(map(str, self._pools[family]))
        blocks = f"at most {MAX_BLOCKS} blocks of /{self._lengths[family]}"
        raise InputError(f"{holder}: no free address left for node {node} in {pools} ({blocks})")

    def _candidates(self, node: str, family: int) -> Iterator[IPNetwork]:
        """The node's own blocks, then new ones, then other nodes'."""
        own = self._owned(node, family)
        yield from own
        for _ in range(MAX_BLOCKS - len(own)):
            block = self._claim_next(node, family)
            if block is None:
                break
            yield block
        yield from sorted(block for block in self._owners if block.version == family)

    def _check_fixed(self, pod: Pod, address: IPAddress) -> None:
        if not any(address in pool for pool in self._pools.get(address.version, ())):
            everything = ", ".join(str(pool) for pools in self._pools.values() for pool in pools)
            raise InputError(f"pod {pod.key}: {address} is not part of the pod network ({everything})")

    def _block(self, address: IPAddress) -> IPNetwork:
        return ipaddress.ip_network(f"{address}/{self._lengths[address.version]}", strict=False)

    def _ordinals(self, block: IPNetwork) -> deque[int]:
        if block not in self._free:
            self._free[block] = deque(range(block.num_addresses))
        return self._free[block]

    def _take(self, address: IPAddress, holder: str, node: str) -> None:
        """Unless it is somebody's already; a block without affinity gets one to ``node``."""
        block = self._block(address)
        if block not in self._owners:
            self._claim(block, node)
        if address not in self._holders:
            self._ordinals(block).remove(int(address) - int(block.network_address))
            self._holders[address] = holder

    def _give_back(self, address: IPAddress) -> None:
        block = self._block(address)
        self._ordinals(block).append(int(address) - int(block.network_address))
        del self._holders[address]


def _nth(pools: tuple[IPNetwork, ...], length: int, number: int) -> IPNetwork | None:
    """A block of the pools by its number; None beyond the last."""
    for pool in pools:
        count = 1 << (length - pool.prefixlen)
        if number < count:
            first = int(pool.network_address) + (number << (pool.max_prefixlen - length))
            return ipaddress.ip_network((first.to_bytes(len(pool.network_address.packed), "big"), length))
        number -= count
    return None
