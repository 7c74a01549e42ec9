"""Weave Net: one layer-2 segment for all pods of the cluster, carried by a full mesh of VXLAN tunnels.

A packet's story: the pod finds its peer by ARP, since all pods share one subnet; the frame goes from the bridge ``weave``
over the pair vethwe-bridge = vethwe-datapath into ``datapath``, from there into the tunnel to the other node (UDP 6784, one
VNI per pair of peers), and over the other node's bridges to the pod.  No router on the way: the TTL stays 64.

``datapath`` is an Open vSwitch datapath in the real one (fastdp); here it is a Linux bridge with one VXLAN device per peer.
In a full mesh the tunnels are isolated from each other (split horizon), which is Weave's broadcast tree of depth one.
Where peers have no direct path, frames go hop by hop: unicast along the shortest path, broadcast along a tree per source
peer, so that each copy arrives exactly once; learning is then replaced by what gossip would have brought everybody.
Not shown: OVS flows, the user-space sleeve path, encryption.  IPv6 is an extension of ours, Weave 2.8 has IPv4 only.

Sources: weaveworks/weave 2.8.1 net/bridge.go, net/veth.go, net/expose.go, router/fastdp.go, weaveworks/mesh routes.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import pairwise
from typing import ClassVar

from emulab.dataplane import DataPlane, Tunnel, Wire, bridged, forwarding, minimum_mtu, room_for
from emulab.errors import InputError
from emulab.ipam.contract import Ipam
from emulab.ipam.ring import Ring
from emulab.model import Cluster, Endpoint, Topology, mac_from
from emulab.state import (
    Bridge,
    BridgePort,
    FdbEntry,
    KernelObject,
    NftTable,
    Offload,
    Route,
    State,
    Sysctl,
    Up,
    Veth,
    Vxlan,
    merge,
)

_OVERHEAD = {4: 50, 6: 70}
_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_MOST_PEERS = 4095  # a short ID has 12 bits


@dataclass(frozen=True)
class Weave(DataPlane):
    """``mtu`` is 1376 whatever the underlay: room for a GCE network and ESP; None takes all that the underlay leaves."""

    name: ClassVar[str] = "weave"

    mtu: int | None = 1376
    port: int = 6784

    def check(self, topology: Topology) -> None:
        if not 1 <= self.port <= 65535:
            raise InputError(f"weave: port {self.port} is out of range, 1 to 65535 expected")
        if len(topology.nodes) > _MOST_PEERS:
            raise InputError(f"weave: {len(topology.nodes)} nodes, at most {_MOST_PEERS} expected")
        if len(topology.pod_cidrs) != len(topology.families):
            raise InputError("weave: one pod CIDR per family expected, since all pods share one subnet")
        self._mtu(topology)
        for node in topology.nodes:
            lost = sorted({n.name for n in topology.nodes} - set(_tree(topology, node.name)))
            if lost:
                raise InputError(f"weave: no path from {node.name} to {lost[0]}, not even over other nodes")

    def ipam(self, topology: Topology) -> Ipam:
        return Ring(topology)

    def plan(self, cluster: Cluster) -> State:
        ids = _short_ids(cluster.topology)
        trees = {n.name: _tree(cluster.topology, n.name) for n in cluster.nodes} if cluster.topology.cut else {}
        return merge(*(self._node(cluster, node.name, ids, trees) for node in cluster.nodes))

    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        topology = cluster.topology
        mtu = self._mtu(topology)
        if source.node == destination.node:
            return Wire(0, mtu)
        ids = _short_ids(topology)
        path = _path(topology, source.node, destination.node)
        tunnels = tuple(
            Tunnel(
                topology.underlay_address(here),
                topology.underlay_address(there),
                self.port,
                _vni(ids[here], ids[there]),
            )
            for here, there in pairwise(path)
        )
        return Wire(0, mtu, tunnels)

    def _mtu(self, topology: Topology) -> int:
        return room_for(topology, _OVERHEAD[topology.outer_family(4)], self.mtu, minimum_mtu(topology))

    def _node(self, cluster: Cluster, node: str, ids: dict[str, int], trees: dict[str, dict[str, str]]) -> State:
        topology, mtu = cluster.topology, self._mtu(cluster.topology)
        pair = Veth("vethwe-bridge", "vethwe-datapath", mtu=mtu)
        objects: list[KernelObject] = [*forwarding(cluster), Bridge("datapath", mtu), pair, Up("datapath")]
        objects += [Sysctl(f"net.ipv6.conf.{name}.disable_ipv6", "1") for name in ("datapath", pair.name, pair.peer)]
        objects += [BridgePort(pair.peer, "datapath"), Up(pair.name), Up(pair.peer)]
        for peer in topology.peers(node):
            if topology.connected(node, peer.name):
                objects += self._tunnel(topology, node, peer.name, ids)
        if topology.cut:
            objects += _relaying(cluster, node, ids, trees)
        prefixes = {cidr.version: cidr.prefixlen for cidr in topology.pod_cidrs}

        def pod_routes(endpoint: Endpoint) -> Iterator[KernelObject]:
            yield Offload("eth0")
            for key, value in (("base_reachable_time", 5), ("delay_first_probe_time", 2), ("ucast_solicit", 1)):
                yield Sysctl(f"net.ipv4.neigh.eth0.{key}", str(value))
            for gateway in cluster.gateways[node]:
                yield Route(_EVERYWHERE[gateway.version], "eth0", gateway)

        pods = bridged(
            cluster,
            node,
            bridge="weave",
            mac=_bridge_mac(node),
            host_end=lambda endpoint: f"vethwepl{endpoint.digest(7)}",
            mtu=mtu,
            prefix=lambda address: prefixes[address.version],
            pod_routes=pod_routes,
            always=True,
        )
        return merge({node: tuple(objects)}, pods, {node: (BridgePort("vethwe-bridge", "weave"), *_expose(cluster, node))})

    def _tunnel(self, topology: Topology, node: str, peer: str, ids: dict[str, int]) -> Iterator[KernelObject]:
        device = _device(ids[peer])
        local, remote = topology.underlay_address(node), topology.underlay_address(peer)
        vni = _vni(ids[node], ids[peer])
        uplink = topology.uplink(node).interface
        mesh = not topology.cut
        yield Vxlan(device, vni, local, uplink, self.port, remote, self._mtu(topology), learning=mesh, dont_fragment=True)
        yield Sysctl(f"net.ipv6.conf.{device}.disable_ipv6", "1")
        yield BridgePort(device, "datapath", isolated=mesh, learning=mesh, flood=mesh)
        yield Up(device)


def _short_ids(topology: Topology) -> dict[str, int]:
    """12-bit peer IDs; real ones are drawn at random and settled by gossip."""
    return {node.name: number for number, node in enumerate(topology.nodes, 1)}


def _vni(one: int, other: int) -> int:
    """Both IDs in 24 bits, the same at either end; fastdp's differ by direction, which two devices cannot."""
    return min(one, other) | max(one, other) << 12


def _device(peer: int) -> str:
    return f"vxlan-{peer}"


def _bridge_mac(node: str) -> str:
    return mac_from("weave", node)


def _neighbours(topology: Topology, node: str) -> list[str]:
    return sorted(peer.name for peer in topology.peers(node) if topology.connected(node, peer.name))


def _tree(topology: Topology, root: str) -> dict[str, str]:
    """The breadth-first tree of ``root``, neighbours in the order of their names: node -> the one before it."""
    before = {root: root}
    queue = [root]
    for node in queue:
        for peer in _neighbours(topology, node):
            if peer not in before:
                before[peer] = node
                queue.append(peer)
    return before


def _path(topology: Topology, source: str, destination: str) -> list[str]:
    """The nodes from source to destination: each hop chooses by its own tree, as every peer does for itself."""
    path = [source]
    while path[-1] != destination:
        if topology.connected(path[-1], destination):
            path.append(destination)
        else:
            path.append(_next_hop(_tree(topology, path[-1]), path[-1], destination))
    return path


def _next_hop(tree: dict[str, str], here: str, destination: str) -> str:
    while tree[destination] != here:
        destination = tree[destination]
    return destination


def _relaying(cluster: Cluster, node: str, ids: dict[str, int], trees: dict[str, dict[str, str]]) -> Iterator[KernelObject]:
    """Where every MAC is, and which tunnels a broadcast of each leaves by: it goes to the children in its source's tree."""
    macs = {n.name: [_bridge_mac(n.name), *(e.mac for e in cluster.endpoints_on(n.name))] for n in cluster.nodes}
    elements = []
    for owner, known in macs.items():
        if owner != node:
            device = _device(ids[_next_hop(trees[node], node, owner)])
            yield from (FdbEntry(device, mac) for mac in known)
        children = sorted(child for child, before in trees[owner].items() if before == node and child != node)
        elements += [f'{mac} . "{_device(ids[child])}"' for child in children for mac in known]
    rules = ["add set bridge weave trees { type ether_addr . ifname ; }"]
    rules += [f"add element bridge weave trees {{ {', '.join(elements)} }}"] if elements else []
    rules += [
        "add chain bridge weave forward { type filter hook forward priority 0 ; }",
        "add rule bridge weave forward meta pkttype { broadcast, multicast } "
        'oifname "vxlan-*" ether saddr . oifname != @trees drop',
    ]
    yield NftTable("bridge", "weave", tuple(rules))


def _expose(cluster: Cluster, node: str) -> Iterator[KernelObject]:
    """`weave expose`: pods keep their address among themselves and towards local pods, and take the node's elsewhere."""
    for family in cluster.topology.families:
        ip = "ip" if family == 4 else "ip6"
        pods, multicast = cluster.pod_cidr(family), "224.0.0.0/4" if family == 4 else "ff00::/8"
        local = [str(endpoint.address(family)) for endpoint in cluster.endpoints_on(node)]
        table = NftTable.of(
            ip,
            "weave",
            {
                "WEAVE": (
                    f"{ip} daddr @weaver-no-masq-local return",
                    f"{ip} saddr {pods} {ip} daddr {multicast} return",
                    f"{ip} saddr != {pods} {ip} daddr {pods} masquerade",
                    f"{ip} saddr {pods} {ip} daddr != {pods} masquerade",
                ),
                "POSTROUTING { type nat hook postrouting priority srcnat ; }": ("jump WEAVE",),
                "WEAVE-EXPOSE": (f"{ip} daddr {pods} accept",),
                "FORWARD { type filter hook forward priority filter ; }": (
                    'iifname "weave" oifname "weave" accept',
                    'oifname "weave" jump WEAVE-EXPOSE',
                    'iifname "weave" oifname != "weave" accept',
                    'oifname "weave" ct state related,established accept',
                ),
            },
        )
        kind = "ipv4_addr" if family == 4 else "ipv6_addr"
        members = [f"add element {ip} weave weaver-no-masq-local {{ {', '.join(local)} }}"] if local else []
        yield NftTable(ip, "weave", (f"add set {ip} weave weaver-no-masq-local {{ type {kind} ; }}", *members, *table.rules))
