"""A topology file is read as documented, and every mistake in one is an error of one line with file and line number."""

from __future__ import annotations

import contextlib
import dataclasses
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from tables import each_row

from emulab import topology_file
from emulab.errors import InputError
from emulab.model import Link, Node, Pod, Segment, Topology
from emulab.topology import gateway_addresses, validate

PODS = "pod-cidrs: [10.1.0.0/16]\n"


def read(folder: Path, text: str) -> Topology:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return topology_file.read(path)


# -- what is understood ------------------------------------------------------------------------------------------------


def test_the_least_file_gives_a_segment_and_an_address_per_family(tmp_path: Path) -> None:
    topology = read(tmp_path, PODS + "nodes:\n  node-a:\n  node-b:\n")
    assert topology.name == "mine"
    assert topology.segments == (Segment("lan", (ip_network("192.168.50.0/24"), ip_network("fd00:50::/64"))),)
    assert topology.links == (
        Link("node-a", "lan", "eth0", (ip_interface("192.168.50.1/24"), ip_interface("fd00:50::1/64"))),
        Link("node-b", "lan", "eth0", (ip_interface("192.168.50.2/24"), ip_interface("fd00:50::2/64"))),
    )
    assert topology.pods == ()


@each_row(
    "pods, expected",
    [
        ("2", (Pod("a1", "node-a"), Pod("a2", "node-a"))),
        ("0", ()),
        ("{web: }", (Pod("web", "node-a"),)),
        ("{web: 10.1.0.7}", (Pod("web", "node-a", addresses=(ip_address("10.1.0.7"),)),)),
        ("{web: {addresses: [10.1.0.7]}}", (Pod("web", "node-a", addresses=(ip_address("10.1.0.7"),)),)),
        ("{web: {namespace: prod}}", (Pod("web", "node-a", "prod"),)),
        ("{web: {labels: {app: shop}}}", (Pod("web", "node-a", labels=(("app", "shop"),)),)),
    ],
)
def test_pods(tmp_path: Path, pods: str, expected: tuple[Pod, ...]) -> None:
    assert read(tmp_path, f"{PODS}nodes:\n  node-a: {{pods: {pods}}}\n").pods == expected


def test_counted_pods_of_numbered_nodes_stay_apart(tmp_path: Path) -> None:
    topology = read(tmp_path, PODS + "nodes: {node-1: {pods: 11}, node-11: {pods: 1}}\n")
    assert {"1-11", "11-1"} <= {pod.name for pod in topology.pods}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rate", "100mbit", 100_000_000),
        ("rate", "1gbit", 10**9),
        ("rate", "1.5 kbit", 1500),
        ("delay", "10ms", 0.010),
        ("delay", "250us", 0.000250),
        ("loss", "0.5%", 0.005),
        ("loss", "100%", 1.0),
        ("mtu", "1400", 1400),
    ],
)
@pytest.mark.parametrize("form", ["{{{}: {}}}", "{{links: [{{{}: {}}}]}}"], ids=["on the node", "on the link"])
def test_quantities(tmp_path: Path, form: str, key: str, text: str, value: float) -> None:
    (link,) = read(tmp_path, f"{PODS}nodes:\n  node-a: {form.format(key, text)}\n").links
    assert getattr(link, key) == pytest.approx(value)


def test_several_segments_and_links(tmp_path: Path) -> None:
    topology = read(
        tmp_path,
        PODS
        + """
segments:
  front: {subnets: [192.168.51.0/24]}
  back: {subnets: [192.168.52.0/24], mtu: 9000}
nodes:
  node-a: {links: [{segment: front}, {segment: back, interface: storage0, addresses: [192.168.52.77]}]}
  node-b: {segment: back}
  node-c:
cut: [[node-a, node-c]]
""",
    )
    assert [(link.node, link.segment, link.interface, link.mtu) for link in topology.links] == [
        ("node-a", "front", "eth0", 1500),
        ("node-a", "back", "storage0", 9000),
        ("node-b", "back", "eth0", 9000),
        ("node-c", "front", "eth0", 1500),
    ]
    assert topology.links[1].addresses == (ip_interface("192.168.52.77/24"),)
    assert topology.uplink("node-a").segment == "front"
    assert topology.cut == {frozenset({"node-a", "node-c"})}


def test_the_example_in_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "topologies.md").read_text(encoding="utf-8")
    topology = read(tmp_path, text.split("```yaml\n")[1].split("```")[0])
    assert [node.name for node in topology.nodes] == ["node-a", "node-b", "node-c"]
    assert {pod.key for pod in topology.pods} == {"default/a1", "default/a2", "prod/web", "default/c1"}
    assert (topology.links[1].rate, topology.links[1].delay) == (10**8, 0.010)


def test_a_merge_key_is_plain_yaml(tmp_path: Path) -> None:
    topology = read(tmp_path, PODS + "nodes:\n  node-a: &shaped\n    rate: 1mbit\n  node-b:\n    <<: *shaped\n")
    assert [link.rate for link in topology.links] == [10**6, 10**6]


def test_a_key_is_a_name_whatever_it_looks_like(tmp_path: Path) -> None:
    assert [node.name for node in read(tmp_path, PODS + "nodes:\n  1:\n  yes:\n").nodes] == ["1", "yes"]


def test_two_networks_of_a_family_where_every_node_has_its_own(tmp_path: Path) -> None:
    text = "pod-cidrs: [192.168.1.0/24, 172.16.2.0/24]\nnodes:\n"
    text += "  node-a: {pod-cidrs: [192.168.1.0/24]}\n  node-b: {pod-cidrs: [172.16.2.0/24]}\n"
    assert len(read(tmp_path, text).pod_cidrs) == 2


@each_row(
    "subnet, address",
    [
        ("192.168.50.0/24", "192.168.50.254/24"),
        ("192.168.48.0/20", "192.168.63.254/20"),
        ("192.168.50.0/30", "192.168.50.2/30"),
        ("fd00:50::/64", "fd00:50::fe/64"),
        ("fd00:50::/120", "fd00:50::fe/120"),
    ],
)
def test_gateway_addresses(subnet: str, address: str) -> None:
    assert gateway_addresses(Segment("lan", (ip_network(subnet),))) == (ip_interface(address),)


# -- what is refused: (text, line, part of the message) ----------------------------------------------------------------

MISTAKES = {
    "empty": ("", 1, "the file is empty"),
    "comment": ("# nothing\n", 1, "the file is empty"),
    "list": ("- node-a\n", 1, "a mapping expected, got a list"),
    "text": ("hello\n", 1, "a mapping expected, got 'hello'"),
    "broken": (PODS + "nodes: [\n", 3, "broken YAML"),
    "tab": ("nodes:\n\tnode-a:\n", 2, "broken YAML"),
    "two documents": (PODS + "---\n" + PODS, 3, "another document begins here"),
    "undefined alias": (PODS + "nodes: *a\n", 2, "undefined alias"),
    "nul": ("nodes: \0\n", 1, "control characters are not allowed"),
    "nested": ("nodes: " + "[" * 500 + "]" * 500, 1, "nested more than 100 deep"),
    "endless": ("pod-cidrs: &a [*a]\nnodes: {a: }\n", 1, "an alias that contains itself"),
    "unknown key": (PODS + "node: {a: }\n", 2, "unknown key 'node' (did you mean 'nodes'?)"),
    "unknown node key": (PODS + "nodes:\n  a:\n    pod: 3\n", 4, "unknown key 'pod' (did you mean 'pods'?)"),
    "unknown pod key": (PODS + "nodes: {a: {pods: {p: {address: }}}}\n", 2, "(did you mean 'addresses'?)"),
    "unknown link key": (PODS + "nodes:\n  a:\n    links:\n      - {speed: 1}\n", 5, "unknown key 'speed'"),
    "duplicate key": (PODS + "nodes:\n  a:\n  b:\n  a:\n", 5, "there are two 'a'"),
    "duplicate pod": (PODS + "nodes:\n  a: {pods: {p: }}\n  b: {pods: {p: }}\n", 4, "two pods 'default/p'"),
    "switch as text": (PODS + "nodes:\n  a: {segment: on}\n", 3, "nodes.a.segment: text expected, got true"),
    "nodes missing": (PODS, 1, "no nodes"),
    "nodes empty": (PODS + "nodes: {}\n", 2, "no nodes"),
    "nodes nothing": (PODS + "nodes:\n", 2, "a mapping expected, got nothing"),
    "node name": (PODS + "nodes:\n  Node_A:\n", 3, "RFC 1123"),
    "node name too long": (PODS + f"nodes:\n  {'a' * 64}:\n", 3, "RFC 1123"),
    "node name in two lines": (PODS + 'nodes:\n  "a\\n":\n', 3, "'a\\n' is no name for a node"),
    "pod name": (PODS + "nodes:\n  a:\n    pods:\n      -p:\n", 5, "RFC 1123"),
    "namespace": (PODS + "nodes:\n  a:\n    pods:\n      p: {namespace: a.b}\n", 5, "RFC 1123"),
    "segment name": (PODS + "segments:\n  LAN: {subnets: [192.168.9.0/24]}\nnodes: {a: }\n", 3, "RFC 1123"),
    "gateway": (PODS + "nodes:\n  a:\n  gateway:\n", 4, "name of the underlay"),
    "internet": (PODS + "nodes:\n  internet:\n", 3, "name of the underlay"),
    "underlay": (PODS + "nodes:\n  underlay:\n", 3, "name of the underlay"),
    "node like segment": (PODS + "nodes:\n  lan:\n", 3, "the name of segment lan"),
    "node like port": (PODS + "nodes:\n  gateway-lan:\n", 3, "the gateway's port"),
    "node like loopback": (PODS + "nodes:\n  lo:\n", 3, "loopback"),
    "pod CIDRs missing": ("nodes: {a: }\n", 1, "no pod-cidrs"),
    "host bits": ("pod-cidrs:\n  - 10.1.0.1/16\nnodes: {a: }\n", 2, "host bits set"),
    "no prefix": ("pod-cidrs:\n  - 10.1.0.0\nnodes: {a: }\n", 2, "no prefix length"),
    "no network": ("pod-cidrs: [x]\nnodes: {a: }\n", 1, "a network expected"),
    "one value for a list": ("pod-cidrs: 10.1.0.0/16\nnodes: {a: }\n", 1, "a list expected"),
    "loopback": ("nodes: {a: }\npod-cidrs: [127.0.0.0/16]\n", 2, "no host can have an address"),
    "multicast": ("nodes: {a: }\npod-cidrs: ['ff00::/16']\n", 2, "no host can have an address"),
    "link-local": ("nodes: {a: }\npod-cidrs: [169.254.0.0/16]\n", 2, "no host can have an address"),
    "pod CIDRs overlap": (
        "nodes: {a: {pod-cidrs: [10.1.1.0/24]}}\npod-cidrs: [10.1.0.0/16, 10.1.1.0/24]\n",
        2,
        "10.1.1.0/24 overlaps pod CIDR 10.1.0.0/16",
    ),
    "two of a family": ("nodes: {a: }\npod-cidrs: [10.1.0.0/16, 10.2.0.0/16]\n", 2, "one network per family"),
    "pod CIDR in underlay": ("nodes: {a: }\npod-cidrs: [192.168.0.0/16]\n", 2, "overlaps segment lan's subnet"),
    "pod CIDR outside": ("nodes: {a: }\npod-cidrs: [203.0.113.0/25]\n", 2, "overlaps the outside"),
    "pod CIDR outside, IPv6": ("nodes: {a: }\npod-cidrs: ['2001:db8::/32']\n", 2, "overlaps the outside"),
    "segment outside": (
        PODS + "segments:\n  s: {subnets: [203.0.113.0/24]}\nnodes: {a: }\n",
        3,
        "overlaps the outside",
    ),
    "segments overlap": (
        PODS + "segments:\n  s: {subnets: [192.168.8.0/23]}\n  t: {subnets: [192.168.9.0/24]}\nnodes: {a: }\n",
        4,
        "overlaps segment s's subnet",
    ),
    "no segments": (PODS + "segments: {}\nnodes: {a: }\n", 2, "at least one segment"),
    "no subnet": (PODS + "segments:\n  s: {mtu: 1500}\nnodes: {a: }\n", 3, "one subnet per family"),
    "two subnets": (
        PODS + "segments:\n  s: {subnets: [192.168.8.0/24, 192.168.9.0/24]}\nnodes: {a: }\n",
        3,
        "one subnet per",
    ),
    "tiny subnet": (PODS + "segments:\n  s: {subnets: [192.168.9.0/31]}\nnodes:\n  a:\n", 5, "no address left"),
    "node CIDR elsewhere": (PODS + "nodes:\n  a: {pod-cidrs: [10.2.1.0/24]}\n", 3, "in none of the pod CIDRs"),
    "node CIDRs overlap": (
        PODS + "nodes:\n  a: {pod-cidrs: [10.1.0.0/23]}\n  b: {pod-cidrs: [10.1.1.0/24]}\n",
        4,
        "overlaps 10.1.0.0/23 of node a",
    ),
    "two node CIDRs": (PODS + "nodes:\n  a: {pod-cidrs: [10.1.0.0/24, 10.1.1.0/24]}\n", 3, "one pod CIDR per family"),
    "pod elsewhere": (PODS + "nodes:\n  a:\n    pods:\n      p: 10.2.0.1\n", 5, "outside the pod CIDRs"),
    "pod of no family": (PODS + "nodes:\n  a:\n    pods:\n      p: fd00::1\n", 5, "outside the pod CIDRs"),
    "pod address twice": (
        PODS + "nodes:\n  a:\n    pods:\n      p: 10.1.0.1\n      q: 10.1.0.1\n",
        6,
        "taken by pod default/p",
    ),
    "two pod addresses": (
        PODS + "nodes: {a: {pods: {p: {addresses: [10.1.0.1, 10.1.0.2]}}}}\n",
        2,
        "one address per family",
    ),
    "pod address": (PODS + "nodes: {a: {pods: {p: 10.1.0}}}\n", 2, "an address expected"),
    "pods half": (PODS + "nodes: {a: {pods: 1.5}}\n", 2, "got 1.5"),
    "pods negative": (PODS + "nodes: {a: {pods: -1}}\n", 2, "0 to 1000 pods"),
    "pods countless": (PODS + "nodes: {a: {pods: 1000000000}}\n", 2, "0 to 1000 pods"),
    "label": (PODS + "nodes: {a: {pods: {p: {labels: {app: 1}}}}}\n", 2, "text expected"),
    "unknown segment": (PODS + "nodes:\n  a: {segment: lam}\n", 3, "unknown segment 'lam' (did you mean 'lan'?)"),
    "no link": (PODS + "nodes:\n  a:\n  b: {links: []}\n", 4, "its uplink is missing"),
    "links and segment": (PODS + "nodes:\n  a: {segment: lan, links: [{}]}\n", 3, "belongs to one of the links"),
    "links on one interface": (
        PODS + "nodes:\n  a: {links: [{interface: e}, {interface: e, addresses: [192.168.50.9]}]}\n",
        3,
        "two links on interface e",
    ),
    "interface too long": (PODS + "nodes:\n  a: {links: [{interface: abcdefghijklmnop}]}\n", 3, "1 to 15"),
    "interface with a slash": (PODS + "nodes:\n  a: {links: [{interface: a/b}]}\n", 3, "letters, digits"),
    "interface lo": (PODS + "nodes:\n  a: {links: [{interface: lo}]}\n", 3, "no name for an interface"),
    "link without address": (PODS + "nodes:\n  a: {links: [{addresses: []}]}\n", 3, "one address per family"),
    "link address elsewhere": (PODS + "nodes:\n  a: {links: [{addresses: [10.9.9.9]}]}\n", 3, "not in segment lan"),
    "link address twice": (
        PODS + "nodes:\n  a: {links: [{addresses: [192.168.50.9]}]}\n  b: {links: [{addresses: [192.168.50.9]}]}\n",
        4,
        "taken by node a",
    ),
    "gateway's address": (PODS + "nodes:\n  a: {links: [{addresses: [192.168.50.254]}]}\n", 3, "taken by the gateway"),
    "broadcast": (PODS + "nodes:\n  a: {links: [{addresses: [192.168.50.255]}]}\n", 3, "first or last"),
    "zone": (PODS + "nodes:\n  a: {links: [{addresses: ['fd00:50::1%eth0']}]}\n", 3, "has a zone"),
    "too many nodes": (
        PODS + "segments: {s: {subnets: [192.168.9.0/30]}}\nnodes:\n  a:\n  b:\n",
        5,
        "no address left",
    ),
    "MTU too small": (PODS + "segments: {s: {subnets: [192.168.9.0/24], mtu: 67}}\nnodes: {a: }\n", 2, "68 to 65535"),
    "MTU too large": (
        PODS + "segments:\n  s: {subnets: [192.168.9.0/24], mtu: 65536}\nnodes: {a: }\n",
        3,
        "68 to 65535",
    ),
    "MTU with IPv6": (PODS + "nodes:\n  a: {mtu: 1279}\n", 3, "1280 to 65535"),
    "MTU of the segment": (PODS + "nodes:\n  a: {mtu: 9000}\n", 3, "exceeds 1500"),
    "MTU as text": (PODS + "nodes:\n  a: {mtu: large}\n", 3, "a whole number expected"),
    "rate without unit": (PODS + "nodes:\n  a: {rate: 100}\n", 3, "expected e.g. 100mbit"),
    "rate countless": (PODS + f"nodes:\n  a: {{rate: {'9' * 400}mbit}}\n", 3, "expected e.g. 100mbit"),
    "rate too high": (PODS + "nodes:\n  a: {rate: 99999gbit}\n", 3, "rate from 0 to"),
    "delay in days": (PODS + "nodes:\n  a: {delay: 1d}\n", 3, "units: us, ms, s"),
    "delay too long": (PODS + "nodes:\n  a: {delay: 61s}\n", 3, "delay from 0 to 60s"),
    "loss negative": (PODS + "nodes:\n  a: {loss: -1%}\n", 3, "expected e.g. 0.5%"),
    "loss above all": (PODS + "nodes:\n  a: {loss: 101%}\n", 3, "loss from 0 to 100%"),
    "cut of unknown": (PODS + "nodes: {a: , b: }\ncut:\n  - [a, z]\n", 3, "unknown node 'z'"),
    "cut of itself": (PODS + "nodes: {a: , b: }\ncut: [[a, a]]\n", 3, "two different nodes"),
    "cut of three": (PODS + "nodes: {a: , b: , c: }\ncut: [[a, b, c]]\n", 3, "two different nodes"),
    "cut not in pairs": (PODS + "nodes: {a: , b: }\ncut: [a, b]\n", 3, "a list expected"),
}


@each_row("text, line, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "mine.yaml"), line)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}:{line}: ")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\xff")
    for path, message in (
        (binary, "not UTF-8"),
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(InputError, match=message):
            topology_file.read(path)


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    with contextlib.suppress(InputError):
        read(tmp_path, f"{PODS}nodes:\n  a: {{segment: !!python/object/apply:os.mkdir ['{proof}']}}\n")
    assert not proof.exists()


# -- topologies that Python code makes ---------------------------------------------------------------------------------

GOOD = Topology(
    "made",
    (Segment("lan", (ip_network("192.168.50.0/24"),)),),
    (Node("a"), Node("b")),
    (
        Link("a", "lan", addresses=(ip_interface("192.168.50.1/24"),)),
        Link("b", "lan", addresses=(ip_interface("192.168.50.2/24"),)),
    ),
    (Pod("p", "a"),),
    (ip_network("10.1.0.0/16"),),
)


def test_a_good_topology_passes() -> None:
    validate(GOOD)


@each_row(
    "change, message",
    [
        ({"nodes": (Node("a"), Node("a"))}, "two nodes 'a'"),
        ({"segments": GOOD.segments * 2}, "two segments 'lan'|overlaps"),
        ({"pods": (Pod("p", "a"), Pod("p", "b"))}, "two pods 'default/p'"),
        ({"pods": (Pod("p", "c"),)}, "unknown node 'c'"),
        ({"links": GOOD.links[:1]}, "node b has no link"),
        ({"links": (*GOOD.links, Link("c", "lan"))}, "unknown node 'c'"),
        ({"links": (GOOD.links[0], Link("b", "wan", addresses=GOOD.links[1].addresses))}, "unknown segment 'wan'"),
        ({"links": (GOOD.links[0], Link("b", "lan"))}, "one address per family"),
        ({"links": (GOOD.links[0], Link("b", "lan", addresses=(ip_interface("192.168.50.2/25"),)))}, "not in segment"),
        ({"links": (GOOD.links[0], dataclasses.replace(GOOD.links[1], loss=float("nan")))}, "loss from 0"),
        ({"segments": (Segment("lan", (ip_network("255.255.255.255/32"),)),)}, "no room for nodes"),
        ({"segments": (Segment("lan", (ip_network("fd00:50::/127"),)),)}, "no room for nodes"),
        ({"cut": frozenset({frozenset({"a"})})}, "two different nodes"),
        ({"pod_cidrs": ()}, "no pod-cidrs"),
    ],
)
def test_python_topologies_obey_the_same_rules(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        validate(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]
    assert str(caught.value).startswith("topology made: ")
