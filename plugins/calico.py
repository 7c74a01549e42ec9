"""Calico: every pod is a route of its own, no bridge; between nodes plain routing, or VXLAN where routing cannot reach.

A packet's story: the pod asks for the MAC of its gateway 169.254.1.1, which exists nowhere; the host end of its veth,
cali..., answers for it (proxy ARP).  The node checks that the source is the pod's own (reverse path), passes the pod's
egress chain, and routes: to another pod of its own by that pod's /32 (TTL 63); else by the block's route to the node that
holds the block, "via" that node's underlay address or, encapsulated, its tunnel address; there through the destination's
ingress chain and its /32 (TTL 62).  What no pod has in a node's own block is a blackhole: silence, and no routing loop.
Per remote block one route, per local pod one route and two chains, which a verdict map finds in constant time.

``encap`` is the pool's vxlanMode: "never" sends packets as they are, and where a router lies between two nodes, which knows
no pods, they get lost: the next hop is "onlink", yet nobody answers its ARP request.  "cross-subnet" encapsulates only
there, "vxlan" everywhere between nodes.

Emulated is projectcalico/calico v3.31 in nftables mode without policies, with Felix programming all cluster routes
(programClusterRoutes Enabled in Felix, Disabled in BGP: no BIRD, ``proto 80`` where BIRD would write ``proto bird``) and
the manifests' settings (pods may talk to their node).  Sources: cni-plugin/pkg/dataplane/linux, felix/dataplane/linux/
{route,vxlan,masq,endpoint}_mgr.go, felix/rules/{static,dispatch,endpoints,nat}.go, felix/nftables.  Left out are chains that
would be empty: host endpoints, failsafes, floating IPs, service loop prevention.  The datastore and Felix' calculation
graph appear as their converged result.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from emulab.dataplane import DataPlane, Tunnel, Wire, forwarding, interface, minimum_mtu, room_for, routed
from emulab.errors import InputError, nearest
from emulab.ipam.blocks import BLOCK_LENGTH, Blocks
from emulab.ipam.contract import Ipam
from emulab.model import Cluster, Endpoint, IPAddress, IPNetwork, Topology
from emulab.state import Address, FdbEntry, KernelObject, Neighbor, NftTable, Route, State, Up, Vxlan, merge

ENCAPSULATIONS = ("never", "cross-subnet", "vxlan")
OVERHEAD = {4: 50, 6: 70}  # outer IP, UDP, VXLAN and the inner Ethernet header, in bytes
DEVICE = {4: "vxlan.calico", 6: "vxlan-v6.calico"}
FELIX = 80  # Felix' own route protocol; its tunnel routes have the default one
# Bits of the packet mark, IptablesMarkMask 0xffff0000 given out from below: accept, pass, drop, scratch 0 and 1.
ACCEPT, ACCEPT_OR_PASS, FROM_WORKLOAD, ALL_MARKS = 0x10000, 0x30000, 0x80000, 0x1F0000


@dataclass(frozen=True)
class Calico(DataPlane):
    """``mtu`` is the pods'; None: what the smallest uplink leaves.  Block sizes are prefix lengths."""

    name: ClassVar[str] = "calico"

    encap: str = "never"
    nat_outgoing: bool = True
    mtu: int | None = None
    vni: int = 4096
    port: int = 4789
    block_size: int = BLOCK_LENGTH[4]
    block_size_v6: int = BLOCK_LENGTH[6]

    def check(self, topology: Topology) -> None:
        if self.encap not in ENCAPSULATIONS:
            raise InputError(f"calico: unknown encap '{self.encap}'{nearest(self.encap, ENCAPSULATIONS)}")
        for option, value, least, most in (
            ("vni", self.vni, 1, 2**24 - 1),
            ("port", self.port, 1, 65535),
            ("block_size", self.block_size, 20, 32),
            ("block_size_v6", self.block_size_v6, 116, 128),
        ):
            if not least <= value <= most:
                raise InputError(f"calico: {option} {value} is out of range, {least} to {most} expected")
        for node in topology.nodes:
            for family in topology.families:
                if topology.underlay_address(node.name, family).version != family:
                    raise InputError(f"calico: node {node.name} needs an IPv{family} underlay address for IPv{family} pods")
        self._pod_mtu(topology)

    def ipam(self, topology: Topology) -> Ipam:
        return Blocks(topology, {4: self.block_size, 6: self.block_size_v6}, tunnels=self._tunnels)

    def plan(self, cluster: Cluster) -> State:
        homes = {node.name: _networks(cluster, node.name) for node in cluster.nodes}
        return merge(*(self._node(cluster, node.name, homes) for node in cluster.nodes))

    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        topology, here, there = cluster.topology, source.node, destination.node
        mtu = self._pod_mtu(topology)
        if here == there:
            return Wire(1, mtu)
        if self._direct(topology, here, there):
            return Wire(2, mtu)
        ends = [topology.underlay_address(node, family) for node in (here, there)]
        return Wire(2, mtu, (Tunnel(ends[0], ends[1], self.port, self.vni),))

    @property
    def _tunnels(self) -> bool:
        return self.encap != "never"

    def _direct(self, topology: Topology, here: str, there: str) -> bool:
        """Whether packets between two nodes travel as they are."""
        near = topology.uplink(here).segment == topology.uplink(there).segment
        return self.encap == "never" or (self.encap == "cross-subnet" and near)

    def _pod_mtu(self, topology: Topology) -> int:
        """One figure for all pods: the smallest of the encapsulations in use, even where packets are not encapsulated
        (determinePodMTU in felix/dataplane/linux/int_dataplane.go)."""
        return min(self._mtu(topology, family) for family in topology.families)

    def _mtu(self, topology: Topology, family: int) -> int:
        return room_for(topology, OVERHEAD[family] if self._tunnels else 0, self.mtu, minimum_mtu(topology))

    def _node(self, cluster: Cluster, node: str, homes: Mapping[str, tuple[IPNetwork, ...]]) -> State:
        objects: list[KernelObject] = []
        for family in cluster.topology.families:
            if self._tunnels:
                objects += self._vteps(cluster, node, family)
            for lease in cluster.leases_of(node, family):
                if lease.network.num_addresses > 1:
                    objects.append(Route(lease.network, kind="blackhole", protocol=FELIX))
            for peer in cluster.topology.peers(node):
                networks = (network for network in homes[peer.name] if network.version == family)
                objects += self._routes(cluster, node, peer.name, family, networks)
            objects.append(self._table(cluster, node, family))
        pods = routed(cluster, node, host_end=_host_end, mtu=self._pod_mtu(cluster.topology))
        return merge({node: tuple(forwarding(cluster))}, pods, {node: tuple(objects)})

    def _vteps(self, cluster: Cluster, node: str, family: int) -> Iterator[KernelObject]:
        """The tunnel device, and the tunnel address and MAC of every other node: also of those that need no tunnel."""
        topology, device = cluster.topology, DEVICE[family]
        local, uplink = topology.underlay_address(node, family), topology.uplink(node).interface
        mtu = self._mtu(topology, family)
        yield Vxlan(device, self.vni, local, uplink, self.port, mtu=mtu, mac=_vtep_mac(node, family))
        own = _tunnel(cluster, node, family)
        yield Address(device, interface(own, own.max_prefixlen))
        yield Up(device)
        for peer in topology.peers(node):
            mac = _vtep_mac(peer.name, family)
            yield Neighbor(device, _tunnel(cluster, peer.name, family), mac)
            yield FdbEntry(device, mac, topology.underlay_address(peer.name, family))

    def _routes(
        self, cluster: Cluster, node: str, peer: str, family: int, networks: Iterable[IPNetwork]
    ) -> Iterator[KernelObject]:
        """How to reach what lives on a peer."""
        topology = cluster.topology
        if self._direct(topology, node, peer):
            device, via = topology.uplink(node).interface, topology.underlay_address(peer, family)
            yield from (Route(network, device, via, onlink=True, protocol=FELIX) for network in networks)
        else:
            device, via, mtu = DEVICE[family], _tunnel(cluster, peer, family), self._mtu(topology, family)
            yield from (Route(network, device, via, onlink=True, mtu=mtu) for network in networks)

    def _table(self, cluster: Cluster, node: str, family: int) -> NftTable:
        """Felix' table of one family."""
        ip, ours = "ip" if family == 4 else "ip6", f"cali{family}0"
        pools = [str(pool) for pool in cluster.topology.pod_cidrs if pool.version == family]
        sets = {f"{ours}all-ipam-pools": pools, f"{ours}masq-ipam-pools": pools if self.nat_outgoing else []}
        endpoints = cluster.endpoints_on(node)
        vxlan, local = f"udp dport {self.port}", "fib daddr type local"
        accepted = f"meta mark & {ACCEPT:#x} == {ACCEPT:#x}"
        chains = {
            "raw-cali-PREROUTING": [
                _clear(ALL_MARKS),
                *([f"{vxlan} {local} notrack"] if self._tunnels else []),
                f'iifname "cali*" meta mark set meta mark | {FROM_WORKLOAD:#x}',
                f"meta mark & {FROM_WORKLOAD:#x} == {FROM_WORKLOAD:#x} fib saddr . mark . iif oif 0 drop",
            ],
            "raw-PREROUTING": ["jump raw-cali-PREROUTING"],
        }
        raise NotImplementedError
