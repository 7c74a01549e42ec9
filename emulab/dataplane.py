"""The plugin contract, and the two ways in which a pod meets its node.

A data plane is one frozen dataclass in one module.  Its fields are its options (``--set vni=7``), its methods are pure:
they see a topology or a cluster and nothing else, least of all the machine.

* `DataPlane.ipam` says how pod addresses are handed out;
* `DataPlane.plan` returns the desired state of every node and pod;
* `DataPlane.wire` says what the underlay will carry between two pods: a promise that the probes check;
* `DataPlane.unenforced` says what it does not do about a policy.
"""

from __future__ import annotations

import hashlib
import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar

from emulab.errors import InputError, nearest
from emulab.ipam.contract import Ipam
from emulab.model import Cluster, Endpoint, IPAddress, IPInterface, IPNetwork, Pod, Topology
from emulab.objects import Policy
from emulab.state import Address, Bridge, BridgePort, KernelObject, RateLimit, Route, State, Sysctl, Up, Veth

EUI64_OF_EE = ipaddress.IPv6Address("fe80::ecee:eeff:feee:eeee")
CALICO_GATEWAY = ipaddress.IPv4Address("169.254.1.1")
CALICO_MAC = "ee:ee:ee:ee:ee:ee"
EVERYWHERE = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}  # a default route's destination


@dataclass(frozen=True)
class File:
    """An option whose value is a file: what a user types is its path, what a plugin sees is its text."""

    path: str
    text: str

    def __str__(self) -> str:
        return self.path


class Folder(str):
    """An option whose value is a folder: an absolute path, or "" where none was given."""


@dataclass(frozen=True)
class Installed:
    """The network configuration that a real data plane puts on a node, and what its plugins hand on to others: the
    configuration by the plugin that does so."""

    conflist: Mapping[str, Any]
    delegates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tunnel:
    """One encapsulated hop across the underlay: outer addresses, destination port and network identifier."""

    source: IPAddress
    destination: IPAddress
    port: int
    vni: int
    kind: str = "vxlan"


@dataclass(frozen=True)
class Wire:
    """What the underlay carries between two pods.

    ``tunnels`` in path order, empty when packets travel as they are; ``ttl_loss`` is by how much the TTL is smaller on
    arrival; ``mtu`` is the largest IP packet in bytes that gets through.
    """

    ttl_loss: int
    mtu: int
    tunnels: tuple[Tunnel, ...] = ()


@dataclass(frozen=True)
class DataPlane(ABC):
    """Base of every plugin.  The module's docstring tells the packet's story; the class' fields are the options."""

    name: ClassVar[str]

    def options(self) -> dict[str, object]:
        """The options with their values, as a report shows them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value.path if isinstance(value, File) else value for name, value in values.items()}

    def check(self, topology: Topology) -> None:  # noqa: B027 (a hook, not a stub: most plugins accept everything)
        """Refuse, by `InputError`, an option or topology that this data plane cannot serve."""

    def check_option(self, option: str, least: int, most: int) -> None:
        """Refuse a number that is not from ``least`` to ``most``."""
        if not least <= getattr(self, option) <= most:
            found = getattr(self, option)
            raise InputError(f"{self.name}: {option} {found} is out of range, {least} to {most} expected")

    def check_choice(self, option: str, choices: Collection[str]) -> None:
        """Refuse a word that is none of ``choices``."""
        found = getattr(self, option)
        if found not in choices:
            raise InputError(f"{self.name}: unknown {option} '{found}'{nearest(found, choices)}")

    @abstractmethod
    def ipam(self, topology: Topology) -> Ipam:
        """A fresh address manager for this topology; the lab keeps it while the cluster changes."""

    @abstractmethod
    def plan(self, cluster: Cluster) -> State:
        """The desired state of every node (under its name) and every pod (under its key)."""

    @abstractmethod
    def wire(self, cluster: Cluster, source: Endpoint, destination: Endpoint, family: int) -> Wire:
        """What the underlay carries from one pod to another."""

    def unenforced(self, policy: Policy) -> str:
        """What of a policy this data plane does not enforce, in words for the user; "" when it enforces all of it."""
        return f"{self.name} enforces no {policy.kind}: nothing is blocked"

    def installed(self, cluster: Cluster, node: str) -> Installed | None:
        """By what CNI configuration the real one attaches pods; None when that is not known."""
        return None

    def target(self, cluster: Cluster, destination: Endpoint, family: int, protocol: str, port: int) -> tuple[IPAddress, int]:
        """Where a pod has to send in order to meet ``destination``: on a flat network, the pod's own address and port."""
        return destination.address(family), port


def sandbox_id(pod: Pod) -> str:
    """The container id of a pod: 64 hex digits as containerd's, and the same each time."""
    return hashlib.sha256(pod.key.encode()).hexdigest()


def cni_arguments(pod: Pod) -> dict[str, str]:
    """CNI_ARGS as the container runtimes of the kubelet give them."""
    names = {"K8S_POD_NAMESPACE": pod.namespace, "K8S_POD_NAME": pod.name}
    return {"IgnoreUnknown": "1", **names, "K8S_POD_INFRA_CONTAINER_ID": sandbox_id(pod)}


def build_cluster(topology: Topology, ipam: Ipam) -> Cluster:
    """Give every node and pod of ``topology`` its addresses: fixed ones first, so that nothing else takes them."""
    for node in topology.nodes:
        ipam.add_node(node.name)
    allocated = {}
    for pod in sorted(topology.pods, key=lambda pod: -len(pod.addresses)):
        allocated[pod.key] = Endpoint(pod, ipam.allocate(pod))
    return Cluster(
        topology,
        ipam.leases(),
        tuple(allocated[pod.key] for pod in topology.pods),
        {node.name: ipam.gateway(node.name) for node in topology.nodes},
    )


def bridged(
    cluster: Cluster,
    node: str,
    *,
    bridge: str,
    mac: str,
    host_end: Callable[[Endpoint], str],
    mtu: int,
    prefix: Callable[[IPAddress], int],
    pod_routes: Callable[[Endpoint], Iterator[KernelObject]],
    always: bool = False,
) -> State:
    """Pods as ports of a bridge that holds their gateway address: Flannel's cni0, Weave's weave.

    ``prefix`` gives the prefix length of an address in the pod network, ``pod_routes`` what a pod's namespace holds
    besides its address.  A node without pods has no bridge, unless ``always``: the CNI plugin makes it at the first ADD.
    """
    endpoints = cluster.endpoints_on(node)
    if not endpoints and not always:
        return {}
    here: list[KernelObject] = [Bridge(bridge, mtu, mac)]
    here += [_pair(e, host_end(e), mtu) for e in endpoints]
    if 6 in cluster.topology.families:
        here.append(Sysctl(f"net.ipv6.conf.{bridge}.accept_ra", "0"))
    here.append(Up(bridge))
    here += [Address(bridge, interface(a, prefix(a))) for a in cluster.gateways[node]]
    for endpoint in endpoints:
        here += [BridgePort(host_end(endpoint), bridge, hairpin=True), Up(host_end(endpoint))]
        here += _limit(host_end(endpoint), endpoint.pod.rates[0])
    state: dict[str, tuple[KernelObject, ...]] = {node: tuple(here)}
    for endpoint in endpoints:
        addresses = [Address("eth0", interface(a, prefix(a))) for a in endpoint.addresses]
        limit = _limit("eth0", endpoint.pod.rates[1])
        state[endpoint.key] = (Up("lo"), *_in_pod(endpoint.addresses), Up("eth0"), *limit, *addresses, *pod_routes(endpoint))
    return state


def routed(cluster: Cluster, node: str, *, host_end: Callable[[Endpoint], str], mtu: int) -> State:
    """Pods as /32 (and /128) neighbours behind proxy ARP: Calico's way, no bridge at all.

    Addresses, routes and sysctls in the order of Calico's CNI plugin (cni-plugin/pkg/dataplane/linux/dataplane_linux.go):
    the pod's gateway 169.254.1.1 exists nowhere, the host end answers for it with ee:ee:ee:ee:ee:ee.
    """
    here: list[KernelObject] = []
    state: dict[str, tuple[KernelObject, ...]] = {}
    for endpoint in cluster.endpoints_on(node):
        pair = _pair(endpoint, host_end(endpoint), mtu, CALICO_MAC)
        at_home, state[endpoint.key] = _routed(pair, endpoint.addresses, endpoint.pod.rates)
        here += at_home
    if here:
        state[node] = tuple(here)
    return state


@lru_cache(maxsize=1 << 14)
def _routed(
    pair: Veth, addresses: tuple[IPAddress, ...], rates: tuple[int, int]
) -> tuple[tuple[KernelObject, ...], tuple[KernelObject, ...]]:
    """What one pod needs on its node, and in its own namespace.  Most pods are the same in the next plan."""
    here: list[KernelObject] = [pair]
    there: list[KernelObject] = [Up("lo"), *_in_pod(addresses), Up("eth0"), *_limit("eth0", rates[1])]
    for address in addresses:
        here += _proxy_sysctls(pair.name, address.version)
    here += [Up(pair.name), *_limit(pair.name, rates[0])]
    for address in addresses:
        here.append(Route(host_network(address), pair.name, link_scope=address.version == 4))
        if address.version == 4:
            there.append(Route(host_network(CALICO_GATEWAY), "eth0", link_scope=True))
            there.append(Route(EVERYWHERE[4], "eth0", CALICO_GATEWAY))
        else:
            there.append(Route(EVERYWHERE[6], "eth0", EUI64_OF_EE))
        there.append(Address("eth0", interface(address, address.max_prefixlen)))
    return tuple(here), tuple(there)


def forwarding(cluster: Cluster) -> list[KernelObject]:
    """The sysctls that make a node a router for the cluster's families."""
    keys = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
    return [Sysctl(keys[family], "1") for family in cluster.topology.families]


def interface(address: IPAddress, prefix: int) -> IPInterface:
    kind = ipaddress.IPv4Interface if address.version == 4 else ipaddress.IPv6Interface
    return kind((int(address), prefix))


def host_network(address: IPAddress) -> IPNetwork:
    """The network of one address, /32 or /128."""
    kind = ipaddress.IPv4Network if address.version == 4 else ipaddress.IPv6Network
    return kind((int(address), address.max_prefixlen))


def room_for(topology: Topology, overhead: int, mtu: int | None, minimum: int) -> int:
    """The pod MTU: ``mtu`` if given, else the smallest uplink MTU minus the encapsulation's ``overhead`` bytes.

    Raises `InputError` when less than ``minimum`` is left (68 for IPv4, RFC 791; 1280 for IPv6, RFC 8200), or when ``mtu``
    does not fit the underlay.
    """
    underlay = topology.underlay_mtu
    room = underlay - overhead
    chosen = room if mtu is None else mtu
    if chosen > room:
        raise InputError(f"mtu {chosen} does not fit: the underlay carries {underlay} bytes, {overhead} of them overhead")
    if chosen < minimum:
        raise InputError(f"MTU too small: {underlay} on the underlay leaves {chosen} bytes to pods, at least {minimum} needed")
    return chosen


def minimum_mtu(topology: Topology) -> int:
    """The least MTU that the pods' families allow (RFC 791, RFC 8200)."""
    return 1280 if 6 in topology.families else 68


def _pair(endpoint: Endpoint, host_end: str, mtu: int, mac: str | None = None) -> Veth:
    return Veth(host_end, "eth0", endpoint.key, endpoint.pod.netns, mtu, mac, endpoint.mac)


def _limit(device: str, rate: int) -> list[KernelObject]:
    """What the bandwidth plugin does, without its ifb device: either end of the pair shapes what it sends."""
    return [RateLimit(device, rate)] if rate else []


def _in_pod(addresses: Iterable[IPAddress]) -> list[KernelObject]:
    """IPv6 addresses are usable at once, as both real plugins arrange it."""
    if any(a.version == 6 for a in addresses):
        return [Sysctl("net.ipv6.conf.eth0.accept_dad", "0")]
    return []


def _proxy_sysctls(device: str, family: int) -> list[KernelObject]:
    if family == 4:
        return [
            Sysctl(f"net.ipv4.conf.{device}.route_localnet", "1"),
            Sysctl(f"net.ipv4.neigh.{device}.proxy_delay", "0"),
            Sysctl(f"net.ipv4.conf.{device}.proxy_arp", "1"),
            Sysctl(f"net.ipv4.conf.{device}.forwarding", "1"),
        ]
    return [
        Sysctl(f"net.ipv6.conf.{device}.accept_ra", "0"),
        Sysctl(f"net.ipv6.conf.{device}.accept_dad", "0"),
        Sysctl(f"net.ipv6.conf.{device}.proxy_ndp", "1"),
        Sysctl(f"net.ipv6.conf.{device}.forwarding", "1"),
    ]
