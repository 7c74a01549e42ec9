"""The sheet on which a layout is made: cells in rows, and what has been drawn so far.

A cell is a node or, in a large cluster, a group of nodes.  What goes from row to row passes in lanes at the left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from emulab.drawing.inside import Inside, Style, inside, natural
from emulab.drawing.nouns import MOST_NODES, Device, Drawing, Node, Segment
from emulab.drawing.shapes import Box, Line, Text, clipped, moved, shifted, stacked, wrapped

MARGIN, GAP, SIZE = 24, 16, 10
LANE = 14  # from one line at the left to the next
_ACROSS = 1280  # the width that rows keep to, where one node does not need more
_LEAST = 480
_ROOMY, _DENSE = 8, 20  # nodes that are shown with all addresses, and those beyond which they are smaller still
_GROUPS = 12  # of a large cluster, about
_TRACKS = 6  # tunnels that are drawn one by one


@dataclass
class Cell:
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

    @property
    def bottom(self) -> float:
        return self.y + self.inside.height


@dataclass(frozen=True)
class Wire:
    """A node's link: the device at its end, if that is shown, the switch's port, and where it goes down."""

    node: Node
    uplink: Device | None
    port: Device
    x: float
    top: float


class Sheet:
    """``back`` are the lines below all others; ``joints`` the points of each lane, row by row."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.boxes: list[Box] = []
        self.lines: list[Line] = []
        self.back: list[Line] = []
        self.places: dict[str, tuple[float, float]] = {}
        self.joints: dict[str, list[tuple[float, float]]] = {}
        cells = _cells(drawing)
        wide = max((cell.inside.width for cell in cells), default=0)
        rows = ceil(len(cells) / max(int((_ACROSS + GAP) / (wide + GAP)), 1))
        per_row = ceil(len(cells) / max(rows, 1)) or 1
        self.rows = [cells[at : at + per_row] for at in range(0, len(cells), per_row)]
        used = {s.name: [n for n, row in enumerate(self.rows) if self.attached(row, s)] for s in drawing.segments}
        #: Segments that have bars in several rows, or none in the last one: they have a lane.
        self.spines = [name for name, rows in used.items() if rows and rows != [len(self.rows) - 1]]
        self.one_by_one = len(self.rows) == 1 and sum(o.tunnels for o in drawing.overlays) <= _TRACKS and not self.grouped
        lanes = len(self.spines) + (1 if drawing.overlays and len(self.rows) > 1 else 0)
        self.left = MARGIN + (LANE * lanes + 8 if lanes else 0)
        across = per_row * (wide + GAP) - GAP
        self.right = max(self.left + across, _LEAST - MARGIN)
        for row in self.rows:
            spare = self.right - self.left - across if len(self.rows) == 1 else 0
            for number, cell in enumerate(row):
                cell.x = self.left + spare / 2 + number * (wide + GAP)

    @property
    def grouped(self) -> bool:
        return len(self.drawing.nodes) > MOST_NODES

    def last(self, row: Sequence[Cell]) -> bool:
        return row is self.rows[-1]

    def attached(self, row: Iterable[Cell], segment: Segment) -> list[Cell]:
        """The cells of a row that have links to a segment."""
        return [cell for cell in row if any(True for _ in self.wires(cell, segment))]

    def wires(self, cell: Cell, segment: Segment) -> Iterator[Wire]:
        """The links of a cell's nodes to a segment."""
        nodes = {node.name: node for node in cell.nodes}
        for port in segment.ports:
            name, _, interface = port.peer.rpartition(":")
            if name in nodes:
                node = nodes[name]
                uplink = next((device for device in node.of("uplink") if device.name == interface), None)
                box = cell.inside.places.get(port.peer)
                x = cell.x + box.right - 10 if box else cell.middle
                yield Wire(node, uplink, port, x, cell.y + box.bottom if box else cell.bottom)

    def downs(self, row: Iterable[Cell]) -> list[float]:
        """Where the wires of a row go down."""
        return [wire.x for cell in row for segment in self.drawing.segments for wire in self.wires(cell, segment)]

    def put(self, box: Box) -> None:
        """Draw a box; it is where its place is."""
        self.boxes.append(box)
        if box.place:
            self.places[box.place] = rounded(*box.centre)

    def place(self, cell: Cell, y: float) -> None:
        """Draw a cell; what has no box of its own there is where its node is."""
        cell.y = y
        self.boxes += [moved(box, cell.x, y) for box in cell.inside.boxes]
        self.lines += [shifted(line, cell.x, y) for line in cell.inside.lines]
        centre = rounded(cell.middle, y + cell.inside.height / 2)
        for node in cell.nodes:
            self.places[node.name] = centre
            self.places.update((pod.key, centre) for pod in node.pods)
        for place, box in cell.inside.places.items():
            self.places[place] = rounded(cell.x + box.centre[0], y + box.centre[1])


def level(levels: list[list[tuple[float, float]]], left: float, right: float) -> int:
    """The first level on which nothing is between ``left`` and ``right``, which is then taken."""
    found = next((n for n, taken in enumerate(levels) if all(right < a or left > b for a, b in taken)), len(levels))
    if found == len(levels):
        levels.append([])
    levels[found].append((left, right))
    return found


def rounded(x: float, y: float) -> tuple[float, float]:
    return round(x, 1), round(y, 1)


def _cells(drawing: Drawing) -> list[Cell]:
    """The nodes segment by segment: each, or in groups."""
    order = {segment.name: number for number, segment in enumerate(drawing.segments)}
    nodes = sorted(drawing.nodes, key=lambda node: order.get(node.segment, 0))
    if len(nodes) > MOST_NODES:
        return [Cell(group, _group(group)) for group in groups(nodes)]
    if len(nodes) <= _ROOMY:
        style = Style(True, {1: 1000.0, 2: 540.0}.get(len(nodes), 376), 18)
    elif len(nodes) <= _DENSE:
        style = Style(False, 224, 12, 10, 84, 150, 8, 5)
    else:
        style = Style(False, 140, 9, 9, 70, 140, 7, 4)
    wide = max((natural(node, style) for node in nodes), default=0)
    tall = max((inside(node, style, wide).height for node in nodes), default=0)
    return [Cell((node,), inside(node, style, wide, tall - inside(node, style, wide).height)) for node in nodes]


def groups(nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
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
    wide, room = 186.0, 174.0
    names = f"{nodes[0].name} … {nodes[-1].name}" if len(nodes) > 1 else nodes[0].name
    pods, stopped = sum(len(node.pods) for node in nodes), sum(not node.running for node in nodes)
    counts = [f"{len(nodes)} nodes", f"{pods} pods"] + ([f"{stopped} stopped"] if stopped else [])
    title = Text(clipped(names, room, SIZE + 1), wide / 2, 22, SIZE + 1, kind="name")
    told = stacked(wrapped(counts, room, SIZE), wide / 2, 30, SIZE)
    tip = f"{nodes[0].name} … {nodes[-1].name}: {', '.join(counts)}"
    box = Box("node", 0, 0, wide, 66, (title, *told), "", nodes[0].name if len(nodes) == 1 else "", "", tip)
    return Inside(wide, 66, [box])
