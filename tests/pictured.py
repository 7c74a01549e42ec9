"""What would make a picture hard to read: boxes that overlap, texts that leave their boxes or meet each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from emulab.drawing import Drawing
from emulab.drawing.shapes import Box

Bounds = tuple[float, float, float, float]
T = TypeVar("T")
_NOTHING = 0.01  # what sums of floats may differ by


def apart(one: Bounds, other: Bounds) -> bool:
    return max(other[0] - one[2], one[0] - other[2], other[1] - one[3], one[1] - other[3]) >= -_NOTHING


def within(inner: Bounds, outer: Bounds) -> bool:
    return max(outer[0] - inner[0], outer[1] - inner[1], inner[2] - outer[2], inner[3] - outer[3]) <= _NOTHING


def bounds(box: Box) -> Bounds:
    return box.x, box.y, box.right, box.bottom


def meeting(things: Sequence[tuple[Bounds, T]]) -> Iterator[tuple[tuple[Bounds, T], tuple[Bounds, T]]]:
    """The pairs that are not apart, swept from left to right: all pairs would be too many."""
    ordered = sorted(things, key=lambda thing: thing[0])
    for index, one in enumerate(ordered):
        for other in islice(ordered, index + 1, None):
            if other[0][0] > one[0][2]:
                break
            if not apart(one[0], other[0]):
                yield one, other


def mistakes(drawing: Drawing) -> list[str]:
    """What is not as it should be in a layout: boxes that overlap, texts that leave theirs or meet another."""
    layout = drawing.layout
    sheet = (0.0, 0.0, layout.width, layout.height)
    boxes = [(bounds(box), box) for box in layout.boxes]
    texts = [(text.bounds, (text, box)) for box in layout.boxes for text in box.texts]
    found = [f"{box} leaves the sheet" for a, box in boxes if not within(a, sheet)]
    found += [f"{line} leaves the sheet" for line in layout.lines for x, y in line.points if not within((x, y, x, y), sheet)]
    found += [f"{text} leaves {box}" for a, (text, box) in texts if not within(a, bounds(box))]
    for (a, one), (b, other) in meeting(boxes):
        if not (within(a, b) or within(b, a)):
            found.append(f"{one} overlaps {other}")
    for (_, (one_text, _)), (_, (other_text, _)) in meeting(texts):
        found.append(f"{one_text} meets {other_text}")
    for (a, one), (b, other) in meeting([*boxes, *texts]):
        if isinstance(one, Box) == isinstance(other, Box):
            continue
        (text, box), cover, area = (other, one, a) if isinstance(one, Box) else (one, other, b)
        if cover is not box and not within(bounds(box), area):
            found.append(f"{text} is covered by {cover}")
    return found
