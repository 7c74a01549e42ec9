"""Documents of reports (schema ``emulab/report/1``), made from values: no lab."""

from __future__ import annotations

import base64
from functools import cache
from ipaddress import ip_address
from typing import Any

from emulab import registry
from emulab.packet import Finding, Flow, FlowResult, Headers, Kind, MtuResult, Observation, Outer, Place, Verdict
from emulab.planning import Design, design
from emulab.report import document, pcapng
from emulab.result import Block, Flows, RunResult
from emulab.trace import Hop, Loss, Reason, Trace

Document = dict[str, Any]
RULE = "ip bad postrouting: oifname flannel.1 masquerade"
A1, C1, NODE_A, NODE_C, VTEP = (
    ip_address(a).packed for a in ("10.1.1.1", "10.1.3.1", "192.168.50.1", "192.168.50.3", "10.1.1.0")
)
OUTER = Outer(NODE_A, NODE_C, 50000, 8472, 1, 64)
REWRITE = Finding("source", "10.1.1.1", "10.1.1.0", "node-a:flannel.1", rule=RULE)


def planned(topology: str = "flat", plugin: str = "flannel") -> Design:
    return design(registry.topology(topology), registry.plugin(plugin)())


def inner(source: bytes = A1, destination: bytes = C1, ttl: int = 64, protocol: str = "udp") -> Headers:
    return Headers(source, destination, protocol, 7, 8080, True, ttl, 60)


def seen(
    time: float, place: str, direction: str, headers: Headers, leg: str = "request", outer: Outer | None = None
) -> Observation:
    return Observation(1000 + time / 1e6, Place(*place.split(":")), direction, leg, headers, outer)


def flow(
    source: str = "default/a1",
    destination: str = "default/c1",
    protocol: str = "udp",
    here: bytes = A1,
    there: bytes = C1,
    kind: Kind = Kind.POD,
) -> Flow:
    return Flow(1, kind, source, destination, 4, protocol, here, there, 7, 8080)


REWRITTEN = FlowResult(
    flow(),
    Verdict.REWRITTEN,
    (
        seen(0, "default/a1:eth0", "out", inner()),
        seen(30, "node-a:cni0", "in", inner()),
        seen(60, "node-a:flannel.1", "out", inner(VTEP, ttl=63)),
        seen(90, "node-a:eth0", "out", inner(VTEP, ttl=63), outer=OUTER),
        seen(120, "node-c:flannel.1", "in", inner(VTEP, ttl=63)),
        seen(150, "default/c1:eth0", "in", inner(VTEP, ttl=62)),
        seen(180, "default/c1:eth0", "out", inner(C1, VTEP), "reply"),
        seen(290, "default/a1:eth0", "in", inner(C1, A1, 62), "reply"),
    ),
    (REWRITE,),
)
MACS, OTHER = ("0a:58:0a:01:01:01", "0a:58:0a:01:01:fe"), ("66:82:65:68:83:cf", "9a:1e:7c:71:f2:c1")


def hop(time: float, place: str, direction: str, **more: Any) -> Hop:
    values = {"leg": "request", "inner": inner(protocol="icmp"), "outer": None, "macs": MACS, "mtu": 1450, **more}
    return Hop(time, Place(*place.split(":")), direction, **values)


STORY = Trace(
    flow(protocol="icmp"),
    Verdict.DELIVERED,
    (
        hop(0, "default/a1:eth0", "out", why=("route 10.1.0.0/16 via 10.1.1.254 dev eth0",)),
        hop(20, "node-a:cni0", "in"),
        hop(50, "node-a:flannel.1", "out", inner=inner(ttl=63, protocol="icmp"), macs=OTHER, changed=("TTL 64 -> 63",)),
        hop(80, "node-a:eth0", "out", inner=inner(ttl=63, protocol="icmp"), macs=OTHER, outer=OUTER, outer_macs=MACS, mtu=1500),
        hop(120, "default/c1:eth0", "in", inner=inner(ttl=62, protocol="icmp"), changed=("TTL 63 -> 62", "vxlan removed")),
        hop(150, "default/c1:eth0", "out", leg="reply", inner=inner(C1, A1, protocol="icmp")),
        hop(280, "default/a1:eth0", "in", leg="reply", inner=inner(C1, A1, 62, "icmp")),
    ),
    mtu=1450,
    round_trip_us=280.0,
    plugin="flannel",
)
LOST = Trace(
    flow("default/b1", "default/c1", "tcp"),
    Verdict.DROPPED,
    (hop(0, "default/b1:eth0", "out"), hop(30, "node-b:cni0", "in")),
    Loss(Reason.RULE, "node-b: nft ip bad c: drop", ("counted in node-b: +1",)),
    plugin="flannel",
)


def packets() -> str:
    """One packet at one place, with a comment."""
    data = bytes.fromhex("0a580a0101fe0a580a0101010800") + bytes(46)
    packet = pcapng.enhanced_packet(0, 10**18, data, len(data), True, "leaves by a1:eth0")
    return base64.b64encode(pcapng.section_header() + pcapng.interface_description("default/a1:eth0") + packet).decode()


def story(trace: Trace) -> dict[str, Any]:
    return {**trace.show(), "size": None, "packets": packets()}


def result(made: Design, *recorded: FlowResult) -> RunResult:
    """All pairs by ICMP as they should be, and ``recorded``."""
    cluster = made.cluster
    every = [bytes(one is not other for one in cluster.endpoints) for other in cluster.endpoints]
    block = Block(cluster.endpoints, 4, "icmp", 7, [8080] * len(every), every)
    mtu = [MtuResult("default/a1", "default/c1", 4, 1450, "delivered", "too big", "its own kernel")]
    flows = Flows(list(recorded), [block])
    return RunResult(made.plane.name, made.plane.options(), cluster, flows, mtu, timings={"plan": 0.01, "probe": 0.2})


def healthy() -> Document:
    made = planned()
    return document.build(made, result(made), stories=[story(STORY)], environment={"kernel": "Linux 6.1", "ip": "iproute2-6.1.0"})


def broken() -> Document:
    """a1 -> c1 by UDP is rewritten, b1 -> c1 by TCP lost, and one of two expectations does not hold."""
    made = planned()
    away = Finding("delivery", "arrival at c1", "last seen at node-b:cni0", "node-b:cni0")
    out = Finding("source", "10.1.1.1", "192.168.50.1", "node-a:eth0", rule="ip flannel-ipv4 postrtg: masquerade")
    recorded = [
        REWRITTEN,
        FlowResult(flow("default/b1", "default/c1", "tcp"), Verdict.DROPPED, findings=(away,)),
        FlowResult(
            flow("default/a1", "internet", "icmp", kind=Kind.OUTSIDE), Verdict.DELIVERED, REWRITTEN.observations[:1], (), (out,)
        ),
    ]
    made_of = document.build(
        made,
        result(made, *recorded),
        flows=recorded,
        stories=[story(STORY), story(LOST)],
        left_out=["2 of 64 flows of interest are traced: there are 3 s for it."],
        environment={"kernel": "Linux 6.1", "ip": "iproute2-6.1.0"},
    )
    failure = {"from": "default/a1", "to": "default/c1", "family": 4, "protocol": "udp", "port": 8080, "field": "nat"}
    failure |= {"expected": "none", "found": "source 10.1.1.1 -> 10.1.1.0", "place": "node-a:flannel.1", "rule": RULE}
    told = {"expectation": {}, "flows": 1, "seconds": 0.1, "text": "a1 -> c1 …", "packets": ""}
    made_of["expectations"] = [
        {**told, "title": "a1 reaches b1", "passed": True, "failures": [], "story": None, "text": ""},
        {**told, "title": "a1 reaches c1 udp/8080 without NAT", "passed": False, "failures": [failure], "story": STORY.show()},
    ]
    return made_of


def thousand() -> Document:
    return fleet(50, 20)


@cache
def fleet(nodes: int, pods: int) -> Document:
    """So many pods on each of so many nodes; all that goes from the first pod to the last node is lost."""
    made = planned(f"fleet,{nodes},{pods}")
    ends = made.cluster.endpoints
    rows = [bytearray(one is not other for one in ends) for other in ends]
    for row in rows[-pods:]:
        row[0] = 0
    blocks = [Block(ends, 4, "udp", 7, [8080] * len(ends), rows)]
    last = ends[-1]
    lost = FlowResult(
        flow(ends[0].key, last.key, here=ends[0].addresses[0].packed, there=last.addresses[0].packed),
        Verdict.DROPPED,
        findings=(Finding("delivery", f"arrival at {last.key}", "last seen at node-01:cni0", "node-01:cni0"),),
    )
    told = RunResult("flannel", {}, made.cluster, Flows([lost], blocks), timings={"udp mesh": 3.2})
    return document.build(made, told, flows=[lost])
