"""From a topology and a data plane to an addressed cluster and its desired state: pure, and guarded.

A plugin is somebody's code: whatever it raises becomes one line that says where.
"""

from __future__ import annotations

import copy
import ipaddress
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from emulab import fabric, hostports, kubeproxy
from emulab.dataplane import DataPlane, build_cluster
from emulab.errors import EmulabError, InputError, PluginError
from emulab.ipam.contract import Ipam
from emulab.ipam.host_local import HostLocal
from emulab.model import Cluster, Endpoint, IPAddress, Pod, Topology
from emulab.state import Bridge, Cni, Device, KernelObject, State, Veth, merge

T = TypeVar("T")
_NAME_BYTES = 15  # IFNAMSIZ - 1, linux/if.h


@dataclass(frozen=True)
class Design:
    """A cluster with everything decided: who has which address, and what every namespace shall hold.

    ``plan`` is the part of the data plane and of Services; ``ipam`` is never changed, only copied.
    """

    plane: DataPlane
    ipam: Ipam
    cluster: Cluster
    plan: State
    adopted: State = field(default_factory=dict)  # what CNI plugins have made of it, as it was found afterwards
    lacking: frozenset[tuple[str, KernelObject]] = frozenset()  # and what they have taken away of what comes by itself

    @property
    def topology(self) -> Topology:
        return self.cluster.topology

    @cached_property
    def desired(self) -> State:
        """The state of all namespaces that exist, underlay and data plane: nodes that are switched off have none."""
        off = {node.name for node in self.topology.nodes if not node.running}
        off |= {endpoint.key for endpoint in self.cluster.endpoints if endpoint.node in off}
        whole = merge(fabric.plan(self.topology), self.plan)
        return {namespace: objects for namespace, objects in whole.items() if namespace not in off}

    @cached_property
    def made(self) -> State:
        """The plan with what its attachments have become."""
        if not self.adopted and not attached(self.plan):
            return self.plan
        plain = {name: tuple(thing for thing in objects if not isinstance(thing, Cni)) for name, objects in self.plan.items()}
        return merge(plain, self.adopted)

    @cached_property
    def real(self) -> State:
        """`desired` with what its attachments have become: what the kernel should hold."""
        if self.made is self.plan:
            return self.desired
        whole = merge(fabric.plan(self.topology), self.made)
        return {namespace: objects for namespace, objects in whole.items() if namespace in self.desired}

    @property
    def places(self) -> dict[str, tuple[str, str]]:
        """The node of each pod, and the name under which the node's `ip netns` knows it."""
        return {endpoint.key: (endpoint.node, endpoint.pod.netns) for endpoint in self.cluster.endpoints}

    @cached_property
    def present(self) -> Cluster:
        """The cluster less the nodes that are switched off, and their pods: what can be probed from."""
        topology = replace(self.topology, nodes=tuple(node for node in self.topology.nodes if node.running))
        endpoints = tuple(e for e in self.cluster.endpoints if self.topology.running(e.node))
        return replace(self.cluster, topology=topology, endpoints=endpoints)


def design(topology: Topology, plane: DataPlane) -> Design:
    """Address the cluster and plan it.  Raises `InputError` for the user's mistakes, `PluginError` for the plugin's."""

    def work() -> tuple[Ipam, Cluster]:
        plane.check(topology)
        ipam = plane.ipam(topology)
        return ipam, build_cluster(topology, ipam)

    return planned(plane, *guarded(plane.name, work))


def planned(plane: DataPlane, ipam: Ipam, cluster: Cluster) -> Design:
    """Plan an addressed cluster, and check what the plugin made of it."""
    plan = guarded(plane.name, lambda: plane.plan(cluster))
    _check_names(plane.name, plan)
    _check_addresses(cluster)
    if cluster.topology.objects.services:
        bridged = {node.name for node in cluster.nodes if any(isinstance(thing, Bridge) for thing in plan.get(node.name, ()))}
        plan = merge(plan, kubeproxy.plan(cluster, bridged), fabric.announced(cluster))
    if any(port.host_port for pod in cluster.topology.pods for port in pod.ports) and not attached(plan):
        plan = merge(plan, hostports.plan(cluster, plan))
    return Design(plane, ipam, cluster, plan)


def attached(state: State) -> bool:
    """Whether CNI plugins have a part in it."""
    return any(isinstance(thing, Cni) for objects in state.values() for thing in objects)


def corrected(design: Design, found: Mapping[str, tuple[tuple[IPAddress, ...], str]]) -> Design:
    """The same with the addresses and MACs that pods have really got, by pod.  Raises `InputError` when they will not do."""
    families = design.topology.families
    endpoints: dict[str, Endpoint] = {}
    other: dict[Pod, tuple[IPAddress, ...]] = {}
    for endpoint in design.cluster.endpoints:
        if endpoint.key not in found:
            continue
        given, mac = found[endpoint.key]
        addresses = tuple(next((a for a in given if a.version == family), None) for family in families)
        if None in addresses:
            lacking = " and ".join(f"IPv{f}" for f, address in zip(families, addresses, strict=True) if address is None)
            has = f"gave it {', '.join(map(str, given))}" if given else "gave it none"
            raise InputError(f"{endpoint.key} has no {lacking} address, which all pods of this topology have: its network {has}")
        real = tuple(address for address in addresses if address is not None)
        pod = endpoint.pod if set(endpoint.pod.addresses) <= set(real) else replace(endpoint.pod, addresses=())
        endpoints[endpoint.key] = Endpoint(pod, real, mac)
        if real != endpoint.addresses:
            other[pod] = real
    whole = tuple(endpoints.get(endpoint.key, endpoint) for endpoint in design.cluster.endpoints)
    pods = {endpoint.key: endpoint.pod for endpoint in whole}
    topology = replace(design.topology, pods=tuple(pods.get(pod.key, pod) for pod in design.topology.pods))
    cluster = replace(design.cluster, topology=topology, endpoints=whole)
    if not other:
        return replace(design, cluster=cluster)
    ipam = copy.deepcopy(design.ipam)
    if isinstance(ipam, HostLocal):
        ipam.correct(other)
    return planned(design.plane, ipam, cluster)


def guarded(plugin: str, work: Callable[[], T]) -> T:
    """Call into a plugin; an exception that is none of ours is reported with its place in the plugin's file."""
    try:
        return work()
    except EmulabError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise PluginError(f"plugin '{plugin}' raised {type(error).__name__}: {error}", frame.filename, frame.lineno) from error


def _check_names(plugin: str, plan: State) -> None:
    for namespace, objects in plan.items():
        for thing in objects:
            if not isinstance(thing, Device):
                continue
            for name in (thing.name, thing.peer) if isinstance(thing, Veth) else (thing.name,):
                if not 0 < len(name.encode()) <= _NAME_BYTES:
                    raise PluginError(
                        f"plugin '{plugin}' wants an interface '{name}' in {namespace}: "
                        f"a name has 1 to {_NAME_BYTES} bytes, this one {len(name.encode())}"
                    )


def _check_addresses(cluster: Cluster) -> None:
    seen: dict[ipaddress.IPv4Address | ipaddress.IPv6Address, str] = {}
    for endpoint in cluster.endpoints:
        for address in endpoint.addresses:
            if address in seen:
                raise InputError(f"{endpoint.key} and {seen[address]} would both have {address}")
            seen[address] = endpoint.key
