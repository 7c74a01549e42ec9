"""What a trace says in text, JSON and Mermaid, and how sightings become a way."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from ipaddress import ip_address

from tables import each_row

from emulab.packet import Flow, Headers, Kind, Observation, Outer, Place, Verdict
from emulab.probe.paths import Wiring, way
from emulab.report import trace_json, trace_mermaid, trace_text
from emulab.report.pcapng import enhanced_packet
from emulab.report.trace_pcapng import words
from emulab.trace import Hop, Loss, Reason, Trace, changes

A1, B1, NODE_A, NODE_B = (ip_address(a).packed for a in ("10.1.1.1", "10.1.2.1", "192.168.50.1", "192.168.50.2"))
FLOW = Flow(0, Kind.POD, "default/a1", "default/b1", 4, "icmp", A1, B1, 77, 1)
INNER = Headers(A1, B1, "icmp", 77, 1, True, 64, 60)
OUTER = Outer(NODE_A, NODE_B, 50000, 8472, 1, 64)
MACS, OTHER = ("0a:58:0a:01:01:01", "0a:58:0a:01:01:fe"), ("66:82:65:68:83:cf", "42:0e:62:44:7b:79")
ROUTE = "route 10.1.2.0/24 via 10.1.2.0 dev flannel.1 onlink"


def seen(
    time: float, place: str, direction: str, inner: Headers = INNER, outer: Outer | None = None, macs: tuple[str, str] = MACS
) -> Observation:
    namespace, _, interface = place.rpartition(":")
    return Observation(time, Place(namespace, interface), direction, "request", inner, outer, macs)


def hop(time: float, place: str, direction: str, **more: object) -> Hop:
    namespace, _, interface = place.rpartition(":")
    values = {"leg": "request", "inner": INNER, "outer": None, "macs": MACS, "mtu": 1450, **more}
    return Hop(time, Place(namespace, interface), direction, **values)  # type: ignore[arg-type]


DELIVERED = Trace(
    FLOW,
    Verdict.DELIVERED,
    (
        hop(0, "default/a1:eth0", "out"),
        hop(0, "node-a:veth1", "in"),
        hop(21, "node-a:flannel.1", "out", inner=INNER._replace(ttl=63), changed=("TTL 64 -> 63",), why=(ROUTE,)),
        hop(40, "node-a:eth0", "out", outer=OUTER, mtu=1500, changed=("vxlan 192.168.50.1:50000 > 192.168.50.2:8472 VNI 1",)),
        hop(41, "underlay:node-a", "in", outer=OUTER, mtu=1500),
        hop(60, "default/b1:eth0", "in", changed=("vxlan removed",)),
        hop(70, "default/b1:eth0", "out", leg="reply"),
        hop(101.4, "default/a1:eth0", "in", leg="reply"),
    ),
    mtu=1450,
    round_trip_us=101.4,
    plugin="flannel",
)
RULE = "nft ip evil c: ip daddr 10.1.2.1 drop; it says #1"
LOST = replace(
    DELIVERED,
    verdict=Verdict.DROPPED,
    hops=DELIVERED.hops[:2],
    loss=Loss(Reason.RULE, f"node-a: {RULE}", ("counted in node-a: [IpOutNoRoutes] +1",)),
    round_trip_us=None,
)
REFUSED = replace(LOST, verdict=Verdict.REFUSED, hops=(), loss=Loss(Reason.NO_ROUTE, "a1 has no route to 10.1.2.1"))
NO_ANSWER = replace(LOST, hops=DELIVERED.hops[:6], loss=Loss(Reason.UNKNOWN, "no table says why", leg="reply"))
REWRITTEN = replace(DELIVERED, verdict=Verdict.REWRITTEN)
INSTEAD = replace(REWRITTEN, hops=(*DELIVERED.hops[:5], *DELIVERED.hops[6:]))


def told(trace: Trace, quiet: bool = False, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    trace_text.write(trace, out, quiet=quiet)
    out.flush()
    return raw.getvalue().decode(encoding)


@each_row(
    "trace, lines",
    [
        (
            DELIVERED,
            [
                "a1 -> b1  icmp/IPv4  10.1.1.1 > 10.1.2.1  60 bytes  flannel",
                "     21 us  → node-a:flannel.1  mtu 1450   10.1.1.1 > 10.1.2.1 ttl 63  TTL 64 -> 63",
                f"            because {ROUTE}",
                "and back",
                "✓ delivered and back in 101 us, smallest MTU on the way 1450",
            ],
        ),
        (
            LOST,
            [
                f"✗ the packet was dropped: node-a: {RULE}  (rule)",
                "  last seen arriving at node-a:veth1",
                "  · counted in node-a: [IpOutNoRoutes] +1",
            ],
        ),
        (REFUSED, ["✗ the packet was refused: a1 has no route to 10.1.2.1  (no-route)"]),
        (NO_ANSWER, ["✗ the answer was dropped: no table says why  (unknown)", "  last seen arriving at b1:eth0"]),
        (REWRITTEN, ["! delivered, rewritten on the way and back in 101 us, smallest MTU on the way 1450"]),
        (INSTEAD, ["! answered by underlay, rewritten on the way and back in 101 us, smallest MTU on the way 1450"]),
    ],
)
def test_text(trace: Trace, lines: list[str]) -> None:
    printed = told(trace).splitlines()
    assert [line for line in lines if line not in printed] == [], printed


def test_text_where_there_is_little_room() -> None:
    assert told(DELIVERED, quiet=True).splitlines() == ["✓ delivered and back in 101 us, smallest MTU on the way 1450"]
    assert told(DELIVERED, encoding="ascii").isascii()
    assert "+ delivered" in told(DELIVERED, encoding="ascii")
    assert "> node-a:flannel.1" in told(DELIVERED, encoding="ascii")


def test_the_way_back_is_short_unless_it_was_lost() -> None:
    quiet = hop(80, "node-b:cni0", "in", leg="reply", why=("fdb x",))
    back = (*DELIVERED.hops[:7], quiet, DELIVERED.hops[7])
    assert "node-b:cni0" not in told(replace(DELIVERED, hops=back))
    lost = replace(DELIVERED, verdict=Verdict.DROPPED, hops=back, loss=Loss(Reason.UNKNOWN, "x", leg="reply"))
    assert "node-b:cni0" in told(lost) and "because fdb x" in told(lost)


@each_row("trace", [DELIVERED, LOST, REFUSED, NO_ANSWER, REWRITTEN, INSTEAD])
def test_json(trace: Trace) -> None:
    out = io.StringIO()
    trace_json.write(trace, out)
    read = json.loads(out.getvalue())
    assert read["schema"] == "emulab/trace/1"
    assert (read["reason_code"], read["reason"]) == (trace.reason_code, trace.reason)
    assert [one["place"] for one in read["hops"]] == [str(one.place) for one in trace.hops]
    assert read["verdict"] == trace.verdict.value
    assert (read["reason"] is None) == trace.delivered


def test_json_of_a_hop() -> None:
    shown = DELIVERED.hops[3].show()
    assert shown == {
        "time_us": 40,
        "place": "node-a:eth0",
        "direction": "out",
        "leg": "request",
        "inner": INNER.show(),
        "outer": OUTER.show(),
        "macs": list(MACS),
        "outer_macs": None,
        "mtu": 1500,
        "translated": False,
        "changed": ["vxlan 192.168.50.1:50000 > 192.168.50.2:8472 VNI 1"],
        "why": [],
    }


def test_mermaid() -> None:
    assert list(trace_mermaid.lines(DELIVERED)) == [
        "sequenceDiagram",
        "    participant p0 as a1",
        "    participant p1 as node-a",
        "    participant p2 as underlay",
        "    participant p3 as b1",
        "    p0->>p1: 10.1.1.1 > 10.1.2.1 ttl 64",
        "    Note over p1: vxlan 192.168.50.1:50000 > 192.168.50.2:8472 VNI 1",
        "    p1->>p2: vxlan 192.168.50.1 > 192.168.50.2: 10.1.1.1 > 10.1.2.1 ttl 64",
        "    p2->>p3: 10.1.1.1 > 10.1.2.1 ttl 64",
        "    Note over p3: vxlan removed",
        "    p3-->>p0: 10.1.1.1 > 10.1.2.1 ttl 64",
        "    Note over p0: delivered, back in 101 us",
    ]


def test_mermaid_of_a_loss_keeps_its_syntax() -> None:
    last = list(trace_mermaid.lines(LOST))[-1]
    assert last == "    Note over p1: rule: node-a: nft ip evil c: ip daddr 10.1.2.1 drop#59; it says #35;1"
    assert list(trace_mermaid.lines(REFUSED))[-1] == "    Note over p0: no-route: a1 has no route to 10.1.2.1"


def test_a_comment_in_a_capture() -> None:
    assert words(DELIVERED.hops[2]) == f"request leaves by node-a:flannel.1: TTL 64 -> 63\nbecause {ROUTE}"
    assert b"\x01\x00\x05\x00hello\0\0\0" in enhanced_packet(0, 5, b"abc", 3, True, "hello")
    assert len(enhanced_packet(0, 5, b"", 0, True, "é" * 70000)) < 66000


@each_row(
    "before, after, expected",
    [
        (seen(0, "n:a", "in"), seen(1, "n:b", "out"), []),
        (seen(0, "n:a", "in"), seen(1, "n:b", "out", INNER._replace(ttl=63)), ["TTL 64 -> 63"]),
        (seen(0, "n:a", "in"), seen(1, "n:b", "out", macs=OTHER), [f"MACs {OTHER[0]} > {OTHER[1]}"]),
        (seen(0, "n:a", "out"), seen(1, "n:b", "out", outer=OUTER), ["vxlan 192.168.50.1:50000 > 192.168.50.2:8472 VNI 1"]),
        (seen(0, "n:a", "in", outer=OUTER), seen(1, "n:b", "in"), ["vxlan removed"]),
        (
            seen(0, "n:a", "in", outer=OUTER),
            seen(1, "n:b", "out", outer=OUTER._replace(ttl=63)),
            ["outer TTL 64 -> 63"],
        ),
        (
            seen(0, "n:a", "in"),
            seen(1, "n:b", "out", INNER._replace(source=NODE_A, sport=9, payload=False)),
            ["source 10.1.1.1 -> 192.168.50.1", "identifier 77 -> 9", "payload altered"],
        ),
        (
            seen(0, "n:a", "in", INNER._replace(protocol="tcp")),
            seen(1, "n:b", "out", INNER._replace(protocol="tcp", destination=NODE_A, dport=9)),
            ["destination 10.1.2.1 -> 192.168.50.1", "destination port 1 -> 9"],
        ),
    ],
)
def test_changes(before: Observation, after: Observation, expected: list[str]) -> None:
    assert list(changes(before, after)) == expected
    assert list(changes(None, after)) == []


def place(name: str) -> Place:
    namespace, _, interface = name.rpartition(":")
    return Place(namespace, interface)


PEERS = {"a1:eth0": "n:v1", "a2:eth0": "n:v2", "a3:eth0": "n:v3"}
WIRING = Wiring(
    {place(one): place(other) for pair in PEERS.items() for one, other in (pair, pair[::-1])},
    {place(port): place("n:br0") for port in ("n:v1", "n:v2", "n:v3")},
    {place("n:br0"): "bridge"},
    {place("a2:eth0"): OTHER[1], place("a3:eth0"): "02:00:00:00:00:03"},
)


def test_a_way_is_found_where_times_are_alike() -> None:
    sightings = [seen(0, "n:v1", "in"), seen(0, "a1:eth0", "out"), seen(0, "a2:eth0", "in"), seen(0, "n:v2", "out")]
    found = way(sightings, WIRING, place("a2:eth0"))
    assert [str(one.place) for one in found.seen] == ["a1:eth0", "n:v1", "n:v2", "a2:eth0"]
    assert found.flooded == {}


def test_a_flooded_frame_is_followed_to_its_addressee() -> None:
    sightings = [
        seen(0, "a1:eth0", "out", macs=OTHER),
        seen(0, "n:v1", "in", macs=OTHER),
        seen(1, "n:v3", "out", macs=OTHER),
        seen(1, "a3:eth0", "in", macs=OTHER),
        seen(2, "n:v2", "out", macs=OTHER),
        seen(2, "a2:eth0", "in", macs=OTHER),
    ]
    found = way(sightings, WIRING, None)
    assert [str(one.place) for one in found.seen] == ["a1:eth0", "n:v1", "n:v2", "a2:eth0"]
    assert found.flooded == {1: 2}
    nobody = [one._replace(macs=MACS) for one in sightings]
    assert [str(one.place) for one in way(nobody, WIRING, None).seen] == ["a1:eth0", "n:v1"]


def test_what_was_never_seen_has_no_way() -> None:
    assert way([], WIRING, None).seen == ()


def test_repetitions_are_told_once() -> None:
    once = [seen(0, "a1:eth0", "out"), seen(0, "n:v1", "in")]
    again = [one._replace(time=1.0) for one in once]
    assert len(way([*once, *again], WIRING, None).seen) == 2
