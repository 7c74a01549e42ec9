"""Ports of pods that are published on their nodes (hostPort), as the CNI plugin portmap does it, in nftables.  Pure.

What a node gets for its own address (or `hostIP`) at the port goes to the pod, from anywhere; the pod sees its client's own
address, but where the answer would not come back through the node: from the pods on its own link, itself among them, and
from 127.0.0.1.  Source: plugins/meta/portmap of containernetworking/plugins, `snat` true.  Like portmap, the first pod of a
node that claims a port has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from emulab.model import Cluster, Endpoint, IPAddress
from emulab.objects import ContainerPort
from emulab.state import Address, Bridge, KernelObject, NftTable, State, Sysctl

TABLE = "cni-hostport"


def plan(cluster: Cluster, pods: State) -> State:
    """The tables of the nodes on which something is published; ``pods`` is the planned state of the data plane."""
    state: dict[str, tuple[KernelObject, ...]] = {}
    for node in cluster.nodes:
        tables = [table for family in cluster.topology.families if (table := _table(cluster, pods, node.name, family))]
        if tables:
            bridges = [thing.name for thing in pods.get(node.name, ()) if isinstance(thing, Bridge)]
            local = [Sysctl(f"net.ipv4.conf.{name}.route_localnet", "1") for name in bridges if 4 in cluster.topology.families]
            state[node.name] = (*local, *tables)
    return state


def published(cluster: Cluster, node: str, protocol: str, port: int, address: IPAddress) -> tuple[Endpoint, ContainerPort] | None:
    """Which pod has a port of a node's ``address``, and which of its own it is."""
    for endpoint, one in _ports(cluster, node, address.version):
        if (one.protocol, one.host_port) == (protocol, port) and _bound(one) in (None, address):
            return endpoint, one
    return None


def _ports(cluster: Cluster, node: str, family: int) -> Iterator[tuple[Endpoint, ContainerPort]]:
    for endpoint in cluster.endpoints_on(node):
        if any(address.version == family for address in endpoint.addresses):
            for port in endpoint.pod.ports:
                bound = _bound(port)
                if port.host_port and (bound is None or bound.version == family):
                    yield endpoint, port


def _bound(port: ContainerPort) -> IPAddress | None:
    """The only address at which a port is published."""
    address = ip_address(port.host_ip) if port.host_ip else None
    return None if address is None or address.is_unspecified else address


def _table(cluster: Cluster, pods: State, node: str, family: int) -> NftTable | None:
    found = list(_ports(cluster, node, family))
    if not found:
        return None
    ip, localhost = ("ip", "127.0.0.1") if family == 4 else ("ip6", "::1")
    mapped, masked = [], []
    for endpoint, port in found:
        own, bound = endpoint.address(family), _bound(port)
        to = f"{own}:{port.number}" if family == 4 else f"[{own}]:{port.number}"
        where = f"{ip} daddr {bound} " if bound else ""
        mapped.append(f"{where}{port.protocol} dport {port.host_port} dnat to {to}")
        link = next(
            (t.address.network for t in pods.get(endpoint.key, ()) if isinstance(t, Address) and t.address.ip == own), own
        )
        masked.append(f"ct status dnat {ip} saddr {{ {localhost}, {link} }} {ip} daddr {own} masquerade fully-random")
    chains = {
        "hostports": mapped,
        "prerouting { type nat hook prerouting priority dstnat ; }": ["fib daddr type local jump hostports"],
        "output { type nat hook output priority -100 ; }": ["fib daddr type local jump hostports"],
        "postrouting { type nat hook postrouting priority srcnat ; }": list(dict.fromkeys(masked)),
    }
    return NftTable.of(ip, TABLE, chains)
