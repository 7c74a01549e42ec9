"""Calico: every pod is a route of its own, no bridge; between nodes plain routing, or VXLAN where that does not reach.

A packet's story: the pod asks for the MAC of its gateway 169.254.1.1, which exists nowhere; the host end of its veth,
cali..., answers for it (proxy ARP).  The node checks that the source is the pod's own (reverse path), passes the pod's
egress chain, and routes: to a pod of its own by that pod's /32 (TTL 63), else by the route of the block, "via" the
underlay address of the node that holds it or, encapsulated, via its tunnel address; there the destination's ingress
chain and its /32 follow (TTL 62).  Addresses of a node's blocks that no pod has fall into a blackhole: no routing loop.
Per remote block one route; per local pod one route and two chains, found through a verdict map in constant time.

``encap`` is the pools' vxlanMode.  "never" sends packets as they are; across a router, which knows no pods, they are
lost: the next hop is "onlink" but does not answer ARP.  "cross-subnet" encapsulates only there, "vxlan" always.

Policies are enforced at both ends, the sender's egress and the receiver's ingress, when a connection begins: for what is
established, conntrack answers.  Without a policy that selects a pod the profile of its namespace allows everything.  What a
node sends to its own pods is never policed; what a pod sends to its own node is, by its egress (`_calico_policy`).

Emulated is v3.31 in nftables mode, where Felix and not BIRD programs the routes (``proto 80`` instead
of ``proto bird``, programClusterRoutes), with the settings of the manifests; its calculation graph appears as the
converged result.  Left out are chains that would be empty (host endpoints, failsafes, floating IPs).  Sources in
projectcalico/calico: cni-plugin/pkg/dataplane/linux, felix/dataplane/linux, felix/rules, felix/nftables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from emulab.dataplane import (
    DataPlane,
    Installed,
    Tunnel,
    Wire,
    forwarding,
    host_network,
    interface,
    minimum_mtu,
    room_for,
    routed,
)
from emulab.errors import InputError
from emulab.ipam.blocks import BLOCK_LENGTH, Blocks
from emulab.ipam.contract import Ipam
from emulab.model import Cluster, Endpoint, IPAddress, IPNetwork, Lease, Topology
from emulab.objects import EGRESS, INGRESS, Objects, Policy
from emulab.state import Address, FdbEntry, KernelObject, Neighbor, NftTable, Route, State, Up, Vxlan, merge

from ._calico_policy import ADDRESS_TYPE, IP, Chain, Policies

ENCAPSULATIONS = ("never", "cross-subnet", "vxlan")
OVERHEAD = {4: 50, 6: 70}  # outer IP, UDP, VXLAN and the inner Ethernet header, in bytes
DEVICE = {4: "vxlan.calico", 6: "vxlan-v6.calico"}
FELIX = 80  # Felix' own route protocol; its tunnel and workload routes have the default one, boot
BASE_CHAINS = {
    "raw-PREROUTING": "filter hook prerouting priority raw",
    "filter-INPUT": "filter hook input priority filter",
    "filter-FORWARD": "filter hook forward priority filter",
    "nat-POSTROUTING": "nat hook postrouting priority srcnat + 10",
}
# A chain and a rule per line, those with "?" only where there are tunnels, with "6" only for IPv6: there, what a pod says to
# its router goes before its policies (filterWorkloadToHostChain in felix/rules/static.go), or nobody would find it.
# The packet mark's bits are: 0x10000 accept, 0x20000 pass, 0x40000 drop, 0x80000 from a workload, 0x100000 scratch.
RULES = """
raw-PREROUTING jump raw-cali-PREROUTING
raw-cali-PREROUTING meta mark set meta mark & 0xffe0ffff
?raw-cali-PREROUTING udp dport {port} fib daddr type local notrack
raw-cali-PREROUTING iifname "cali*" meta mark set meta mark | 0x00080000
raw-cali-PREROUTING meta mark & 0x00080000 == 0x00080000 fib saddr . mark . iif oif 0 drop
filter-INPUT jump filter-cali-INPUT
?filter-cali-INPUT udp dport {port} {ip} saddr @cali{v}0all-vxlan-net fib daddr type local accept
?filter-cali-INPUT udp dport {port} fib daddr type local drop comment "VXLAN from non-allowed hosts"
filter-cali-INPUT iifname "cali*" goto filter-cali-wl-to-host
6filter-cali-wl-to-host icmpv6 type {{ 130, 131, 132, 133, 135, 136 }} accept
filter-cali-wl-to-host jump filter-cali-from-wl-dispatch
filter-cali-wl-to-host accept
filter-FORWARD jump filter-cali-FORWARD
filter-FORWARD meta mark & 0x00010000 == 0x00010000 accept comment "Policy explicitly accepted packet."
filter-FORWARD meta mark set meta mark | 0x00010000
filter-cali-FORWARD meta mark set meta mark & 0xffe1ffff
filter-cali-FORWARD iifname "cali*" jump filter-cali-from-wl-dispatch
filter-cali-FORWARD oifname "cali*" jump filter-cali-to-wl-dispatch
nat-POSTROUTING jump nat-cali-POSTROUTING
nat-cali-POSTROUTING jump nat-cali-nat-outgoing
?nat-cali-POSTROUTING oifname "{device}" fib saddr . oif type != local fib saddr type local masquerade fully-random
nat-cali-nat-outgoing {ip} saddr @cali{v}0masq-ipam-pools {ip} daddr != @cali{v}0all-ipam-pools masquerade fully-random
"""
DISPATCH = """
filter-cali-{way}-wl-dispatch {end} vmap @filter-cali-{way}-wl-dispatch
filter-cali-{way}-wl-dispatch drop comment "Unknown interface"
"""
# With "?" only for what leaves the pod.
WORKLOAD = """
{chain} ct state established,related accept
{chain} ct state invalid drop
{chain} meta mark set meta mark & 0xfffcffff
?{chain} udp dport {port} drop comment "VXLAN encapped packets originating in workloads"
?{chain} meta l4proto 4 drop comment "IPinIP encapped packets originating in workloads"
"""
# Where no tier has decided, the profile of the pod's namespace does.
PROFILED = """
{chain} jump {profile}
{chain} meta mark & 0x00010000 == 0x00010000 return
{chain} drop comment "Drop if no profiles matched"
"""
PROFILE = {EGRESS: "filter-cali-pro-kns.", INGRESS: "filter-cali-pri-kns."}
PROFILE_RULES = """
{profile} meta mark set meta mark | 0x00010000
{profile} return
"""


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
        self.check_choice("encap", ENCAPSULATIONS)
        limits = {"vni": (1, 2**24 - 1), "port": (1, 65535), "block_size": (20, 32), "block_size_v6": (116, 128)}
        for option, (least, most) in limits.items():
            self.check_option(option, least, most)
        for node in topology.nodes:
            for family in topology.families:
                if topology.underlay_address(node.name, family).version != family:
                    raise InputError(f"calico: node {node.name} needs an IPv{family} address for its IPv{family} pods")
        self._pod_mtu(topology)

    def ipam(self, topology: Topology) -> Ipam:
        return Blocks(topology, {4: self.block_size, 6: self.block_size_v6}, tunnels=self.encap != "never")

    def plan(self, cluster: Cluster) -> State:
        between, policies = self._between(cluster), Policies(cluster)
        return merge(*(self._node(cluster, node.name, between[node.name], policies) for node in cluster.nodes))

    def installed(self, cluster: Cluster, node: str) -> Installed:
        """As the install-cni container of calico-node writes it."""
        calico = {
            "type": "calico",
            "datastore_type": "kubernetes",
            "nodename": node,
            "mtu": self._pod_mtu(cluster.topology),
            "ipam": {"type": "calico-ipam"},
            "policy": {"type": "k8s"},
        }
        others = [("bandwidth", "bandwidth"), ("portmap", "portMappings")]
        chain = [calico, *({"type": kind, "capabilities": {capability: True}} for kind, capability in others)]
        return Installed({"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": chain})

    def unenforced(self, policy: Policy) -> str:
        return ""

    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        topology, here, there = cluster.topology, source.node, destination.node
        mtu = self._pod_mtu(topology)
        if here == there:
            return Wire(1, mtu)
        if self._direct(topology, here, there):
            return Wire(2, mtu)
        ends = [topology.underlay_address(node, family) for node in (here, there)]
        return Wire(2, mtu, (Tunnel(ends[0], ends[1], self.port, self.vni),))

    def _direct(self, topology: Topology, here: str, there: str) -> bool:
        """Whether packets between two nodes travel as they are."""
        return self.encap == "never" or (self.encap == "cross-subnet" and topology.near(here, there))

    def _mtu(self, topology: Topology, family: int) -> int:
        overhead = 0 if self.encap == "never" else OVERHEAD[family]
        return room_for(topology, overhead, self.mtu, minimum_mtu(topology))

    def _pod_mtu(self, topology: Topology) -> int:
        """One figure for all pods, that of the largest overhead in use (felix/dataplane/linux/int_dataplane.go)."""
        return min(self._mtu(topology, family) for family in topology.families)

    def _node(self, cluster: Cluster, node: str, between: tuple[KernelObject, ...], policies: Policies) -> State:
        pods = routed(cluster, node, host_end=_host_end, mtu=self._pod_mtu(cluster.topology))
        tables = tuple(self._table(cluster, node, family, policies) for family in cluster.topology.families)
        return merge({node: tuple(forwarding(cluster))}, pods, {node: between + tables})

    def _between(self, cluster: Cluster) -> Mapping[str, tuple[KernelObject, ...]]:
        """Tunnels and routes of every node: no pod's labels and no policy matter for them."""
        topology = replace(cluster.topology, pods=(), objects=Objects())
        homes = tuple((node.name, _networks(cluster, node.name)) for node in cluster.nodes)
        return _between(self, topology, cluster.leases, tuple(cluster.gateways.items()), homes)

    def _vteps(self, cluster: Cluster, node: str) -> Iterator[KernelObject]:
        """The tunnel devices, and in them the VTEPs of all nodes, also of those to which no packet is encapsulated."""
        topology, uplink = cluster.topology, cluster.topology.uplink(node).interface
        for own in cluster.gateways[node]:
            family, device, mtu = own.version, DEVICE[own.version], self._mtu(topology, own.version)
            local = topology.underlay_address(node, family)
            yield Vxlan(device, self.vni, local, uplink, self.port, mtu=mtu, mac=_vtep_mac(node, family))
            yield Address(device, interface(own, own.max_prefixlen))
            yield Up(device)
            for peer in topology.peers(node):
                mac = _vtep_mac(peer.name, family)
                yield from (Neighbor(device, a, mac) for a in cluster.gateways[peer.name] if a.version == family)
                yield FdbEntry(device, mac, topology.underlay_address(peer.name, family))

    def _routes(self, cluster: Cluster, node: str, homes: Mapping[str, tuple[IPNetwork, ...]]) -> Iterator[Route]:
        """Blackholes for the node's own blocks, and the way to everything that lives on another node."""
        topology, uplink = cluster.topology, cluster.topology.uplink(node).interface
        mtu = {family: self._mtu(topology, family) for family in topology.families}
        for lease in cluster.leases_of(node):
            if lease.network.num_addresses > 1:
                yield Route(lease.network, kind="blackhole", protocol=FELIX)
        for peer in topology.peers(node):
            direct = self._direct(topology, node, peer.name)
            for network in homes[peer.name]:
                family = network.version
                if direct:
                    via = topology.underlay_address(peer.name, family)
                    yield Route(network, uplink, via, onlink=True, protocol=FELIX)
                else:
                    tunnel = cluster.gateway(peer.name, family)
                    yield Route(network, DEVICE[family], tunnel, onlink=True, mtu=mtu[family])

    def _table(self, cluster: Cluster, node: str, family: int, policies: Policies) -> NftTable:
        """Felix' table of one family; its text grows with the node's own pods, the work per packet does not."""
        topology, endpoints, tunnels = cluster.topology, cluster.endpoints_on(node), self.encap != "never"
        ip, address = IP[family], ADDRESS_TYPE[family]
        pools = [str(pool) for pool in topology.pod_cidrs if pool.version == family]
        sets = {"all-ipam-pools": pools, "masq-ipam-pools": pools if self.nat_outgoing else []}
        if tunnels:
            sets["all-vxlan-net"] = [str(topology.underlay_address(p.name, family)) for p in topology.peers(node)]
        members = {f"cali{family}0{name}": found for name, found in sets.items()}
        commands = [f"add set {ip} calico {name} {{ type {address} ; flags interval ; }}" for name in members]
        enforced = policies.chains(endpoints, family)
        needed = {name: policies.sets[name] for chain in enforced for name in chain.sets}
        commands += [found.declaration for found in needed.values()]
        chains = [*_static(family, tunnels, self.port)]
        for way, direction in (("from", EGRESS), ("to", INGRESS)):
            dispatch = f"filter-cali-{way}-wl-dispatch"
            commands.append(f"add map {ip} calico {dispatch} {{ type ifname : verdict ; }}")
            chains += _dispatch(ip, way)
            for namespace in dict.fromkeys(endpoint.pod.namespace for endpoint in endpoints):
                chains += _profile(ip, PROFILE[direction] + namespace)
            for endpoint in endpoints:
                profile, steps = PROFILE[direction] + endpoint.pod.namespace, policies.steps(endpoint, direction)
                chains += _workload(ip, way, _host_end(endpoint), self.port, profile, steps)
            devices = map(_host_end, endpoints)
            members[dispatch] = [f'"{device}" : goto filter-cali-{way[0]}w-{device}' for device in devices]
        chains += enforced
        commands += [chain.declaration for chain in chains]
        for chain in chains:
            commands += chain.rules
        commands += [found.elements for found in needed.values() if found.elements]
        commands += [f"add element {ip} calico {name} {{ {', '.join(m)} }}" for name, m in members.items() if m]
        return NftTable(ip, "calico", tuple(commands))


# What a plan has in common with the one before, or one node with another, is made once.


@lru_cache(maxsize=4)
def _between(
    plane: Calico,
    topology: Topology,
    leases: tuple[Lease, ...],
    gateways: tuple[tuple[str, tuple[IPAddress, ...]], ...],
    homes: tuple[tuple[str, tuple[IPNetwork, ...]], ...],
) -> Mapping[str, tuple[KernelObject, ...]]:
    cluster, there = Cluster(topology, leases, (), dict(gateways)), dict(homes)
    return {n.name: (*plane._vteps(cluster, n.name), *plane._routes(cluster, n.name, there)) for n in topology.nodes}


@lru_cache(maxsize=32)
def _static(family: int, tunnels: bool, port: int) -> tuple[Chain, ...]:
    return _chains(
        IP[family], _filled(RULES, "?" * tunnels + "6" * (family == 6), ip=IP[family], v=family, port=port, device=DEVICE[family])
    )


@lru_cache(maxsize=32)
def _dispatch(ip: str, way: str) -> tuple[Chain, ...]:
    return _chains(ip, _filled(DISPATCH, way=way, end={"from": "iifname", "to": "oifname"}[way]))


@lru_cache(maxsize=1 << 10)
def _profile(ip: str, profile: str) -> tuple[Chain, ...]:
    return _chains(ip, _filled(PROFILE_RULES, profile=profile))


@lru_cache(maxsize=1 << 14)
def _workload(ip: str, way: str, device: str, port: int, profile: str, steps: tuple[str, ...]) -> tuple[Chain, ...]:
    """A pod's chain; ``steps`` are what policies make of it."""
    chain = f"filter-cali-{way[0]}w-{device}"
    policed = (f"{chain} {step}" for step in steps)
    return _chains(
        ip,
        (
            *_filled(WORKLOAD, "?" * (way == "from"), chain=chain, port=port),
            *policed,
            *_filled(PROFILED, chain=chain, profile=profile),
        ),
    )


def _chains(ip: str, rules: Iterable[str]) -> tuple[Chain, ...]:
    """Chains from rules that begin with the name of theirs."""
    found: dict[str, list[str]] = {}
    for rule in rules:
        found.setdefault(rule.partition(" ")[0], []).append(f"add rule {ip} calico {rule}")
    hooks = {chain: f" {{ type {hook} ; }}" for chain, hook in BASE_CHAINS.items()}
    return tuple(Chain(f"add chain {ip} calico {name}{hooks.get(name, '')}", tuple(said)) for name, said in found.items())


def _filled(template: str, marks: str = "", **values: object) -> Iterator[str]:
    """The rules of a template; those that begin with a mark only if it is among ``marks``."""
    for rule in template.format(**values).strip().splitlines():
        if rule[0] not in "?6" or rule[0] in marks:
            yield rule.lstrip("?6")


def _networks(cluster: Cluster, node: str) -> tuple[IPNetwork, ...]:
    """What other nodes route to this one: its blocks, and single addresses borrowed from other nodes' blocks."""
    blocks = [lease.network for lease in cluster.leases_of(node)]
    addresses = [*cluster.gateways[node], *(a for endpoint in cluster.endpoints_on(node) for a in endpoint.addresses)]
    borrowed = [address for address in addresses if not any(address in block for block in blocks)]
    return (*blocks, *map(host_network, borrowed))


def _vtep_mac(node: str, family: int) -> str:
    """As Felix derives it from the node's name (felix/calc/vxlan_resolver.go)."""
    digest = hashlib.sha1(f"{node}{'-v6' if family == 6 else ''}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"f" + digest[:5])


def _host_end(endpoint: Endpoint) -> str:
    return f"cali{endpoint.digest(11)}"
