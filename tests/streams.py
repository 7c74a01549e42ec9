"""A steady stream of packets between two pods, which shows what a change costs those whom it does not concern."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from emulab.kernel.namespaces import entered
from emulab.lab import Lab

PORT, RATE = 9000, 1000  # packets a second


class Stream:
    """UDP from one pod to another at a steady rate, each packet numbered."""

    def __init__(self, lab: Lab, source: str, destination: str, family: int) -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        endpoints = {endpoint.key: endpoint for endpoint in lab.cluster.endpoints}
        address = str(endpoints[destination].address(family))
        with entered(lab.namespaces[destination].net):
            self._receiver = socket.socket(kind, socket.SOCK_DGRAM)
        self._receiver.bind((address, PORT))
        self._receiver.settimeout(2)
        with entered(lab.namespaces[source].net):
            self._sender = socket.socket(kind, socket.SOCK_DGRAM)
        self._sender.connect((address, PORT))
        self._sender.send(b"first")  # ARP, and what bridges learn
        assert self._receiver.recv(100) == b"first"
        self._receiver.setblocking(False)
        self._over = threading.Event()
        self.sent = 0
        self._arrived: set[int] = set()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        start = time.monotonic()
        while not self._over.is_set():
            while self.sent < (time.monotonic() - start) * RATE:
                self._sender.send(str(self.sent).encode())
                self.sent += 1
                self._receive()  # as soon as it is there: a busy machine takes longer than any queue is long
            time.sleep(1 / RATE)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._arrived.add(int(self._receiver.recv(100)))

    def stop(self) -> set[int]:
        """End it; returns the numbers of the packets that did not arrive."""
        self._over.set()
        self._thread.join()
        self._receiver.settimeout(2)
        self._sender.send(b"last")
        while (data := self._receiver.recv(100)) != b"last":
            self._arrived.add(int(data))
        self._receiver.close()
        self._sender.close()
        return set(range(self.sent)) - self._arrived
