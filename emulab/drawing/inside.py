"""The inside of a node, from its pods at the top to its uplink at the bottom, in the order in which a packet passes.

What a bridge's ports are comes below it, what routing leads to below that: the order is found in the devices, not in their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from emulab.drawing.nouns import Device, Node, Pod
from emulab.drawing.shapes import LINE, Box, Line, Text, clipped, stacked, width, wrapped

_LANE = 20  # at the right, for what goes from routing past other devices to the uplink
_ROUTING = 74


@dataclass(frozen=True)
class Style:
    """How much a node tells: ``addresses`` or names alone; ``widest`` is the room for its pods, ``rows`` the gap between rows."""

    addresses: bool
    widest: float
    rows: float
    size: float = 10
    most_pod: float = 156  # the widest column of a pod
    least: float = 180  # the narrowest node
    padding: float = 10
    gap: float = 8  # between boxes of a row


@dataclass
class Inside:
    """What `inside` made, from (0, 0): boxes in the order of painting, lines, and where uplinks and tunnel ends are.

    ``hidden`` are the places that have no box, with the box that stands for them.
    """

    width: float
    height: float
    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    places: dict[str, Box] = field(default_factory=dict)


def column(node: Node, style: Style) -> float:
    """The width of a pod's column."""
    if not style.addresses:
        return min(max([30, *(width(pod.shown, style.size) + 8 for pod in node.pods)]), style.most_pod)
    words = [word for pod in node.pods for word in (pod.shown, *pod.addresses)]
    words += [device.name for device in node.of("veth")]
    return min(max([96, *(width(word, style.size) + 14 for word in words)]), style.most_pod)


def natural(node: Node, style: Style) -> float:
    """The width that a node asks for."""
    shown = min(len(node.pods), _room_for_pods(node, style))
    pods = shown * (column(node, style) + style.gap) - style.gap
    devices = [device for device in node.devices if device.kind in ("bridge", "vtep", "uplink")]
    words = [word for device in devices for word in (device.name, *(device.addresses if style.addresses else ()))]
    ends = min(len(node.of("vtep")), 3)
    tunnels = ends * (_least(node, style) + style.gap) + _LANE if ends else 0
    longest = max((width(word, style.size) + 2 * 8 for word in words), default=0)
    asked = max(style.least, pods, tunnels, min(longest, 270), min(width(node.name, style.size + 2) + 20, 270))
    return asked + 2 * style.padding


def _room_for_pods(node: Node, style: Style) -> int:
    return max(int((style.widest + style.gap) / (column(node, style) + style.gap)), 2)


def _least(node: Node, style: Style) -> float:
    """The narrowest box of a tunnel's end, wide enough for its name, and for its addresses unless they are long."""
    words = [word for end in node.of("vtep") for word in (end.name, *(end.addresses if style.addresses else ()))]
    return min(max((width(word, style.size) for word in words), default=0) + 9, 120 if style.addresses else 84)


def inside(node: Node, style: Style, outer: float, spare: float = 0) -> Inside:
    """A node that is ``outer`` wide; ``spare`` is what it is taller than it need be, between its pods and the rest."""
    made = Inside(outer, 0)
    room, left, size = outer - 2 * style.padding, style.padding, style.size
    y = style.padding
    texts = [Text(clipped(_called(node), room, size + 2), outer / 2, y + size + 2, size + 2, kind="name")]
    y += (size + 2) * LINE
    if style.addresses and node.leases:
        texts += stacked(wrapped(_leases(node), room, size - 1)[:2], outer / 2, y, size - 1, "faint")
        y += (size - 1) * LINE * (len(texts) - 1)
    y += 6
    y = _pods(made, node, style, left, room, y) + spare
    if node.running:
        for row in rows(node):
            y += style.rows
            y = _row(made, node, style, row, left, room, y)
        _join(made, node)
    made.height = y + style.padding
    tip = "\n".join([f"node {node.name}", *node.leases, *([] if node.running else ["stopped"])])
    state = "" if node.running else "stopped"
    made.boxes.insert(0, Box("node", 0, 0, outer, made.height, tuple(texts), "", node.name, "", tip, state))
    return made


def _called(node: Node) -> str:
    return node.name if node.running else f"{node.name} (stopped)"


def _leases(node: Node) -> list[str]:
    return [*node.leases[:3], f"+{len(node.leases) - 3}"] if len(node.leases) > 4 else list(node.leases)


def _pods(made: Inside, node: Node, style: Style, left: float, room: float, y: float) -> float:
    """Pods beside each other, each above its host end; as many as there is room for, and a box that stands for the others."""
    most = max(int((room + style.gap) / (column(node, style) + style.gap)), 2)
    shown = node.pods if len(node.pods) <= most else node.pods[: most - 1]
    rest = node.pods[len(shown) :]
    size = style.size
    if not node.pods:
        none = Text("no pods", left + room / 2, y + size, size, kind="faint")
        made.boxes.append(Box("words", left, y, room, size * LINE, (none,)))
        return y + size * LINE
    wide = column(node, style)
    cells = len(shown) + (1 if rest else 0)
    x = left + (room - cells * (wide + style.gap) + style.gap) / 2
    ends = {device.peer: device for device in node.of("veth")}
    lines = max(len(pod.addresses) for pod in node.pods) + 1 if style.addresses else 1
    tall = 8 + size * LINE * lines + (20 if style.addresses else 0)
    top = y + tall + style.rows
    end = (size * LINE + 8 if style.addresses else 8) if node.running else 0
    told: tuple[Text, ...]
    for pod in shown:
        made.boxes += _pod(made, node, pod, style, x, y, wide, tall)
        device = ends.get(pod.place)
        if device is not None:
            told = (Text(clipped(device.name, wide - 6, size), x + wide / 2, top + size + 3, size),) if style.addresses else ()
            box = _device(node, device, x, top, wide, end, told)
            made.boxes.append(box)
            made.places[node.place(device)] = box
            made.lines.append(Line("pair", ((x + wide / 2, y + tall), (x + wide / 2, top))))
        x += wide + style.gap
    if rest:
        words = f"+{len(rest)} pods" if style.addresses else f"+{len(rest)}"
        told = (Text(clipped(words, wide - 4, size), x + wide / 2, y + tall / 2 + 4, size, kind="faint"),)
        tip = ", ".join([pod.shown for pod in rest[:20]] + (["…"] if len(rest) > 20 else []))
        box = Box("more", x, y, wide, tall, told, "", node.name, "", f"{len(rest)} more pods: {tip}")
        made.boxes.append(box)
        for pod in rest:
            made.places[pod.key] = made.places[pod.place] = box
            if pod.place in ends:
                made.places[node.place(ends[pod.place])] = box
    return top + end if node.running else y + tall


def _pod(made: Inside, node: Node, pod: Pod, style: Style, x: float, y: float, wide: float, tall: float) -> Iterator[Box]:
    size, centre = style.size, x + wide / 2
    told = [Text(clipped(pod.shown, wide - 6, size), centre, y + size + 3, size, kind="strong")]
    tip = "\n".join([f"pod {pod.key}", *pod.addresses])
    state = "" if node.running else "stopped"
    if not style.addresses:
        box = Box("pod", x, y, wide, tall, tuple(told), pod.place, node.name, pod.key, tip, state)
        made.places[pod.key] = made.places[pod.place] = box
        yield box
        return
    addresses = [clipped(address, wide - 6, size - 1) for address in pod.addresses]
    told += stacked(addresses, centre, y + 4 + size * LINE, size - 1)
    box = Box("pod", x, y, wide, tall, tuple(told), "", node.name, pod.key, tip, state)
    made.places[pod.key] = box
    yield box
    word = Text("eth0", centre, y + tall - 5, size - 1)
    card = Box("eth", centre - 22, y + tall - 17, 44, 17, (word,), pod.place, node.name, pod.key, pod.place, state)
    made.places[pod.place] = card
    yield card


ROUTING = Device("routing", "routing")


def rows(node: Node) -> list[list[Device]]:
    """The devices below the pods' host ends, row by row, uplinks last; `ROUTING` stands where the node itself forwards."""
    rank = {device.name: 0 for device in node.of("veth") if "/" in device.peer}
    _spread(node, rank, list(rank))
    for kind in ("bridge", "veth"):  # what no pod hangs on
        for device in sorted(node.of(kind), key=lambda device: not device.addresses):
            if device.name not in rank:
                rank[device.name] = 1
                _spread(node, rank, [device.name])
    routed = [d for d in node.devices if d.kind in ("bridge", "veth") and (d.addresses or ("/" in d.peer and not d.bridge))]
    between = max((rank[device.name] for device in routed), default=0) + 1
    for device in node.of("vtep"):
        rank.setdefault(device.name, between + 1)
    last = max([between, *rank.values()]) + 1
    found = [[device for device in node.devices if rank.get(device.name) == row] for row in range(1, last)]
    found[between - 1].append(ROUTING)
    return [row for row in (*found, list(node.of("uplink"))) if row]


def _spread(node: Node, rank: dict[str, int], queue: list[str]) -> None:
    """Give what hangs on the devices of ``queue``, and on that, its rank."""
    devices = {device.name: device for device in node.devices}
    for name in queue:
        device = devices[name]
        near = [device.bridge, *(port.name for port in node.devices if port.bridge == name and device.kind == "bridge")]
        near.append(device.peer.removeprefix(f"{node.name}:"))
        for other in near:
            if other in devices and other not in rank and devices[other].kind != "uplink":
                rank[other] = rank[name] + 1
                queue.append(other)


def _row(made: Inside, node: Node, style: Style, row: list[Device], left: float, room: float, y: float) -> float:
    """One row of devices across the ``room``; returns where it ends."""
    size = style.size
    last = row[0].kind == "uplink"
    below = "routing" in made.places
    devices = [device for device in row if device is not ROUTING]
    side = _ROUTING if style.addresses else 56
    main = room - (_LANE if below and not last else 0) - (side + style.gap if ROUTING in row and devices else 0)
    least = 60 if any(device.kind == "bridge" for device in devices) or last else _least(node, style)
    most = max(int((main + style.gap) / (least + style.gap)), 1)
    shown = devices if len(devices) <= most else devices[: most - 1]
    rest = devices[len(shown) :]
    cells = len(shown) + (1 if rest else 0)
    wide = (main + style.gap) / cells - style.gap if cells else 0
    told = [wrapped(_words(device, style), wide - 8, size) for device in shown]
    tall = 8 + size * LINE * max([1, *map(len, told)])
    for number, (device, lines) in enumerate(zip(shown, told, strict=True)):
        x = left + number * (wide + style.gap)
        top = y + (tall - size * LINE * len(lines)) / 2 - 1
        box = _device(node, device, x, y, wide, tall, tuple(stacked(lines, x + wide / 2, top, size)))
        made.boxes.append(box)
        made.places[node.place(device)] = box
    if rest:
        x = left + len(shown) * (wide + style.gap)
        words = f"+{len(rest)} tunnels" if style.addresses else f"+{len(rest)}"
        text = Text(clipped(words, wide - 4, size), x + wide / 2, y + tall / 2 + size * 0.35, size, kind="faint")
        tip = ", ".join([device.name for device in rest[:20]] + (["…"] if len(rest) > 20 else []))
        box = Box("more", x, y, wide, tall, (text,), "", node.name, "", f"{len(rest)} more devices: {tip}")
        made.boxes.append(box)
        made.places.update((node.place(device), box) for device in rest)
    if ROUTING in row:
        x, across = (left + room - side, side) if devices else (left, room)
        text = Text("routing", x + across / 2, y + tall / 2 + size * 0.35, size, kind="faint")
        box = Box("routing", x, y, across, tall, (text,), "", node.name, "", f"{node.name} routes here")
        made.boxes.append(box)
        made.places["routing"] = box
    return y + tall


def _words(device: Device, style: Style) -> list[str]:
    if not style.addresses:
        return [device.name]
    vni = [f"VNI {device.vni}"] if device.vni else []
    return [device.name, *vni, *device.addresses, *([device.note] if device.note else []), *([] if device.up else ["down"])]


def _device(node: Node, device: Device, x: float, y: float, wide: float, tall: float, texts: Iterable[Text]) -> Box:
    vni = [f"VNI {device.vni} over {device.over}"] if device.vni else []
    note = [device.note] if device.note else []
    port = [f"port of {device.bridge}"] if device.bridge else []
    down = [] if device.up else ["down"]
    tip = [f"{node.place(device)} ({device.kind})", *vni, *port, *device.addresses, f"MTU {device.mtu}", *note, *down]
    state = "" if device.up else "down"
    return Box(device.kind, x, y, wide, tall, tuple(texts), node.place(device), node.name, "", "\n".join(tip), state)


def _join(made: Inside, node: Node) -> None:
    """The lines between a node's devices, and between them and routing."""
    routing = made.places.pop("routing")
    for device in node.devices:
        mine, other = node.place(device), device.peer
        here, bridge, peer = (made.places.get(place) for place in (mine, f"{node.name}:{device.bridge}", other))
        if here is None or here.kind == "more":
            continue
        if bridge is not None:
            _connect(made, "port", here, bridge)
        if peer is not None and other.startswith(f"{node.name}:") and mine < other:
            _connect(made, "pair", here, peer)
        routes = device.kind in ("bridge", "veth", "uplink") and not device.bridge and (device.addresses or "/" in device.peer)
        if routes or (device.kind == "vtep" and not device.bridge):
            _connect(made, "route", routing, here)


def _connect(made: Inside, kind: str, one: Box, other: Box) -> None:
    """A line between boxes of two rows: straight down where they overlap, else with a bend in the gap above the lower one."""
    upper, lower = sorted((one, other), key=lambda box: box.y)
    left, right = max(upper.x, lower.x), min(upper.right, lower.right)
    if left < right:
        narrow = min(upper, lower, key=lambda box: box.width)
        x = min(max(narrow.centre[0], left + 4), right - 4)
        if lower.kind == "uplink" and upper.kind == "routing":
            x = right - _LANE / 2
        made.lines.append(Line(kind, ((x, upper.bottom), (x, lower.y))))
    else:
        middle = lower.y - 5
        points = (
            (upper.centre[0], upper.bottom),
            (upper.centre[0], middle),
            (lower.centre[0], middle),
            (lower.centre[0], lower.y),
        )
        made.lines.append(Line(kind, points))
