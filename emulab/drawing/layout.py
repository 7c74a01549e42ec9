"""Where everything of a drawing stands: rows of nodes, tunnels below them, switches below those, then the gateway and outside.

A few nodes are shown with their addresses, more by names only, and of very many only groups.  A segment is a bar below each row
in which it has nodes; its bars are joined at the left.  The same drawing has the same layout, always.
"""

from __future__ import annotations

from dataclasses import dataclass

from emulab.drawing.nouns import Drawing
from emulab.drawing.shapes import LINE, Box, Line, Text, clipped, stacked, wrapped
from emulab.drawing.sheet import MARGIN, SIZE, Sheet
from emulab.drawing.tunnels import tunnels
from emulab.drawing.underlay import hosts, segments

_CUTS = 4  # pairs without a path that are named


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
    sheet = Sheet(drawing)
    y = _title(sheet)
    for row in sheet.rows:
        for cell in row:
            sheet.place(cell, y)
        y = tunnels(sheet, row, max(cell.bottom for cell in row))
        y = segments(sheet, row, y + 16)
        y += 0 if sheet.last(row) else 26
    y = hosts(sheet, y)
    for name, points in sheet.joints.items():
        kept, kind = (sheet.back, "tunnel") if name == "tunnels" else (sheet.lines, "wire")
        kept.append(Line(kind, (points[0], points[-1])))
    size = round(sheet.right + MARGIN, 1), round(y + MARGIN, 1)
    return Layout(*size, tuple(sheet.boxes), (*sheet.back, *sheet.lines), sheet.places)


def _title(sheet: Sheet) -> float:
    drawing, room = sheet.drawing, sheet.right - MARGIN
    texts = [Text(clipped(drawing.title, room, 14), MARGIN, MARGIN + 12, 14, "start", "name")]
    told = [f"no path between {one} and {other}" for one, other in drawing.cuts[:_CUTS]]
    told += [f"and {len(drawing.cuts) - _CUTS} more pairs"] if len(drawing.cuts) > _CUTS else []
    notes = wrapped(told, room, SIZE)
    texts += stacked(notes, MARGIN, MARGIN + 18, SIZE, "bad", "start")
    tall = 22 + SIZE * LINE * len(notes)
    sheet.boxes.append(Box("words", MARGIN, MARGIN, room, tall, tuple(texts)))
    return MARGIN + tall + 10
