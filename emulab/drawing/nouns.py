"""What a drawing shows, as values that survive JSON.

A *place* is an interface of a namespace, written as traces and findings write it: ``node-a:cni0``, ``default/a1:eth0``,
``underlay:node-a``.  Every place has coordinates: its own, or those of what encloses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from emulab.errors import InputError, nearest
from emulab.model import SWITCHES

if TYPE_CHECKING:
    from emulab.drawing.layout import Layout

T = TypeVar("T")
KINDS = ("veth", "bridge", "vtep", "uplink", "leg", "port")
MOST_NODES = 50  # of which each is drawn; of more, groups


@dataclass(frozen=True)
class Device:
    """An interface.

    ``kind`` is "veth", "bridge", "vtep" (a tunnel's end), "uplink", "leg" (of the gateway or the outside host) or "port" (of a
    switch).  ``peer`` is the place of a pair's other end, ``bridge`` the bridge whose port it is, ``over`` the device by which
    a tunnel's packets leave; ``vni`` a tunnel's network identifier; ``note`` what else is worth a word.  ``mtu`` in bytes.
    """

    name: str
    kind: str
    addresses: tuple[str, ...] = ()
    mtu: int = 1500
    up: bool = True
    peer: str = ""
    bridge: str = ""
    over: str = ""
    vni: int = 0
    note: str = ""


_NONE = Device("", "")


@dataclass(frozen=True)
class Pod:
    """A pod by its key, ``namespace/name``."""

    key: str
    addresses: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.key}:eth0"

    @property
    def shown(self) -> str:
        """Its name as people type it: without the namespace where that is default."""
        return self.key.removeprefix("default/")


@dataclass(frozen=True)
class Node:
    """A node, with its pods and devices.  One that is not ``running`` has no devices; nor has any in a large cluster."""

    name: str
    segment: str
    running: bool = True
    leases: tuple[str, ...] = ()
    pods: tuple[Pod, ...] = ()
    devices: tuple[Device, ...] = ()

    def place(self, device: Device) -> str:
        return f"{self.name}:{device.name}"

    def of(self, kind: str) -> tuple[Device, ...]:
        return tuple(device for device in self.devices if device.kind == kind)


@dataclass(frozen=True)
class Segment:
    """A switch of the underlay; ``bridge`` is its interface's name in the switches' namespace."""

    name: str
    bridge: str
    subnets: tuple[str, ...] = ()
    mtu: int = 1500
    ports: tuple[Device, ...] = ()

    def place(self, device: Device) -> str:
        return f"{SWITCHES}:{device.name}"


@dataclass(frozen=True)
class Host:
    """The gateway, or the host outside."""

    name: str
    devices: tuple[Device, ...] = ()

    def place(self, device: Device) -> str:
        return f"{self.name}:{device.name}"


@dataclass(frozen=True)
class Overlay:
    """Tunnel ends (places) of which each reaches each other; ``tunnels`` is how many that are, ``vni`` 0 where they differ."""

    kind: str
    vni: int
    ends: tuple[str, ...]
    tunnels: int = 1

    @property
    def shown(self) -> str:
        return f"{self.kind.upper()} VNI {self.vni}" if self.vni else self.kind.upper()


@dataclass(frozen=True)
class Drawing:
    """A whole cluster.  ``cuts`` are the pairs of nodes that the underlay keeps apart, ``options`` the plugin's that were set."""

    plugin: str
    topology: str
    nodes: tuple[Node, ...]
    segments: tuple[Segment, ...]
    hosts: tuple[Host, ...]
    overlays: tuple[Overlay, ...] = ()
    cuts: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        options = f" ({', '.join(self.options)})" if self.options else ""
        return f"{self.plugin} on {self.topology}{options}"

    @property
    def summary(self) -> str:
        """What is to be seen, in a sentence: for those who do not see it."""
        pods = sum(len(node.pods) for node in self.nodes)
        stopped = [node.name for node in self.nodes if not node.running]
        down = [node.place(device) for node in self.nodes for device in node.devices if not device.up]
        tunnels = sum(overlay.tunnels for overlay in self.overlays)
        told = [f"{_count(len(self.nodes), 'node')} with {_count(pods, 'pod')} on {_count(len(self.segments), 'segment')}"]
        told.append(f"{_count(tunnels, 'tunnel')} between nodes" if tunnels else "no tunnels")
        told += [f"stopped: {', '.join(stopped)}"] if stopped else []
        told += [f"down: {', '.join(down)}"] if down else []
        told += [f"without a path: {', '.join(' and '.join(pair) for pair in self.cuts)}"] if self.cuts else []
        return "; ".join(told)

    @cached_property
    def layout(self) -> Layout:
        """Where everything stands."""
        from emulab.drawing.layout import lay_out

        return lay_out(self)

    def point(self, place: str) -> tuple[float, float] | None:
        """The centre of a place; of what encloses it where it is not drawn itself; None: of no namespace that is known."""
        places = self.layout.places
        return places.get(place) or places.get(place.rpartition(":")[0])

    def show(self) -> dict[str, Any]:
        """As JSON values, with the picture's ``size`` and, in its units, the centre of every place in ``places``.

        There a namespace is a place, too.  A place that is missing is at its namespace.
        """
        layout, found = self.layout, self.layout.places
        size = [layout.width, layout.height]
        places = {place: list(point) for place, point in found.items() if found.get(place.rpartition(":")[0]) != point}
        return {**_shown(self), "size": size, "places": places}

    def _wanted(self) -> Iterator[tuple[str, set[str]]]:
        """Each place that is named as another's end, and where that can be.  In a large cluster nodes are without devices."""
        large = len(self.nodes) > MOST_NODES
        inside = {(node.name if large else node.place(device)) for node in self.nodes for device in node.devices or (_NONE,)}
        beyond = {segment.place(port) for segment in self.segments for port in segment.ports}
        beyond |= {host.place(device) for host in self.hosts for device in host.devices}
        pods = {pod.place for node in self.nodes for pod in node.pods}
        yield from ((end.partition(":")[0] if large else end, inside) for overlay in self.overlays for end in overlay.ends)
        yield from ((device.peer, beyond) for host in self.hosts for device in host.devices)
        peers = {device.peer for node in self.nodes for device in node.devices if device.peer}
        yield from ((peer, beyond if peer in beyond else pods if "/" in peer else inside) for peer in sorted(peers))

    @classmethod
    def read(cls, shown: Any) -> Drawing:
        """The drawing of what `show` returned.  Raises `InputError` for anything else."""
        found = _read(cls, shown, "drawing")
        for place, known in found._wanted():
            if place not in known:
                raise InputError(f"drawing: nothing is at '{place}'{nearest(place, known)}")
        return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shown(value: Any) -> Any:
    """A value as JSON, without the fields that have their defaults."""
    if isinstance(value, tuple):
        return [_shown(one) for one in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    return {f.name: _shown(found) for f in fields(value) if (found := getattr(value, f.name)) != f.default}


_PARTS: dict[tuple[type, str], type] = {
    (Drawing, "nodes"): Node,
    (Drawing, "segments"): Segment,
    (Drawing, "hosts"): Host,
    (Drawing, "overlays"): Overlay,
    (Node, "pods"): Pod,
    (Node, "devices"): Device,
    (Segment, "ports"): Device,
    (Host, "devices"): Device,
}


def _read(kind: type[T], shown: Any, where: str) -> T:
    if not isinstance(shown, dict):
        raise InputError(f"{where}: an object expected")
    found: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in shown:
            continue
        value, here = shown[field.name], f"{where}.{field.name}"
        part = _PARTS.get((kind, field.name))
        if str(field.type).startswith("tuple"):
            if not isinstance(value, list):
                raise InputError(f"{here}: a list expected")
            if part is not None:
                value = tuple(_read(part, one, f"{here}[{place}]") for place, one in enumerate(value))
            elif field.name == "cuts":
                value = tuple(_pair(one, f"{here}[{place}]") for place, one in enumerate(value))
            else:
                value = tuple(_typed(one, str, f"{here}[{place}]") for place, one in enumerate(value))
        else:
            value = _typed(value, {"int": int, "bool": bool}.get(str(field.type), str), here)
            if kind is Device and field.name == "kind" and value not in KINDS:
                raise InputError(f"{here}: no kind '{value}'{nearest(value, KINDS)}")
        found[field.name] = value
    try:
        return kind(**found)
    except TypeError:
        lacking = [f.name for f in fields(kind) if f.name not in found and f.default is MISSING]  # type: ignore[arg-type]
        raise InputError(f"{where}: lacks {', '.join(lacking)}") from None


def _typed(value: Any, kind: type, where: str) -> Any:
    if type(value) is not kind:
        raise InputError(f"{where}: {'text' if kind is str else 'a number' if kind is int else 'true or false'} expected")
    return value


def _pair(value: Any, where: str) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where}: two names expected")
    return _typed(value[0], str, where), _typed(value[1], str, where)
