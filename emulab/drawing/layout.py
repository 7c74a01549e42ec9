"""Where everything of a drawing stands: rows of nodes, tunnels below them, switches below those, then the gateway and outside.

Up to `ROOMY` nodes show their addresses, more only names, and of very many only groups are shown.  A segment is a bar below
each row in which it has nodes; its bars are joined at the left.  The same drawing has the same layout, always.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from emulab.drawing.designed import MOST_NODES
from emulab.drawing.inside import Inside, Style, inside, natural
from emulab.drawing.nouns import Device, Drawing, Host, Node, Overlay, Segment
from emulab.drawing.shapes import LINE, Box, Line, Text, clipped, moved, shifted, stacked, width, wrapped
from emulab.model import GATEWAY, OUTSIDE_HOST, SWITCHES

ROOMY = 8  # nodes that are shown with all addresses
_ACROSS = 1240  # the width that rows of nodes keep to, where one node does not need more
_MARGIN, _GAP, _SIZE = 24, 20, 10
_TRACKS = 12  # tunnels that are drawn one by one
_TRACK = 20  # from one of them to the next
_GROUPS = 12  # of a large cluster


@dataclass(frozen=True)
class Layout:
    """A picture: ``boxes`` in the order of painting, all above the ``lines``; ``places`` are centres."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    places: dict[str, tuple[float, float]]


def lay_out(drawing: Drawing) -> Layout:
    """The layout of a drawing."""
    return _Sheet(drawing).layout()


@dataclass
class _Cell:
    """A node, or a group of them, in its place."""

    nodes: tuple[Node, ...]
    inside: Inside
    x: float = 0
    y: float = 0

    @property
    def middle(self) -> float:
        return self.x + self.inside.width / 2

    @property
    def right(self) -> float:
        return self.x + self.inside.width


class _Sheet:
    """One layout while it is made, from the top to the bottom."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.boxes: list[Box] = []
        self.lines: list[Line] = []
        self.back: list[Line] = []  # tunnels: below all other lines
        self.places: dict[str, tuple[float, float]] = {}
        self.cells = self._cells()
        wide = max(cell.inside.width for cell in self.cells)
        across = max(int((_ACROSS + _GAP) / (wide + _GAP)), 1)
        rows = ceil(len(self.cells) / across)
        per_row = ceil(len(self.cells) / rows)
        self.rows = [self.cells[at : at + per_row] for at in range(0, len(self.cells), per_row)]
        self.used = {s.name: [n for n, row in enumerate(self.rows) if self._on(row, s)] for s in drawing.segments}
        #: Segments with a line at the left: they have bars in several rows, or none in the last.
        self.spines = [s.name for s in drawing.segments if self.used[s.name] != [len(self.rows) - 1]]
        self.bus = len(self.rows) > 1 or sum(o.tunnels for o in drawing.overlays) > _TRACKS or len(self.cells[0].nodes) > 1
        lanes = len(self.spines) + (1 if self.bus and drawing.overlays and len(self.rows) > 1 else 0)
        self.left = _MARGIN + (14 * lanes + 8 if lanes else 0)
        self.across = per_row * (wide + _GAP) - _GAP
        self.width = max(self.left + self.across + _MARGIN, 480)
        for row in self.rows:
            start = self.left + (self.width - _MARGIN - self.left - len(row) * (wide + _GAP) + _GAP) / 2
            for number, cell in enumerate(row):
                cell.x = start + number * (wide + _GAP) if len(self.rows) == 1 else self.left + number * (wide + _GAP)

    def _cells(self) -> list[_Cell]:
        drawing = self.drawing
        order = {segment.name: number for number, segment in enumerate(drawing.segments)}
        nodes = sorted(drawing.nodes, key=lambda node: order.get(node.segment, 0))
        if len(nodes) > MOST_NODES:
            return [_Cell(group, _group(group)) for group in _groups(nodes)]
        widest = {1: 1000.0, 2: 540.0}.get(len(nodes), 376.0)
        style = Style(True, widest, 18) if len(nodes) <= ROOMY else Style(False, 220, 12, least=150, padding=8)
        wide = max(natural(node, style) for node in nodes)
        found = [_Cell((node,), inside(node, style, wide)) for node in nodes]
        return found

    def _on(self, row: Iterable[_Cell], segment: Segment) -> bool:
        return any(self._wires(cell, segment) for cell in row)

    def _wires(self, cell: _Cell, segment: Segment) -> list[tuple[Node, Device | None, Device]]:
        """(node, its uplink, the switch's port) for each link of the cell's nodes to a segment; a group's nodes have no uplinks."""
        found: list[tuple[Node, Device | None, Device]] = []
        for port in segment.ports:
            name, _, interface = port.peer.rpartition(":")
            for node in cell.nodes:
                if node.name == name:
                    uplink = next((device for device in node.of("uplink") if device.name == interface), None)
                    found.append((node, uplink, port))
        return found

    def layout(self) -> Layout:
        y = self._title()
        for number, row in enumerate(self.rows):
            for cell in row:
                self._place(cell, y)
            y = max(cell.y + cell.inside.height for cell in row)
            y = self._tunnels(row, number, y)
            y = self._bars(row, number, y + 16)
            y += 26 if number < len(self.rows) - 1 else 0
        y = self._hosts(y)
        self._spread()
        return Layout(round(self.width, 1), round(y + _MARGIN, 1), tuple(self.boxes), (*self.back, *self.lines), self.places)

    def _title(self) -> float:
        drawing = self.drawing
        room = self.width - 2 * _MARGIN
        texts = [Text(clipped(drawing.title, room, 14), _MARGIN, _MARGIN + 12, 14, "start", "name")]
        notes = (
            wrapped([f"{one} and {other} have no path" for one, other in drawing.cuts[:4]], room, _SIZE) if drawing.cuts else []
        )
        if len(drawing.cuts) > 4:
            notes.append(f"… and {len(drawing.cuts) - 4} more pairs")
        texts += stacked(notes, _MARGIN, _MARGIN + 18, _SIZE, "bad", "start")
        tall = 18 + _SIZE * LINE * len(notes)
        self.boxes.append(Box("words", _MARGIN, _MARGIN, room, tall + 4, tuple(texts)))
        return _MARGIN + tall + 14

    def _place(self, cell: _Cell, y: float) -> None:
        cell.y = y
        self.boxes += [moved(box, cell.x, y) for box in cell.inside.boxes]
        self.lines += [shifted(line, cell.x, y) for line in cell.inside.lines]
        centre = _rounded(cell.middle, y + cell.inside.height / 2)
        for node in cell.nodes:
            self.places[node.name] = centre
            self.places.update((pod.key, centre) for pod in node.pods)
        for place, box in cell.inside.places.items():
            self.places[place] = _rounded(cell.x + box.centre[0], y + box.centre[1])

    def _ends(self, cell: _Cell, overlay: Overlay) -> list[tuple[float, float]]:
        """Where the tunnels of an overlay leave a cell: below their ends."""
        found: dict[tuple[float, float], None] = {}
        for end in overlay.ends:
            if end.partition(":")[0] in {node.name for node in cell.nodes}:
                box = cell.inside.places.get(end)
                found[
                    (cell.x + box.centre[0], cell.y + box.bottom) if box else (cell.middle - 24, cell.y + cell.inside.height)
                ] = None
        return list(found)

    def _tunnels(self, row: Sequence[_Cell], number: int, y: float) -> float:
        overlays = self.drawing.overlays
        if not overlays:
            return y
        return self._bus(row, number, y) if self.bus else self._tracks(row[:], y)

    def _tracks(self, row: Sequence[_Cell], y: float) -> float:
        """Each tunnel as a line of its own, from below one end to below the other."""
        home = {node.name: cell for cell in row for node in cell.nodes}
        pairs = [
            (home[one.partition(":")[0]], one, home[other.partition(":")[0]], other, overlay)
            for overlay in self.drawing.overlays
            for at, one in enumerate(overlay.ends)
            for other in overlay.ends[at + 1 :]
        ]
        pairs.sort(key=lambda pair: abs(pair[2].x - pair[0].x))
        many: dict[str, list[str]] = {}
        for _, one, _, other, _ in pairs:
            many.setdefault(one, []).append(other)
            many.setdefault(other, []).append(one)
        levels: list[list[tuple[float, float]]] = []
        for cell, one, peer, other, overlay in pairs:
            xs = []
            for here, end, far in ((cell, one, other), (peer, other, one)):
                around = sorted(many[end], key=lambda name: home[name.partition(":")[0]].x)
                box = here.inside.places[end]
                step = min(12, (box.width - 12) / max(len(around) - 1, 1))
                xs.append(here.x + box.centre[0] + step * (around.index(far) - (len(around) - 1) / 2))
            span = min(xs) - 6, max(xs) + 6
            level = next((n for n, taken in enumerate(levels) if all(span[1] < a or span[0] > b for a, b in taken)), len(levels))
            if level == len(levels):
                levels.append([])
            levels[level].append(span)
            track = y + 16 + level * _TRACK
            starts = [here.y + here.inside.places[end].bottom for here, end in ((cell, one), (peer, other))]
            points = ((xs[0], starts[0]), (xs[0], track), (xs[1], track), (xs[1], starts[1]))
            tip = f"{overlay.kind.upper()} tunnel {one} – {other}, VNI {overlay.vni}"
            self.back.append(Line("tunnel", points, tip))
            self._label(f"{overlay.kind.upper()} VNI {overlay.vni}", sum(xs) / 2, track, tip)
        return y + 16 + len(levels) * _TRACK - 6

    def _label(self, words: str, x: float, y: float, tip: str) -> None:
        wide = width(words, _SIZE - 1) + 8
        self.boxes.append(
            Box("label", x - wide / 2, y - 7, wide, 14, (Text(words, x, y + 3, _SIZE - 1, kind="tunnel"),), tip=tip)
        )

    def _bus(self, row: Sequence[_Cell], number: int, y: float) -> float:
        """All tunnels as one dashed line below each row."""
        overlays = self.drawing.overlays
        track = y + 18
        points = [point for overlay in overlays for cell in row for point in self._ends(cell, overlay)]
        if not points:
            return y
        lane = self.left - 12 if len(self.rows) > 1 else min(x for x, _ in points)
        self.back += [Line("tunnel", ((x, top), (x, track))) for x, top in dict.fromkeys(points)]
        right = max(cell.right for cell in row)
        self.back.append(Line("tunnel", ((lane, track), (right, track))))
        self._joints.setdefault("tunnels", []).append((lane, track))
        names = list(dict.fromkeys(f"{o.kind.upper()} VNI {o.vni}" if o.vni else o.shown for o in overlays))
        count = sum(overlay.tunnels for overlay in overlays)
        ends = len({end for overlay in overlays for end in overlay.ends})
        words = names[0] if len(names) == 1 else f"{overlays[0].kind.upper()}, {len(names)} VNIs"
        words = words if "tunnels" in words else f"{words}: {count} tunnels between {ends} ends"
        words = clipped(words, right - self.left - 20, _SIZE - 1)
        self._label(words, self.left + width(words, _SIZE - 1) / 2 + 14, track, f"{count} tunnels between {ends} ends")
        return track + 8

    @property
    def _joints(self) -> dict[str, list[tuple[float, float]]]:
        if not hasattr(self, "_found"):
            self._found: dict[str, list[tuple[float, float]]] = {}
        return self._found

    def _spread(self) -> None:
        """The lines at the left that join what a segment, or the tunnels, have in several rows."""
        for name, points in self._joints.items():
            if len(points) > 1:
                line = Line("tunnel" if name == "tunnels" else "wire", (points[0], points[-1]))
                (self.back if name == "tunnels" else self.lines).append(line)

    def _bars(self, row: Sequence[_Cell], number: int, y: float) -> float:
        """The segments' bars below a row; in the last one also those of segments whose nodes are all above."""
        last = number == len(self.rows) - 1
        levels: list[list[tuple[float, float]]] = []
        tall = 46
        for segment in self.drawing.segments:
            cells = [cell for cell in row if self._wires(cell, segment)]
            if not cells and not (last and segment.name in self.spines) and not (last and not self.used[segment.name]):
                continue
            spine = segment.name in self.spines
            left = min((cell.x for cell in cells), default=self.left)
            right = max((cell.right for cell in cells), default=self.left + 240)
            reach = self._lane(segment) if spine else left
            span = reach - 4, right + 4
            level = next((n for n, taken in enumerate(levels) if all(span[1] < a or span[0] > b for a, b in taken)), len(levels))
            if level == len(levels):
                levels.append([])
            levels[level].append(span)
            top = y + level * (tall + 14)
            self._bar(segment, cells, left, right, top, tall, last)
            if spine:
                self.lines.append(Line("wire", ((reach, top + tall / 2), (left, top + tall / 2))))
                self._joints.setdefault(f"segment {segment.name}", []).append((reach, top + tall / 2))
        return y + len(levels) * (tall + 14) - 14 if levels else y

    def _lane(self, segment: Segment) -> float:
        return _MARGIN + 14 * self.spines.index(segment.name) + 4

    def _bar(
        self, segment: Segment, cells: Sequence[_Cell], left: float, right: float, top: float, tall: float, last: bool
    ) -> None:
        """A segment's bar with its ports: the nodes' at its upper edge, the gateway's at the lower one."""
        gateway = next((port for port in segment.ports if port.peer.startswith(f"{GATEWAY}:")), None) if last else None
        word = width(gateway.name, _SIZE) + 10 if gateway else 0
        words = "  ".join([segment.name, *segment.subnets, f"MTU {segment.mtu}"])
        text = Text(clipped(words, right - left - word - 28, _SIZE), left + 10, top + tall - 9, _SIZE, "start", "strong")
        tip = "\n".join([f"segment {segment.name}", *segment.subnets, f"MTU {segment.mtu}"])
        place = f"{SWITCHES}:{segment.bridge}"
        bar = Box("segment", left, top, right - left, tall, (text,), place, tip=tip)
        self.boxes.append(bar)
        self.places[place] = _rounded(*bar.centre)
        self.places.setdefault(SWITCHES, self.places[place])
        for cell in cells:
            self._ports(segment, cell, top)
        if gateway is not None:
            x = (left + right) / 2 - word / 2
            text_end = text.bounds[2] + 8
            x = min(max(x, text_end), right - word - 6)
            self._port(segment, gateway, gateway.name, x, top + tall - 18, word)

    def _ports(self, segment: Segment, cell: _Cell, top: float) -> None:
        wires = self._wires(cell, segment)
        if len(cell.nodes) > 1:
            words = f"{len(wires)} ports"
            wide = width(words, _SIZE) + 10
            text = Text(words, cell.middle, top + 13, _SIZE)
            box = Box("port", cell.middle - wide / 2, top + 4, wide, 14, (text,), tip=f"{len(wires)} ports of {segment.name}")
            self.boxes.append(box)
            self.places.update((segment.place(port), _rounded(*box.centre)) for _, _, port in wires)
            self.lines.append(Line("wire", ((cell.middle, cell.y + cell.inside.height), (cell.middle, top + 4))))
            return
        for node, uplink, port in wires:
            box = cell.inside.places[node.place(uplink)] if uplink else None
            x = cell.x + box.right - 10 if box else cell.middle
            room = (box.width if box else cell.inside.width) - 4
            words = clipped(port.name, room - 10, _SIZE)
            wide = width(words, _SIZE) + 10
            left = min(x - wide / 2, cell.right - wide - 4)
            self._port(segment, port, words, left, top + 4, wide)
            start = cell.y + (box.bottom if box else cell.inside.height)
            tip = f"{port.peer} – {segment.place(port)}"
            self.lines.append(Line("wire", ((x, start), (x, top + 4)), tip, "" if port.up else "down"))
            if not port.up:
                self._cross(x, (cell.y + cell.inside.height + top + 4) / 2)

    def _port(self, segment: Segment, port: Device, words: str, x: float, y: float, wide: float) -> None:
        place, state = segment.place(port), "" if port.up else "down"
        tip = "\n".join([f"{place} (port of {port.bridge})", f"MTU {port.mtu}", *([] if port.up else ["down"])])
        box = Box("port", x, y, wide, 14, (Text(words, x + wide / 2, y + 10, _SIZE),), place, tip=tip, state=state)
        self.boxes.append(box)
        self.places[place] = _rounded(*box.centre)

    def _cross(self, x: float, y: float) -> None:
        self.lines += [Line("cross", ((x - 5, y - 5), (x + 5, y + 5))), Line("cross", ((x - 5, y + 5), (x + 5, y - 5)))]

    def _hosts(self, y: float) -> float:
        """The gateway below the segments, and beside it the host outside."""
        hosts = {host.name: host for host in self.drawing.hosts}
        gateway = hosts.get(GATEWAY)
        if gateway is None:
            return y
        legs = [device for device in gateway.devices if device.peer.startswith(f"{SWITCHES}:")]
        out = [device for device in gateway.devices if device not in legs]
        cells = [_leg_width(device) for device in (*legs, *out)]
        wide = sum(cells) + 8 * (len(cells) + 1)
        outside = hosts.get(OUTSIDE_HOST)
        beyond = [_leg_width(device) for device in outside.devices] if outside else []
        total = wide + (46 + sum(beyond) + 8 * (len(beyond) + 1) if outside else 0)
        ports = [self.places[device.peer][0] for device in legs if device.peer in self.places]
        centre = sum(ports) / len(ports) if ports else self.width / 2
        x = min(max(centre - wide / 2, _MARGIN), max(self.width - _MARGIN - total, _MARGIN))
        self.width = max(self.width, x + total + _MARGIN)
        channel = 14 + 8 * len(legs)
        top = y + channel
        self._host(gateway, (*legs, *out), x, top, wide)
        for number, device in enumerate(legs):
            start, end = self.places.get(device.peer), self.places[gateway.place(device)]
            if start is None:
                continue
            bend = y + 6 + 8 * number
            straight = abs(start[0] - end[0]) < 2
            points = [(start[0], start[1] + 7), (start[0], bend), (end[0], bend), (end[0], top + 24)]
            self.lines.append(Line("wire", (points[0], (start[0], top + 24)) if straight else tuple(points)))
        tall = self._tall(gateway)
        if outside:
            beside = x + wide + 46
            self._host(outside, outside.devices, beside, top, sum(beyond) + 8 * (len(beyond) + 1))
            for device in out:
                one, other = self.places[gateway.place(device)], self.places.get(device.peer)
                if other:
                    self.lines.append(Line("wire", (one, other)))
            tall = max(tall, self._tall(outside))
        return top + tall

    def _tall(self, host: Host) -> float:
        return 24 + 12 + (_SIZE * LINE) * max((1 + len(device.addresses) for device in host.devices), default=1)

    def _host(self, host: Host, devices: Sequence[Device], x: float, y: float, wide: float) -> None:
        tall = self._tall(host)
        kind = "router" if host.name == GATEWAY else "outside"
        name = Text(host.name, x + wide / 2, y + 16, 12, kind="name")
        self.boxes.append(Box(kind, x, y, wide, tall, (name,), "", host.name, "", host.name))
        self.places[host.name] = _rounded(x + wide / 2, y + tall / 2)
        at = x + 8
        for device in devices:
            room = _leg_width(device)
            lines = [device.name, *(clipped(address, room - 8, _SIZE - 1) for address in device.addresses)]
            texts = (
                *stacked(lines[:1], at + room / 2, y + 27, _SIZE),
                *stacked(lines[1:], at + room / 2, y + 27 + _SIZE * LINE, _SIZE - 1),
            )
            place = host.place(device)
            tip = "\n".join([place, *device.addresses, f"MTU {device.mtu}"])
            box = Box("leg", at, y + 24, room, tall - 30, texts, place, host.name, "", tip)
            self.boxes.append(box)
            self.places[place] = _rounded(*box.centre)
            at += room + 8


def _leg_width(device: Device) -> float:
    return min(max(64, *(width(word, _SIZE) + 12 for word in (device.name, *device.addresses))), 170)


def _groups(nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Nodes of one segment each, about as many in each, a round number of them."""
    least = ceil(len(nodes) / _GROUPS)
    size = next((one for one in (5, 10, 20, 25, 50, 100) if one >= least), least)
    found: list[tuple[Node, ...]] = []
    for name in dict.fromkeys(node.segment for node in nodes):
        members = [node for node in nodes if node.segment == name]
        found += [tuple(members[at : at + size]) for at in range(0, len(members), size)]
    return found


def _group(nodes: Sequence[Node]) -> Inside:
    """The box of a group: from which node to which, and how many there are of everything."""
    wide, tall, size = 186.0, 66.0, _SIZE
    names = f"{nodes[0].name} … {nodes[-1].name}" if len(nodes) > 1 else nodes[0].name
    pods, stopped = sum(len(node.pods) for node in nodes), sum(not node.running for node in nodes)
    counts = [f"{len(nodes)} nodes", f"{pods} pods"] + ([f"{stopped} stopped"] if stopped else [])
    texts = (
        Text(clipped(names, wide - 12, size + 1), wide / 2, 22, size + 1, kind="name"),
        *stacked(wrapped(counts, wide - 12, size), wide / 2, 30, size),
    )
    tip = "\n".join([f"{names}: {', '.join(counts)}"])
    box = Box("node", 0, 0, wide, tall, texts, "", nodes[0].name if len(nodes) == 1 else "", "", tip)
    return Inside(wide, tall, [box])


def _rounded(x: float, y: float) -> tuple[float, float]:
    return round(x, 1), round(y, 1)
