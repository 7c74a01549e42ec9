"""What becomes of a flow's verdict in the light of policies, and how a run with policies reads."""

from __future__ import annotations

import io
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, cast

import pytest
from policed import PODS, cluster, ingress, pods, policy
from tables import each_row

from emulab.dataplane import DataPlane
from emulab.enforcement import Enforcement
from emulab.model import Cluster, IPAddress
from emulab.objects import Policy
from emulab.packet import Finding, Flow, FlowResult, Headers, Kind, Observation, Place, Verdict
from emulab.report import json_report, matrix, text, verdict
from emulab.result import Block, RunResult

WEB, DB, BARE = "default/web", "default/db", "default/bare"
ONLY_WEB = policy(ingress({"from": [pods(app="web")]}))


class Plane:
    """A data plane of which nothing but this matters here."""

    def __init__(self, words: str = "") -> None:
        self.words = words

    def unenforced(self, _: Policy) -> str:
        return self.words


def enforcement(*policies: Policy, words: str = "") -> Enforcement:
    return Enforcement(cluster(*policies), cast(DataPlane, Plane(words)))


def flow(source: str, destination: str, kind: Kind = Kind.POD) -> Flow:
    made: dict[str, IPAddress] = {e.key: e.addresses[0] for e in cluster().endpoints}
    made |= {"internet": ip_address("203.0.113.10"), "node-a": ip_address("192.168.0.1"), "node-b": ip_address("192.168.0.2")}
    return Flow(0, kind, source, destination, 4, "udp", made[source].packed, made[destination].packed, 7, 8080)


def result(source: str, destination: str, came: str, kind: Kind = Kind.POD) -> FlowResult:
    """As it is judged without policies: ``came`` is "back", "there" (the answer was lost) or "nowhere"."""
    made = flow(source, destination, kind)
    headers = Headers(made.source_address, made.destination_address, "udp", 7, 8080, True, 64, 60)
    arrival = Observation(1.0, Place(destination, "eth0"), "in", "request", headers)
    if came == "back":
        return FlowResult(made, Verdict.DELIVERED, (arrival,))
    lost = Finding("delivery", "arrival", "last seen at node-a:eth0", "node-a:eth0")
    if came == "refused":
        return FlowResult(made, Verdict.REFUSED, (), (lost,))
    return FlowResult(made, Verdict.DROPPED, (arrival,) if came == "there" else (), (lost,))


@each_row(
    "source, destination, came, expected, findings",
    [
        (WEB, DB, "back", Verdict.DELIVERED, []),
        (BARE, DB, "nowhere", Verdict.DENIED, []),
        (BARE, DB, "refused", Verdict.DENIED, []),
        (BARE, DB, "back", Verdict.DELIVERED, ["delivered although denied by default/one"]),
        (BARE, DB, "there", Verdict.DROPPED, ["delivered although denied by default/one", "last seen"]),
        (WEB, DB, "nowhere", Verdict.DROPPED, ["last seen at node-a:eth0 instead of arrival, although policy allows it"]),
        (DB, WEB, "nowhere", Verdict.DROPPED, ["last seen at node-a:eth0 instead of arrival, although policy allows it"]),
    ],
)
def test_verdicts(source: str, destination: str, came: str, expected: Verdict, findings: list[str]) -> None:
    judged = enforcement(ONLY_WEB).judge(result(source, destination, came))
    assert judged.verdict is expected
    assert len(judged.findings) == len(findings)
    assert all(str(one).startswith(words) for one, words in zip(judged.findings, findings, strict=True))


def test_a_rewritten_packet_is_a_finding_also_when_it_is_denied() -> None:
    rewrite = Finding("source", "10.0.0.3", "10.9.9.9", "node-a:eth0")
    before = replace(result(BARE, DB, "nowhere"), verdict=Verdict.REWRITTEN)
    judged = enforcement(ONLY_WEB).judge(replace(before, findings=(rewrite, *before.findings)))
    assert (judged.verdict, judged.findings) == (Verdict.REWRITTEN, (rewrite,))


@pytest.mark.parametrize(("node", "expected"), [("node-b", Verdict.DROPPED), ("node-a", Verdict.DENIED)])
def test_a_node_is_policed_at_other_nodes_pods(node: str, expected: Verdict) -> None:
    assert enforcement(ONLY_WEB).judge(result(node, DB, "nowhere", Kind.NODE)).verdict is expected


def test_the_outside_is_policed_by_egress() -> None:
    closed = policy({"podSelector": {}, "policyTypes": ["Egress"]})
    assert enforcement(closed).judge(result(WEB, "internet", "nowhere", Kind.OUTSIDE)).verdict is Verdict.DENIED


def test_without_policies_nothing_is_judged() -> None:
    assert not enforcement().active
    assert list(enforcement().findings()) == []


def run(*judged: FlowResult, findings: list[Finding] | None = None) -> RunResult:
    made = RunResult("weave", {}, cluster(), findings=findings or [])
    made.flows.recorded += judged
    return made


def test_who_does_not_enforce_says_so_in_a_few_lines() -> None:
    several = [policy(ingress(), f"default/{name}") for name in ("one", "two", "three")]
    blind = enforcement(*several, words="flannel enforces no policies")
    keys = [key for key, *_ in PODS]
    told = run(*(blind.judge(result(a, DB, "back")) for a in keys if a != DB), findings=list(blind.findings()))
    groups = [(group.number, group.label, group.text) for group in verdict.groups(told)]
    assert groups == [
        (4, "let through", "delivered although denied by default/one, default/three, default/two: flannel enforces no policies"),
        (3, "cluster", "flannel enforces no policies"),
    ]
    assert not told.ok
    assert verdict.line(told).startswith("FAIL  of 4 flows 4 let through: web -> db udp/IPv4: delivered although denied by")


def test_a_policy_in_vain_fails_although_nobody_was_let_through() -> None:
    blind = enforcement(policy(ingress({})), words="flannel enforces no policies")
    told = run(blind.judge(result(WEB, DB, "back")), findings=list(blind.findings()))
    assert not told.ok
    assert verdict.line(told) == "FAIL  the cluster: policy default/one: flannel enforces no policies"


def test_lost_although_allowed_names_who_does_not_understand_the_policy() -> None:
    judged = enforcement(ONLY_WEB, words="weave-npc knows no named ports").judge(result(WEB, DB, "nowhere"))
    assert judged.findings[0].before == "arrival, although policy allows it (weave-npc knows no named ports)"


def mixed() -> RunResult:
    judge = enforcement(ONLY_WEB).judge
    flows = [judge(result(WEB, DB, "back")), judge(result(BARE, DB, "nowhere")), judge(result(DB, WEB, "back"))]
    return run(*flows)


def test_a_run_in_which_policies_hold_passes() -> None:
    told = mixed()
    assert told.ok
    assert told.summary()["denied"] == 1
    assert verdict.line(told).startswith("PASS  2 flows delivered, 1 denied as policies say, none rewritten")
    page = io.StringIO()
    text.write(told, page)
    assert "⊘ denied" in page.getvalue() and "web -> db udp/IPv4, hop by hop" in page.getvalue()
    assert list(matrix.of(told).bad()) == []


def test_json_has_the_words() -> None:
    out = io.StringIO()
    json_report.write(mixed(), out)
    assert '"policy": "denied: ingress of default/db: no rule of policy default/one allows it"' in out.getvalue()


# All pairs in bulk


def block(made: Cluster, rows: list[list[int]], breach: Any) -> Block:
    """``rows[destination][source]`` of web, db and bare; only bare -> db is denied."""
    denied = [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    ports = [8080] * len(rows)
    return Block(made.endpoints[: len(rows)], 4, "udp", 7, ports, list(map(bytes, rows)), list(map(bytes, denied)), breach)


def test_a_block_tells_denied_pairs_apart() -> None:
    rules = enforcement(ONLY_WEB)
    told = run()
    told.flows.blocks.append(block(told.cluster, [[0, 1, 1], [1, 0, 0], [1, 0, 0]], rules.breach))
    found = {(one.flow.source, one.flow.destination): one.verdict.value for one in told.flows}
    assert found == {
        (DB, WEB): "delivered",
        (BARE, WEB): "delivered",
        (WEB, DB): "delivered",
        (BARE, DB): "denied",
        (WEB, BARE): "delivered",  # nothing came from db to bare, and nobody denies it: left to be looked at
    }
    assert told.summary() | {"flows": 5, "delivered": 4, "denied": 1} == told.summary()
    assert told.ok
    nodes = told.flows.by_nodes({endpoint.key: endpoint.node for endpoint in told.cluster.endpoints})
    assert nodes["node-a", "node-b"] == {"delivered": 1, "denied": 1}


def test_a_block_finds_who_was_let_through() -> None:
    rules = enforcement(ONLY_WEB)
    told = run()
    told.flows.blocks.append(block(told.cluster, [[0, 1, 1], [1, 0, 1], [1, 1, 0]], rules.breach))
    assert not told.ok
    assert [str(one.flow) for one in told.bad()] == ["bare -> db udp/IPv4"]
    assert verdict.line(told).startswith(
        "FAIL  of 6 flows 1 let through: bare -> db udp/IPv4: delivered although denied by default/one"
    )
    assert [(a, b, text) for a, b, text in matrix.of(told).bad()] == [("bare", "db", "‼")]
    assert [(a, b) for a, b, _ in matrix.nodes(told).bad()] == [("node-a", "node-b")]
