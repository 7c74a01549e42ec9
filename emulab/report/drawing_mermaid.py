"""A drawing as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html), for documents.

A node is a subgraph; a pod's pair is an edge that its host end names; tunnels are dotted edges to what they make together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from emulab.drawing import Drawing
from emulab.drawing.graph import Edge, Graph, Vertex, graph

_SHAPES = {
    "pod": ("(", ")"),
    "more": ("(", ")"),
    "bridge": ("[", "]"),
    "vtep": ("[/", "\\]"),
    "routing": ("{{", "}}"),
    "segment": ("[[", "]]"),
    "overlay": ("([", "])"),
    "group": ("[", "]"),
}
_LINKS = {"tunnel": "-.-", "route": "---", "wire": "---"}
_STYLES = (
    "classDef pod fill:#dbeafe,stroke:#3b73c4,color:#1f2933",
    "classDef bridge fill:#dcf3e3,stroke:#2f855a,color:#1f2933",
    "classDef vtep fill:#fdebd0,stroke:#b45309,color:#1f2933",
    "classDef uplink fill:#ece5fb,stroke:#6b46c1,color:#1f2933",
    "classDef host fill:#fdf3c7,stroke:#a16207,color:#1f2933",
    "classDef down stroke:#c81e1e,stroke-width:2px,stroke-dasharray:4 2",
)
_CLASSES = {
    "pod": "pod",
    "bridge": "bridge",
    "vtep": "vtep",
    "overlay": "vtep",
    "uplink": "uplink",
    "segment": "uplink",
    "host": "host",
}


def render(drawing: Drawing) -> str:
    """The flowchart as text."""
    return "\n".join(_lines(drawing, graph(drawing))) + "\n"


def _lines(drawing: Drawing, found: Graph) -> Iterator[str]:
    yield "---"
    yield f"title: {json.dumps(drawing.title)}"  # YAML has JSON's strings; a title is text, never HTML
    yield "---"
    yield "flowchart TB"
    for cluster in found.clusters:
        yield f"  subgraph {cluster.name}[{_quoted(cluster.label)}]"
        yield from (f"    {_vertex(vertex)}" for vertex in cluster.vertices)
        yield "  end"
    yield from (f"  {_vertex(vertex)}" for vertex in found.vertices)
    yield from (f"  {_edge(edge)}" for edge in found.edges)
    yield from (f"  {style}" for style in _STYLES)
    everything = [*(vertex for cluster in found.clusters for vertex in cluster.vertices), *found.vertices]
    for kind in dict.fromkeys(_CLASSES.values()):
        names = [vertex.name for vertex in everything if _CLASSES.get(vertex.kind) == kind]
        if names:
            yield f"  class {','.join(names)} {kind}"
    down = [vertex.name for vertex in everything if vertex.down] + [cluster.name for cluster in found.clusters if cluster.stopped]
    if down:
        yield f"  class {','.join(down)} down"


def _vertex(vertex: Vertex) -> str:
    opening, closing = _SHAPES.get(vertex.kind, ("[", "]"))
    return f'{vertex.name}{opening}"{"<br/>".join(map(_escaped, vertex.lines))}"{closing}'


def _edge(edge: Edge) -> str:
    label = f"|{_quoted(edge.label)}|" if edge.label else ""
    return f"{edge.one} {'-.-x' if edge.down else _LINKS.get(edge.kind, '---')}{label} {edge.other}"


def _quoted(words: str) -> str:
    return f'"{_escaped(words)}"'


def _escaped(words: str) -> str:
    """Without what Mermaid, or the HTML in its labels, takes for its own: such letters become its entities, ``#60;``."""
    return "".join(letter if letter.isalnum() or letter in " .,:/-_+=()…–'" else f"#{ord(letter)};" for letter in words)
