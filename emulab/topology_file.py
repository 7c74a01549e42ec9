"""YAML to `Topology`; every mistake is reported with its file and line.  The format: docs/topologies.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, NoReturn

from emulab.errors import InputError, nearest
from emulab.model import IPAddress, IPInterface, IPNetwork, Link, Node, Pod, Segment, Topology
from emulab.text import Path as Trail
from emulab.text import Raw, documents, shown
from emulab.topology import problems

_DEFAULT_SEGMENT = ("lan", ("192.168.50.0/24", "fd00:50::/64"))
_MOST_PODS = 1000  # on one node, where their number is all that is given
_RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class _At:
    """A value of the file, and the path to it."""

    def __init__(self, document: Raw, path: Trail, value: Any) -> None:
        self.document, self.path, self.value = document, path, value

    @property
    def line(self) -> int:
        return self.document.line(self.path)

    def fail(self, expected: str) -> NoReturn:
        raise InputError(f"{shown(self.path) or 'topology'}: {expected}", self.document.file, self.line)

    def mapping(self, *keys: str) -> dict[str, _At]:
        """The entries; with ``keys``, no others are allowed."""
        if not isinstance(self.value, dict):
            self.fail(f"a mapping expected, got {_kind(self.value)}")
        for key in self.value:
            if keys and key not in keys:
                where = shown(self.path) or "topology"
                line = self.document.line((*self.path, key))
                raise InputError(f"{where}: unknown key '{key}'{nearest(key, keys)}", self.document.file, line)
        return {key: _At(self.document, (*self.path, key), value) for key, value in self.value.items()}

    def items(self) -> list[_At]:
        if not isinstance(self.value, list):
            self.fail(f"a list expected, got {_kind(self.value)}")
        return [_At(self.document, (*self.path, index), value) for index, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.fail(f"text expected, got {_kind(self.value)}")
        return str(self.value)

    def number(self) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            self.fail(f"a whole number expected, got {_kind(self.value)}")
        return int(self.value)

    def network(self) -> IPNetwork:
        try:
            if "/" not in self.text():
                raise ValueError(f"'{self.value}' has no prefix length")
            return ip_network(self.text())
        except ValueError as error:
            self.fail(f"a network expected, e.g. 10.1.0.0/16: {error}")

    def address(self) -> IPAddress:
        try:
            if "%" in self.text():
                raise ValueError(f"'{self.value}' has a zone")
            return ip_address(self.text())
        except ValueError as error:
            self.fail(f"an address expected, e.g. 10.1.1.1: {error}")

    def quantity(self, units: dict[str, Any], example: str) -> float:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) ?([a-z%]+)", str(self.value))
        if not match or match[2] not in units:
            self.fail(f"'{self.value}' is no quantity: expected e.g. {example} (units: {', '.join(units)})")
        return float(match[1]) * float(units[match[2]])


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: f"'{value}'", bool: str(value).lower(), type(None): "nothing"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), repr(value))


def read(path: Path, name: str | None = None) -> Topology:
    """The topology in the file ``path``.  Raises `InputError` with file and line."""
    root = _load(path, str(path) if name is None else path.name)
    entries = root.mapping("description", "pod-cidrs", "segments", "nodes", "cut")
    places: dict[tuple[str, str], _At] = {("topology", key): at for key, at in entries.items()}
    segments = tuple(_segments(entries.get("segments"), places))
    if "nodes" not in entries:
        root.fail("no nodes: at least one expected")
    nodes, links, pods = [], [], []
    for node_name, at in entries["nodes"].mapping().items():
        places["node", node_name] = at
        node = at.mapping("pod-cidrs", "segment", "links", "pods", "mtu", "rate", "delay", "loss") if at.value is not None else {}
        nodes.append(Node(node_name, tuple(_networks(node.get("pod-cidrs")))))
        links += list(_links(node_name, len(nodes), node, at, segments))
        pods += list(_pods(node_name, node.get("pods"), places))
    cut = (
        frozenset(frozenset(n.text() for n in pair.items()) for pair in entries["cut"].items())
        if "cut" in entries
        else frozenset()
    )
    topology = Topology(
        name=name or path.stem,
        description=entries["description"].text() if "description" in entries else "",
        segments=segments,
        nodes=tuple(nodes),
        links=tuple(links),
        pods=tuple(pods),
        pod_cidrs=tuple(_networks(entries.get("pod-cidrs"))),
        cut=cut,
    )
    for complaint in problems(topology):
        at = places.get(complaint.thing, root)
        raise InputError(complaint.message, at.document.file, at.line)
    return topology


def description(path: Path) -> str:
    """A file's one-line summary, without reading the rest."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("description:"):
            return line.partition(":")[2].strip().strip("\"'")
    return ""


def _load(path: Path, file: str) -> _At:
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the topology: {error.strerror}", str(path)) from None
    except UnicodeDecodeError:
        raise InputError("cannot read the topology: it is not UTF-8 text", str(path)) from None
    except ValueError as error:  # a name with a null byte
        raise InputError(f"cannot read the topology: {error}", str(path)) from None
    found = list(documents(content, file))
    if not found:
        raise InputError("the file is empty: nodes and pod-cidrs expected", file, 1)
    if len(found) > 1:
        raise InputError("one topology expected, and another document begins here", file, found[1].first)
    return _At(found[0], (), found[0].value)


def _segments(at: _At | None, places: dict[tuple[str, str], _At]) -> Iterator[Segment]:
    if at is None:
        yield Segment(_DEFAULT_SEGMENT[0], tuple(map(ip_network, _DEFAULT_SEGMENT[1])))
        return
    if not at.mapping():
        at.fail("at least one segment expected")
    for name, one in at.mapping().items():
        places["segment", name] = one
        entries = one.mapping("subnets", "mtu")
        mtu = entries["mtu"].number() if "mtu" in entries else 1500
        yield Segment(name, tuple(_networks(entries.get("subnets"))), mtu)


def _networks(at: _At | None) -> Iterator[IPNetwork]:
    for one in at.items() if at else []:
        yield one.network()


def _links(node: str, number: int, entries: dict[str, _At], at: _At, segments: tuple[Segment, ...]) -> Iterator[Link]:
    """A node's links: those listed, or one described by the node's own entries."""
    if "links" not in entries:
        yield _link(node, number, "eth0", {k: v for k, v in entries.items() if k not in ("pods", "pod-cidrs")}, at, segments)
        return
    for key in ("segment", "mtu", "rate", "delay", "loss"):
        if key in entries:
            entries[key].fail("belongs to one of the links, since there are links")
    for index, one in enumerate(entries["links"].items()):
        keys = one.mapping("segment", "interface", "addresses", "mtu", "rate", "delay", "loss")
        yield _link(node, number, f"eth{index}", keys, one, segments)


def _link(node: str, number: int, interface: str, entries: dict[str, _At], at: _At, segments: tuple[Segment, ...]) -> Link:
    known = {segment.name: segment for segment in segments}
    name = entries["segment"].text() if "segment" in entries else segments[0].name
    if name not in known:
        entries["segment"].fail(f"unknown segment '{name}'{nearest(name, known)}")
    segment = known[name]
    if "addresses" in entries:
        addresses = tuple(_with_prefix(one, segment) for one in entries["addresses"].items())
    else:
        addresses = tuple(ip_interface(f"{_nth(subnet, number, at)}/{subnet.prefixlen}") for subnet in segment.subnets)
    return Link(
        node,
        name,
        entries["interface"].text() if "interface" in entries else interface,
        addresses,
        entries["mtu"].number() if "mtu" in entries else segment.mtu,
        int(entries["rate"].quantity(_RATES, "100mbit")) if "rate" in entries else 0,
        entries["delay"].quantity(_TIMES, "10ms") if "delay" in entries else 0.0,
        entries["loss"].quantity({"%": 0.01}, "0.5%") if "loss" in entries else 0.0,
    )


def _nth(subnet: IPNetwork, number: int, at: _At) -> IPAddress:
    if number >= subnet.num_addresses - 2:  # the last one is the gateway's
        at.fail(f"the segment's subnet {subnet} has no address left for this node")
    address: IPAddress = subnet.network_address + number
    return address


def _with_prefix(at: _At, segment: Segment) -> IPInterface:
    address = at.address()
    for subnet in segment.subnets:
        if subnet.version == address.version and address in subnet:
            return ip_interface(f"{address}/{subnet.prefixlen}")
    at.fail(f"{address} is not in segment {segment.name} ({', '.join(map(str, segment.subnets))})")


def _pods(node: str, at: _At | None, places: dict[tuple[str, str], _At]) -> Iterator[Pod]:
    """``pods: 3`` (named after the node), or a mapping of names to nothing, an address, or addresses and more."""
    if at is None:
        return
    if isinstance(at.value, int) and not isinstance(at.value, bool):
        if not 0 <= at.value <= _MOST_PODS:
            at.fail(f"0 to {_MOST_PODS} pods expected, got {at.value}")
        for index in range(1, at.value + 1):
            pod = Pod(f"{node.removeprefix('node-')}{'-' if node[-1].isdigit() else ''}{index}", node)
            places["pod", pod.key] = at
            yield pod
        return
    for name, one in at.mapping().items():
        if one.value is None:
            pod = Pod(name, node)
        elif isinstance(one.value, str):
            pod = Pod(name, node, addresses=(one.address(),))
        else:
            entries = one.mapping("addresses", "namespace", "labels")
            addresses = tuple(a.address() for a in entries["addresses"].items()) if "addresses" in entries else ()
            namespace = entries["namespace"].text() if "namespace" in entries else "default"
            labels = entries["labels"].mapping() if "labels" in entries else {}
            pod = Pod(name, node, namespace, addresses, tuple((k, v.text()) for k, v in labels.items()))
        if ("pod", pod.key) in places:
            one.fail(f"there are two pods '{pod.key}'")
        places["pod", pod.key] = one
        yield pod
