"""What namespaces share and nodes would not: kept from overflowing while a large cluster is probed.

All namespaces of a machine share one neighbour table, whose limit (net.ipv4.neigh.default.gc_thresh3, 1024 entries by
default) real nodes have each for themselves.  Beyond it the kernel drops packets, and cold ARP grows with the cube of the
pods.  So in a large cluster the entries that traffic would create are entered beforehand, as externally learned: those do
not count.  What a data plane has entered itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from emulab.errors import KernelError
from emulab.kernel import applier, encode
from emulab.kernel.namespaces import Namespaces
from emulab.kernel.netlink import NetlinkError, Request
from emulab.model import Cluster, Endpoint, IPAddress, IPNetwork, mac_of
from emulab.state import Address, Bridge, KernelObject, Route, State, Sysctl, Veth

_MANY_PAIRS = 100_000
_PLENTY = 150  # entries of one family, far from every default limit


def prime(namespaces: Namespaces, cluster: Cluster, plan: State) -> None:
    """Enter what would be learned, if it would be much."""
    near = {endpoint.key: _networks(plan[endpoint.key]) for endpoint in cluster.endpoints}
    by_networks: dict[tuple[IPNetwork, ...], list[Endpoint]] = {}
    for networks in near.values():
        if networks not in by_networks:
            by_networks[networks] = [e for e in cluster.endpoints if any(a in n for a in e.addresses for n in networks)]
    total = sum(len(by_networks[networks]) for networks in near.values()) + 2 * len(cluster.endpoints)
    if total + len(cluster.nodes) ** 2 < _PLENTY:
        return
    on_link: dict[tuple[int, tuple[IPNetwork, ...]], list[Request]] = {}
    for endpoint in cluster.endpoints:
        namespace, networks = namespaces[endpoint.key], near[endpoint.key]
        key = (namespace.links["eth0"], networks)
        if key not in on_link:
            on_link[key] = [
                encode.extern_learned(namespace, "eth0", address, other.mac)
                for other in by_networks[networks]
                for address in other.addresses
            ]
        gateways = [
            encode.extern_learned(namespace, "eth0", address, mac)
            for address, mac in _gateways(plan[endpoint.node], plan[endpoint.key], endpoint)
        ]
        namespace.socket().execute([*on_link[key], *gateways])
    for node in cluster.nodes:
        namespace = namespaces[node.name]
        for device, address, mac in _of_node(cluster, plan, node.name):
            try:
                namespace.socket().execute([encode.extern_learned(namespace, device, address, mac)])
            except NetlinkError:
                continue  # a device that takes no neighbours


@contextmanager
def brief_conntrack(namespaces: Namespaces, cluster: Cluster) -> Iterator[None]:
    """Meanwhile, nodes forget a UDP flow after a second instead of half a minute.

    The connections of all namespaces are in one hash table; the two million of a thousand pods would make it ten times slower.
    """
    if len(cluster.endpoints) ** 2 < _MANY_PAIRS:
        yield
        return
    for seconds in ("1", "30"):
        for node in cluster.nodes:
            with suppress(KernelError):  # hidden from an ordinary user's namespaces by some kernels
                applier.add(namespaces, {node.name: (Sysctl("net.netfilter.nf_conntrack_udp_timeout", seconds),)})
        if seconds == "1":
            yield


def _networks(objects: tuple[KernelObject, ...]) -> tuple[IPNetwork, ...]:
    """The networks that are on a pod's own link."""
    networks = (thing.address.network for thing in objects if isinstance(thing, Address) and thing.device == "eth0")
    return tuple(network for network in networks if network.num_addresses > 1)


def _gateways(
    node: tuple[KernelObject, ...], pod: tuple[KernelObject, ...], endpoint: Endpoint
) -> Iterator[tuple[IPAddress, str]]:
    """A pod's next hops with their MACs: the bridge's that holds the address, else the host end's, which answers for all."""
    bridges = {thing.name: thing.mac for thing in node if isinstance(thing, Bridge)}
    holders = {thing.address.ip: bridges.get(thing.device) for thing in node if isinstance(thing, Address)}
    host_end = next((thing.mac for thing in node if isinstance(thing, Veth) and thing.peer_namespace == endpoint.key), None)
    for route in pod:
        if isinstance(route, Route) and route.via is not None:
            mac = holders.get(route.via) or host_end
            if mac:
                yield route.via, mac


def _of_node(cluster: Cluster, plan: State, node: str) -> Iterator[tuple[str, IPAddress, str]]:
    """A node's own pods, those on its link, and its peers on the underlay: (device, address, MAC)."""
    topology = cluster.topology
    uplink = topology.uplink(node)
    for peer in topology.peers(node):
        if topology.uplink(peer.name).segment == uplink.segment:
            addresses = topology.uplink(peer.name).addresses
            for address in addresses:
                yield uplink.interface, address.ip, mac_of(addresses[0].ip, "02:00")
    routed = {
        route.destination.network_address: route.device
        for route in plan[node]
        if isinstance(route, Route) and route.destination.num_addresses == 1 and route.via is None and route.device
    }
    bridged = [(thing.address.network, thing.device) for thing in plan[node] if isinstance(thing, Address)]
    for endpoint in cluster.endpoints:
        for own in endpoint.addresses:
            device = routed.get(own) or next((name for network, name in bridged if own in network), None)
            if device:
                yield device, own, endpoint.mac
