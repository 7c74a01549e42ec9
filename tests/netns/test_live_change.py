"""What a change leaves alone loses no packet: a stream between two pods runs while others come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from streams import Stream

from emulab import change
from emulab.faults import Step as Line
from emulab.kernel.typed import type_lines
from emulab.lab import Lab, Probing
from emulab.planning import Design

Step = Callable[[Design], Design]


def coming_and_going() -> list[Step]:
    """Twenty pods and two nodes come and go, beside the stream from a1 to c1; a third node stops and starts."""
    steps: list[Step] = []
    for number in range(10):
        node = ("node-a", "node-b", "node-c")[number % 3]
        steps.append(lambda d, number=number, node=node: change.add_pod(d, f"x{number}", node))  # type: ignore[misc]
    for node in ("node-d", "node-e"):
        steps.append(lambda d, node=node: change.add_node(d, node))  # type: ignore[misc]
        for number in range(5):
            steps.append(lambda d, n=node, m=number: change.add_pod(d, f"{n}-{m}", n))  # type: ignore[misc]
    steps.append(lambda d: change.switch_node(d, "node-b", False))
    steps.append(lambda d: change.switch_node(d, "node-b", True))
    for number in range(10):
        steps.append(lambda d, number=number: change.remove_pod(d, f"default/x{number}"))  # type: ignore[misc]
    for node in ("node-d", "node-e"):
        steps.append(lambda d, node=node: change.remove_node(d, node))  # type: ignore[misc]
    return steps


PLUGINS = [("flannel",), ("flannel", "backend=host-gw"), ("calico",), ("calico", "encap=vxlan"), ("weave",)]


# A change is the same to whoever makes it; so an ordinary user has one with tunnels and one without.
@pytest.mark.parametrize(
    ("user", "case"),
    [*(("root", case) for case in PLUGINS), ("user", ("calico",)), ("user", ("weave",))],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_untouched_pods_lose_nothing(user: str, case: tuple[str, ...], in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> dict[str, Any]:
        streams = [Stream(lab, "default/a1", "default/c1", 4), Stream(lab, "default/a2", "default/c2", 6)]
        for step in coming_and_going():
            lab.change(step(lab.design))
        lost = [sorted(stream.stop())[:10] for stream in streams]
        return {"lost": lost, "sent": min(stream.sent for stream in streams), "pods": len(lab.cluster.endpoints)}

    found = in_lab("flat", case[0], check, *case[1:])
    assert found["lost"] == [[], []]
    assert found["pods"] == 6
    assert found["sent"] > 300


def test_a_stream_notices_a_loss(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> int:
        stream = Stream(lab, "default/a1", "default/c1", 4)
        lab.change(change.partition(lab.design, [["node-a"], ["node-c"]]))
        seen = stream.sent
        while stream.sent < seen + 20:
            time.sleep(0.001)
        lab.change(change.heal(lab.design))
        return len(stream.stop())

    assert in_lab("flat", "flannel", check) >= 10


def test_an_uplink_that_is_down_is_not_waited_for(in_lab: Callable[..., Any]) -> None:
    """It has no carrier until it is switched on: neither a repair nor a node that starts waits for one."""

    def check(lab: Lab) -> list[str]:
        lab.change(change.set_link(lab.design, "node-b", up=False))
        type_lines(lab.namespaces, [Line("node-a", "ip route del 10.1.2.0/24")])
        lab.repair()
        lab.change(change.switch_node(lab.design, "node-b", False))
        lab.change(change.switch_node(lab.design, "node-b", True))
        dark = [str(one) for one in lab.drift()]
        lab.change(change.set_link(lab.design, "node-b", up=True))
        return dark + [str(one.flow) for one in lab.verify(Probing(protocols=("udp",))).bad()]

    assert in_lab("flat", "flannel", check) == []
