"""A drawing in Graphviz' language (https://graphviz.org/doc/info/lang.html), for `dot -Tsvg` and those who lay out otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from emulab.drawing import Drawing
from emulab.drawing.graph import Edge, Vertex, graph

_FILLS = {
    "pod": "#dbeafe",
    "bridge": "#dcf3e3",
    "vtep": "#fdebd0",
    "overlay": "#fdebd0",
    "uplink": "#ece5fb",
    "segment": "#e6e0f5",
    "host": "#fdf3c7",
    "routing": "#ffffff",
}
_STYLES = {"tunnel": "dashed", "route": "dotted"}


def render(drawing: Drawing) -> str:
    """The graph as text."""
    return "\n".join(_lines(drawing)) + "\n"


def _lines(drawing: Drawing) -> Iterator[str]:
    found = graph(drawing)
    yield "graph emulab {"
    yield f"  graph [label={_quoted(drawing.title)}, labelloc=t, fontname=monospace, compound=true]"
    yield '  node [shape=box, style="filled,rounded", fillcolor=white, fontname=monospace, fontsize=10]'
    yield "  edge [fontname=monospace, fontsize=9]"
    for cluster in found.clusters:
        yield f"  subgraph cluster_{cluster.name} {{"
        style = ', style=dashed, color="#c81e1e"' if cluster.stopped else ""
        yield f"    graph [label={_quoted(cluster.label)}{style}]"
        yield from (f"    {_vertex(vertex)}" for vertex in cluster.vertices)
        yield "  }"
    yield from (f"  {_vertex(vertex)}" for vertex in found.vertices)
    yield from (f"  {_edge(edge)}" for edge in found.edges)
    yield "}"


def _vertex(vertex: Vertex) -> str:
    fill = f', fillcolor="{_FILLS[vertex.kind]}"' if vertex.kind in _FILLS else ""
    down = ', color="#c81e1e", style="filled,rounded,dashed"' if vertex.down else ""
    label = _quoted("\n".join(vertex.lines))
    return f"{vertex.name} [label={label}{fill}{down}]"


def _edge(edge: Edge) -> str:
    values = [f"label={_quoted(edge.label)}"] if edge.label else []
    values += ['style=dashed, color="#c81e1e"'] if edge.down else []
    values += [f"style={_STYLES[edge.kind]}"] if edge.kind in _STYLES and not edge.down else []
    values += ['color="#b45309"'] if edge.kind == "tunnel" else []
    told = f" [{', '.join(values)}]" if values else ""
    return f"{edge.one} -- {edge.other}{told}"


def _quoted(words: str) -> str:
    """A quoted string: in there, only quotes and backslashes are the language's own, and lines end by ``\\n``."""
    escaped = words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(letter for letter in escaped if letter >= " ") + '"'
