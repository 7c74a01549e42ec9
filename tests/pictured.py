"""What would make a picture hard to read: boxes that overlap, texts that leave their boxes or meet each other."""

from __future__ import annotations

from itertools import combinations

from emulab.drawing import Drawing
from emulab.drawing.shapes import Box

_NOTHING = 0.01  # what sums of floats may differ by


def apart(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return max(other[0] - one[2], one[0] - other[2], other[1] - one[3], one[1] - other[3]) >= -_NOTHING


def within(inner: tuple[float, float, float, float], outer: tuple[float, float, float, float]) -> bool:
    return max(outer[0] - inner[0], outer[1] - inner[1], inner[2] - outer[2], inner[3] - outer[3]) <= _NOTHING


def bounds(box: Box) -> tuple[float, float, float, float]:
    return box.x, box.y, box.right, box.bottom


def mistakes(drawing: Drawing) -> list[str]:
    """What is not as it should be in a layout: boxes that overlap, texts that leave theirs or meet another."""
    layout = drawing.layout
    sheet = (0.0, 0.0, layout.width, layout.height)
    found = [f"{box} leaves the sheet" for box in layout.boxes if not within(bounds(box), sheet)]
    found += [f"{line} leaves the sheet" for line in layout.lines for x, y in line.points if not within((x, y, x, y), sheet)]
    for one, other in combinations(layout.boxes, 2):
        a, b = bounds(one), bounds(other)
        if not (apart(a, b) or within(a, b) or within(b, a)):
            found.append(f"{one} overlaps {other}")
    texts = [(text, box) for box in layout.boxes for text in box.texts]
    for text, box in texts:
        if not within(text.bounds, bounds(box)):
            found.append(f"{text} leaves {box}")
        for other in layout.boxes:
            if other is not box and not apart(text.bounds, bounds(other)) and not within(bounds(box), bounds(other)):
                found.append(f"{text} is covered by {other}")
    for (one_text, _), (other_text, _) in combinations(texts, 2):
        if not apart(one_text.bounds, other_text.bounds):
            found.append(f"{one_text} meets {other_text}")
    return found
