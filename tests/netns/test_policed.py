"""verify, why, trace and the matrix in labs with policies: as policies say, and what is planted is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from policy_cases import Manifest, policy
from policy_kernel import apply, bare
from policy_mutants import PLANES, app, cluster
from sandboxed import inside, verdicts

import emulab.control.operations  # noqa: F401  (an ordinary user may not be able to read it later)
from emulab.control.live import LiveLab
from emulab.control.operations import perform
from emulab.evidence import Proof
from emulab.kernel import nftables
from emulab.lab import Lab, Probing
from emulab.oracle import Oracle
from emulab.probe import policing, tracing
from emulab.report import text, verdict

# default/a (web) may go to app=db only; default/b (db) may be met by app=web of its own namespace at 80 and 8080, blue by nobody.
TO_DB, AT_8080 = {"to": [{"podSelector": app("db")}]}, [{"port": 8080, "protocol": "TCP"}, {"port": 8080, "protocol": "UDP"}]
FROM_WEB = {"from": [{"podSelector": app("web")}], "ports": [{"port": 80}, *AT_8080]}
POLICIES: tuple[Manifest, ...] = (
    policy("default/leave", {"podSelector": app("web"), "policyTypes": ["Egress"], "egress": [TO_DB]}),
    policy("default/enter", {"podSelector": app("db"), "ingress": [FROM_WEB]}),
    policy("blue/shut", {"podSelector": {}}),
)
CASE = cluster(*POLICIES)
FIRST = "default/leave"
Question = tuple[str, str, str, "int | None", int, bool]
WHY: tuple[Question, ...] = (  # from, to, protocol, port, family, allowed
    ("default/a", "default/b", "tcp", 80, 4, True),
    ("default/a", "default/b", "tcp", 81, 4, False),
    ("default/a", "default/b", "udp", 8080, 6, True),
    ("default/a", "default/b", "icmp", None, 4, False),
    ("default/a", "default/c", "udp", 80, 4, False),
    ("default/c", "default/b", "tcp", 80, 6, False),
    ("default/c", "red/a", "tcp", 80, 4, True),
    ("blue/a", "blue/c", "icmp", None, 6, False),
    ("node-a", "default/b", "tcp", 80, 4, False),
    ("node-b", "default/b", "tcp", 81, 4, True),
    ("default/a", "internet", "tcp", 80, 4, False),
    ("default/c", "internet", "udp", 80, 4, True),
)
FOREIGN = """
add table inet by-hand
add chain inet by-hand f { type filter hook forward priority -10 ; }
add rule inet by-hand f udp dport 8080 drop
"""


def forgetful(lab: Lab) -> None:
    """The kernel is as if there were no policies, and the lab believes that there are."""
    meant = apply(lab, CASE, lambda objects: replace(objects, policies=()))
    cluster_ = lab.design.cluster
    lab.design = replace(lab.design, cluster=replace(cluster_, topology=replace(cluster_.topology, objects=meant)))


def expected(lab: Lab) -> dict[tuple[str, str, str, int], str]:
    """What `verdicts` has to be, by the oracle."""
    oracle, keys = Oracle(lab.cluster), [endpoint.key for endpoint in lab.cluster.endpoints]
    return {
        (a.removeprefix("default/"), b.removeprefix("default/"), protocol, family): (
            "delivered" if oracle.decide(a, b, protocol, 8080, family).allowed else "denied"
        )
        for a in keys
        for b in keys
        if a != b
        for protocol in ("icmp", "udp", "tcp")
        for family in (4, 6)
    }


def judged(lab: Lab, probing: Probing) -> dict[str, Any]:
    result = lab.verify(probing)
    page = io.StringIO()
    text.write(result, page)
    return {
        "ok": result.ok,
        "line": verdict.line(result),
        "verdicts": verdicts(result),
        "states": {one.state for one in result.bad()},
        "findings": sorted({str(finding) for one in result.bad() for finding in one.findings}),
        "cluster": [str(finding) for finding in result.findings],
        "page": page.getvalue(),
        "denied": result.summary()["denied"],
    }


def told(proof: Proof) -> tuple[bool, bool, tuple[str, ...]]:
    return proof.decision.allowed, proof.delivered, proof.disagreements


SHORT = 0.4
QUICK = Probing(timeout=SHORT)
UDP = replace(QUICK, protocols=("udp",))
ENDS = replace(UDP, taps="ends")


def healthy(lab: Lab, questions: Sequence[Question]) -> dict[str, Any]:
    """Everything that has to agree; the first of the questions is told with its evidence."""
    apply(lab, CASE)
    lab.next_round()
    live = LiveLab("lab", lab)
    answer = perform(live, {"do": "policy_matrix", "report": "html"}, lambda _: None).result
    traced = tracing.trace(lab, "default/c", "default/b", protocol="tcp", port=80, timeout=SHORT)
    egress = tracing.trace(lab, "default/a", "default/c", protocol="icmp", timeout=SHORT)
    proofs = [
        policing.why(lab, a, b, protocol=protocol, port=port, family=family, timeout=SHORT)
        for a, b, protocol, port, family, _ in questions
    ]
    return {
        "expected": expected(lab),
        "every": judged(lab, QUICK),
        "ends": judged(lab, ENDS),
        "why": list(map(told, proofs)),
        "rules": [(one.policy, one.origin, one.node, (one.packets or 0) > 0) for one in proofs[0].evidence],
        "matrix": (answer["ok"], answer["summary"]),
        "trace": (traced.reason_code, traced.reason, egress.reason_code, egress.reason),
        "html": answer["report"].count("<td"),
    }


# A user is told the same: of every other question.
@pytest.mark.parametrize(
    ("user", "plane", "questions"), [("root", "weave", WHY), ("user", "calico", WHY[::2])], ids=("weave", "calico")
)
def test_words_and_kernel_agree(user: str, plane: str, questions: Sequence[Question]) -> None:
    def work() -> dict[str, Any]:
        with bare("flat", plane) as lab:
            lab.build()
            return healthy(lab, questions)

    found = inside(work, user)
    assert found["every"]["ok"], found["every"]["findings"][:3]
    assert found["every"]["verdicts"] == found["expected"]
    assert "denied" in found["expected"].values()
    assert found["every"]["line"].startswith("PASS")
    assert found["ends"]["ok"], found["ends"]["findings"][:3]
    assert found["ends"]["verdicts"] == {shape: said for shape, said in found["expected"].items() if shape[2] == "udp"}
    assert found["why"] == [(allowed, allowed, ()) for *_, allowed in questions]
    assert ("default/leave", "egress[0].to[0]", "node-a", True) in found["rules"]
    assert any((one[0], one[2], one[3]) == ("default/enter", "node-b", True) for one in found["rules"])
    good, summary = found["matrix"]
    assert good and summary["mismatches"] == 0 < summary["denied"] < summary["checks"]
    assert found["html"] == 8 * 8 * 6
    assert found["trace"] == (
        "policy",
        "by policy: ingress of default/b: no rule of policy default/enter allows it",
        "policy",
        "by policy: egress of default/a: no rule of policy default/leave allows it",
    )


def planted(lab: Lab) -> dict[str, Any]:
    """A rule that somebody added drops what policies allow; then policies are not in the kernel at all.  First there are none."""
    apply(lab, cluster())
    without = judged(lab, UDP)
    apply(lab, CASE)
    node = lab.namespaces["node-b"]
    nftables.run(node, FOREIGN)
    found: dict[str, Any] = {
        "without": without,
        "lost": judged(lab, UDP),
        "lost at the ends": judged(lab, ENDS),
        "why lost": told(policing.why(lab, "default/a", "default/b", protocol="udp", port=8080, timeout=SHORT)),
        "trace": tracing.trace(lab, "default/a", "default/b", protocol="udp", port=8080, timeout=SHORT).reason_code,
    }
    nftables.run(node, "delete table inet by-hand")
    forgetful(lab)
    answer = perform(LiveLab("lab", lab), {"do": "policy_matrix", "report": "text"}, lambda _: None).result
    return {
        **found,
        "open": judged(lab, UDP),
        "open at the ends": judged(lab, ENDS),
        "why open": told(policing.why(lab, "default/c", "default/b", port=80)),
        "matrix": (answer["ok"], answer["summary"], answer["report"]),
    }


@pytest.mark.parametrize("plane", PLANES)
def test_what_is_planted_is_told(plane: str) -> None:
    """As root: the words are the same for all, and a user's kernel obeys policies in the test above."""

    def work() -> dict[str, Any]:
        with bare("flat", plane) as lab:
            lab.build()
            return planted(lab)

    found = inside(work, "root")
    assert found["without"]["ok"] and found["without"]["denied"] == 0
    assert "denied" not in found["without"]["page"]
    for lost in (found["lost"], found["lost at the ends"]):
        assert not lost["ok"]
        assert lost["states"] == {"dropped"}
        assert all(words.endswith("although policy allows it") for words in lost["findings"])
        assert lost["verdicts"]["a", "b", "udp", 4] == "dropped"
    allowed, delivered, problems = found["why lost"]
    assert (allowed, delivered) == (True, False)
    assert problems[0].startswith("policy allows it, and it was not delivered") and "by-hand" in problems[0]
    assert found["trace"] == "rule"
    for opened in (found["open"], found["open at the ends"]):
        assert not opened["ok"]
        assert opened["states"] == {"let through"}
        assert set(opened["verdicts"].values()) == {"delivered"}
        assert "delivered although denied by default/leave" in opened["findings"]
        assert "delivered although denied by blue/shut" in opened["findings"]
        assert "‼ let through" in opened["page"]
    assert found["why open"][:2] == (False, True)
    assert found["why open"][2] == ("denied by default/enter, and it was delivered",)
    good, summary, page = found["matrix"]
    assert not good and summary["mismatches"] == summary["denied"] > 0
    assert "FAIL" in page and "‼" in page


def test_who_does_not_enforce_is_named_on_one_page() -> None:
    def work() -> dict[str, Any]:
        with bare("flat", "flannel") as lab:
            lab.build()
            apply(lab, CASE)
            return {
                "every": judged(lab, UDP),
                "ends": judged(lab, ENDS),
                "why": told(policing.why(lab, "default/c", "default/b", port=80)),
                "fine": told(policing.why(lab, "default/c", "red/a", port=80)),
                "diagnoses": perform(LiveLab("lab", lab), {"do": "diagnose"}, lambda _: None).result,
            }

    found = inside(work, "root")
    for one in (found["every"], found["ends"]):
        assert not one["ok"]
        assert one["denied"] == 0
        assert len(one["cluster"]) == len(POLICIES) and all(
            "flannel enforces no NetworkPolicy" in words for words in one["cluster"]
        )
        assert sum("flannel enforces no NetworkPolicy" in line for line in one["page"].splitlines()) <= 4
        assert len(one["page"].splitlines()) < 60
    allowed, delivered, problems = found["why"]
    assert (allowed, delivered, len(problems)) == (False, True, 1)
    assert "flannel enforces no NetworkPolicy" in problems[0]
    assert found["fine"] == (True, True, ())
    assert [(one["fault"], one["where"]) for one in found["diagnoses"]] == [("by-design", f"policy {FIRST} and 2 more")]
