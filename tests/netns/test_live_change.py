"""What a change leaves alone loses no packet: a stream between two pods runs while others come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from in_turn import in_turn
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


def untouched_pods_lose_nothing(lab: Lab) -> None:
    streams = [Stream(lab, "default/a1", "default/c1", 4), Stream(lab, "default/a2", "default/c2", 6)]
    for step in coming_and_going():
        lab.change(step(lab.design))
    assert [sorted(stream.stop())[:10] for stream in streams] == [[], []]
    assert len(lab.cluster.endpoints) == 6
    assert min(stream.sent for stream in streams) > 300


def a_stream_notices_a_loss(lab: Lab) -> None:
    stream = Stream(lab, "default/a1", "default/c1", 4)
    lab.change(change.partition(lab.design, [["node-a"], ["node-c"]]))
    seen = stream.sent
    while stream.sent < seen + 20:
        time.sleep(0.001)
    lab.change(change.heal(lab.design))
    assert len(stream.stop()) >= 10


def an_uplink_that_is_down_is_not_waited_for(lab: Lab) -> None:
    """It has no carrier until it is switched on: neither a repair nor a node that starts waits for one."""
    lab.change(change.set_link(lab.design, "node-b", up=False))
    type_lines(lab.namespaces, [Line("node-a", "ip route del 10.1.2.0/24")])
    lab.repair()
    lab.change(change.switch_node(lab.design, "node-b", False))
    lab.change(change.switch_node(lab.design, "node-b", True))
    assert [str(one) for one in lab.drift()] == []
    lab.change(change.set_link(lab.design, "node-b", up=True))
    assert [str(one.flow) for one in lab.verify(Probing(protocols=("udp",))).bad()] == []


FLANNEL = (a_stream_notices_a_loss, an_uplink_that_is_down_is_not_waited_for)
LABS = {
    ("root", "flannel"): FLANNEL,
    ("user", "flannel", "backend=host-gw"): FLANNEL,
    ("user", "calico"): (),
    ("root", "calico", "encap=vxlan"): (),
    ("user", "weave"): (),
}


@pytest.mark.parametrize(("user", "case"), [pytest.param(user, case, id=" ".join((user, *case))) for user, *case in LABS])
def test_changes_of_a_lab(user: str, case: list[str], in_lab: Callable[..., Any]) -> None:
    plugin, *settings = case
    checks = (untouched_pods_lose_nothing, *LABS[(user, *case)])
    in_lab("flat", plugin, lambda lab: in_turn(lab, checks), *settings)
