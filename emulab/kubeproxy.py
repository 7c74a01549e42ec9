"""kube-proxy in its nftables mode: how a node turns addresses of Services into those of their endpoints.  Pure.

Chains, sets and their names are those of Kubernetes 1.36 (pkg/proxy/nftables/proxier.go): a packet finds its Service in one
look into a map, however many there are, and the Service's chain draws one of the endpoints.  What arrives at an endpoint has
its client's own address, but where the answer would miss this node: from outside of the pods' network to a Service's
address, through node ports and load balancers of policy Cluster, and from a pod to itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from emulab.endpoints import Backend, Backends
from emulab.errors import InputError
from emulab.model import Cluster, IPAddress, IPNetwork, Topology
from emulab.objects import SERVICE_CIDRS, Service, ServicePort
from emulab.state import KernelObject, NftTable, State, Sysctl

TABLE = "kube-proxy"
MASQUERADE = "mark set mark or 0x4000"
_LONGEST = 240  # bytes of a name without its prefix: chainNameBaseLengthMax
_AT_ONCE = 500  # elements in one command
_FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}

_SETS = """\
set cluster-ips {{ type {kind} ; comment "Active ClusterIPs" ; }}
set nodeport-ips {{ type {kind} ; comment "IPs that accept NodePort traffic" ; }}
set hairpin-connections {{ type {kind} . {kind} . inet_proto . inet_service ; comment "service hairpin connections" ; }}
map firewall-ips {{ type {key} ; comment "destinations that are subject to LoadBalancerSourceRanges" ; }}
map no-endpoint-nodeports {{ type {port} ; comment "vmap to drop or reject packets to service nodeports with no endpoints" ; }}
map no-endpoint-services {{ type {key} ; comment "vmap to drop or reject packets to services with no endpoints" ; }}
map service-ips {{ type {key} ; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic" ; }}
map service-nodeports {{ type {port} ; comment "NodePort traffic" ; }}
chain cluster-ips-check
chain firewall-check
chain masquerading
chain nodeport-endpoints-check
chain reject-chain {{ comment "helper for @no-endpoint-services / @no-endpoint-nodeports" ; }}
chain services
chain service-endpoints-check
chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110 ; }}
chain filter-output-pre-dnat {{ type filter hook output priority -110 ; }}
chain filter-forward {{ type filter hook forward priority 0 ; }}
chain filter-input {{ type filter hook input priority 0 ; }}
chain filter-output {{ type filter hook output priority 0 ; }}
chain nat-output {{ type nat hook output priority -100 ; }}
chain nat-postrouting {{ type nat hook postrouting priority 100 ; }}
chain nat-prerouting {{ type nat hook prerouting priority -100 ; }}"""

_RULES = """\
cluster-ips-check {ip} daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
cluster-ips-check {ip} daddr {{ {services} }} drop comment "Drop traffic to unallocated ClusterIPs"
filter-prerouting-pre-dnat ct state new jump firewall-check
filter-forward ct state new jump service-endpoints-check
filter-forward ct state new jump cluster-ips-check
filter-input ct state new jump nodeport-endpoints-check
filter-input ct state new jump service-endpoints-check
filter-output ct state new jump service-endpoints-check
filter-output-pre-dnat ct state new jump firewall-check
filter-output ct state new jump cluster-ips-check
firewall-check {ip} daddr . meta l4proto . th dport vmap @firewall-ips
masquerading mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random
masquerading ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
nat-output jump services
nat-postrouting jump masquerading
nat-prerouting jump services
nodeport-endpoints-check {ip} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
reject-chain reject
services {ip} daddr @cluster-ips {ip} saddr != {pods} {masquerade} comment "masquerade clusterIP traffic from outside cluster"
services {ip} daddr . meta l4proto . th dport vmap @service-ips
services {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
service-endpoints-check {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services"""


@dataclass
class _Part:
    """What a port of a Service adds to a table: sets and chains, rules of theirs, and elements by the set they are in."""

    declared: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    elements: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Port:
    """One port of a Service in one family, with the endpoints that get new connections; ``pods`` is the pods' network."""

    service: Service
    port: ServicePort
    family: int
    endpoints: tuple[Backend, ...]
    pods: str

    @cached_property
    def base(self) -> str:
        return named(f"{self.service.key}/{self.port.protocol}/{self.port.name}")

    @cached_property
    def balancers(self) -> list[IPAddress]:
        return [address for address in self.service.balancer if address.version == self.family]

    @property
    def external(self) -> bool:
        """Whether it can be reached by an address that is not the cluster's own."""
        return bool(self.port.node_port or self.balancers)

    @property
    def cluster_policy(self) -> bool:
        """Whether it leads to endpoints on all nodes: where both policies are Local, too, for what pods and nodes send out."""
        return self.external or not self.service.internal_local

    @property
    def local_policy(self) -> bool:
        return self.service.internal_local or (self.service.external_local and self.external)

    @property
    def alike(self) -> bool:
        """Whether all nodes have the same chains for it."""
        return not (self.local_policy or self.service.source_ranges)

    def at(self, address: IPAddress) -> str:
        """The key of a map for one of its addresses."""
        return f"{address} . {self.port.protocol} . {self.port.port}"

    def hairpins(self, node: str) -> Iterator[str]:
        """Endpoints on ``node`` that may reach themselves, as keys of the set."""
        for one in self.endpoints:
            if one.node == node:
                yield f"{one.address} . {one.address} . {self.port.protocol} . {one.port}"

    def part(self, node: str, own: IPAddress | None) -> _Part:
        """What a node, whose address is ``own``, does with it."""
        part, service = _Part(), self.service
        local = tuple(one for one in self.endpoints if one.node == node)
        whole, near = f"service-{self.base}", f"local-{self.base}"
        if self.endpoints and self.cluster_policy:
            self._choose(part, whole, self.endpoints)
        if local and self.local_policy:
            self._choose(part, near, local)
        if service.affinity:
            for one in self.endpoints if self.cluster_policy else local:
                self._remember(part, one)
        for address in service.addresses:
            if address.version == self.family:
                part.elements.append(("cluster-ips", str(address)))
                chain, inside = (near, local) if service.internal_local else (whole, self.endpoints)
                if inside:
                    part.elements.append(("service-ips", f"{self.at(address)} : goto {chain}"))
                else:
                    part.elements.append(("no-endpoint-services", self._refusal(self.at(address))))
        if self.external:
            self._expose(part, local, own)
        return part

    def _refusal(self, key: str) -> str:
        """Without any endpoint: reject; with none that the policy allows: drop."""
        name = f"{self.service.key}:{self.port.name}" if self.port.name else self.service.key
        return f'{key} comment "{name}" : {"drop" if self.endpoints else "goto reject-chain"}'

    def _expose(self, part: _Part, local: tuple[Backend, ...], own: IPAddress | None) -> None:
        """What comes by a node port or a load balancer's address."""
        service, ip, chain, whole = self.service, _FAMILIES[self.family][0], f"external-{self.base}", f"service-{self.base}"
        if self.endpoints:
            part.declared.append(f"chain {chain}")
            if service.external_local:
                part.rules += [
                    f'{chain} {ip} saddr {self.pods} goto {whole} comment "short-circuit pod traffic"',
                    f'{chain} fib saddr type local {MASQUERADE} comment "masquerade local traffic"',
                    f'{chain} fib saddr type local goto {whole} comment "short-circuit local traffic"',
                ]
                part.rules += [f"{chain} goto local-{self.base}"] if local else []
            else:
                part.rules += [f"{chain} {MASQUERADE}", f"{chain} goto {whole}"]
        ways = [("services", "service-ips", self.at(address)) for address in self.balancers]
        if self.port.node_port:
            ways.append(("nodeports", "service-nodeports", f"{self.port.protocol} . {self.port.node_port}"))
        for what, leading, key in ways:
            if self.endpoints:
                part.elements.append((leading, f"{key} : goto {chain}"))
            if not (local if service.external_local else self.endpoints):
                part.elements.append((f"no-endpoint-{what}", self._refusal(key)))
        ranges = [net for net in service.source_ranges if net.version == self.family]
        if ranges and self.balancers:
            allowed = [*map(str, ranges)]
            if own is not None and any(own in net for net in ranges):  # a node may have the balancer's address for its own
                allowed += map(str, self.balancers)
            part.declared.append(f"chain firewall-{self.base}")
            part.rules.append(f"firewall-{self.base} {ip} saddr != {{ {', '.join(allowed)} }} drop")
            part.elements += [("firewall-ips", f"{self.at(a)} : goto firewall-{self.base}") for a in self.balancers]

    def _choose(self, part: _Part, chain: str, endpoints: tuple[Backend, ...]) -> None:
        """A chain that draws one of the endpoints; with session affinity the one that the client had before."""
        part.declared.append(f"chain {chain}")
        ip, number = _FAMILIES[self.family][0], len(endpoints)
        if self.service.affinity:
            names = [self._endpoint(one) for one in endpoints]
            part.rules += [f"{chain} {ip} saddr @affinity-{name} goto endpoint-{name}" for name in names]
            drawn = ", ".join(f"{place} : goto endpoint-{name}" for place, name in enumerate(names))
            part.rules.append(f"{chain} numgen random mod {number} vmap {{ {drawn} }}")
        else:
            drawn = ", ".join(f"{place} : {one.address} . {one.port}" for place, one in enumerate(endpoints))
            dnat = f"dnat {ip} to numgen random mod {number} map {{ {drawn} }}"
            part.rules.append(f"{chain} meta l4proto {self.port.protocol} {dnat}")

    def _remember(self, part: _Part, one: Backend) -> None:
        """An endpoint of a Service with session affinity: its clients, and the way to it."""
        name, (ip, kind) = self._endpoint(one), _FAMILIES[self.family]
        flags = f"flags dynamic,timeout ; timeout {self.service.affinity}s ;"
        part.declared += [f"set affinity-{name} {{ type {kind} ; {flags} }}", f"chain endpoint-{name}"]
        to = f"{one.address}:{one.port}" if self.family == 4 else f"[{one.address}]:{one.port}"
        update = f"update @affinity-{name} {{ {ip} saddr }}"
        part.rules += [f"endpoint-{name} {update}", f"endpoint-{name} meta l4proto {self.port.protocol} dnat to {to}"]

    def _endpoint(self, one: Backend) -> str:
        address = str(one.address).replace(":", ".")
        return named(f"{self.service.key}/{self.port.protocol}/{self.port.name}__{address}/{one.port}")


class KubeProxy:
    """The tables of all nodes of one cluster; what all nodes have in common is made once."""

    def __init__(self, cluster: Cluster) -> None:
        self._topology, backends = cluster.topology, Backends(cluster)
        self._ports: dict[int, list[_Port]] = {}
        self._common: dict[int, _Part] = {}
        for family in cluster.topology.families:
            pods = _pods(cluster.topology, family)
            self._ports[family] = found = []
            for service in cluster.topology.objects.services:
                if any(address.version == family for address in service.addresses):
                    for port in service.ports:
                        all_of_them = backends.of(service, port)
                        ready = (one for one in all_of_them if one.ready and one.address.version == family)
                        found.append(_Port(service, port, family, tuple(dict.fromkeys(ready)), pods))

    def tables(self, node: str) -> tuple[NftTable, ...]:
        """One per family of the pods' network."""
        return tuple(self._table(node, family) for family in self._ports)

    def _table(self, node: str, family: int) -> NftTable:
        ip, kind = _FAMILIES[family]
        own, pods = primary(self._topology, node, family), _pods(self._topology, family)
        port = "inet_proto . inet_service : verdict"
        words = {"ip": ip, "kind": kind, "key": f"{kind} . {port}", "port": port, "pods": pods, "masquerade": MASQUERADE}
        declared = _SETS.format(**words).splitlines()
        rules = _RULES.format(**words, services=_services(family)).splitlines()
        elements: dict[str, dict[str, None]] = {"nodeport-ips": {str(own): None} if own else {}, "hairpin-connections": {}}
        for one in self._ports[family]:
            part = self._part(one, node, own)
            declared += part.declared
            rules += part.rules
            for name, element in part.elements:
                elements.setdefault(name, {})[element] = None
            elements["hairpin-connections"].update(dict.fromkeys(one.hairpins(node)))
        commands = []
        for words_ in declared:
            what, _, rest = words_.partition(" ")
            commands.append(f"add {what} {ip} {TABLE} {rest}")
        commands += [f"add rule {ip} {TABLE} {rule}" for rule in rules]
        for name, members in elements.items():
            commands += [f"add element {ip} {TABLE} {name} {{ {', '.join(some)} }}" for some in _batches(list(members))]
        return NftTable(ip, TABLE, tuple(commands))

    def _part(self, one: _Port, node: str, own: IPAddress | None) -> _Part:
        if not one.alike:
            return one.part(node, own)
        if id(one) not in self._common:
            self._common[id(one)] = one.part(node, own)
        return self._common[id(one)]


def tables(cluster: Cluster, node: str) -> tuple[NftTable, ...]:
    """The ``kube-proxy`` tables of a node; none in a cluster without Services."""
    return KubeProxy(cluster).tables(node) if cluster.topology.objects.services else ()


def plan(cluster: Cluster, bridged: Collection[str]) -> State:
    """Services on all nodes; nothing in a cluster that has none.

    On ``bridged`` nodes pods share a bridge, on which an answer goes straight to the client.  Its source is put back only if
    the bridge hands it to netfilter: kubeadm asks for these sysctls, too.  Raises `InputError` where Services and pods, or
    nodes, would have the same addresses.
    """
    topology = cluster.topology
    if not topology.objects.services:
        return {}
    for net in (*topology.pod_cidrs, *(subnet for segment in topology.segments for subnet in segment.subnets)):
        services = _services(net.version)
        if net.overlaps(services):
            raise InputError(f"{net} overlaps {services}, from which Services have their addresses")
    proxy, keys = KubeProxy(cluster), {4: "ip", 6: "ip6"}
    state: dict[str, tuple[KernelObject, ...]] = {}
    for node in cluster.nodes:
        families = topology.families if node.name in bridged else ()
        sysctls = (Sysctl(f"net.bridge.bridge-nf-call-{keys[family]}tables", "1") for family in families)
        state[node.name] = (*sysctls, *proxy.tables(node.name))
    return state


def udp_endpoints(cluster: Cluster) -> dict[tuple[str, int], frozenset[str]]:
    """By each address and port at which a Service takes UDP ("" for a node port), the addresses that serve it.

    Without connections UDP has no end that conntrack could see, so kube-proxy lets entries go that lead to any other address
    (pkg/proxy/conntrack/cleanup.go); TCP to an endpoint that left lives on.
    """
    backends, found = Backends(cluster), dict[tuple[str, int], frozenset[str]]()
    for service in cluster.topology.objects.services:
        for port in service.ports if service.addresses else ():
            if port.protocol == "udp":
                serving = frozenset(str(one.address) for one in backends.of(service, port) if one.ready)
                found.update({(str(address), port.port): serving for address in (*service.addresses, *service.balancer)})
                found.update({("", port.node_port): serving} if port.node_port else {})
    return found


def primary(topology: Topology, node: str, family: int) -> IPAddress | None:
    """A node's own address on its uplink, where its node ports are open."""
    address = topology.underlay_address(node, family)
    return address if address.version == family else None


@lru_cache(maxsize=65536)
def named(name: str) -> str:
    """A chain's name without its prefix: a digest and then the words (hashAndTruncate)."""
    digest = base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:8]
    whole = f"{digest}-{name}"
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 3]}..."


def _services(family: int) -> IPNetwork:
    return next(cidr for cidr in SERVICE_CIDRS if cidr.version == family)


def _pods(topology: Topology, family: int) -> str:
    """The pods' network as nft has it."""
    cidrs = [str(cidr) for cidr in topology.pod_cidrs if cidr.version == family]
    return cidrs[0] if len(cidrs) == 1 else f"{{ {', '.join(cidrs)} }}"


def _batches(members: list[str]) -> Iterator[list[str]]:
    return (members[start : start + _AT_ONCE] for start in range(0, len(members), _AT_ONCE))
