"""kube-proxy in its nftables mode: how a node turns addresses of Services into those of their endpoints.  Pure.

Chains, sets and their names are those of Kubernetes 1.36 (pkg/proxy/nftables/proxier.go): a packet finds its Service in one
look into a map, however many there are, and the Service's chain draws one of the endpoints.  (Where there are more than a
thousand ports of Services, many share a map of endpoints: see `emulab.kubeproxy.ports`.)  What arrives at an endpoint has its
client's own address, but where the answer would miss this node: from outside of the pods' network to a Service's address,
through node ports and load balancers of policy Cluster, and from a pod to itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from emulab.endpoints import Backends
from emulab.errors import InputError
from emulab.kubeproxy.ports import FAMILIES, MASQUERADE, Backing, Part, Port, named, sharing
from emulab.model import Cluster, IPAddress, IPNetwork, Topology
from emulab.objects import SERVICE_CIDRS, Service, ServicePort
from emulab.state import KernelObject, NftTable, State, Sysctl

TABLE = "kube-proxy"
_MANY = 1000  # ports of Services, above which their endpoints share maps

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


class KubeProxy:
    """The tables of all nodes of one cluster; what all nodes have in common is made once."""

    def __init__(self, cluster: Cluster) -> None:
        self._topology, self._backends = cluster.topology, Backends(cluster)
        self._backings: dict[tuple[int, int], Backing] = {}
        self._common: dict[int, tuple[list[str], list[str], list[str]]] = {}
        self._unlike: dict[int, list[Port]] = {}
        self._behind: dict[int, dict[tuple[int, str], Backing]] = {}
        for family in cluster.topology.families:
            ports = list(self._ports(family))
            if len(ports) > _MANY:
                ports = list(sharing(ports))
            self._unlike[family] = [one for one in ports if not one.alike]
            self._behind[family] = {(id(one.backing), one.port.protocol): one.backing for one in ports}
            ip, part = FAMILIES[family][0], Part()
            for shared, protocol in {one.shared: one.port.protocol for one in ports if one.shared}.items():
                typed = f"typeof numgen random mod 1 : {ip} daddr . {protocol} dport"  # nft has no name for this type
                part.declared.append(f'map {shared} {{ {typed} ; comment "endpoints of many services" ; }}')
            for one in ports:
                if one.alike:
                    one.add(part, "", None)
            self._common[family] = part.commands(f"{ip} {TABLE}")

    def _ports(self, family: int) -> Iterator[Port]:
        pods = _pods(self._topology, family)
        for service in self._topology.objects.services:
            if any(address.version == family for address in service.addresses):
                for port in service.ports:
                    yield Port(service, port, family, self._backing(service, port, family), pods)

    def _backing(self, service: Service, port: ServicePort, family: int) -> Backing:
        """One object for all ports that lead to the same endpoints."""
        found = self._backends.of(service, port)
        key = (id(found), family)
        if key not in self._backings:
            ready = (one for one in found if one.ready and one.address.version == family)
            self._backings[key] = Backing(tuple(dict.fromkeys(ready)))
        return self._backings[key]

    def tables(self, node: str) -> tuple[NftTable, ...]:
        """One per family of the pods' network."""
        return tuple(self._table(node, family) for family in self._common)

    def _table(self, node: str, family: int) -> NftTable:
        ip, kind = FAMILIES[family]
        own, pods = primary(self._topology, node, family), _pods(self._topology, family)
        port = "inet_proto . inet_service : verdict"
        words = {"ip": ip, "kind": kind, "key": f"{kind} . {port}", "port": port, "pods": pods, "masquerade": MASQUERADE}
        base = Part(_SETS.format(**words).splitlines(), _RULES.format(**words, services=_services(family)).splitlines())
        base.elements += [("nodeport-ips", str(own))] if own else []
        for (_, protocol), backing in self._behind[family].items():
            base.elements += [("hairpin-connections", key) for key in backing.hairpins(node, protocol)]
        here = Part()
        for one in self._unlike[family]:
            one.add(here, node, own)
        parts = [base.commands(f"{ip} {TABLE}"), self._common[family], here.commands(f"{ip} {TABLE}")]
        return NftTable(ip, TABLE, tuple(command for kinds in zip(*parts, strict=True) for some in kinds for command in some))


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


def _services(family: int) -> IPNetwork:
    return next(cidr for cidr in SERVICE_CIDRS if cidr.version == family)


def _pods(topology: Topology, family: int) -> str:
    """The pods' network as nft has it."""
    cidrs = [str(cidr) for cidr in topology.pod_cidrs if cidr.version == family]
    return cidrs[0] if len(cidrs) == 1 else f"{{ {', '.join(cidrs)} }}"


__all__ = ["TABLE", "KubeProxy", "named", "plan", "primary", "tables", "udp_endpoints"]
