"""Flannel: a router per node, and VXLAN (or, with ``backend=host-gw``, nothing at all) to every other node.

A packet's story: the pod sends to its gateway, the node's bridge cni0.  The node routes the destination's lease "via"
the other node's VTEP 10.244.2.0, whose MAC is a permanent neighbour and whose place is a permanent FDB entry.  In UDP
(port 8472, VNI 1) the frame reaches that node, which unwraps, routes and bridges it to the pod: two routers, TTL 62.
Per remote node one route, one neighbour, one FDB entry; per remote pod nothing.

flanneld's control plane (leases in node objects, VTEP MACs in annotations) appears as its converged result.  Sources:
flannel-io/flannel pkg/backend/{vxlan,hostgw}, pkg/trafficmngr/nftables (``EnableNFTables: true``), and the bridge
plugin of containernetworking/plugins 1.1.1.  Two things differ here.  flannel takes off 50 bytes even where the outer
header is IPv6 and 70 are needed, and loses full-size packets; emulab's flannel-v6.1 has 20 bytes less than the pods, so
that the node tells the sender.  Where nodes lack underlay addresses of a pod family, flannel refuses; here the other
family's device carries both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from emulab.dataplane import EVERYWHERE, DataPlane, Installed, Tunnel, Wire, bridged, forwarding, interface, minimum_mtu, room_for
from emulab.errors import InputError
from emulab.ipam.contract import Ipam
from emulab.ipam.host_local import HostLocal
from emulab.model import Cluster, Endpoint, IPNetwork, Topology, mac_from, mac_of
from emulab.objects import Policy
from emulab.state import Address, FdbEntry, KernelObject, Neighbor, NftTable, Route, State, Sysctl, Up, Vxlan, merge

BACKENDS = {"vxlan": {4: 50, 6: 70}, "host-gw": {4: 0, 6: 0}}  # overhead in bytes, by the outer header's family


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
        self.check_choice("backend", BACKENDS)
        self.check_option("vni", 1, 2**24 - 1)
        self.check_option("port", 1, 65535)
        for family in topology.families:
            outer = topology.outer_family(family)
            if self.backend == "host-gw" and outer != family:
                raise InputError(f"flannel: host-gw needs an IPv{family} underlay address on every node")
            self._mtu(topology, outer)

    def ipam(self, topology: Topology) -> Ipam:
        return HostLocal(topology)

    def plan(self, cluster: Cluster) -> State:
        return merge(*(self._node(cluster, node.name) for node in cluster.nodes))

    def unenforced(self, policy: Policy) -> str:
        others = "kube-network-policies or Calico" if policy.kubernetes else "Calico"
        return f"{super().unenforced(policy)} ({others} beside it would)"

    def installed(self, cluster: Cluster, node: str) -> Installed:
        """As kube-flannel.yml has it; the flannel plugin hands on to bridge what flanneld wrote to /run/flannel/subnet.env."""
        leases = [str(lease.network) for lease in cluster.leases_of(node)]
        bridge = {
            "type": "bridge",
            "hairpinMode": True,
            "isGateway": True,
            "isDefaultGateway": True,
            "ipMasq": False,
            "mtu": self._mtu(cluster.topology),
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": lease}] for lease in leases],
                "routes": [{"dst": str(cidr)} for cidr in cluster.topology.pod_cidrs],
            },
        }
        flannel = {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return Installed({"cniVersion": "0.3.1", "name": "cbr0", "plugins": [flannel, portmap]}, {"flannel": bridge})

    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        topology, here, there = cluster.topology, source.node, destination.node
        if here == there or self._plain(topology, here, there, family):
            return Wire(0 if here == there else 2, self._mtu(topology))
        outer = topology.outer_family(family)
        ends = topology.underlay_address(here, outer), topology.underlay_address(there, outer)
        return Wire(2, self._mtu(topology, outer), (Tunnel(*ends, self.port, self.vni),))

    def _plain(self, topology: Topology, here: str, there: str, family: int) -> bool:
        """Whether packets between two nodes travel as they are: the routing table, which knows of no cut, decides."""
        near = topology.near(here, there)
        return self.backend == "host-gw" or (self.direct_routing and near and topology.outer_family(family) == family)

    def _mtu(self, topology: Topology, outer: int = 4) -> int:
        """The pods' MTU, or that of the device with outer headers of this family."""
        overhead, least = BACKENDS[self.backend], minimum_mtu(topology)
        return min(room_for(topology, overhead[4], self.mtu, least), room_for(topology, overhead[outer], None, least))

    def _device(self, outer: int) -> str:
        return f"flannel{'-v6' if outer == 6 else ''}.{self.vni}"

    def _node(self, cluster: Cluster, node: str) -> State:
        topology = cluster.topology
        leases = {int(lease.network.version): lease.network for lease in cluster.leases_of(node)}
        objects = forwarding(cluster)
        if self.backend == "vxlan":
            objects += self._vteps(topology, node, leases)
        objects += [_masquerade(topology, lease) for lease in leases.values()]
        for lease in cluster.leases:
            if lease.node != node:
                objects += self._to_lease(topology, node, lease.node, lease.network)
        pod_routes = [
            Route(network, "eth0", cluster.gateway(node, network.version))
            for network in (*topology.pod_cidrs, *(EVERYWHERE[family] for family in leases))
            if network not in leases.values()  # that route came with the address
        ]
        pods = bridged(
            cluster,
            node,
            bridge="cni0",
            mac=mac_of(cluster.gateways[node][0], "0a:58"),
            host_end=lambda endpoint: f"veth{endpoint.digest(8)}",
            mtu=self._mtu(topology),
            prefix=lambda address: leases[address.version].prefixlen,
            pod_routes=lambda _: iter(pod_routes),
        )
        return merge({node: tuple(dict.fromkeys(objects))}, pods)  # families on one device share the FDB entries

    def _vteps(self, topology: Topology, node: str, leases: dict[int, IPNetwork]) -> Iterator[KernelObject]:
        """A device per outer family, with the leases' first addresses as /32 and /128, which bring no route along."""
        for outer in sorted({topology.outer_family(family) for family in leases}):
            name, uplink, local = self._device(outer), topology.uplink(node), topology.underlay_address(node, outer)
            mtu, mac = self._mtu(topology, outer), mac_from(name, node)
            yield Vxlan(name, self.vni, local, uplink.interface, self.port, mtu=mtu, mac=mac)
            yield Sysctl(f"net.ipv6.conf.{name.replace('.', '/')}.accept_ra", "0")
            for family, lease in leases.items():
                if topology.outer_family(family) == outer:
                    yield Address(name, interface(lease.network_address, lease.max_prefixlen))
            yield Up(name)

    def _to_lease(self, topology: Topology, node: str, peer: str, lease: IPNetwork) -> Iterator[KernelObject]:
        outer, uplink = topology.outer_family(lease.version), topology.uplink(node)
        name, underlay = self._device(outer), topology.underlay_address(peer, outer)
        if not self._plain(topology, node, peer, lease.version):
            yield Neighbor(name, lease.network_address, mac_from(name, peer))
            yield FdbEntry(name, mac_from(name, peer), underlay)
            yield Route(lease, name, lease.network_address, onlink=True)
        elif topology.near(node, peer):
            yield Route(lease, uplink.interface, underlay)
        # else the kernel refuses a gateway that is not on the link: the packets take the default route into nowhere


def _masquerade(topology: Topology, lease: IPNetwork) -> NftTable:
    """Pods keep their address among themselves and take the node's towards the rest; rule 4 leaves rule 6 nothing."""
    ip, multicast = ("ip", "224.0.0.0/4") if lease.version == 4 else ("ip6", "ff00::/8")
    cidrs = [str(cidr) for cidr in topology.pod_cidrs if cidr.version == lease.version]
    pods = cidrs[0] if len(cidrs) == 1 else f"{{ {', '.join(cidrs)} }}"
    forward = [f"{ip} saddr {pods} accept", f"{ip} daddr {pods} accept"]
    postrtg = [
        "meta mark 0x4000 return",
        f"{ip} saddr {lease} {ip} daddr {pods} return",
        f"{ip} saddr {pods} {ip} daddr {lease} return",
        f"{ip} saddr != {lease} {ip} daddr {pods} return",
        f"{ip} saddr {pods} {ip} daddr != {multicast} masquerade fully-random",
        f"{ip} saddr != {pods} {ip} daddr {pods} masquerade fully-random",
    ]
    chains = {"forward { type filter hook forward priority filter ; }": forward}
    chains["postrtg { type nat hook postrouting priority srcnat ; }"] = postrtg
    return NftTable.of(ip, f"flannel-ipv{lease.version}", chains)
