"""Drawings of clusters that nobody thought of, of very large ones, and of documents that somebody altered."""

from __future__ import annotations

import copy
import random
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from pictured import mistakes

from emulab import change, registry
from emulab.drawing import Drawing, draw
from emulab.errors import InputError
from emulab.model import Link, Node, Pod, Segment, Topology
from emulab.planning import design
from emulab.report import drawing_dot, drawing_mermaid, drawing_svg

REPORTS = (drawing_svg, drawing_mermaid, drawing_dot)
LABELS = st.one_of(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.from_regex(r"[a-z][a-z0-9-]{40,60}[a-z]", fullmatch=True))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Up to 24 nodes on up to 4 segments, some with a second link, with few or many pods, long names and short ones."""
    segments = [
        Segment(f"seg-{n}", (ip_network(f"192.168.{n}.0/24"), ip_network(f"fd00:{n}::/64")))
        for n in range(draw(st.integers(1, 4)))
    ]
    stem, count = draw(LABELS), draw(st.integers(1, 24))
    nodes, links, pods = [], [], []
    for number in range(1, count + 1):
        name = f"{stem}{number}"
        nodes.append(Node(name))
        joined = draw(st.lists(st.sampled_from(range(len(segments))), min_size=1, max_size=2, unique=True))
        links += [
            Link(
                name,
                segments[n].name,
                f"eth{place}",
                (ip_interface(f"192.168.{n}.{number}/24"), ip_interface(f"fd00:{n}::{number}/64")),
                up=draw(st.booleans()),
            )
            for place, n in enumerate(joined)
        ]
        pods += [Pod(f"{draw(LABELS)}-{number}-{n}"[:63].strip("-"), name) for n in range(draw(st.integers(0, 7)))]
    pods = list({pod.key: pod for pod in pods}.values())
    families = draw(st.sampled_from((("10.1.0.0/16",), ("10.1.0.0/16", "fd00:1234:5678:9abc::/64"))))
    return Topology("drawn", tuple(segments), tuple(nodes), tuple(links), tuple(pods), tuple(map(ip_network, families)))


@settings(max_examples=12, phases=(Phase.explicit, Phase.generate))  # to shrink a cluster takes minutes
@given(topology=topologies(), plugin=st.sampled_from(("flannel", "calico", "weave")), off=st.sets(st.integers(0, 23), max_size=3))
def test_nothing_overlaps_whatever_the_cluster(topology: Topology, plugin: str, off: set[int]) -> None:
    try:
        made = design(topology, registry.plugin(plugin)())
    except InputError:  # Weave, where nothing leads from one node to another
        reject()
    for node in (topology.nodes[number].name for number in off if number < len(topology.nodes)):
        made = change.switch_node(made, node, False)
    drawing = draw(made)
    assert mistakes(drawing) == []
    assert [place for place in made.desired if drawing.point(place) is None] == []
    for report in REPORTS:
        report.render(drawing)


@pytest.mark.parametrize(("topology", "plugin"), [("fleet,50,20", "flannel"), ("fleet,120,2", "weave")])
def test_a_large_cluster_is_summed_up(topology: str, plugin: str) -> None:
    made = design(registry.topology(topology), registry.plugin(plugin)())
    drawing = draw(made)
    assert mistakes(drawing) == []
    assert [place for place in made.desired if drawing.point(place) is None] == []
    assert len(drawing_svg.render(drawing)) < 500_000


def test_an_altered_document_is_a_drawing_or_a_mistake_with_words() -> None:
    chance = random.Random(7)
    whole = []
    for topology, plugin in (("flat", "flannel"), ("flat", "weave"), ("two-racks", "calico"), ("fleet,60,1", "weave")):
        shown = draw(design(registry.topology(topology), registry.plugin(plugin)())).show()
        whole.append({key: value for key, value in shown.items() if key != "places"})
    read = 0
    for _ in range(200):
        document = copy.deepcopy(chance.choice(whole))
        for _ in range(chance.randint(1, 3)):
            _alter(document, chance)
        try:
            drawing = Drawing.read(document)
        except InputError as error:
            assert str(error).startswith("drawing")
            continue
        read += 1
        for report in REPORTS:
            report.render(drawing)
    assert 10 < read < 190


def _alter(document: Any, chance: random.Random) -> None:
    """One value of the document, anywhere, is missing, another, or one from elsewhere in it."""
    found = list(_inside(document))
    parent, key = chance.choice(found)
    other, there = chance.choice(found)
    values = [None, 1, -5, 10**30, True, "x", "", [], {}, ["a"], ["a", "b"], "node-a", "node-a:eth0", "vtep", "bridge", "veth"]
    parent[key] = chance.choice((chance.choice(values), copy.deepcopy(other[there])))
    if chance.random() < 0.3:
        del parent[key]


def _inside(value: Any) -> Any:
    """(container, key) of everything that is in a document."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from _inside(inner)
