"""Weave Net: one layer-2 segment for all pods of the cluster, carried by a mesh of VXLAN tunnels.

A packet's story: the pod finds the other one by ARP, since all pods share one subnet.  Its frame goes from the bridge
``weave`` over the pair vethwe-bridge = vethwe-datapath into ``datapath``, from there into the tunnel to the other node
(UDP 6784, one VNI per pair of peers), and over that node's bridges to the pod.  No router on the way: TTL stays 64.

``datapath`` is an Open vSwitch datapath in the real one (fastdp) with one vport for all peers; here it is a Linux
bridge with one VXLAN device per peer.  In a full mesh these are isolated from each other (split horizon): Weave's
broadcast tree, of depth one.  Where peers have no direct path, frames go hop by hop: unicast along the shortest path,
broadcast along a tree per source peer, so that each peer gets one copy; what gossip and learning bring about there is
programmed, and frames to a MAC that nobody has are dropped.

NetworkPolicies are weave-npc's (`_weave_npc.py`).  Not shown: OVS flows, the user-space sleeve path, encryption, the
multicast filter in the pods.  IPv6 is an extension: Weave 2.8 has IPv4 only.  Sources: weaveworks/weave 2.8.1
net/{bridge,veth,arp,expose}.go and router/fastdp.go, weaveworks/mesh routes.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from emulab.dataplane import EVERYWHERE, DataPlane, Installed, Tunnel, Wire, bridged, forwarding, minimum_mtu, room_for
from emulab.errors import InputError
from emulab.ipam.contract import Ipam
from emulab.ipam.ring import Ring
from emulab.model import Cluster, Endpoint, IPAddress, Topology, mac_from
from emulab.objects import Objects, Policy
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

from ._weave_npc import Filter, WeaveNpc, named_ports

OVERHEAD = {4: 50, 6: 70}  # outer IP, UDP, VXLAN and the inner Ethernet header, in bytes
MOST_PEERS = 4095  # a short ID has 12 bits
ARP_CACHE = {"base_reachable_time": 5, "delay_first_probe_time": 2, "ucast_solicit": 1}  # moved pods are found soon


@dataclass(frozen=True)
class Weave(DataPlane):
    """``mtu`` is 1376: 1460 (Google's network) less 50, and 34 for ESP; None: what the smallest uplink leaves."""

    name: ClassVar[str] = "weave"
    mtu: int | None = 1376
    port: int = 6784

    def check(self, topology: Topology) -> None:
        self.check_option("port", 1, 65535)
        if len(topology.nodes) > MOST_PEERS:
            raise InputError(f"weave: {len(topology.nodes)} nodes, at most {MOST_PEERS} expected")
        if len(topology.pod_cidrs) != len(topology.families):
            raise InputError("weave: one pod CIDR per family expected, since all pods share one subnet")
        self._mtu(topology)
        first = topology.nodes[0].name
        for node in topology.nodes:
            if node.name not in topology.tree(first):
                raise InputError(f"weave: no path from {first} to {node.name}, not even over other nodes")

    def ipam(self, topology: Topology) -> Ipam:
        return Ring(topology)

    def plan(self, cluster: Cluster) -> State:
        npc, topology = WeaveNpc(cluster), cluster.topology
        underlay = replace(topology, name="", description="", pods=(), objects=Objects())
        datapaths = _datapaths(underlay, self._mtu(topology), self.port)
        return merge(*(self._node(cluster, node.name, datapaths[node.name], npc) for node in cluster.nodes))

    def installed(self, cluster: Cluster, node: str) -> Installed:
        """As the launch script of weave-kube writes it."""
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
        chain = [{"type": "weave-net", "hairpinMode": True, "ipam": {"type": "weave-ipam"}}, portmap]
        return Installed({"cniVersion": "0.3.0", "name": "weave", "plugins": chain})

    def unenforced(self, policy: Policy) -> str:
        if not policy.kubernetes:
            return "weave enforces networking.k8s.io/v1 NetworkPolicy only"
        if places := named_ports(policy):
            rules, are = ("rules", "are") if len(places) > 1 else ("rule", "is")
            return f"weave-npc does not support named ports: {rules} {', '.join(places)} {are} not enforced"
        return ""

    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        topology, here, tunnels = cluster.topology, source.node, []
        while here != destination.node:  # each hop decides for itself
            there = _next_hop(topology, here, destination.node)
            if there is None:
                break
            ends = _underlay(topology, here), _underlay(topology, there)
            tunnels.append(Tunnel(*ends, self.port, _vni(topology, here, there)))
            here = there
        return Wire(0, self._mtu(topology), tuple(tunnels))

    def _mtu(self, topology: Topology) -> int:
        return room_for(topology, OVERHEAD[topology.outer_family(4)], self.mtu, minimum_mtu(topology))

    def _node(self, cluster: Cluster, node: str, datapath: tuple[KernelObject, ...], npc: WeaveNpc) -> State:
        topology, in_pod = cluster.topology, tuple(_in_pod(cluster, node))
        pods = bridged(
            cluster,
            node,
            bridge="weave",
            mac=_bridge_mac(node),
            host_end=lambda endpoint: f"vethwepl{endpoint.digest(7)}",
            mtu=self._mtu(topology),
            prefix=lambda address: cluster.pod_cidr(address.version).prefixlen,
            pod_routes=lambda _: iter(in_pod),
            always=True,
        )
        tables = (_table(cluster, node, family, npc) for family in topology.families)
        after = (BridgePort("vethwe-bridge", "weave"), *_arp_cache("weave"), *npc.sysctls(), *tables)
        relaying = _relaying(cluster, node) if topology.apart else ()
        untracked = (_untracked(family) for family in topology.families if npc or topology.objects.services)
        return merge({node: (*forwarding(cluster), *datapath, *relaying, *untracked)}, pods, {node: after})


@lru_cache(maxsize=2)
def _datapaths(underlay: Topology, mtu: int, port: int) -> dict[str, tuple[KernelObject, ...]]:
    """`_datapath` of every node, kept from plan to plan: a hundred nodes have 40,000 objects there, whatever their pods."""
    return {node.name: tuple(_datapath(underlay, node.name, mtu, port)) for node in underlay.nodes}


def _datapath(topology: Topology, node: str, mtu: int, port: int) -> Iterator[KernelObject]:
    """The second bridge, the pair that joins it to the first, and the tunnels."""
    mesh = not topology.apart
    yield Bridge("datapath", mtu)
    yield Veth("vethwe-bridge", "vethwe-datapath", mtu=mtu)
    for device in ("datapath", "vethwe-bridge", "vethwe-datapath"):
        yield Sysctl(f"net.ipv6.conf.{device}.disable_ipv6", "1")
        yield Up(device)
    yield BridgePort("vethwe-datapath", "datapath")
    uplink, local = topology.uplink(node).interface, _underlay(topology, node)
    for peer in topology.peers(node):
        if topology.connected(node, peer.name):
            device, vni = _device(topology, peer.name), _vni(topology, node, peer.name)
            remote = _underlay(topology, peer.name)
            yield Vxlan(device, vni, local, uplink, port, remote, mtu, learning=mesh, dont_fragment=True)
            yield Sysctl(f"net.ipv6.conf.{device}.disable_ipv6", "1")
            yield BridgePort(device, "datapath", isolated=mesh, learning=mesh, flood=mesh)
            yield Up(device)


def _untracked(family: int) -> NftTable:
    """No netfilter sees what is in an OVS datapath; but it sees what crosses a bridge.

    To track connections there, too, would make a second one of what a Service has translated, with the answers of the first,
    which gets another source port to tell them apart; would let a receiver answer to what weave-npc drops on its way to it;
    and would end a connection (nf_conntrack_proto_tcp.c) before the reset that ends it comes to weave-npc, which drops it.
    """
    chain = "prerouting { type filter hook prerouting priority raw ; }"
    return NftTable.of({4: "ip", 6: "ip6"}[family], "datapath", {chain: ('iifname "datapath" notrack',)})


def _underlay(topology: Topology, node: str) -> IPAddress:
    """One tunnel per pair carries both families: over IPv4 if every node has it."""
    return topology.underlay_address(node, topology.outer_family(4))


def _vni(topology: Topology, one: str, other: str) -> int:
    """Both ends' short IDs, the same at either end; fastdp's differ by direction, which two devices cannot.

    A short ID is the node's number; real ones are drawn at random and settled by gossip.
    """
    low, high = sorted((topology.number(one), topology.number(other)))
    return low | high << 12


def _device(topology: Topology, peer: str) -> str:
    return f"vxlan-{topology.number(peer)}"


def _bridge_mac(node: str) -> str:
    """The peer's name, from a UUID in the real one (net/mac.go)."""
    return mac_from("weave", node)


def _next_hop(topology: Topology, here: str, destination: str) -> str | None:
    """The peer to which ``here`` sends what is for ``destination``; None when not even other peers lead there."""
    if topology.connected(here, destination):
        return destination
    tree = topology.tree(here)
    if destination not in tree:
        return None
    while tree[destination] != here:
        destination = tree[destination]
    return destination


def _relaying(cluster: Cluster, node: str) -> Iterator[KernelObject]:
    """Where every MAC is, and by which tunnels its broadcasts leave: to the node's children in its owner's tree."""
    topology, elements = cluster.topology, []
    for owner in (other.name for other in cluster.nodes):
        macs = [_bridge_mac(owner), *(endpoint.mac for endpoint in cluster.endpoints_on(owner))]
        next_hop = _next_hop(topology, node, owner)
        if owner != node and next_hop is not None:
            device = _device(topology, next_hop)
            yield from (FdbEntry(device, mac) for mac in macs)
        children = [child for child, before in topology.tree(owner).items() if before == node != child]
        elements += [f'{mac} . "{_device(topology, child)}"' for child in sorted(children) for mac in macs]
    commands = ["add set bridge weave trees { type ether_addr . ifname ; }"]
    commands += [f"add element bridge weave trees {{ {', '.join(elements)} }}"] if elements else []
    rule = 'meta pkttype { broadcast, multicast } oifname "vxlan-*" ether saddr . oifname != @trees drop'
    table = NftTable.of("bridge", "weave", {"forward { type filter hook forward priority 0 ; }": (rule,)})
    yield NftTable("bridge", "weave", (*commands, *table.rules))


def _in_pod(cluster: Cluster, node: str) -> Iterator[KernelObject]:
    yield Offload("eth0")
    yield from _arp_cache("eth0")
    for gateway in cluster.gateways[node]:
        yield Route(EVERYWHERE[gateway.version], "eth0", gateway)


@lru_cache(maxsize=2)
def _arp_cache(device: str) -> tuple[KernelObject, ...]:
    return tuple(Sysctl(f"net.ipv4.neigh.{device}.{key}", str(value)) for key, value in ARP_CACHE.items())


def _table(cluster: Cluster, node: str, family: int, npc: WeaveNpc) -> NftTable:
    """`weave expose`: among themselves pods keep their address; what leaves or enters their network gets the node's.

    And what may be forwarded: everything among pods, or what `WeaveNpc` says.
    """
    ip, kind, multicast = ("ip", "ipv4_addr", "224.0.0.0/4") if family == 4 else ("ip6", "ipv6_addr", "ff00::/8")
    pods = cluster.pod_cidr(family)
    local = ", ".join(str(endpoint.address(family)) for endpoint in cluster.endpoints_on(node))
    chains = {
        "WEAVE": [
            f"{ip} daddr @weaver-no-masq-local return",
            f"{ip} saddr {pods} {ip} daddr {multicast} return",
            f"{ip} saddr != {pods} {ip} daddr {pods} masquerade",
            f"{ip} saddr {pods} {ip} daddr != {pods} masquerade",
        ],
        "POSTROUTING { type nat hook postrouting priority srcnat ; }": ["jump WEAVE"],
    }
    allowed = npc.filter(node, family) if npc else Filter([], _exposed(f"{ip} daddr {pods} accept"), [])
    commands = [f"add set {ip} weave weaver-no-masq-local {{ type {kind} ; }}"]
    commands += [f"add element {ip} weave weaver-no-masq-local {{ {local} }}"] if local else []
    rules = NftTable.of(ip, "weave", {**chains, **allowed.chains}).rules
    return NftTable(ip, "weave", (*commands, *allowed.before, *rules, *allowed.after))


def _exposed(to_pods: str) -> dict[str, list[str]]:
    """FORWARD without weave-npc."""
    return {
        "WEAVE-EXPOSE": [to_pods],
        "FORWARD { type filter hook forward priority filter ; }": [
            'iifname "weave" oifname "weave" accept',
            'oifname "weave" jump WEAVE-EXPOSE',
            'iifname "weave" oifname != "weave" accept',
            'oifname "weave" ct state related,established accept',
        ],
    }
