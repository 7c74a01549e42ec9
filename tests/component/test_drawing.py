"""A cluster as a drawing: what is in it, where it stands, and what the formats make of it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from designed import catalogued
from pictured import mistakes, within
from tables import each_row

from emulab import change, registry
from emulab.drawing import Device, Drawing, Node, Overlay, Pod, draw
from emulab.drawing.shapes import clipped, width, wrapped
from emulab.errors import InputError
from emulab.model import Link, Segment, Topology
from emulab.model import Node as ClusterNode
from emulab.model import Pod as ClusterPod
from emulab.planning import Design, design
from emulab.report import drawing_dot, drawing_mermaid, drawing_svg
from emulab.state import Bridge, State, Veth, Vxlan

GOLDEN = Path(__file__).with_name("golden")
PLUGINS = ("flannel", "calico", "weave", "nat")
EVIL = """<script>alert(1)</script> "q" 's' `b` ]]> --> %% ; #35; end \\n {x} |p| & é 漢 \x01 a\nb"""


@cache
def designed(topology: str, plugin: str, *settings: str) -> Design:
    return design(catalogued(topology), registry.options(registry.plugin(plugin), settings))


@cache
def drawn(topology: str, plugin: str, *settings: str) -> Drawing:
    return draw(designed(topology, plugin, *settings))


def long_names() -> Drawing:
    """Names of 63 letters, IPv6 addresses that are written out, and a node with two uplinks."""
    name = "a-name-that-is-as-long-as-rfc-1123-lets-it-be-and-no-letter-lon".ljust(61, "x")[:61]
    four, six = ip_network("192.168.50.0/24"), ip_network("fd00:1234:5678:9abc::/64")
    segments = (Segment(f"s{name}", (four, six)), Segment("storage", (ip_network("192.168.60.0/24"),), 9000))
    nodes = tuple(ClusterNode(f"{name}-{number}") for number in range(3))
    links = [
        Link(n.name, segments[0].name, "eth0", (ip_interface(f"{four[i + 1]}/24"), ip_interface(f"{six[2**63 + i + 1]}/64")))
        for i, n in enumerate(nodes)
    ]
    links.append(Link(nodes[1].name, "storage", "storage0", (ip_interface("192.168.60.9/24"),), 9000, 10**8, 0.01, 0.005))
    pods = tuple(ClusterPod(f"p{number}{name}"[:63], nodes[number % 2].name, name) for number in range(9))
    cidrs = (ip_network("10.1.0.0/16"), ip_network("fd00:1111:2222:3333:4444:5555::/96"))
    topology = Topology("long", segments, nodes, tuple(links), pods, cidrs)
    return draw(design(topology, registry.plugin("flannel")()))


def racks() -> Drawing:
    """Three racks over several rows, and a segment that nobody is on."""
    segments = tuple(Segment(f"rack-{n}", (ip_network(f"192.168.{n}.0/24"),)) for n in range(1, 5))
    nodes = tuple(ClusterNode(f"node-{n}") for n in range(1, 14))
    links = tuple(
        Link(n.name, f"rack-{i % 3 + 1}", "eth0", (ip_interface(f"192.168.{i % 3 + 1}.{i + 1}/24"),)) for i, n in enumerate(nodes)
    )
    pods = tuple(ClusterPod(f"p{n}", f"node-{n % 13 + 1}") for n in range(30))
    return draw(
        design(Topology("racks", segments, nodes, links, pods, (ip_network("10.1.0.0/16"),)), registry.plugin("flannel")())
    )


def troubled() -> Drawing:
    """A node stopped, a link down, two nodes parted."""
    made = change.switch_node(designed("flat", "flannel"), "node-b", False)
    made = change.set_link(made, "node-c", up=False)
    return draw(change.partition(made, [["node-a"], ["node-c"]]))


def evil() -> Drawing:
    """Every text that is shown, hostile; names keep their places apart."""
    found = drawn("flat", "flannel")
    nodes = tuple(
        Node(
            f"{EVIL}{node.name}",
            node.segment,
            leases=(EVIL,),
            pods=tuple(Pod(f"{EVIL}/{pod.key}", (EVIL,)) for pod in node.pods),
            devices=tuple(replace(device, note=EVIL, addresses=(EVIL,)) for device in node.devices if device.kind != "veth"),
        )
        for node in found.nodes
    )
    segments = tuple(replace(segment, subnets=(EVIL,)) for segment in found.segments)
    return Drawing(EVIL, EVIL, nodes, segments, found.hosts, cuts=((EVIL, EVIL),), options=(EVIL,))


SHOWN: dict[str, Callable[[], Drawing]] = {
    **{f"flat-{plugin}": (lambda plugin=plugin: drawn("flat", plugin)) for plugin in PLUGINS},  # type: ignore[misc]
    "single-node": lambda: drawn("single-node", "flannel"),
    "two-racks": lambda: drawn("two-racks", "calico", "encap=cross-subnet"),
    "partial-mesh": lambda: drawn("partial-mesh", "weave"),
    "non-flat": lambda: drawn("non-flat", "nat"),
    "fleet,10,5": lambda: drawn("fleet,10,5", "weave"),
    "fleet,2,12": lambda: drawn("fleet,2,12", "calico"),
    "long names": long_names,
    "racks": racks,
    "trouble": troubled,
    "evil": evil,
}
shown = pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)


def devices(state: State) -> list[str]:
    """The places of all devices of a state."""
    found = []
    for namespace, objects in state.items():
        for thing in objects:
            if isinstance(thing, (Bridge, Veth, Vxlan)):
                found.append(f"{namespace}:{thing.name}")
            if isinstance(thing, Veth):
                found.append(f"{thing.peer_namespace or namespace}:{thing.peer}")
    return found


# Layout


@shown
def test_nothing_overlaps_and_every_text_is_in_its_box(make: Callable[[], Drawing]) -> None:
    assert mistakes(make()) == []


def test_an_overlap_would_be_found() -> None:
    drawing = drawn("flat", "nat")
    layout = drawing.layout
    for box in (box for box in layout.boxes if box.place in ("node-a:eth0", "underlay:node-a")):
        for altered in (replace(box, x=box.x + box.width * 0.9), replace(box, width=box.width / 3)):
            broken = replace(drawing)
            broken.__dict__["layout"] = replace(layout, boxes=tuple(altered if one is box else one for one in layout.boxes))
            assert mistakes(broken) != []


@shown
def test_a_drawing_survives_json_and_always_looks_the_same(make: Callable[[], Drawing]) -> None:
    drawing = make()
    again = Drawing.read(json.loads(json.dumps(drawing.show())))
    assert again == drawing
    assert again.show() == drawing.show()
    for report in (drawing_svg, drawing_mermaid, drawing_dot):
        assert report.render(again) == report.render(drawing)


@pytest.mark.parametrize("topology", ["flat", "partial-mesh", "fleet,10,5"])
@pytest.mark.parametrize("plugin", ["flannel", "calico", "weave"])
def test_every_place_of_the_desired_state_has_coordinates(topology: str, plugin: str) -> None:
    drawing, state = drawn(topology, plugin), designed(topology, plugin).desired
    places = devices(state)
    assert len(places) > 20
    layout = drawing.layout
    for place in [*places, *state]:
        point = drawing.point(place)
        assert point is not None, place
        assert within((*point, *point), (0, 0, layout.width, layout.height))
    told = drawing.show()["places"]
    assert all(tuple(told.get(place) or told[place.rpartition(":")[0]]) == drawing.point(place) for place in places)
    assert drawing.point("nobody:eth0") is None


@each_row("plugin", PLUGINS)
def test_a_small_drawing_has_an_element_for_every_device(plugin: str) -> None:
    """And its coordinates are that element's centre."""
    svg = ElementTree.fromstring(drawing_svg.render(drawn("flat", plugin)))
    elements = {
        group.get("data-place"): group[1] for group in svg.iter("{http://www.w3.org/2000/svg}g") if group.get("data-place")
    }
    places = {place for place in devices(designed("flat", plugin).desired) if not place.endswith(":lo")}
    assert set(elements) == places
    for place, rect in elements.items():
        x, y, wide, tall = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
        assert drawn("flat", plugin).point(str(place)) == pytest.approx((x + wide / 2, y + tall / 2), abs=0.2)


def test_what_has_no_box_is_where_what_stands_for_it_is() -> None:
    drawing = drawn("fleet,2,12", "calico")
    more = next(box for box in drawing.layout.boxes if box.kind == "more" and box.node == "node-1")
    assert [text.words for text in more.texts] == ["+9 pods"]
    end = next(device for device in drawing.nodes[0].devices if device.peer == "default/p1-12:eth0")
    for place in ("default/p1-12:eth0", "default/p1-12", f"node-1:{end.name}"):
        assert drawing.point(place) == pytest.approx(more.centre, abs=0.1)
    weave = drawn("fleet,10,5", "weave")
    assert weave.point("node-1:vxlan-9") == weave.point("node-1:vxlan-8") != weave.point("node-1:vxlan-2")


# What is drawn


@each_row(
    "made, overlays",
    [
        (("flat", "calico"), []),
        (("flat", "flannel"), [Overlay("vxlan", 1, ("node-a:flannel.1", "node-b:flannel.1", "node-c:flannel.1"), 3)]),
        (("non-flat", "nat"), []),
        (("single-node", "flannel"), []),
        (("flat", "weave"), [Overlay("vxlan", 8193, ("node-a:vxlan-2", "node-b:vxlan-1"))]),
        (("flat", "flannel", "vni=7"), [Overlay("vxlan", 7, ("node-a:flannel.7", "node-b:flannel.7", "node-c:flannel.7"), 3)]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_tunnels(made: tuple[str, ...], overlays: list[Overlay]) -> None:
    assert list(drawn(*made).overlays[:1]) == overlays


def test_tunnels_that_are_no_full_mesh_are_drawn_one_by_one() -> None:
    ends = {frozenset(end.partition(":")[0][-1] for end in overlay.ends) for overlay in drawn("partial-mesh", "weave").overlays}
    assert ends == {frozenset("ab"), frozenset("bc"), frozenset("cd"), frozenset("ad")}


def test_trouble_is_marked() -> None:
    drawing = troubled()
    assert "stopped: node-b" in drawing.summary
    assert "down: node-c:eth0" in drawing.summary
    assert drawing.cuts == (("node-a", "node-c"),)
    states = {(box.place or box.pod or box.node): box.state for box in drawing.layout.boxes if box.state}
    assert states == {
        "node-b": "stopped",
        **{f"default/{pod}{end}": "stopped" for pod in ("b1", "b2") for end in ("", ":eth0")},
        "node-c:eth0": "down",
        "underlay:node-c": "down",
    }
    assert [line.kind for line in drawing.layout.lines if line.state == "down" or line.kind == "cross"] == [
        "wire",
        "cross",
        "cross",
    ]
    assert drawing.nodes[1].devices == ()
    words = [text.words for box in drawing.layout.boxes for text in box.texts]
    assert {"no path between node-a and node-c", "node-b (stopped)", "down"} <= set(words)
    assert "node-b (stopped)" in drawing_mermaid.render(drawing)
    assert "eth0 (down)" in drawing_dot.render(drawing)


def test_options_that_were_set_are_in_the_title() -> None:
    assert drawn("two-racks", "calico", "encap=cross-subnet").title == "calico on two-racks (encap=cross-subnet)"
    assert drawn("flat", "calico").title == "calico on flat"


# Formats


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize(("report", "ending"), [(drawing_mermaid, "mmd"), (drawing_dot, "dot")], ids=["mermaid", "dot"])
def test_texts_are_as_they_were(report: Any, ending: str, plugin: str) -> None:
    """After a change that is meant: emulab diagram --plugin PLUGIN -o tests/component/golden/flat-PLUGIN.ENDING"""
    assert report.render(drawn("flat", plugin)) == (GOLDEN / f"flat-{plugin}.{ending}").read_text()


def test_svg_is_one_accessible_element_without_scripts() -> None:
    svg = ElementTree.fromstring(drawing_svg.render(drawn("flat", "flannel")))
    names = {element.tag.rpartition("}")[2] for element in svg.iter()}
    assert names == {"svg", "title", "desc", "style", "g", "rect", "text", "polyline"}
    assert svg.get("role") == "img"
    assert [child.tag.rpartition("}")[2] for child in svg][:2] == ["title", "desc"]
    assert (svg[0].text, svg[1].text) == ("flannel on flat", drawn("flat", "flannel").summary)
    assert {group.get("data-pod") for group in svg.iter() if group.get("data-pod")} >= {"default/a1", "default/c2"}
    assert {group.get("data-node") for group in svg.iter()} >= {"node-a", "node-b", "node-c", "gateway", "internet"}
    assert "http" not in drawing_svg.render(drawn("flat", "flannel")).replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_what_users_wrote_is_never_markup() -> None:
    svg = drawing_svg.render(evil())
    root = ElementTree.fromstring(svg)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert EVIL.replace("\x01", "\ufffd") in (root[0].text or "")
    mermaid = drawing_mermaid.render(evil()).partition("flowchart TB\n")[2]
    assert "alert" in mermaid and "script&" not in mermaid
    assert all(letter not in mermaid for letter in ("<script", "`", "%%", "]]>", "\x01"))
    assert [line for line in mermaid.splitlines() if line.count('"') % 2] == []
    dot = drawing_dot.render(evil())
    for line in dot.splitlines():
        assert line.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 0, line


# What is read back


@each_row(
    "alter, told",
    [
        (lambda shown: [], "drawing: an object expected"),
        (lambda shown: {**shown, "plugin": 1}, "drawing.plugin: text expected"),
        (lambda shown: {**shown, "nodes": {}}, "drawing.nodes: a list expected"),
        (lambda shown: {**shown, "nodes": [{"segment": "lan"}]}, "drawing.nodes[0]: lacks name"),
        (lambda shown: {**shown, "nodes": [{"name": "a", "segment": "lan", "running": 1}]}, "nodes[0].running: true or false"),
        (lambda shown: {**shown, "cuts": [["a"]]}, "drawing.cuts[0]: two names expected"),
        (lambda shown: {**shown, "overlays": [{"kind": "vxlan", "vni": "1", "ends": []}]}, "overlays[0].vni: a number expected"),
        (lambda shown: {**shown, "overlays": [{"kind": "vxlan", "vni": 1, "ends": ["node-b:x"]}]}, "nothing is at 'node-b:x'"),
        (lambda shown: {**shown, "segments": []}, "nothing is at 'underlay:gateway-lan'"),
        (lambda shown: {key: shown[key] for key in shown if key != "hosts"}, "drawing: lacks hosts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_drawing(alter: Callable[[Any], Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        Drawing.read(alter(drawn("single-node", "nat").show()))
    assert told in str(caught.value)


@each_row("of", [{}, {"kind": "bridge"}, {"up": False, "vni": 7}])
def test_only_what_is_not_as_by_default_is_written(of: dict[str, Any]) -> None:
    device = Device("eth0", **{"kind": "uplink", **of})
    drawing = Drawing("p", "t", (Node("a", "lan", devices=(device,)),), (), ())
    assert drawing.show()["nodes"][0]["devices"] == [{"name": "eth0", "kind": "uplink", **of}]


# Texts


@each_row(
    "words, room, expected",
    [("short", 100, "short"), ("web-7d4b9c6f5-abcde", 80, "web-7d…-abcde"), ("漢字漢字漢字", 50, "漢字…字"), ("long", 1, "…")],
)
def test_a_text_that_is_too_long_keeps_its_ends(words: str, room: float, expected: str) -> None:
    found = clipped(words, room, 10)
    assert found == expected
    assert width(found, 10) <= room or found == "…"


def test_words_are_wrapped_and_clipped() -> None:
    assert wrapped(["eth0", "192.168.50.1", "fd00:50::1"], 130, 10) == ["eth0  192.168.50.1", "fd00:50::1"]
