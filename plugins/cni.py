"""Any real CNI plugin as a data plane: a network configuration, the machine's own binaries, and ways between nodes.

A pod is born as on a real node: its network namespace is made, then the runtime runs the plugins of the node's
/etc/cni/net.d in order, each an executable that reads JSON on stdin and prints a result, and the pod has what they made in
it.  The default is the reference `bridge` with `host-local`: a packet goes to the gateway on the node's bridge cni0, by
a route to the other node (``between=host-gw``) or in a VXLAN tunnel like Flannel's (``between=vxlan``), and over that
node's bridge to the pod: two routers, TTL 62.  With ``between=none`` there is no way to another node's pods but what the
plugins make.

What a configuration says is every node's.  In its strings, ``{{ subnet4 }}`` and the like stand for what differs from
node to node, as it does in the files that real daemons write; `VALUES` names them all.  Sources: SPEC 1.1.0 of
containernetworking/cni; plugins 1.1.1 of containernetworking/plugins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from emulab.cni import config
from emulab.dataplane import (
    EVERYWHERE,
    DataPlane,
    File,
    Folder,
    Tunnel,
    Wire,
    cni_arguments,
    forwarding,
    interface,
    minimum_mtu,
    room_for,
    sandbox_id,
)
from emulab.errors import InputError, nearest
from emulab.ipam.contract import Ipam
from emulab.ipam.host_local import HostLocal
from emulab.model import Cluster, Endpoint, IPNetwork, Pod, Topology, mac_from
from emulab.objects import ContainerPort
from emulab.state import (
    Address,
    CniAttachment,
    CniNetwork,
    FdbEntry,
    KernelObject,
    Neighbor,
    NftTable,
    Route,
    State,
    Sysctl,
    Up,
    Vxlan,
    merge,
)

WAYS = ("vxlan", "host-gw", "none")
VALUES = {
    "subnet4": "the node's piece of the pod network",
    "subnet6": "",
    "gateway4": "the node's own address in it",
    "gateway6": "",
    "first4": "the first usable address of it",
    "first6": "",
    "last4": "the last one",
    "last6": "",
    "cluster4": "the pod network",
    "cluster6": "",
    "default4": "0.0.0.0/0, where pods have IPv4",
    "default6": "::/0, where they have IPv6",
    "node": "the node's name",
    "uplink": "its interface to the other nodes",
    "mtu": "what fits through everything between pods, in bytes",
}
_FIELD = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_LEFT_OUT = object()
_LINK = ("macvlan", "ipvlan", "vlan")  # pods are on the uplink's own link, or a VLAN of it
_ROUTED = ("ptp",)
_VXLAN = {4: 50, 6: 70}  # bytes, by the outer header's family
_BRIDGED = """{
  "cniVersion": "1.0.0",
  "name": "podnet",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "mtu": "{{ mtu }}",
      "capabilities": {"ips": true},
      "ipam": {
        "type": "host-local",
        "ranges": [
          [{"subnet": "{{ subnet4 }}", "gateway": "{{ gateway4 }}"}],
          [{"subnet": "{{ subnet6 }}", "gateway": "{{ gateway6 }}"}]
        ]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}
  ]
}"""


@dataclass(frozen=True)
class Cni(DataPlane):
    """``conflist``: a file.  ``bin``: a folder of plugins.  ``mtu``: what ``{{ mtu }}`` is.  ``masquerade``: pods take their
    node's address towards the outside, as ip-masq-agent has it.
    """

    name: ClassVar[str] = "cni"
    conflist: File = File("bridge", _BRIDGED)  # noqa: RUF009 (frozen)
    bin: Folder = Folder()  # noqa: RUF009 (immutable)
    between: str = "vxlan"
    vni: int = 1
    port: int = 8472
    mtu: int | None = None
    masquerade: bool = True

    def check(self, topology: Topology) -> None:
        self.check_choice("between", WAYS)
        self.check_option("vni", 1, 2**24 - 1)
        self.check_option("port", 1, 65535)
        for family in topology.families:
            if self.between == "host-gw" and topology.outer_family(family) != family:
                raise InputError(f"cni: host-gw needs an IPv{family} underlay address on every node")
            self._mtu(topology)
        self._network()

    def _network(self) -> config.NetworkList:
        found = config.read(self.conflist.text, self.conflist.path)
        for name in _named(dict(found.raw)):
            if name not in VALUES:
                raise InputError(f"no value '{name}' to put in{nearest(name, VALUES)}", self.conflist.path)
        return found

    def ipam(self, topology: Topology) -> Ipam:
        return HostLocal(topology)

    def plan(self, cluster: Cluster) -> State:
        network = self._network()
        nodes = merge(*(self._node(cluster, node.name, network) for node in cluster.nodes))
        return merge(nodes, {endpoint.key: self._pod(cluster) for endpoint in cluster.endpoints})

    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        topology, here, there = cluster.topology, source.node, destination.node
        kind = self._network().plugins[0].type
        if here == there or kind in _LINK:
            return Wire(int(kind in _ROUTED), self._mtu(topology))
        if self.between != "vxlan":
            return Wire(2, self._mtu(topology))
        outer = topology.outer_family(family)
        ends = topology.underlay_address(here, outer), topology.underlay_address(there, outer)
        return Wire(2, self._mtu(topology, outer), (Tunnel(*ends, self.port, self.vni),))

    def _mtu(self, topology: Topology, outer: int = 4) -> int:
        """What is for pods, or the MTU of the tunnel device with outer headers of this family."""
        overhead, least = (_VXLAN if self.between == "vxlan" else {4: 0, 6: 0}), minimum_mtu(topology)
        return min(room_for(topology, overhead[4], self.mtu, least), room_for(topology, overhead[outer], None, least))

    def _pod(self, cluster: Cluster) -> tuple[KernelObject, ...]:
        """What there is before plugins come: containerd sets lo up, and IPv6 addresses shall be usable at once."""
        quick = (Sysctl("net.ipv6.conf.default.accept_dad", "0"),) if 6 in cluster.topology.families else ()
        return (Up("lo"), *quick)

    def _node(self, cluster: Cluster, node: str, network: config.NetworkList) -> State:
        topology = cluster.topology
        leases = {int(lease.network.version): lease.network for lease in cluster.leases_of(node)}
        objects = forwarding(cluster)
        if 6 in leases:
            objects.append(Sysctl("net.ipv6.conf.default.accept_dad", "0"))
        if self.between == "vxlan":
            objects += self._vteps(topology, node, leases)
        if self.masquerade:
            objects += [_masquerade(topology, family) for family in leases]
        for lease in cluster.leases:
            if lease.node != node:
                objects += self._to_lease(topology, node, lease.node, lease.network)
        text = json.dumps(_filled(dict(network.raw), self._values(cluster, node)), indent=2)
        config.read(text, f"{self.conflist.path} on {node}")
        objects.append(CniNetwork(network.name, text, self.bin))
        capable = frozenset[str]().union(*(plugin.capabilities for plugin in network.plugins))
        objects += [_attachment(network.name, e.pod, leases, capable) for e in cluster.endpoints_on(node)]
        return {node: tuple(dict.fromkeys(objects))}

    def _values(self, cluster: Cluster, node: str) -> Mapping[str, str | int]:
        topology = cluster.topology
        values: dict[str, str | int] = {"node": node, "uplink": topology.uplink(node).interface, "mtu": self._mtu(topology)}
        for lease in cluster.leases_of(node):
            net, family = lease.network, lease.network.version
            values |= {
                f"subnet{family}": str(net),
                f"gateway{family}": str(cluster.gateway(node, family) or net[1]),
                f"first{family}": str(net[1]),
                f"last{family}": str(net[-2]),
                f"cluster{family}": str(cluster.pod_cidr(family)),
                f"default{family}": str(EVERYWHERE[family]),
            }
        return values

    def _device(self, outer: int) -> str:
        return f"vxlan{'-v6' if outer == 6 else ''}.{self.vni}"

    def _vteps(self, topology: Topology, node: str, leases: dict[int, IPNetwork]) -> Iterator[KernelObject]:
        """As Flannel's: a device per outer family, the leases' first addresses, and nothing learned."""
        for outer in sorted({topology.outer_family(family) for family in leases}):
            name, uplink, local = self._device(outer), topology.uplink(node), topology.underlay_address(node, outer)
            mtu = self._mtu(topology, outer)
            yield Vxlan(name, self.vni, local, uplink.interface, self.port, mtu=mtu, mac=mac_from(name, node))
            yield Sysctl(f"net.ipv6.conf.{name.replace('.', '/')}.accept_ra", "0")
            for family, lease in leases.items():
                if topology.outer_family(family) == outer:
                    yield Address(name, interface(lease.network_address, lease.max_prefixlen))
            yield Up(name)

    def _to_lease(self, topology: Topology, node: str, peer: str, lease: IPNetwork) -> Iterator[KernelObject]:
        outer = topology.outer_family(lease.version)
        name, underlay = self._device(outer), topology.underlay_address(peer, outer)
        if self.between == "vxlan":
            yield Neighbor(name, lease.network_address, mac_from(name, peer))
            yield FdbEntry(name, mac_from(name, peer), underlay)
            yield Route(lease, name, lease.network_address, onlink=True)
        elif self.between == "host-gw" and topology.near(node, peer):
            yield Route(lease, topology.uplink(node).interface, underlay)


def _attachment(network: str, pod: Pod, leases: Mapping[int, IPNetwork], capable: frozenset[str]) -> CniAttachment:
    """As containerd does it for the kubelet."""
    wanted: dict[str, Any] = {}
    if pod.addresses and "ips" in capable:
        wanted["ips"] = [f"{address}/{leases[address.version].prefixlen}" for address in pod.addresses]
    published = [_mapping(port) for port in pod.ports if port.host_port]
    if published and "portMappings" in capable:
        wanted["portMappings"] = published
    if any(pod.rates) and "bandwidth" in capable:
        ways = dict(zip(("ingress", "egress"), pod.rates, strict=True))
        wanted["bandwidth"] = {
            f"{way}{what}": value for way, rate in ways.items() for what, value in (("Rate", rate), ("Burst", _burst(rate)))
        }
    return CniAttachment(
        network, pod.key, pod.netns, sandbox_id(pod), "eth0", tuple(cni_arguments(pod).items()), json.dumps(wanted)
    )


def _mapping(port: ContainerPort) -> dict[str, Any]:
    bound = {"hostIP": port.host_ip} if port.host_ip else {}
    return {"hostPort": port.host_port, "containerPort": port.number, "protocol": port.protocol, **bound}


def _burst(rate: int) -> int:
    """In bits: two full frames with offload (64 KiB each), or 10 ms of the rate."""
    return max(2 * 65536 * 8, rate // 100) if rate else 0


def _masquerade(topology: Topology, family: int) -> NftTable:
    ip, multicast = ("ip", "224.0.0.0/4") if family == 4 else ("ip6", "ff00::/8")
    cidrs = ", ".join(str(cidr) for cidr in topology.pod_cidrs if cidr.version == family)
    rules = [f"{ip} daddr {{ {cidrs}, {multicast} }} return", f"{ip} saddr {{ {cidrs} }} masquerade fully-random"]
    return NftTable.of(ip, f"masq-agent-v{family}", {"postrouting { type nat hook postrouting priority srcnat ; }": rules})


def _named(value: Any) -> Iterator[str]:
    """The values that a configuration asks for."""
    if isinstance(value, str):
        yield from _FIELD.findall(value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)


def _filled(value: Any, values: Mapping[str, str | int]) -> Any:
    """``value`` with strings filled in; one that is nothing but a number's field becomes the number.

    What asks for a family that the pods do not have is left out with the innermost element of a list that it is in.
    """
    if isinstance(value, str):
        names = _FIELD.findall(value)
        if any(name not in values for name in names):
            return _LEFT_OUT
        whole = _FIELD.fullmatch(value)
        return values[whole[1]] if whole and len(names) == 1 else _FIELD.sub(lambda found: str(values[found[1]]), value)
    if isinstance(value, dict):
        filled = {key: _filled(inner, values) for key, inner in value.items()}
        return _LEFT_OUT if any(one is _LEFT_OUT for one in filled.values()) else filled
    if isinstance(value, list):
        found = [one for one in (_filled(inner, values) for inner in value) if one is not _LEFT_OUT]
        return _LEFT_OUT if value and not found else found
    return value
