"""Labs on paper: a cluster, its data plane, and the whole desired state with the underlay."""

from __future__ import annotations

from functools import cache

from emulab import registry
from emulab.dataplane import DataPlane
from emulab.model import Cluster, Topology
from emulab.planning import design
from emulab.state import State

FLANNEL, CALICO, VXLAN, WEAVE = ("flat", "flannel"), ("flat", "calico"), ("flat", "calico", "encap=vxlan"), ("flat", "weave")


@cache
def catalogued(topology: str) -> Topology:
    """One of the catalogue, read once: reading YAML takes longer than most tests."""
    return registry.topology(topology)


@cache
def planned(topology: str, plugin: str, *settings: str) -> tuple[Cluster, DataPlane, State]:
    plane = registry.options(registry.plugin(plugin), settings)
    made = design(catalogued(topology), plane)
    return made.cluster, plane, made.desired
