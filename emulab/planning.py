"""From a topology and a data plane to an addressed cluster and its desired state: pure, and guarded.

A plugin is somebody's code: whatever it raises becomes one line that says where.
"""

from __future__ import annotations

import ipaddress
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from emulab import fabric, kubeproxy
from emulab.dataplane import DataPlane, build_cluster
from emulab.errors import EmulabError, InputError, PluginError
from emulab.ipam.contract import Ipam
from emulab.model import Cluster, Topology
from emulab.state import Bridge, Device, State, Veth, merge

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
    return Design(plane, ipam, cluster, plan)


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
