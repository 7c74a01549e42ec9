"""What a pod network is not: Docker's default bridge on every node, with addresses that mean nothing elsewhere.

A packet's story: a pod cannot know the address of a pod on another node, so it sends to that node's address and a port
published there.  Its own node masquerades it (first rewrite: the source), the other node finds the published port and
sends it to the pod (second rewrite: destination and port).  The pod sees a node as its peer, on a port of which the
sender knows nothing; the reply is rewritten back, twice.  ICMP has no ports, so that the node answers a ping itself.
Among the pods of one node the published port works, too, by a third rewrite (the bridge's address as the source, else
the reply would not come back through the node), though there they also reach each other directly.

Kubernetes forbids all of this; emulab carries it as the counterpart that its checks must find.  Tables, chains and the
order of rules are those of Docker Engine 28.5 with ``firewall-backend: nftables`` and without userland proxy (moby,
integration/network/bridge/nftablesdoc), less the filters and the maps that find a bridge among many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emulab.dataplane import EVERYWHERE, DataPlane, Wire, bridged, forwarding, minimum_mtu, room_for
from emulab.errors import InputError
from emulab.ipam.contract import Ipam
from emulab.ipam.host_local import HostLocal
from emulab.model import Cluster, Endpoint, IPAddress, IPNetwork, Topology, mac_of
from emulab.state import NftTable, Route, State, merge


@dataclass(frozen=True)
class Nat(DataPlane):
    """A node's first pod has its ``port`` (TCP and UDP) published as the node's port ``published``, the next as the
    following one and so on; ``mtu`` None: the smallest uplink's."""

    name: ClassVar[str] = "nat"
    port: int = 8080
    published: int = 30000
    mtu: int | None = None

    def check(self, topology: Topology) -> None:
        for option in ("port", "published"):
            self.check_option(option, 1, 65535)
        for node in topology.nodes:
            last = self.published + sum(pod.node == node.name for pod in topology.pods) - 1
            if last > 65535:
                raise InputError(f"nat: node {node.name} would publish ports up to {last}, at most 65535 expected")
            for family in topology.families:
                if topology.underlay_address(node.name, family).version != family:
                    raise InputError(f"nat: node {node.name} needs an IPv{family} underlay address for its pods")
        self._mtu(topology)

    def ipam(self, topology: Topology) -> Ipam:
        return HostLocal(topology)

    def plan(self, cluster: Cluster) -> State:
        return merge(*(self._node(cluster, node.name) for node in cluster.nodes))

    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        """Plain packets; TTL loss as on the way through published ports."""
        return Wire(1 if source.node == destination.node else 2, self._mtu(cluster.topology))

    def target(self, cluster: Cluster, destination: Endpoint, family: int, protocol: str, port: int) -> tuple[IPAddress, int]:
        """The node's address, and the pod's published port; ICMP and ports that are not published stay as they are."""
        address = cluster.topology.underlay_address(destination.node, family)
        if protocol == "icmp" or port != self.port:
            return address, port
        return address, self.published + cluster.endpoints_on(destination.node).index(destination)

    def _mtu(self, topology: Topology) -> int:
        return room_for(topology, 0, self.mtu, minimum_mtu(topology))

    def _node(self, cluster: Cluster, node: str) -> State:
        leases = {int(lease.network.version): lease.network for lease in cluster.leases_of(node)}
        pods = bridged(
            cluster,
            node,
            bridge="docker0",
            mac=mac_of(cluster.gateways[node][0], "02:42"),
            host_end=lambda endpoint: f"veth{endpoint.digest(7)}",
            mtu=self._mtu(cluster.topology),
            prefix=lambda address: leases[address.version].prefixlen,
            pod_routes=lambda _: (Route(EVERYWHERE[f], "eth0", cluster.gateway(node, f)) for f in leases),
        )
        tables = [self._table(cluster, node, lease) for lease in leases.values()]
        return merge({node: tuple(forwarding(cluster))}, pods, {node: tuple(tables)})

    def _table(self, cluster: Cluster, node: str, lease: IPNetwork) -> NftTable:
        ip, family = ("ip", 4) if lease.version == 4 else ("ip6", 6)
        local = f"{ip} daddr {cluster.topology.underlay_address(node, family)} jump nat-prerouting-and-output"
        publish = []
        for number, endpoint in enumerate(cluster.endpoints_on(node), self.published):
            address = endpoint.address(family)
            socket = f"{address}:{self.port}" if family == 4 else f"[{address}]:{self.port}"
            publish.append(f"meta l4proto {{ tcp, udp }} th dport {number} dnat to {socket}")
        masquerade = [
            f'{ip} saddr {lease} oifname != "docker0" masquerade',
            f'{ip} saddr {lease} oifname "docker0" ct status dnat masquerade',
        ]
        chains = {
            "nat-prerouting-and-output": publish,
            "nat-PREROUTING { type nat hook prerouting priority dstnat ; }": [local],
            "nat-OUTPUT { type nat hook output priority -100 ; }": [local],
            "nat-POSTROUTING { type nat hook postrouting priority srcnat ; }": masquerade,
        }
        return NftTable.of(ip, "docker-bridges", chains)
