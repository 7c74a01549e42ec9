"""A drawing as a graph, for formats that lay it out themselves: vertices in clusters, and edges.  Names are made, labels are not.

A host end of a pair is the label of its edge.  Of many pods or tunnels a few are shown, and one vertex stands for the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emulab.drawing.inside import rows
from emulab.drawing.nouns import MOST_NODES, Device, Drawing, Node
from emulab.drawing.sheet import groups
from emulab.model import GATEWAY, SWITCHES

_MOST_PODS, _MOST_ENDS, _MOST_OVERLAYS = 6, 4, 10
_ROUTING = "routing"


@dataclass(frozen=True)
class Vertex:
    name: str
    kind: str
    lines: tuple[str, ...]
    down: bool = False


@dataclass(frozen=True)
class Cluster:
    """A node with what is in it."""

    name: str
    label: str
    vertices: tuple[Vertex, ...]
    stopped: bool = False


@dataclass(frozen=True)
class Edge:
    """``kind`` is "pair", "port", "route", "wire", "tunnel"."""

    one: str
    other: str
    kind: str
    label: str = ""
    down: bool = False


@dataclass(frozen=True)
class Graph:
    clusters: tuple[Cluster, ...]
    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]


def graph(drawing: Drawing) -> Graph:
    """The graph of a drawing."""
    return _Making(drawing).graph()


class _Making:
    """``names`` are those of the vertices by place; one that stands for several is that of each."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.names: dict[str, str] = {}
        self.edges: dict[Edge, None] = {}

    def graph(self) -> Graph:
        drawing = self.drawing
        vertices: list[Vertex] = []
        clusters: list[Cluster] = []
        if len(drawing.nodes) > MOST_NODES:
            for number, nodes in enumerate(groups(drawing.nodes), 1):
                pods = sum(len(node.pods) for node in nodes)
                told = (f"{nodes[0].name} … {nodes[-1].name}", f"{len(nodes)} nodes, {pods} pods")
                vertices.append(Vertex(f"g{number}", "group", told))
                self.names.update((node.name, f"g{number}") for node in nodes)
        else:
            for number, node in enumerate(drawing.nodes, 1):
                label = node.name if node.running else f"{node.name} (stopped)"
                clusters.append(Cluster(f"n{number}", label, tuple(self._inside(node, f"n{number}")), not node.running))
        vertices += self._tunnels()
        vertices += self._underlay()
        return Graph(tuple(clusters), tuple(vertices), tuple(self.edges))

    def _join(self, one: str, other: str, kind: str, label: str = "", down: bool = False) -> None:
        if one != other:
            self.edges.setdefault(Edge(one, other, kind, label, down))

    def _inside(self, node: Node, name: str) -> Iterator[Vertex]:
        self.names[node.name] = name
        shown = node.pods if len(node.pods) <= _MOST_PODS else node.pods[: _MOST_PODS - 1]
        for number, pod in enumerate(shown, 1):
            self.names[pod.place] = f"{name}p{number}"
            yield Vertex(f"{name}p{number}", "pod", (pod.shown, *pod.addresses), not node.running)
        if len(shown) < len(node.pods):
            self.names.update((pod.place, f"{name}more") for pod in node.pods[len(shown) :])
            yield Vertex(f"{name}more", "more", (f"+{len(node.pods) - len(shown)} pods",))
        if not node.running:
            return
        yield Vertex(f"{name}{_ROUTING}", "routing", ("routing",))
        ends = [device for device in node.of("vtep")]
        rest = ends[_MOST_ENDS - 1 :] if len(ends) > _MOST_ENDS else []
        for number, device in enumerate(node.devices, 1):
            place = node.place(device)
            if device in rest:
                self.names[place] = f"{name}ends"
            elif "/" not in device.peer:  # a pod's pair is an edge
                self.names[place] = f"{name}d{number}"
                yield Vertex(f"{name}d{number}", device.kind, tuple(_told(device)), not device.up)
        if rest:
            yield Vertex(f"{name}ends", "vtep", (f"+{len(rest)} tunnels",))
        for device in node.devices:
            self._device(node, device, name)

    def _device(self, node: Node, device: Device, name: str) -> None:
        """The edges from a device to its bridge, to its pair's other end, and to routing, in the order of a packet from a pod."""
        routing, bridge = f"{name}{_ROUTING}", self.names.get(f"{node.name}:{device.bridge}")
        here = self.names.get(node.place(device))
        if here is None:  # from the pod straight to what its host end is a port of
            pod = self.names.get(device.peer, routing)
            label = "" if pod.endswith("more") else device.name
            self._join(pod, bridge or routing, "pair", label, not device.up)
            return
        if bridge:
            self._join(*self._downwards(node, here, bridge), "port")
        if device.peer.startswith(f"{node.name}:") and node.place(device) < device.peer:
            self._join(*self._downwards(node, here, self.names[device.peer]), "pair")
        if device.kind == "vtep":
            if not bridge:
                self._join(routing, here, "route")
            self._join(here, self.names.get(f"{node.name}:{device.over}", here), "route")
        elif device.kind == "bridge" and device.addresses:
            self._join(here, routing, "route")
        elif device.kind == "uplink" and not bridge:
            self._join(routing, here, "route")

    def _downwards(self, node: Node, one: str, other: str) -> tuple[str, str]:
        order = {self.names.get(node.place(device)): number for number, row in enumerate(rows(node)) for device in row}
        return (one, other) if order.get(one, 0) <= order.get(other, 0) else (other, one)

    def _underlay(self) -> Iterator[Vertex]:
        for number, segment in enumerate(self.drawing.segments, 1):
            name = f"s{number}"
            yield Vertex(name, "segment", (segment.name, *segment.subnets))
            for port in segment.ports:
                self.names[segment.place(port)] = name
                end = self.names.get(port.peer) or self.names.get(port.peer.rpartition(":")[0])
                if end is not None:
                    self._join(end, name, "wire", "" if port.up else "down", not port.up)
        for number, host in enumerate(self.drawing.hosts, 1):
            name = f"h{number}"
            self.names[host.name] = name
            addresses = [f"{device.name} {' '.join(device.addresses)}" for device in host.devices]
            yield Vertex(name, "host", (host.name, *addresses))
            for device in host.devices:
                other = device.peer.rpartition(":")[0]
                if other in (SWITCHES, GATEWAY):
                    self._join(self.names.get(device.peer) or self.names[other], name, "wire")

    def _tunnels(self) -> Iterator[Vertex]:
        """A vertex for what tunnels make together, to which their ends lead: each reaches each other."""
        overlays = self.drawing.overlays
        together = [(overlay.shown, overlay.tunnels, overlay.ends) for overlay in overlays]
        if len(overlays) > _MOST_OVERLAYS:
            ends = tuple(dict.fromkeys(end for overlay in overlays for end in overlay.ends))
            together = [(overlays[0].kind.upper(), sum(overlay.tunnels for overlay in overlays), ends)]
        for number, (shown, count, ends) in enumerate(together, 1):
            yield Vertex(f"t{number}", "overlay", (shown,) if count == 1 else (shown, f"{count} tunnels"))
            for end in ends:
                self._join(self.names.get(end) or self.names[end.partition(":")[0]], f"t{number}", "tunnel")


def _told(device: Device) -> Iterator[str]:
    yield device.name if device.up else f"{device.name} (down)"
    if device.vni:
        yield f"VNI {device.vni}"
    yield from device.addresses
    if device.note:
        yield device.note
