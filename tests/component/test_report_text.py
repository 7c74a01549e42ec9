"""The text report, whole: what a reader sees for a small cluster that works, and for one that does not."""

from __future__ import annotations

import io
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from tables import each_row

from emulab.model import Cluster, Endpoint, Link, Node, Pod, Segment, Topology
from emulab.packet import Finding, Flow, FlowResult, Headers, Kind, MtuResult, Observation, Outer, Place, Verdict
from emulab.report import matrix, text, verdict
from emulab.result import Block, Flows, RunResult

A, B = ip_address("10.1.1.1"), ip_address("10.1.2.1")
RULE = "ip bad post: masquerade"


def cluster(pods: int = 2) -> Cluster:
    """One pod on each of two nodes; or more, by turns."""
    nodes = (Node("node-a"), Node("node-b"))
    links = tuple(Link(n.name, "lan", addresses=(ip_interface(f"192.168.50.{i}/24"),)) for i, n in enumerate(nodes, 1))
    found = tuple(Pod(f"{'ab'[i % 2]}{i // 2 + 1}", nodes[i % 2].name) for i in range(pods))
    segment = Segment("lan", (ip_network("192.168.50.0/24"),))
    topology = Topology("pair", (segment,), nodes, links, found, (ip_network("10.1.0.0/16"),))
    ends = tuple(Endpoint(pod, (ip_address(f"10.1.{i % 2 + 1}.{i // 2 + 1}"),)) for i, pod in enumerate(found))
    return Cluster(topology, (), ends)


def flow(
    number: int, source: str = "default/a1", destination: str = "default/b1", protocol: str = "icmp", **more: object
) -> Flow:
    ends = (A.packed, B.packed) if source == "default/a1" else (B.packed, A.packed)
    made = Flow(number, Kind.POD, source, destination, 4, protocol, *ends, 7, 1)
    return replace(made, **more)  # type: ignore[arg-type]


def seen(time: float, place: str, direction: str, ttl: int, leg: str = "request", outer: Outer | None = None) -> Observation:
    ends = (A.packed, B.packed) if leg == "request" else (B.packed, A.packed)
    where = Place(*place.split(":"))
    return Observation(time, where, direction, leg, Headers(*ends, "icmp", 7, 1, True, ttl, 60), outer, ("m", f"{ttl}"))


TUNNEL = Outer(ip_address("192.168.50.1").packed, ip_address("192.168.50.2").packed, 5, 8472, 1, 64)
WAY = (
    seen(1.000000, "default/a1:eth0", "out", 64),
    seen(1.000010, "node-a:flannel.1", "out", 63),
    seen(1.000020, "node-a:eth0", "out", 63, outer=TUNNEL),
    seen(1.000030, "node-b:flannel.1", "in", 63),
    seen(1.000040, "default/b1:eth0", "in", 62),
    seen(1.000080, "default/a1:eth0", "in", 62, "reply"),
)
OUT = Finding("source", "10.1.1.1", "10.9.9.9", "node-a:eth0", rule="ip nat post")
REWRITE = Finding("source", "10.1.1.1", "10.1.2.0", "node-b:cni0", rule=RULE)


def good() -> RunResult:
    flows = [
        FlowResult(flow(0), Verdict.DELIVERED, WAY),
        FlowResult(flow(1, protocol="udp"), Verdict.DELIVERED),
        FlowResult(flow(2, "default/b1", "default/a1"), Verdict.DELIVERED),
        FlowResult(flow(3, "default/b1", "default/a1", "udp"), Verdict.DELIVERED),
        FlowResult(flow(4, source="node-a", kind=Kind.NODE), Verdict.DELIVERED),
        FlowResult(flow(5, destination="internet", kind=Kind.OUTSIDE), Verdict.DELIVERED, translations=(OUT,)),
    ]
    mtu = [MtuResult("default/a1", "default/b1", 4, 1450, "delivered", "too big", "its own kernel")]
    return RunResult(
        "flannel",
        {"vni": 1, "direct_routing": False, "mtu": None},
        cluster(),
        Flows(flows),
        mtu,
        timings={"plan": 0.01, "probe": 0.2},
    )


def bad() -> RunResult:
    result = good()
    result.flows.recorded[1] = FlowResult(flow(1, protocol="udp"), Verdict.REWRITTEN, findings=(REWRITE,))
    result.flows.recorded[3] = FlowResult(flow(3, "default/b1", "default/a1", "udp"), Verdict.REWRITTEN, findings=(REWRITE,))
    return result


def printed(result: RunResult, quiet: bool = False) -> str:
    out = io.StringIO()
    text.write(result, out, quiet=quiet)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_all_is_well() -> None:
    assert (
        printed(good())
        == """\
flannel on pair  2 nodes, 2 pods, IPv4  vni=1 direct_routing=false
plan 0.01 s  probe 0.20 s

from \\ to  a1  b1
a1         ·   ✓
b1         ✓   ·
✓ delivered   (each: icmp/IPv4, udp/IPv4, and the replies)

node -> pod     1 of 1 delivered, none translated
pod -> outside  1 of 1 delivered, 1 translated as they should, e.g. source 10.1.1.1 -> 10.9.9.9 at node-a:eth0 (ip nat post)
MTU IPv4        1450 bytes with DF delivered on all 1 node pairs; 1451 reported as too big on all 1, by its own kernel

a1 -> b1 icmp/IPv4, hop by hop:
       0 us  -> a1:eth0           10.1.1.1 > 10.1.2.1 icmp ttl 64
      10 us  -> node-a:flannel.1  10.1.1.1 > 10.1.2.1 icmp ttl 63  ttl 64 -> 63
      20 us  -> node-a:eth0       10.1.1.1 > 10.1.2.1 icmp ttl 63  vxlan 192.168.50.1 > 192.168.50.2 port 8472 vni 1
      30 us  <- node-b:flannel.1  10.1.1.1 > 10.1.2.1 icmp ttl 63  decapsulated
      40 us  <- b1:eth0           10.1.1.1 > 10.1.2.1 icmp ttl 62  ttl 63 -> 62
      80 us  <- a1:eth0           10.1.2.1 > 10.1.1.1 icmp ttl 62  the reply, back at the sender

PASS  6 flows delivered, none rewritten: all 2 pods see each other's own addresses"""
    )


def test_one_protocol_is_rewritten() -> None:
    shown = printed(bad()).splitlines()
    assert shown[3:8] == [
        "from \\ to  a1  b1",
        "a1         ·   R1",
        "b1         R1  ·",
        "  1: udp/IPv4 rewritten, icmp/IPv4 delivered",
        "R rewritten   (each: icmp/IPv4, udp/IPv4, and the replies)",
    ]


def test_quiet_is_findings_and_verdict() -> None:
    assert (
        printed(bad(), quiet=True)
        == f"""
findings
  rewritten: a1 -> b1 udp/IPv4 and 1 more: source of the request 10.1.1.1 -> 10.1.2.0 at node-b:cni0 by {RULE}

FAIL  of 6 flows 2 rewritten: a1 -> b1 udp/IPv4: source of the request 10.1.1.1 -> 10.1.2.0 at node-b:cni0 by {RULE}"""
    )


LOST = Finding("delivery", "arrival at b1", "last seen at default/a1:eth0 going out", "default/a1:eth0")
TOO_SMALL = Finding("MTU", "1450 bytes delivered", "lost", "default/a1 -> default/b1")
CHECK = MtuResult("default/a1", "default/b1", 4, 1450, "lost", "too big", findings=(TOO_SMALL,))
UNSEEN = Finding("conntrack", "untranslated", "conntrack SNAT x", "node-b", rule="conntrack SNAT x")
TTL = Finding("ttl", "62", "61", "default/b1:eth0")


@each_row(
    "judged, mtu, cluster_wide, line",
    [
        (FlowResult(flow(0), Verdict.DROPPED, findings=(LOST,)), [], [],
         "FAIL  of 1 flows 1 dropped: a1 -> b1 icmp/IPv4: last seen at a1:eth0 going out instead of arrival at b1"),
        (FlowResult(flow(0), Verdict.REFUSED, findings=(replace(LOST, after="host unreachable, by 10.1.1.0"),)), [], [],
         "FAIL  of 1 flows 1 refused: a1 -> b1 icmp/IPv4: host unreachable, by 10.1.1.0 instead of arrival at b1 at a1:eth0"),
        (FlowResult(flow(0), Verdict.DELIVERED, findings=(TTL,)), [], [],
         "FAIL  of 1 flows 1 not as promised: a1 -> b1 icmp/IPv4: ttl of the request 62 -> 61 at b1:eth0"),
        (FlowResult(flow(0), Verdict.DELIVERED), [CHECK], [],
         "FAIL  1 of 1 MTU checks: a1 -> b1 IPv4: lost instead of 1450 bytes delivered"),
        (FlowResult(flow(0), Verdict.DELIVERED), [], [UNSEEN],
         "FAIL  the cluster: node-b: conntrack SNAT x at node-b"),
    ],
)  # fmt: skip
def test_verdict_names_the_first_finding(
    judged: FlowResult, mtu: list[MtuResult], cluster_wide: list[Finding], line: str
) -> None:
    assert verdict.line(RunResult("p", {}, cluster(), Flows([judged]), mtu, cluster_wide)) == line


def block(delivered: list[bytes]) -> RunResult:
    many = cluster(len(delivered))
    found = Block(many.endpoints, 4, "udp", 5, [8080] * len(delivered), delivered)
    return RunResult("p", {}, many, Flows([], [found]))


def test_many_pods_are_counted_by_nodes() -> None:
    rows = [bytes(i != j for i in range(22)) for j in range(22)]
    shown = matrix.of(block(rows))
    assert (shown.names, [[cell for cell, _ in row] for row in shown.rows]) == (
        ["node-a", "node-b"],
        [["✓ 110", "✓ 121"], ["✓ 121", "✓ 110"]],
    )


def test_wide_matrices_have_numbers_instead_of_names() -> None:
    result = good()
    pods = tuple(replace(e, pod=replace(e.pod, name=e.pod.name + "-" * 60)) for e in result.cluster.endpoints)
    result.cluster = replace(result.cluster, endpoints=pods)
    result.flows = Flows()
    assert printed(result).splitlines()[3].split() == ["from", "\\", "to", "1", "2"]


def test_a_locale_without_check_marks() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    text.write(good(), out)
    out.flush()
    assert b"+ delivered" in raw.getvalue()
