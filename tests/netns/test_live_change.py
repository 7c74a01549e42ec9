"""What a change leaves alone loses no packet: a stream between two pods runs while others come and go."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from emulab import change
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.planning import Design

PORT, RATE = 9000, 1000  # packets a second
Step = Callable[[Design], Design]


class Stream:
    """UDP from one pod to another at a steady rate, each packet numbered."""

    def __init__(self, lab: Lab, source: str, destination: str, family: int) -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        endpoints = {endpoint.key: endpoint for endpoint in lab.cluster.endpoints}
        address = str(endpoints[destination].address(family))
        with entered(lab.namespaces[destination].net):
            self._receiver = socket.socket(kind, socket.SOCK_DGRAM)
        self._receiver.bind((address, PORT))
        self._receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._receiver.settimeout(2)
        with entered(lab.namespaces[source].net):
            self._sender = socket.socket(kind, socket.SOCK_DGRAM)
        self._sender.connect((address, PORT))
        self._sender.send(b"first")  # ARP, and what bridges learn
        assert self._receiver.recv(100) == b"first"
        self._over = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        start = time.monotonic()
        while not self._over.is_set():
            while self.sent < (time.monotonic() - start) * RATE:
                self._sender.send(str(self.sent).encode())
                self.sent += 1
            time.sleep(1 / RATE)

    def stop(self) -> set[int]:
        """End it; returns the numbers of the packets that did not arrive."""
        self._over.set()
        self._thread.join()
        self._sender.send(b"last")
        arrived = set()
        while (data := self._receiver.recv(100)) != b"last":
            arrived.add(int(data))
        self._receiver.close()
        self._sender.close()
        return set(range(self.sent)) - arrived


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


@pytest.mark.parametrize(
    "case",
    [("flannel",), ("flannel", "backend=host-gw"), ("calico",), ("calico", "encap=vxlan"), ("weave",)],
    ids=" ".join,
)
def test_untouched_pods_lose_nothing(case: tuple[str, ...], in_lab: Callable[..., Any]) -> None:
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
