"""A drawing as SVG: one self-contained element without scripts, for a file or inside a page.

Colours are CSS variables with defaults for light and dark, each in a rule of no specificity (``:where``), so that any rule of a
page wins.  Devices carry ``data-place`` as traces say their places, nodes ``data-node``, pods ``data-pod``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from emulab.drawing import Drawing
from emulab.drawing.shapes import Box, Line

STYLE = """
:where(.emulab-drawing) {
  --drawing-paper: #ffffff; --drawing-ink: #1f2933; --drawing-faint: #5b6775; --drawing-line: #5b6775;
  --drawing-node: #f4f6f8; --drawing-edge: #9aa5b1; --drawing-pod: #dbeafe; --drawing-pod-edge: #3b73c4;
  --drawing-device: #ffffff; --drawing-bridge: #dcf3e3; --drawing-bridge-edge: #2f855a;
  --drawing-tunnel: #fdebd0; --drawing-tunnel-edge: #b45309; --drawing-tunnel-ink: #8f4106;
  --drawing-uplink: #ece5fb; --drawing-uplink-edge: #6b46c1; --drawing-segment: #e6e0f5; --drawing-router: #fdf3c7;
  --drawing-router-edge: #a16207; --drawing-bad: #c81e1e;
}
@media (prefers-color-scheme: dark) {
  :where(.emulab-drawing) {
    --drawing-paper: #14181d; --drawing-ink: #e6eaee; --drawing-faint: #a3afbb; --drawing-line: #9aa5b1;
    --drawing-node: #1d232a; --drawing-edge: #52606d; --drawing-pod: #1b365d; --drawing-pod-edge: #6ea0e6;
    --drawing-device: #262e37; --drawing-bridge: #173a28; --drawing-bridge-edge: #57b583;
    --drawing-tunnel: #45290c; --drawing-tunnel-edge: #e59c4b; --drawing-tunnel-ink: #f3b878;
    --drawing-uplink: #32264f; --drawing-uplink-edge: #a98ee8; --drawing-segment: #2a2340; --drawing-router: #3d3210;
    --drawing-router-edge: #d6a93c; --drawing-bad: #ff7b72;
  }
}
.emulab-drawing { background: var(--drawing-paper); color-scheme: light dark; }
.emulab-drawing text { font-family: "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", "Courier New", monospace;
  fill: var(--drawing-ink); white-space: pre; }
.emulab-drawing rect { fill: var(--drawing-device); stroke: var(--drawing-edge); stroke-width: 1; }
.emulab-drawing polyline { fill: none; stroke: var(--drawing-line); stroke-width: 1.2; stroke-linejoin: round; }
.emulab-drawing .name { font-weight: bold; }
.emulab-drawing .strong { font-weight: bold; }
.emulab-drawing .faint { fill: var(--drawing-faint); }
.emulab-drawing .bad { fill: var(--drawing-bad); }
.emulab-drawing .words > rect { fill: none; stroke: none; }
.emulab-drawing .node > rect { fill: var(--drawing-node); }
.emulab-drawing .pod > rect { fill: var(--drawing-pod); stroke: var(--drawing-pod-edge); }
.emulab-drawing .eth > rect { stroke: var(--drawing-pod-edge); }
.emulab-drawing .bridge > rect { fill: var(--drawing-bridge); stroke: var(--drawing-bridge-edge); }
.emulab-drawing .vtep > rect { fill: var(--drawing-tunnel); stroke: var(--drawing-tunnel-edge); }
.emulab-drawing .uplink > rect, .emulab-drawing .port > rect { fill: var(--drawing-uplink); stroke: var(--drawing-uplink-edge); }
.emulab-drawing .segment > rect { fill: var(--drawing-segment); stroke: var(--drawing-uplink-edge); }
.emulab-drawing .router > rect, .emulab-drawing .outside > rect { fill: var(--drawing-router);
  stroke: var(--drawing-router-edge); }
.emulab-drawing .routing > rect, .emulab-drawing .more > rect { fill: none; stroke-dasharray: 3 2; }
.emulab-drawing .label > rect { fill: var(--drawing-paper); stroke: none; }
.emulab-drawing .label text { fill: var(--drawing-tunnel-ink); }
.emulab-drawing polyline.tunnel { stroke: var(--drawing-tunnel-edge); stroke-width: 1.5; stroke-dasharray: 6 3; }
.emulab-drawing polyline.wire { stroke: var(--drawing-uplink-edge); stroke-width: 1.6; }
.emulab-drawing polyline.route { stroke-dasharray: 2 2; }
.emulab-drawing polyline.cross { stroke: var(--drawing-bad); stroke-width: 2.4; }
.emulab-drawing .stopped > rect { stroke-dasharray: 6 4; opacity: 0.6; }
.emulab-drawing .stopped > text { fill: var(--drawing-faint); }
.emulab-drawing .down > rect { stroke: var(--drawing-bad); stroke-dasharray: 4 2; }
.emulab-drawing .down > text { fill: var(--drawing-bad); }
.emulab-drawing polyline.down { stroke: var(--drawing-bad); stroke-dasharray: 4 3; }
"""


_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GROUND = ("node", "segment", "router", "outside")  # what lines are drawn upon


def render(drawing: Drawing, *, title: str = "") -> str:
    """The drawing as an ``<svg>`` element; ``title`` is its accessible name, else what it shows."""
    return "\n".join(_lines(drawing, title or drawing.title)) + "\n"


def _lines(drawing: Drawing, title: str) -> Iterator[str]:
    layout = drawing.layout
    size = f"{_number(layout.width)} {_number(layout.height)}"
    across, tall = size.split()
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="emulab-drawing" viewBox="0 0 {size}" width="{across}" height="{tall}" '
        'role="img">'
    )
    yield f"<title>{_escaped(title)}</title>"
    yield f"<desc>{_escaped(drawing.summary)}</desc>"
    yield f"<style>{STYLE}</style>"
    yield '<g class="ground">'
    for box in layout.boxes:
        if box.kind in _GROUND:
            yield from _box(box)
    yield "</g>"
    yield '<g class="lines">'
    yield from map(_polyline, layout.lines)
    yield "</g>"
    yield '<g class="devices">'
    for box in layout.boxes:
        if box.kind not in _GROUND:
            yield from _box(box)
    yield "</g>"
    yield "</svg>"


def _polyline(line: Line) -> str:
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in line.points)
    tip = f"<title>{_escaped(line.tip)}</title>" if line.tip else ""
    return f'<polyline class="{_classes(line)}" points="{points}">{tip}</polyline>'


def _box(box: Box) -> Iterator[str]:
    data = [("place", box.place), ("node", box.node), ("pod", box.pod)]
    marks = "".join(f" data-{name}={quoteattr(_allowed(value))}" for name, value in data if value)
    yield f'<g class="{_classes(box)}"{marks}>'
    if box.tip:
        yield f"<title>{_escaped(box.tip)}</title>"
    x, y, wide, tall = map(_number, (box.x, box.y, box.width, box.height))
    yield f'<rect x="{x}" y="{y}" width="{wide}" height="{tall}" rx="3"/>'
    for text in box.texts:
        kind = f' class="{text.kind}"' if text.kind else ""
        anchor = "" if text.anchor == "start" else ' text-anchor="middle"'
        where = f'x="{_number(text.x)}" y="{_number(text.y)}" font-size="{_number(text.size)}"'
        yield f"<text {where}{kind}{anchor}>{_escaped(text.words)}</text>"
    yield "</g>"


def _classes(thing: Box | Line) -> str:
    return f"{thing.kind} {thing.state}".strip()


def _escaped(words: str) -> str:
    return escape(_allowed(words))


def _allowed(words: str) -> str:
    """What no XML document may hold (XML 1.0, 2.2) is replaced."""
    return _FORBIDDEN.sub("\ufffd", words)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
