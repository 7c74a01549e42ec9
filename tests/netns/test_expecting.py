"""Expectations of labs on the real kernel: what holds passes, what does not is told with its field, place and packet."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any

import pytest

from emulab.control.live import LiveLab
from emulab.control.operations import perform
from emulab.lab import Lab

TCP = {"protocol": "tcp", "port": 80}
NOT_REWRITTEN = {"from": "*", "to": "*", **TCP, "nat": False}
OF_PLANE: dict[tuple[str, ...], list[dict[str, Any]]] = {
    ("flannel",): [
        {"from": "a1", "to": "c2", "encapsulation": "vxlan", "vni": 1, "hops": 2, "family": 4, "mtu": 1450},
        {"from": "a1", "to": "a2", "hops": 0, "family": 4, "mtu": 1450},
    ],
    ("calico",): [
        {"from": "a1", "to": "c2", "encapsulation": "none", "hops": 2, "mtu": 1500, "seen_as": "10.1.1.1", "family": 4}
    ],
    ("weave",): [{"from": "default/*", "to": "*", "encapsulation": "vxlan", "hops": 0, "mtu": 1376, "family": 4}],
}
EVERYWHERE: list[dict[str, Any]] = [
    NOT_REWRITTEN,
    {"from": "node-a", "to": "*", "protocol": "udp"},
    {"from": "a1", "to": "internet", "nat": True, **TCP},
    {"from": "a1", "to": "node-b"},
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"from": "a1", "to": "c2", "reaches": False}, "delivery"),
    ({"from": "a1", "to": "c2", "nat": True, **TCP}, "NAT"),
    ({"from": "a1", "to": "c2", "hops": 7}, "hops"),
    ({"from": "a1", "to": "c2", "seen_as": "10.1.1.2", "family": 4}, "seen as"),
    ({"from": "a1", "to": "c2", "mtu": 1300}, "MTU"),
    ({"from": "a1", "to": "c2", "mtu": 1501, "protocol": "udp"}, "MTU"),
    ({"from": "a1", "to": "a2", "encapsulation": "vxlan"}, "encapsulation"),
    ({"from": "a1", "to": "internet", "nat": False, **TCP}, "source"),
    ({"from": "a1", "to": "node-b", "reaches": False}, "delivery"),
]


def asked(lab: Lab, *expectations: dict[str, Any], live: LiveLab | None = None, **options: Any) -> list[dict[str, Any]]:
    request = {"do": "expect", "expectations": list(expectations), **options}
    found: list[dict[str, Any]] = perform(live or LiveLab("lab", lab), request, lambda _: None).result["outcomes"]
    return found


# An ordinary user sees the same: one has one of the planes.
@pytest.mark.parametrize(
    ("user", "plugin"),
    [("root", ("flannel",)), ("root", ("calico",)), ("user", ("weave",))],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_holds_and_what_does_not(user: str, plugin: tuple[str, ...], in_lab: Callable[..., Any]) -> None:
    right, wrong = [*OF_PLANE[plugin], *EVERYWHERE], [one for one, _ in WRONG]
    outcomes = in_lab("flat", plugin[0], lambda lab: asked(lab, *right, *wrong))
    for one in outcomes[: len(right)]:
        assert one["passed"] and one["flows"] and not one["failures"] and one["story"] is None, one
    for one, (_, field) in zip(outcomes[len(right) :], WRONG, strict=True):
        assert not one["passed"] and one["failures"][0]["field"] == field, one
        assert one["story"]["schema"] == "emulab/trace/1" and one["text"]
        assert one["story"]["hops"] or one["story"]["reason_code"] == "mtu-exceeded"  # its own kernel refuses to send it
        assert one["story"]["verdict"] == "delivered" or field == "MTU" or one["story"]["reason"] is None, one["text"]
        assert base64.b64decode(one["packets"])[:4] == bytes.fromhex("0a0d0d0a")


FAULTS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]] = [
    ("masquerade-pods", {"from": "a1", "to": "c2", "nat": False, "family": 4}, {"from": "a1", "to": "a2"}, {"field": "source"}),
    (
        "missing-route",
        {"from": "*", "to": "*", "protocol": "udp", "family": 4},
        {"from": "a1", "to": "a2"},
        {"field": "delivery"},
    ),
    ("mtu-mismatch", {"from": "a1", "to": "c2", "mtu": 1450, "family": 4}, {"from": "a1", "to": "c2"}, {"field": "MTU"}),
]


@pytest.mark.parametrize("user", ["root"])
def test_a_planted_fault_is_seen(in_lab: Callable[..., Any]) -> None:
    """One after another in one lab, where all that is expected holds at first, and what each broke holds after it."""

    def check(lab: Lab) -> list[list[dict[str, Any]]]:
        live = LiveLab("lab", lab)
        found = [asked(lab, *(one for _, broken, whole, _ in FAULTS for one in (broken, whole)), live=live)]
        for fault, broken, whole, _ in FAULTS:
            perform(live, {"do": "fault_inject", "name": fault, "at": "node-a"}, lambda _: None)
            found.append(asked(lab, broken, whole, live=live))
            perform(live, {"do": "fault_clear"}, lambda _: None)
            found.append(asked(lab, broken, whole, live=live))
        return found

    first, *rest = in_lab("flat", "flannel", check)
    assert all(one["passed"] for one in first), first
    for (fault, *_, failure), during, after in zip(FAULTS, rest[::2], rest[1::2], strict=True):
        assert [one["passed"] for one in (*during, *after)] == [False, True, True, True], (fault, during, after)
        assert failure.items() <= during[0]["failures"][0].items(), fault


@pytest.mark.parametrize("user", ["user"])
def test_within_waits_until_it_holds(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> tuple[bool, bool]:
        live = LiveLab("lab", lab)
        perform(live, {"do": "fault_inject", "name": "missing-route", "at": "node-a"}, lambda _: None)
        healing = threading.Event()

        def heal() -> None:
            healing.set()
            perform(live, {"do": "fault_clear"}, lambda _: None)

        timer = threading.Timer(1.0, heal)
        timer.start()
        later = asked(lab, {"from": "a1", "to": "b1", "protocol": "udp"}, live=live, within=20.0)
        waited = healing.is_set()
        timer.join()
        return waited, later[0]["passed"]

    assert in_lab("flat", "flannel", check) == (True, True)
