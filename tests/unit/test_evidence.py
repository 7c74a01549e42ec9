"""Words and evidence: when they agree, and that every way in which they can differ is told."""

from __future__ import annotations

import io

from policed import cluster, egress, ingress, pods, policy
from tables import each_row

from emulab.evidence import Evidence, Proof, comment, origin, planned_comments
from emulab.objects import Policy
from emulab.oracle import Decision, Oracle
from emulab.report import why
from emulab.state import NftTable

NODES = {"default/web": "node-a", "default/db": "node-b", "default/bare": "node-a"}
IN, OUT = policy(ingress({"from": [pods(app="web")]}), "default/in"), policy(egress({"to": [pods(app="db")]}), "default/out")
PORTS = policy(ingress({"ports": [{"port": 80}, {"port": 81}]}), "default/in")


def met(node: str, policy: str, direction: str, place: str, dropped: bool = False) -> Evidence:
    rule = f'nft ip t c: counter accept comment "default|{policy}|{direction}|{place}"'
    return Evidence(node, direction, policy, place, rule, dropped, 1)


def end(node: str) -> Evidence:
    return Evidence(node, "", "", "", 'nft ip t c: counter drop comment "End of tier default"', True, 2)


def decision(source: str, *policies: Policy, port: int = 80) -> Decision:
    return Oracle(cluster(*policies)).decide(source, "default/db", "tcp", port)


FROM_OUT = met("node-a", "default/out", "egress", "egress[0].to[0]")
FROM_IN = met("node-b", "default/in", "ingress", "ingress[0].from[0]")
ALLOWED = decision("default/web", IN, OUT)
DENIED_IN, DENIED_OUT = decision("default/bare", IN), decision("default/web", IN, policy(egress(), "default/out"))
FREE = decision("default/web")


@each_row(
    "said, delivered, evidence, problems",
    [
        (ALLOWED, True, (FROM_OUT, FROM_IN), []),
        (FREE, True, (), []),
        (DENIED_IN, False, (end("node-b"),), []),
        (DENIED_OUT, False, (end("node-a"),), []),
        (decision("default/web", PORTS), True, (met("node-b", "default/in", "ingress", "ingress[0].ports[0]"),), []),
        (ALLOWED, False, (FROM_OUT, end("node-b")), ["policy allows it, and it was not delivered", "the packet met no rule"]),
        (ALLOWED, True, (FROM_IN,), ["egress of default/web: on node-a the packet met no rule from default/out egress[0].to[0]"]),
        (ALLOWED, True, (FROM_OUT,), ["ingress of default/db: on node-b the packet met no rule"]),
        (ALLOWED, True, (FROM_OUT, met("node-a", "default/in", "ingress", "ingress[0].from[0]")), ["ingress of default/db"]),
        (ALLOWED, True, (FROM_OUT, met("node-b", "default/in", "ingress", "ingress[1]")), ["ingress of default/db"]),
        (ALLOWED, True, (FROM_OUT, met("node-b", "default/in", "ingress", "ingress[0].from[01]")), ["ingress of default/db"]),
        (
            FREE,
            True,
            (FROM_IN,),
            ["not isolated, but on node-b the packet met a rule of policy default/in"],
        ),
        (DENIED_IN, True, (), ["denied by default/in, and it was delivered"]),
        (DENIED_IN, False, (), ["ingress of default/db: on node-b no rule of the data plane has dropped it"]),
        (DENIED_IN, False, (end("node-a"),), ["ingress of default/db: on node-b no rule of the data plane has dropped it"]),
    ],
)
def test_agreement(said: Decision, delivered: bool, evidence: tuple[Evidence, ...], problems: list[str]) -> None:
    proof = Proof(said, delivered, evidence, NODES)
    assert len(proof.disagreements) == len(problems), proof.disagreements
    assert all(words in told for words, told in zip(problems, proof.disagreements, strict=True))
    assert proof.agree is not problems and proof.agree == (not problems)


def test_who_does_not_enforce_is_the_one_reason() -> None:
    proof = Proof(DENIED_IN, True, (), NODES, unenforced="flannel enforces no policies")
    assert proof.disagreements == ("denied by default/in, and it was delivered: flannel enforces no policies",)


def test_a_comment_that_was_cut_is_recognised() -> None:
    long = policy(ingress({"from": [pods(app="web")]}), f"default/{'x' * 110}")
    said = decision("default/web", long)
    key = long.key[: 127 - len("default||ingress|")]
    rule = f'nft ip t c: counter accept comment "default|{key}|ingress|"'
    assert Proof(said, True, (Evidence("node-b", "ingress", key, "", rule, False),), NODES).agree
    assert not Proof(said, True, (Evidence("node-b", "ingress", f"{key[:-1]}y", "", rule, False),), NODES).agree


@each_row(
    "rule, found",
    [
        ('accept comment "default|default/web|ingress|ingress[0].from[1]"', ("default/web", "ingress", "ingress[0].from[1]")),
        ('drop comment "t|deny-all|egress|egress[0]"', ("deny-all", "egress", "egress[0]")),
        ('drop comment "End of tier default. Drop if no policies passed packet"', None),
        ('accept comment "a|b|c|d"', None),
        ("accept", None),
    ],
)
def test_where_a_rule_comes_from(rule: str, found: tuple[str, str, str] | None) -> None:
    assert origin(rule) == found


def test_planned_comments() -> None:
    table = NftTable("ip", "t", ("add table ip t", 'add rule ip t c drop comment "the rest"', "add rule ip t c accept"))
    assert planned_comments((table,)) == {"the rest"}
    assert comment("accept") == ""


def test_the_page() -> None:
    out = io.StringIO()
    why.write_text(Proof(ALLOWED, True, (FROM_OUT, FROM_IN), NODES), out)
    assert out.getvalue().splitlines() == [
        "web -> db  tcp/IPv4 port 80  allowed by policy",
        "  egress of default/web: policy default/out, egress[0].to[0]",
        f"    node-a: {FROM_OUT.rule}  +1 packet",
        "  ingress of default/db: policy default/in, ingress[0].from[0]",
        f"    node-b: {FROM_IN.rule}  +1 packet",
        "words and evidence agree: it was delivered",
    ]
    out = io.StringIO()
    why.write_text(Proof(DENIED_OUT, True, (), NODES), out)
    assert out.getvalue().splitlines() == [
        "web -> db  tcp/IPv4 port 80  denied by policy",
        "  egress of default/web: no rule of policy default/out allows it",
        "words and evidence do not agree: denied by default/out, and it was delivered",
    ]
