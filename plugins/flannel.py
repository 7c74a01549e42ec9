"""Flannel: a router per node, and behind it VXLAN to every other node (or, with ``backend=host-gw``, nothing at all).

A packet's story: the pod sends to its gateway, the node's bridge cni0; the node routes the destination's lease "via" the
other node's VTEP, 10.244.2.0, whose MAC is a permanent neighbour, and whose MAC's whereabouts are a permanent FDB entry; the
kernel wraps the frame in UDP (port 8472, VNI 1) to the other node's underlay address, which unwraps, routes and bridges it
to the pod: two routers, TTL 62.  Per remote node one route, one neighbour, one FDB entry; per remote pod nothing.

flanneld's control plane (leases in node objects, VTEP MACs in annotations) appears as its converged result.  Sources:
flannel-io/flannel pkg/backend/vxlan/{vxlan,vxlan_network,device}.go, pkg/backend/hostgw, pkg/trafficmngr/nftables, and the
bridge plugin of containernetworking/plugins 1.1.1.  Emulated is ``EnableNFTables: true``.  Deviations:

* flannel takes 50 bytes off also where the outer header is IPv6 and 70 are needed, so that full-size packets get lost.
  Pods have that MTU here, too, but flannel-v6.1 has 20 less, and so the node tells the sender.
* Where nodes lack underlay addresses of one family, flannel refuses; here the other family's device carries both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from emulab.dataplane import DataPlane, Tunnel, Wire, bridged, forwarding, interface, minimum_mtu, room_for
from emulab.errors import InputError, nearest
from emulab.ipam.contract import Ipam
from emulab.ipam.host_local import HostLocal
from emulab.model import Cluster, Endpoint, IPNetwork, Topology, mac_from, mac_of
from emulab.state import Address, FdbEntry, KernelObject, Neighbor, NftTable, Route, State, Sysctl, Up, Vxlan, merge

BACKENDS = ("vxlan", "host-gw")
OVERHEAD = {4: 50, 6: 70}  # outer IP, UDP, VXLAN and the inner Ethernet header, in bytes
DEFAULT = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


@dataclass(frozen=True)
class Flannel(DataPlane):
    """``mtu`` is the pods'; None: what the smallest uplink leaves.  ``direct_routing``: no tunnel within a segment."""

    name: ClassVar[str] = "flannel"

    backend: str = "vxlan"
    vni: int = 1
    port: int = 8472
    direct_routing: bool = False
    mtu: int | None = None

    def check(self, topology: Topology) -> None:
        if self.backend not in BACKENDS:
            raise InputError(f"flannel: unknown backend '{self.backend}'{nearest(self.backend, BACKENDS)}")
        for option, value, limit in (("vni", self.vni, 2**24 - 1), ("port", self.port, 65535)):
            if not 1 <= value <= limit:
                raise InputError(f"flannel: {option} {value} is out of range, 1 to {limit} expected")
        for family in topology.families:
            if self.backend == "host-gw" and _outer(topology, family) != family:
                raise InputError(f"flannel: host-gw needs an IPv{family} underlay address on every node for IPv{family} pods")
            self._path_mtu(topology, family)

    def ipam(self, topology: Topology) -> Ipam:
        return HostLocal(topology)

    def plan(self, cluster: Cluster) -> State:
        return merge(*(self._node(cluster, node.name) for node in cluster.nodes))

    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        topology, here, there = cluster.topology, source.node, destination.node
        if here == there:
            return Wire(0, self._pod_mtu(topology))
        if self._plain(topology, here, there, family):
            return Wire(2, self._pod_mtu(topology))
        ends = [topology.underlay_address(node, _outer(topology, family)) for node in (here, there)]
        return Wire(2, self._path_mtu(topology, family), (Tunnel(ends[0], ends[1], self.port, self.vni),))

    def _plain(self, topology: Topology, here: str, there: str, family: int) -> bool:
        """Whether packets between two nodes travel as they are: flannel asks for a route without a gateway."""
        near = topology.uplink(here).segment == topology.uplink(there).segment
        return self.backend == "host-gw" or (self.direct_routing and near and _outer(topology, family) == family)

    def _pod_mtu(self, topology: Topology) -> int:
        return room_for(topology, 0 if self.backend == "host-gw" else OVERHEAD[4], self.mtu, minimum_mtu(topology))

    def _path_mtu(self, topology: Topology, family: int) -> int:
        """The MTU between nodes: the pods', or less where the outer header is longer."""
        if self.backend == "host-gw":
            return self._pod_mtu(topology)
        overhead = OVERHEAD[_outer(topology, family)]
        return min(self._pod_mtu(topology), room_for(topology, overhead, None, minimum_mtu(topology)))

    def _device(self, outer: int) -> str:
        return f"flannel{'-v6' if outer == 6 else ''}.{self.vni}"

    def _node(self, cluster: Cluster, node: str) -> State:
        leases = {lease.network.version: lease.network for lease in cluster.leases_of(node)}
        objects = forwarding(cluster)
        if self.backend == "vxlan":
            objects += self._vteps(cluster.topology, node, leases)
        objects += [_masquerade(cluster.topology, lease) for lease in leases.values()]
        for peer in cluster.topology.peers(node):
            for lease in cluster.leases_of(peer.name):
                objects += self._to_lease(cluster.topology, node, peer.name, lease.network)

        def pod_routes(endpoint: Endpoint) -> Iterator[KernelObject]:
            if 4 in leases:
                yield Sysctl("net.ipv4.conf.eth0.arp_notify", "1")
            for network in (*cluster.topology.pod_cidrs, *(DEFAULT[family] for family in leases)):
                if network != leases[network.version]:  # the plugin passes over a route that the address already brought
                    yield Route(network, "eth0", cluster.gateway(node, network.version))

        pods = bridged(
            cluster,
            node,
            bridge="cni0",
            mac=mac_of(cluster.gateways[node][0], "0a:58"),
            host_end=lambda endpoint: f"veth{endpoint.digest(8)}",
            mtu=self._pod_mtu(cluster.topology),
            prefix=lambda address: leases[address.version].prefixlen,
            pod_routes=pod_routes,
        )
        return merge({node: tuple(objects)}, pods)

    def _vteps(self, topology: Topology, node: str, leases: dict[int, IPNetwork]) -> Iterator[KernelObject]:
        """One device per underlay family in use; its address is the lease's first as /32, so that no route comes with it."""
        uplink = topology.uplink(node).interface
        for outer in sorted({_outer(topology, family) for family in leases}):
            device, local = self._device(outer), topology.underlay_address(node, outer)
            carried = [family for family in leases if _outer(topology, family) == outer]
            mtu, mac = self._path_mtu(topology, carried[0]), mac_from(device, node)
            yield Vxlan(device, self.vni, local, uplink, self.port, mtu=mtu, mac=mac)
            yield Sysctl(f"net.ipv6.conf.{device.replace('.', '/')}.accept_ra", "0")
            for family in carried:
                lease = leases[family]
                yield Address(device, interface(lease.network_address, lease.max_prefixlen))
            yield Up(device)

    def _to_lease(self, topology: Topology, node: str, peer: str, lease: IPNetwork) -> Iterator[KernelObject]:
        """How to reach a peer's lease.  host-gw knows no way to a node behind a router: the kernel refuses a gateway that
        is not on the link, and the packets take the default route into nowhere."""
        outer = _outer(topology, lease.version)
        underlay = topology.underlay_address(peer, outer)
        if self._plain(topology, node, peer, lease.version):
            if topology.uplink(node).segment == topology.uplink(peer).segment:
                yield Route(lease, topology.uplink(node).interface, underlay)
            return
        device, vtep = self._device(outer), lease.network_address
        yield Neighbor(device, vtep, mac_from(device, peer))
        yield FdbEntry(device, mac_from(device, peer), underlay)
        yield Route(lease, device, vtep, onlink=True)


def _outer(topology: Topology, family: int) -> int:
    """The underlay family that carries pods of ``family``: the same if every node has it, else the other one."""
    for outer in (family, 10 - family):
        if all(topology.underlay_address(node.name, outer).version == outer for node in topology.nodes):
            return outer
    raise InputError("flannel: the nodes' underlay addresses have no family in common")


def _masquerade(topology: Topology, lease: IPNetwork) -> NftTable:
    """flannel's nftables mode: pods keep their address among themselves and take their node's towards the rest.

    Rule by rule as in the real one, where the fourth leaves nothing for the sixth.
    """
    family, ip = lease.version, "ip" if lease.version == 4 else "ip6"
    name = f"flannel-ipv{family}"
    cidrs = [str(cidr) for cidr in topology.pod_cidrs if cidr.version == family]
    pods = cidrs[0] if len(cidrs) == 1 else f"{{ {', '.join(cidrs)} }}"
    forward = (f"{ip} saddr {pods} accept", f"{ip} daddr {pods} accept")
    postrtg = (
        "meta mark 0x4000 return",
        f"{ip} saddr {lease} {ip} daddr {pods} return",
        f"{ip} saddr {pods} {ip} daddr {lease} return",
        f"{ip} saddr != {lease} {ip} daddr {pods} return",
        f"{ip} saddr {pods} {ip} daddr != {MULTICAST[family]} masquerade fully-random",
        f"{ip} saddr != {pods} {ip} daddr {pods} masquerade fully-random",
    )
    return NftTable(
        ip,
        name,
        (
            f"add chain {ip} {name} forward {{ type filter hook forward priority filter ; }}",
            *(f"add rule {ip} {name} forward {rule}" for rule in forward),
            f"add chain {ip} {name} postrtg {{ type nat hook postrouting priority srcnat ; }}",
            *(f"add rule {ip} {name} postrtg {rule}" for rule in postrtg),
        ),
    )
