"""From a topology and a data plane to an addressed cluster and its desired state: pure, and guarded.

A plugin is somebody's code: whatever it raises becomes one line that says where.
"""

from __future__ import annotations

import ipaddress
import traceback
from collections.abc import Callable
from typing import TypeVar

from emulab.dataplane import DataPlane, build_cluster
from emulab.errors import EmulabError, InputError, PluginError
from emulab.model import Cluster, Topology
from emulab.state import Bridge, State, Veth, Vxlan

T = TypeVar("T")
_NAME_BYTES = 15  # IFNAMSIZ - 1, linux/if.h


def design(topology: Topology, plane: DataPlane) -> tuple[Cluster, State]:
    """Address the cluster and plan it.  Raises `InputError` for the user's mistakes, `PluginError` for the plugin's."""

    def work() -> tuple[Cluster, State]:
        plane.check(topology)
        cluster = build_cluster(topology, plane.ipam(topology))
        return cluster, plane.plan(cluster)

    cluster, plan = guarded(plane.name, work)
    _check_names(plane.name, plan)
    _check_addresses(cluster)
    return cluster, plan


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
            names = [thing.name] if isinstance(thing, (Bridge, Veth, Vxlan)) else []
            names += [thing.peer] if isinstance(thing, Veth) else []
            for name in names:
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
