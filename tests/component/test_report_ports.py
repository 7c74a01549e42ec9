"""Who reaches which port, as a reader sees it."""

from __future__ import annotations

import io
from collections.abc import Iterable

from emulab.packet import Finding, Flow, FlowResult, Kind, Verdict
from emulab.report import ports

PODS = ("default/a", "default/b", "shop/web")
DENIED, DELIVERED, DROPPED = Verdict.DENIED, Verdict.DELIVERED, Verdict.DROPPED


def checks(
    verdicts: dict[tuple[str, str], Verdict],
    protocol: str = "tcp",
    port: int = 80,
    families: tuple[int, ...] = (4,),
    pods: Iterable[str] = PODS,
) -> list[FlowResult]:
    """Every ordered pair; delivered, but for ``verdicts``."""
    found = []
    for family in families:
        for a in pods:
            for b in pods:
                if a != b:
                    flow = Flow(0, Kind.POD, a, b, family, protocol, b"", b"", 0, port)
                    verdict = verdicts.get((a, b), DELIVERED)
                    lost = (Finding("delivery", "an answer", "nothing, twice", f"{a}:eth0"),) if verdict is DROPPED else ()
                    found.append(FlowResult(flow, verdict, findings=lost))
    return found


def page(found: Iterable[FlowResult], columns: int | None = None) -> list[str]:
    out = io.StringIO()
    ports.write(found, out, columns, ["a note"])
    return out.getvalue().splitlines()


def test_ports_that_look_alike_are_drawn_once() -> None:
    denied = {("default/a", "shop/web"): DENIED, ("default/b", "shop/web"): DROPPED}
    found = checks(denied) + checks(denied, "udp", 53) + checks({}, port=8080)
    assert page(found) == [
        "udp/53, tcp/80",
        "from \\ to  b  shop/web  a",
        "a          ✓  ⊘         ·",
        "b          ·  ✗         ✓",
        "shop/web   ✓  ·         ✓",
        "",
        "tcp/8080",
        "from \\ to  b  shop/web  a",
        "a          ✓  ✓         ·",
        "b          ·  ✓         ✓",
        "shop/web   ✓  ·         ✓",
        "",
        "✓ delivered  ⊘ denied  ✗ dropped",
        "a note",
    ]


def test_the_worse_family_is_the_sign_and_both_are_told() -> None:
    found = checks({}) + checks({("default/a", "default/b"): DROPPED}, families=(6,))
    lines = page(found)
    assert lines[2].split() == ["a", "✗", "✓", "·"]
    assert lines[5:7] == ["a -> b IPv4: delivered", "a -> b IPv6: dropped"]


def test_what_was_rewritten_or_let_through_is_told() -> None:
    found = checks({})
    source = Finding("source", "10.1.1.1", "192.168.50.1", "default/b:eth0")
    breach = Finding("policy", "denied by policy default/web", "delivered", "shop/web:eth0")
    found[0] = FlowResult(found[0].flow, Verdict.REWRITTEN, findings=(source,))
    found[1] = FlowResult(found[1].flow, DELIVERED, findings=(breach,))
    lines = page(found)
    assert lines[2].split() == ["a", "R", "‼", "·"]
    assert lines[5] == "a -> b IPv4: rewritten: source of the request 10.1.1.1 -> 192.168.50.1 at default/b:eth0"
    assert lines[6] == "a -> shop/web IPv4: let through: delivered although denied by policy default/web"


def test_long_names_are_numbered() -> None:
    pods = [f"default/a-pod-with-a-long-name-{number}" for number in range(9)]
    lines = page(checks({}, pods=pods))
    assert lines[1].split()[3:] == [*"123456789"]
    assert lines[11].startswith("to: 1 a-pod-with-a-long-name-1  2 ")


def test_of_many_pods_there_is_a_sum() -> None:
    pods = [f"default/p{number}" for number in range(50)]
    denied = {("default/p1", f"default/p{number}"): DENIED for number in range(50)}
    assert page(checks(denied, pods=pods) + checks({}, "udp", 9, pods=pods[:2])) == [
        "udp/9   2 checks to 2 pods: 2 delivered",
        "tcp/80  2,450 checks to 50 pods: 2,401 delivered, 49 denied",
        "✓ delivered  ⊘ denied",
        "a note",
    ]


def test_no_port_at_all() -> None:
    assert page([]) == ["no pod declares a port (spec.containers[].ports)", "a note"]
