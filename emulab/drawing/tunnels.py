"""The tunnels between nodes, below their row: one by one where they are few, else as a line to which all ends lead."""

from __future__ import annotations

from collections.abc import Sequence

from emulab.drawing.nouns import Overlay
from emulab.drawing.shapes import Box, Line, Text, clipped, width
from emulab.drawing.sheet import SIZE, Cell, Sheet, level

_TRACK = 20  # from one line to the next
_BUSES = 4  # overlays that have a line each


def tunnels(sheet: Sheet, row: Sequence[Cell], y: float) -> float:
    """Draw the tunnels of a row that ends at ``y``; returns where they end."""
    overlays = sheet.drawing.overlays
    if not overlays:
        return y
    if sheet.one_by_one:
        return _tracks(sheet, row, y + 16)
    if len(sheet.rows) > 1 or len(overlays) > _BUSES:
        return _bus(sheet, row, overlays, y + 18)
    for overlay in overlays:
        y = _bus(sheet, row, [overlay], y + 18) - 6
    return y + 6


def _tracks(sheet: Sheet, row: Sequence[Cell], y: float) -> float:
    """Each tunnel as a line of its own, from below one end to below the other."""
    home = {node.name: cell for cell in row for node in cell.nodes}
    pairs = [
        (one, other, overlay)
        for overlay in sheet.drawing.overlays
        for at, one in enumerate(overlay.ends)
        for other in overlay.ends[at + 1 :]
    ]

    def cell(end: str) -> Cell:
        return home[end.partition(":")[0]]

    pairs.sort(key=lambda pair: abs(cell(pair[1]).x - cell(pair[0]).x))
    many: dict[str, list[str]] = {}
    for one, other, _ in pairs:
        many.setdefault(one, []).append(other)
        many.setdefault(other, []).append(one)
    levels: list[list[tuple[float, float]]] = []
    found = []
    for one, other, overlay in pairs:
        xs, starts = [], []
        for end, far in ((one, other), (other, one)):
            around = sorted(many[end], key=lambda name: cell(name).x)
            box = cell(end).inside.places[end]
            step = min(12, (box.width - 12) / max(len(around) - 1, 1))
            xs.append(cell(end).x + box.centre[0] + step * (around.index(far) - (len(around) - 1) / 2))
            starts.append(cell(end).y + box.bottom)
        where = level(levels, min(xs) - 6, max(xs) + 6)
        track = y + where * _TRACK
        tip = f"{overlay.kind.upper()} tunnel {one} – {other}, VNI {overlay.vni}"
        sheet.back.append(Line("tunnel", ((xs[0], starts[0]), (xs[0], track), (xs[1], track), (xs[1], starts[1])), tip))
        found.append((where, xs, track, overlay, tip))
    for where, xs, track, overlay, tip in found:
        crossing = [*sheet.downs(row), *(x for other, pair, *_ in found if other > where for x in pair)]
        _label(sheet, overlay.shown, (min(xs), max(xs)), track, tip, crossing, sum(xs) / 2)
    return y + len(levels) * _TRACK - 6


def _bus(sheet: Sheet, row: Sequence[Cell], overlays: Sequence[Overlay], track: float) -> float:
    """The tunnels of ``overlays`` as one line below a row; where there are several rows, it goes on in the lane."""
    points = list(dict.fromkeys(point for overlay in overlays for cell in row for point in _ends(cell, overlay)))
    if not points:
        return track - 18
    several = len(sheet.rows) > 1
    left, right = (sheet.left, max(cell.right for cell in row)) if several else (min(points)[0], max(points)[0])
    count, ends = sum(overlay.tunnels for overlay in overlays), len({end for overlay in overlays for end in overlay.ends})
    words = f"{_named(overlays)}: {count} tunnels"
    tip = f"{words} between {ends} ends"
    sheet.back += [Line("tunnel", ((x, top), (x, track)), tip) for x, top in points]
    lane = sheet.left - 12 if several else left
    sheet.back.append(Line("tunnel", ((lane, track), (right, track)), tip))
    if several:
        sheet.joints.setdefault("tunnels", []).append((lane, track))
    crossing = [x for overlay in sheet.drawing.overlays for cell in row for x, _ in _ends(cell, overlay)]
    _label(sheet, words, (left, right), track, tip, [*sheet.downs(row), *crossing], left)
    return track + 8


def _named(overlays: Sequence[Overlay]) -> str:
    vnis = {overlay.vni for overlay in overlays}
    if vnis == {0}:
        return f"{overlays[0].kind.upper()}, a VNI each"
    return f"{overlays[0].kind.upper()}, {len(vnis)} VNIs" if len(vnis) > 1 else overlays[0].shown


def _ends(cell: Cell, overlay: Overlay) -> list[tuple[float, float]]:
    """Where the tunnels of an overlay leave a cell: below their ends."""
    names = {node.name for node in cell.nodes}
    found: dict[tuple[float, float], None] = {}
    for end in overlay.ends:
        if end.partition(":")[0] in names:
            box = cell.inside.places.get(end)
            found[(cell.x + box.centre[0], cell.y + box.bottom) if box else (cell.middle - 24, cell.bottom)] = None
    return list(found)


def _label(
    sheet: Sheet, words: str, span: tuple[float, float], y: float, tip: str, crossing: Sequence[float], wanted: float
) -> None:
    """A label on a line, as near to where it is ``wanted`` as it covers no line that crosses."""
    left, right = span
    words = clipped(words, right - left - 12, SIZE - 1)
    half = width(words, SIZE - 1) / 2 + 4
    spots = sorted(range(int(left + half) + 3, int(right - half) - 2, 3), key=lambda x: abs(x - wanted))
    free = (x for x in spots if all(abs(x - other) > half + 3 for other in crossing))
    x = next(free, spots[0] if spots else (left + right) / 2)
    text = Text(words, x, y + 3, SIZE - 1, kind="tunnel")
    sheet.boxes.append(Box("label", x - half, y - 7, 2 * half, 14, (text,), tip=tip))
