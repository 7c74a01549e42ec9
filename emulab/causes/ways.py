"""Where packets are sent: MACs, forwarding entries, addresses, routes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from emulab.causes.contract import Cause, Causes, listed, pairs
from emulab.drift import Deviation
from emulab.packet import short
from emulab.scene import Scene
from emulab.state import Address, FdbEntry, Neighbor, Route


def tunnel_ends(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """The MACs of other nodes' tunnel devices, with the forwarding entries of right and wrong ones."""
    wrong: dict[str, list[tuple[Deviation, Neighbor, Neighbor | None]]] = {}
    for d, planned, found in pairs(deviations, Neighbor):
        if planned and planned.device in scene.tunnels(d.namespace):
            wrong.setdefault(d.namespace, []).append((d, planned, found))
    for node, changes in wrong.items():
        macs = {(n.device, n.mac) for _, *both in changes for n in both if n}
        entries = [
            d
            for d, planned, found in pairs(deviations, FdbEntry)
            if d.namespace == node and any((e.device, e.mac) in macs for e in (planned, found) if e)
        ]
        _, planned, found = changes[0]
        peer = listed(scene.nodes.get(str(known.address), str(known.address)) for _, known, _ in changes)
        has = f"sends to {found.mac}, where {planned.mac} is" if found else "knows no MAC"
        words = f"{node} {has} for the tunnel of {peer}: frames arrive there as a stranger's, or nowhere"
        yield Cause("wrong-vtep-mac", node, words, [*(d for d, *_ in changes), *entries])


def doubles(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """A pod's address on somebody else's interface, and the routes that lead there."""
    for key, endpoint in scene.endpoints.items():
        ours = set(endpoint.addresses)
        holders = [d for d, planned, found in pairs(deviations, Address) if not planned and found and found.address.ip in ours]
        if not holders:
            continue
        routes = [
            d
            for d, planned, found in pairs(deviations, Route)
            for to in [(planned or found or Route(scene.cluster.topology.pod_cidrs[0])).destination]
            if to.num_addresses == 1 and to.network_address in ours
        ]
        others = listed(d.namespace for d in holders)
        words = f"{others} has the address of {short(key)}, {listed(ours & _addresses(holders))}, too: either may get the packets"
        yield Cause("duplicate-pod-ip", key, words, [*holders, *routes])


def _addresses(deviations: Sequence[Deviation]) -> set[object]:
    return {found.address.ip for _, _, found in pairs(deviations, Address) if found}


def memories(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """Somebody holds on to a MAC that a pod does not have."""
    wrong: dict[str, list[tuple[Deviation, Neighbor]]] = {}
    for d, _, found in pairs(deviations, Neighbor):
        pod = scene.holders.get(found.address) if found else None
        if found and pod and pod.mac != found.mac:
            wrong.setdefault(pod.key, []).append((d, found))
    for key, stale in wrong.items():
        believers = listed(d.namespace for d, _ in stale)
        words = (
            f"{believers} remembers {short(key)} at {stale[0][1].mac}, which is {scene.endpoints[key].mac}: it cannot be reached"
        )
        yield Cause("stale-neighbor", key, words, [d for d, _ in stale])


def entries(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """Forwarding entries that are gone, or point elsewhere."""
    lost: dict[str, list[tuple[Deviation, FdbEntry]]] = {}
    pods = {endpoint.mac: endpoint.key for endpoint in scene.cluster.endpoints}
    for d, planned, _ in pairs(deviations, FdbEntry):
        if planned:
            lost.setdefault(d.namespace, []).append((d, planned))
    for node, found in lost.items():
        owners = listed(scene.nodes.get(str(e.remote)) or pods.get(e.mac, e.mac) for _, e in found)
        words = f"{node} does not know behind which port or tunnel end {owners} is: frames to it are dropped"
        yield Cause("missing-fdb", node, words, [d for d, _ in found])


def routes(scene: Scene, deviations: Sequence[Deviation]) -> Causes:
    """First those that lead to a wrong node, as one cause for each node that is robbed; then those that are gone."""
    stolen: dict[str, list[tuple[Deviation, Route, str]]] = {}
    gone: dict[str, list[tuple[Deviation, Route]]] = {}
    extra = {(d.namespace, r.destination): (d, r) for d, planned, r in pairs(deviations, Route) if r and not planned}
    for d, planned, found in pairs(deviations, Route):
        if not planned:
            continue
        instead, there = extra.get((d.namespace, planned.destination), (d, found))
        owner = scene.owner(planned.destination) if planned.destination.prefixlen else None
        if there is None:
            gone.setdefault(d.namespace, []).append((d, planned))
        elif owner and owner != d.namespace:
            claimant = scene.nodes.get(str(there.via), "") if there.via else d.namespace
            if claimant != owner:
                stolen.setdefault(owner, []).extend((one, planned, claimant) for one in dict.fromkeys((d, instead)))
    for owner, ways in stolen.items():
        claimants = Counter(name for *_, name in ways if name).most_common(1)
        where = claimants[0][0] if claimants else ways[0][0].namespace
        ranges, believers = listed(route.destination for _, route, _ in ways), listed(d.namespace for d, *_ in ways)
        words = f"{ranges} is the range of {owner}, but {believers} has it at {where}: packets go to the wrong node"
        yield Cause("overlapping-pod-cidr", where, words, [d for d, *_ in ways])
    for place, ways_lost in gone.items():
        owners = listed(scene.owner(r.destination) or "anywhere" if r.destination.prefixlen else "the rest" for _, r in ways_lost)
        destinations = listed(r.destination if r.destination.prefixlen else "default" for _, r in ways_lost)
        words = f"{short(place)} has no route to {owners} ({destinations})"
        yield Cause("missing-route", place, words, [d for d, _ in ways_lost])


def the_rest(_: Scene, deviations: Sequence[Deviation]) -> Causes:
    """What nobody else explains, by namespace."""
    by_place: dict[str, list[Deviation]] = {}
    for d in deviations:
        by_place.setdefault(d.namespace, []).append(d)
    for place, found in by_place.items():
        kinds = listed(f"{count} {kind}" for kind, count in Counter(d.kind for d in found).items())
        yield Cause("unknown-drift", place, f"{short(place)} is not as planned: {kinds}", found)
