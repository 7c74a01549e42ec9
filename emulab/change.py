"""Changes of a cluster, pure: each takes a design and returns the next one.  What differs between them is what is applied.

Raises `InputError` for what cannot be; the design that was given stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from emulab.errors import InputError, nearest
from emulab.ipam.contract import Ipam
from emulab.model import Attachment, Cluster, Endpoint, IPAddress, Link, Node, Pod, Topology
from emulab.objects import HostPod, Labels, Objects
from emulab.planning import Design, guarded, planned
from emulab.topology import free_addresses, validate


def add_pod(
    design: Design,
    name: str,
    node: str,
    addresses: Sequence[IPAddress] = (),
    labels: Mapping[str, str] | None = None,
    rates: tuple[int, int] = (0, 0),
    attachment: Attachment | None = None,
) -> Design:
    """One more pod, ``name`` or ``namespace/name``, on a node that runs."""
    _running(design.topology, node)
    namespace, _, short = name.rpartition("/")
    pod = Pod(short, node, namespace or "default", tuple(addresses), tuple(sorted((labels or {}).items())))
    pod = replace(pod, rates=rates, attachment=attachment)
    everybody: list[Pod | HostPod] = [*design.topology.pods, *design.topology.objects.host_pods]
    if any(other.key == pod.key for other in everybody):
        raise InputError(f"there is a pod '{pod.key}' already")
    topology = replace(design.topology, pods=(*design.topology.pods, pod))
    validate(topology)
    ipam = copy.deepcopy(design.ipam)
    found = guarded(design.plane.name, lambda: ipam.allocate(pod))
    return _next(design, topology, ipam, (*design.cluster.endpoints, Endpoint(pod, found)))


def remove_pod(design: Design, key: str) -> Design:
    """One pod less."""
    return _without(design, [endpoint for endpoint in design.cluster.endpoints if endpoint.key == key], design.topology)


def add_node(design: Design, name: str, segment: str | None = None, addresses: Sequence[IPAddress] = ()) -> Design:
    """One more node, on ``segment`` (the first one by default), with free underlay addresses where none are given."""
    topology = numbered(design.topology)
    if any(node.name == name for node in topology.nodes):
        raise InputError(f"there is a node '{name}' already")
    names = [one.name for one in topology.segments]
    where = segment or names[0]
    if where not in names:
        raise InputError(f"no segment '{where}'{nearest(where, names)}")
    node = Node(name, number=max(node.number for node in topology.nodes) + 1)
    link = Link(name, where, addresses=free_addresses(topology, where, addresses), mtu=topology.segment(where).mtu)
    topology = replace(topology, nodes=(*topology.nodes, node), links=(*topology.links, link))
    validate(topology)
    ipam = copy.deepcopy(design.ipam)

    def join() -> None:
        design.plane.check(_whole(topology))
        ipam.add_node(name)

    guarded(design.plane.name, join)
    return _next(design, topology, ipam, design.cluster.endpoints)


def remove_node(design: Design, name: str) -> Design:
    """A node less, with the pods on it: what `kubectl delete node` leads to."""
    before = numbered(design.topology)
    if len(before.nodes) == 1:
        raise InputError(f"{name} is the last node: take the lab down instead")
    topology = replace(
        before,
        nodes=tuple(node for node in before.nodes if node.name != name),
        links=tuple(link for link in before.links if link.node != name),
        cut=frozenset(pair for pair in before.cut if name not in pair),
        partitioned=frozenset(pair for pair in before.partitioned if name not in pair),
    )
    return _without(design, list(design.cluster.endpoints_on(name)), topology, name)


def switch_node(design: Design, name: str, running: bool) -> Design:
    """Switch a node off or on.  Its pods keep their addresses; nobody else is told."""
    node = next(node for node in design.topology.nodes if node.name == name)
    if node.running == running:
        raise InputError(f"node {name} is {'running' if running else 'stopped'} already")
    topology = numbered(design.topology)
    nodes = tuple(replace(n, running=running) if n.name == name else n for n in topology.nodes)
    return _next(design, replace(topology, nodes=nodes), design.ipam, design.cluster.endpoints)


def set_link(
    design: Design,
    node: str,
    *,
    up: bool | None = None,
    rate: int | None = None,
    delay: float | None = None,
    loss: float | None = None,
) -> Design:
    """Another state or shape for a node's uplink; None leaves a value as it is."""
    uplink = design.topology.uplink(node)
    if up is not None and uplink.up == up:
        raise InputError(f"the link of {node} is {'up' if up else 'down'} already")
    values = {"up": up, "rate": rate, "delay": delay, "loss": loss}
    changed = replace(uplink, **{key: value for key, value in values.items() if value is not None})  # type: ignore[arg-type]
    links = tuple(changed if link == uplink else link for link in design.topology.links)
    topology = replace(numbered(design.topology), links=links)
    validate(topology)
    return _next(design, topology, design.ipam, design.cluster.endpoints)


def partition(design: Design, groups: Sequence[Sequence[str]]) -> Design:
    """Let the underlay carry nothing between nodes of different groups; a single group is parted from all the others."""
    named = [name for group in groups for name in group]
    for name in named:
        if named.count(name) > 1:
            raise InputError(f"node {name} is named twice")
    sides = [list(group) for group in groups]
    if len(sides) == 1:
        sides.append([node.name for node in design.topology.nodes if node.name not in named])
    if len(sides) < 2 or not all(sides):
        raise InputError("a partition has at least two sides with a node each")
    pairs = frozenset(frozenset((a, b)) for one, other in combinations(sides, 2) for a in one for b in other)
    topology = numbered(design.topology)
    return _next(design, replace(topology, partitioned=topology.partitioned | pairs), design.ipam, design.cluster.endpoints)


def heal(design: Design) -> Design:
    """Join what was parted; what the topology itself keeps apart stays so."""
    if not design.topology.partitioned:
        raise InputError("nothing is partitioned")
    topology = replace(numbered(design.topology), partitioned=frozenset())
    return _next(design, topology, design.ipam, design.cluster.endpoints)


def numbered(topology: Topology) -> Topology:
    """The same with every node's number fixed, so that it stays when others come and go."""
    return replace(topology, nodes=tuple(replace(node, number=topology.number(node.name)) for node in topology.nodes))


def _whole(topology: Topology) -> Topology:
    """The topology with everything switched on and joined: what a data plane is asked whether it can serve."""
    return replace(
        topology,
        nodes=tuple(replace(node, running=True) for node in topology.nodes),
        links=tuple(replace(link, up=True) for link in topology.links),
        partitioned=frozenset(),
    )


def _running(topology: Topology, node: str) -> None:
    names = [one.name for one in topology.nodes]
    if node not in names:
        raise InputError(f"no node '{node}'{nearest(node, names)}")
    if not topology.running(node):
        raise InputError(f"node {node} is stopped (emulab node start {node})")


def reshape(design: Design, pods: Sequence[Pod], objects: Objects) -> Design:
    """Other pods and objects, all at once.

    A pod that is there keeps its node and its addresses, as its attachment lasts as long as it does; whatever else of it is
    different is different at once.
    """
    before = {endpoint.key: endpoint for endpoint in design.cluster.endpoints}
    kept = {pod.key for pod in pods if pod.key in before}
    coming = [pod for pod in pods if pod.key not in kept]
    for pod in pods:
        if pod.key in kept and not _stays(before[pod.key], pod):
            has = f"on {before[pod.key].node} with {', '.join(map(str, before[pod.key].addresses))}"
            raise InputError(f"pod {pod.key} is {has}, and there it stays: delete it first")
    for pod in coming:
        _running(design.topology, pod.node)
    topology = replace(design.topology, pods=tuple(pods), objects=objects)
    validate(topology)
    ipam = copy.deepcopy(design.ipam) if coming or len(kept) < len(before) else design.ipam
    found = {key: before[key].addresses for key in kept}
    macs = {key: before[key].hardware for key in kept}

    def allocate() -> None:
        for key, endpoint in before.items():
            if key not in kept:
                ipam.release(endpoint.pod)
        for pod in sorted(coming, key=lambda pod: -len(pod.addresses)):
            found[pod.key] = ipam.allocate(pod)

    guarded(design.plane.name, allocate)
    return _next(design, topology, ipam, tuple(Endpoint(pod, found[pod.key], macs.get(pod.key, "")) for pod in pods))


def relabel(design: Design, labels: Mapping[str, Labels]) -> Design:
    """Other labels on the nodes that ``labels`` names."""
    nodes = tuple(replace(node, labels=labels.get(node.name, node.labels)) for node in design.topology.nodes)
    return _next(design, replace(design.topology, nodes=nodes), design.ipam, design.cluster.endpoints)


def settled(design: Design, avoid: Collection[str] = ()) -> Design:
    """What the controllers make of it: pods where some are missing, none on nodes that have left, and cluster DNS.

    ``avoid``: the keys of pods that have just been deleted.
    """
    topology, objects = design.topology, design.topology.objects
    if not objects.workloads and not objects.host_pods and not objects.services:
        return design
    from emulab.kube.system import converged

    placed = converged(topology, avoid)
    if (placed.pods, placed.objects) == (topology.pods, objects):
        return design
    return reshape(design, placed.pods, placed.objects)


def _stays(endpoint: Endpoint, pod: Pod) -> bool:
    """Whether a pod can become another one without a new attachment."""
    return endpoint.node == pod.node and set(pod.addresses) <= set(endpoint.addresses)


def _without(design: Design, leaving: Iterable[Endpoint], topology: Topology, node: str | None = None) -> Design:
    ipam = copy.deepcopy(design.ipam)
    keys = set()
    for endpoint in leaving:
        ipam.release(endpoint.pod)
        keys.add(endpoint.key)
    if node is not None:
        ipam.remove_node(node)
    topology = replace(topology, pods=tuple(pod for pod in topology.pods if pod.key not in keys))
    return _next(design, topology, ipam, tuple(e for e in design.cluster.endpoints if e.key not in keys))


def _next(design: Design, topology: Topology, ipam: Ipam, endpoints: tuple[Endpoint, ...]) -> Design:
    gateways = {node.name: ipam.gateway(node.name) for node in topology.nodes}
    return planned(design.plane, ipam, Cluster(topology, ipam.leases(), endpoints, gateways))
