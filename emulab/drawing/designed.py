"""From a design to its drawing, by the desired state alone: no plugin is known by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import combinations

from emulab import fabric
from emulab.dataplane import DataPlane
from emulab.drawing.nouns import MOST_NODES, Device, Drawing, Host, Node, Overlay, Pod, Segment
from emulab.model import GATEWAY, OUTSIDE_HOST, SWITCHES, Link, Topology
from emulab.planning import Design
from emulab.state import Address, Bridge, BridgePort, FdbEntry, KernelObject, State, Up, Veth, Vxlan


def draw(design: Design) -> Drawing:
    """The drawing of a cluster as it is designed: what stands in it, without what may have gone wrong in a kernel."""
    topology, state = design.topology, design.real
    overlays = tuple(_overlays(state))
    if len(topology.nodes) > MOST_NODES:
        overlays = tuple(_merged(overlays))
    return Drawing(
        design.plane.name,
        topology.name,
        tuple(_node(design, node.name) for node in topology.nodes),
        tuple(_segments(topology, state)),
        (Host(GATEWAY, tuple(_legs(state, GATEWAY))), Host(OUTSIDE_HOST, tuple(_legs(state, OUTSIDE_HOST)))),
        overlays,
        tuple((one, other) for one, other in sorted(map(sorted, topology.apart))),
        tuple(_options(design.plane)),
    )


def _options(plane: DataPlane) -> Iterator[str]:
    """What is set otherwise than by default, as it is typed."""
    for field in fields(plane):
        value = getattr(plane, field.name)
        if value != field.default:
            yield f"{field.name}={str(value).lower() if isinstance(value, bool) else value}"


def _node(design: Design, name: str) -> Node:
    topology = design.topology
    large = len(topology.nodes) > MOST_NODES
    pods = tuple(Pod(e.key, () if large else tuple(map(str, e.addresses))) for e in design.cluster.endpoints_on(name))
    leases = () if large else tuple(str(lease.network) for lease in design.cluster.leases_of(name))
    running = topology.running(name)
    devices = tuple(_devices(design, name)) if running and not large else ()
    return Node(name, topology.uplink(name).segment, running, leases, pods, devices)


def _devices(design: Design, name: str) -> Iterator[Device]:
    """A node's devices in the order in which they are made, its uplinks last, the one that carries pods' traffic at the end."""
    objects = design.real[name]
    addresses, up = _addresses(objects), {thing.device for thing in objects if isinstance(thing, Up)}
    bridge = {thing.device: thing.bridge for thing in objects if isinstance(thing, BridgePort)}
    for thing in objects:
        if isinstance(thing, Bridge):
            yield Device(thing.name, "bridge", addresses.get(thing.name, ()), thing.mtu, thing.name in up)
        elif isinstance(thing, Veth):
            peer = thing.peer_namespace or name
            ends = [(thing.name, f"{peer}:{thing.peer}")]
            ends += [(thing.peer, f"{name}:{thing.name}")] if peer == name else []
            for end, other in ends:
                found = addresses.get(end, ())
                yield Device(end, "veth", found, thing.mtu, end in up, other, bridge.get(end, ""))
        elif isinstance(thing, Vxlan):
            found, on = addresses.get(thing.name, ()), bridge.get(thing.name, "")
            yield Device(thing.name, "vtep", found, thing.mtu, thing.name in up, "", on, thing.device, thing.vni)
    topology = design.topology
    for link in sorted((link for link in topology.links if link.node == name), key=lambda link: link == topology.uplink(name)):
        port = fabric.switch_port(topology, link)
        found = tuple(str(address.ip) for address in link.addresses)
        on = bridge.get(link.interface, "")
        yield Device(link.interface, "uplink", found, link.mtu, link.up, f"{SWITCHES}:{port}", on, note=_shape(link))


def _shape(link: Link) -> str:
    told = [f"{link.rate / 1e6:g} Mbit/s"] if link.rate else []
    told += [f"{link.delay * 1e3:g} ms"] if link.delay else []
    told += [f"loss {link.loss * 100:g}%"] if link.loss else []
    return ", ".join(told)


def _addresses(objects: Iterable[KernelObject]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for thing in objects:
        if isinstance(thing, Address):
            whole = thing.address.network.prefixlen == thing.address.max_prefixlen
            shown = str(thing.address.ip) if whole else str(thing.address)
            found[thing.device] = (*found.get(thing.device, ()), shown)
    return found


def _segments(topology: Topology, state: State) -> Iterator[Segment]:
    objects = state[SWITCHES]
    up = {thing.device for thing in objects if isinstance(thing, Up)}
    pairs = {thing.name: thing for thing in objects if isinstance(thing, Veth)}
    for segment in topology.segments:
        bridge = fabric.interface_name(segment.name)
        ports = []
        for thing in objects:
            if isinstance(thing, BridgePort) and thing.bridge == bridge:
                pair = pairs[thing.device]
                peer = f"{pair.peer_namespace}:{pair.peer}"
                ports.append(Device(thing.device, "port", (), pair.mtu, thing.device in up, peer, bridge))
        yield Segment(segment.name, bridge, tuple(map(str, segment.subnets)), segment.mtu, tuple(ports))


def _legs(state: State, host: str) -> Iterator[Device]:
    addresses = _addresses(state[host])
    for namespace in (SWITCHES, GATEWAY):
        for thing in state[namespace]:
            if isinstance(thing, Veth):
                here, there = f"{namespace}:{thing.name}", f"{thing.peer_namespace}:{thing.peer}"
                for end, other in ((here, there), (there, here)):
                    name = end.rpartition(":")[2]
                    if end == f"{host}:{name}":
                        found = tuple(address.partition("/")[0] for address in addresses.get(name, ()))
                        yield Device(name, "leg", found, thing.mtu, True, other)


def _overlays(state: State) -> Iterator[Overlay]:
    """The tunnels: what is one full mesh in one overlay, every other pair of ends in one of its own."""
    ends: dict[tuple[str, int], str] = {}
    order: dict[str, int] = {}
    for node, objects in state.items():
        for thing in objects:
            if isinstance(thing, Vxlan):
                place = f"{node}:{thing.name}"
                ends[str(thing.local), thing.vni] = place
                order[place] = len(order)
    pairs: dict[int, set[tuple[str, str]]] = {}
    for node, objects in state.items():
        here = {thing.name: thing for thing in objects if isinstance(thing, Vxlan)}
        remotes = [(thing, thing.remote) for thing in here.values()]
        remotes += [
            (here[thing.device], thing.remote) for thing in objects if isinstance(thing, FdbEntry) and thing.device in here
        ]
        for device, remote in remotes:
            place, there = f"{node}:{device.name}", ends.get((str(remote), device.vni))
            if there is not None and there != place:
                pair = (place, there) if order[place] < order[there] else (there, place)
                pairs.setdefault(device.vni, set()).add(pair)
    for vni, found in pairs.items():
        joined: dict[str, set[str]] = {}
        for one, other in sorted(found, key=lambda pair: (order[pair[0]], order[pair[1]])):
            both = joined.get(one, {one}) | joined.get(other, {other})
            joined.update(dict.fromkeys(both, both))
        for group in {min(group, key=order.__getitem__): group for group in joined.values()}.values():
            members = sorted(group, key=order.__getitem__)
            inside = [pair for pair in combinations(members, 2) if pair in found]
            if len(inside) == len(members) * (len(members) - 1) // 2:
                yield Overlay("vxlan", vni, tuple(members), len(inside))
            else:
                yield from (Overlay("vxlan", vni, pair) for pair in inside)


def _merged(overlays: Iterable[Overlay]) -> Iterator[Overlay]:
    """For groups of nodes: one overlay for all tunnels that have a VNI of their own; its ends are nodes."""
    alone = []
    for overlay in overlays:
        if overlay.tunnels == 1:
            alone.append(overlay)
        else:
            yield overlay
    if alone:
        nodes = dict.fromkeys(end.partition(":")[0] for overlay in alone for end in overlay.ends)
        vnis = {overlay.vni for overlay in alone}
        yield Overlay("vxlan", vnis.pop() if len(vnis) == 1 else 0, tuple(nodes), len(alone))
