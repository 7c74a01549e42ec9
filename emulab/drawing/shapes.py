"""What a layout is made of: boxes with texts, and lines.  Lengths are in the picture's units, the SVG's pixels.

Texts are set in a monospaced font, so that their width is known: a column is at most 0.61 of the size in the common ones
(DejaVu Sans Mono and Menlo 0.602, Courier 0.6, Consolas 0.55).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

_COLUMN = 0.61
LINE = 1.3  # from one line of text to the next, in sizes


@dataclass(frozen=True)
class Text:
    """A line of text that is centred at ``x`` or, if ``anchor`` is "start", begins there; ``y`` is its baseline."""

    words: str
    x: float
    y: float
    size: float
    anchor: str = "middle"
    kind: str = ""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        wide = width(self.words, self.size)
        left = self.x - wide / 2 if self.anchor == "middle" else self.x
        return left, self.y - 0.8 * self.size, left + wide, self.y + 0.25 * self.size


@dataclass(frozen=True)
class Box:
    """A rectangle: a node, a pod, a device.  ``place``, ``node`` and ``pod`` say which; ``tip`` is what a pointer is told."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    texts: tuple[Text, ...] = ()
    place: str = ""
    node: str = ""
    pod: str = ""
    tip: str = ""
    state: str = ""  # "down", "stopped"

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class Line:
    """A line through ``points``: a "wire", a "pair", a "route", a "tunnel"."""

    kind: str
    points: tuple[tuple[float, float], ...]
    tip: str = ""
    state: str = ""


def moved(box: Box, dx: float, dy: float) -> Box:
    texts = tuple(replace(text, x=text.x + dx, y=text.y + dy) for text in box.texts)
    return replace(box, x=box.x + dx, y=box.y + dy, texts=texts)


def shifted(line: Line, dx: float, dy: float) -> Line:
    return replace(line, points=tuple((x + dx, y + dy) for x, y in line.points))


def columns(words: str) -> int:
    """How many columns a terminal would need."""
    if words.isascii():
        return len(words)
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in words)


def width(words: str, size: float) -> float:
    return columns(words) * size * _COLUMN


def clipped(words: str, room: float, size: float) -> str:
    """``words``, or as much of their beginning and end as ``room`` holds: names often differ at the end."""
    if width(words, size) <= room:
        return words
    keep = max(int(room / (size * _COLUMN)) - 1, 0)
    while keep:
        found = words[: keep - keep // 2] + "…" + (words[-(keep // 2) :] if keep // 2 else "")
        if width(found, size) <= room:
            return found
        keep -= 1
    return "…"


def wrapped(words: Iterable[str], room: float, size: float) -> list[str]:
    """Lines of as many ``words`` as fit, two spaces apart; a word that is too long is clipped."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}  {word}" if lines else word
        if lines and width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(clipped(word, room, size))
    return lines


def stacked(lines: Iterable[str], x: float, top: float, size: float, kind: str = "", anchor: str = "middle") -> Iterator[Text]:
    """``lines`` below each other, the first below ``top``."""
    for number, words in enumerate(lines):
        yield Text(words, x, top + size * (LINE * number + 1), size, anchor, kind)
