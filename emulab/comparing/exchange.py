"""A pod asks another one by UDP, again and again: how long an answer takes, and how long there is none.

Both sockets are in this process, so that an exchange is what the kernels on the way need, and no other process has to be woken.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from emulab.comparison import RoundTrips
from emulab.kernel.namespaces import Namespaces, entered
from emulab.model import Endpoint

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_SIZE = 32  # bytes of payload
_WARM = 50  # exchanges before any counts: neighbours are asked for, connections tracked, caches filled
_PATIENCE = 0.5  # seconds for an answer
_EVERY = 0.002  # seconds from question to question while the network changes
_numbered = struct.Struct(f"!I{_SIZE - 4}x")


class Exchange:
    """The two sockets; a context manager."""

    def __init__(self, namespaces: Namespaces, source: Endpoint, destination: Endpoint, family: int) -> None:
        self._release = ExitStack()
        here, there = str(source.address(family)), str(destination.address(family))
        with entered(namespaces[destination.key].net):
            self._server = self._open(family)
            self._server.bind((there, 0))
        with entered(namespaces[source.key].net):
            self._client = self._open(family)
            self._client.bind((here, 0))
            self._client.connect((there, self._server.getsockname()[1]))

    def _open(self, family: int) -> socket.socket:
        return self._release.enter_context(socket.socket(_AF[family], socket.SOCK_DGRAM))

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._release.close()

    def round_trips(self, number: int) -> RoundTrips:
        """Time ``number`` exchanges, after some that do not count."""
        for made in (self._client, self._server):
            made.settimeout(_PATIENCE)
        times, lost = [], 0
        for turn in range(_WARM + number):
            message = _numbered.pack(turn)
            started = time.perf_counter()
            try:
                self._client.send(message)
                asked, sender = self._server.recvfrom(_SIZE)
                self._server.sendto(asked, sender)
                answer = self._client.recv(_SIZE)
            except OSError:  # nothing came, or an error for it
                lost += 1
                if lost > 2:  # it is not a busy moment
                    break
                continue
            if turn >= _WARM and answer == message:
                times.append(time.perf_counter() - started)
        times.sort()
        if not times:
            return RoundTrips(0.0, 0.0, 0, number)
        return RoundTrips(times[len(times) // 2], times[len(times) * 99 // 100], len(times), number)

    @contextmanager
    def kept_up(self) -> Iterator[Answers]:
        """Ask every two milliseconds, in a thread, as long as the body lasts."""
        answers = Answers()
        thread = threading.Thread(target=self._keep_up, args=(answers,), daemon=True)
        thread.start()
        try:
            yield answers
        finally:
            answers.over = True
            thread.join()

    def _keep_up(self, answers: Answers) -> None:
        self._client.setblocking(False)
        self._server.setblocking(False)
        poll = select.poll()
        for made in (self._client, self._server):
            poll.register(made, select.POLLIN)
        turn, due = 0, time.monotonic()
        while not answers.over:
            now = time.monotonic()
            if now >= due:
                turn, due = turn + 1, now + _EVERY
                self._try(lambda: self._client.send(_numbered.pack(turn)))  # noqa: B023 (called at once)
            for descriptor, _ in poll.poll(max(0.0, (due - time.monotonic()) * 1000)):
                if descriptor == self._server.fileno():
                    self._try(lambda: self._server.sendto(*self._server.recvfrom(_SIZE)))
                elif self._try(lambda: self._client.recv(_SIZE)):
                    answers.came(time.monotonic())

    @staticmethod
    def _try(work: Callable[[], object]) -> bool:
        """Whether it could be done: what is lost on the way comes back as an error, or not at all."""
        try:
            work()
        except OSError:
            return False
        return True


class Answers:
    """When answers came: the latest, and the longest silence between two since it was last reset (`time.monotonic`)."""

    def __init__(self) -> None:
        self.over = False
        self._changed = threading.Condition()
        self._latest: float | None = None
        self._gap = 0.0

    def came(self, now: float) -> None:
        with self._changed:
            if self._latest is not None:
                self._gap = max(self._gap, now - self._latest)
            self._latest = now
            self._changed.notify_all()

    def after(self, moment: float, seconds: float) -> bool:
        """Wait until an answer came later than ``moment``, at most ``seconds``; whether it did."""
        with self._changed:
            return self._changed.wait_for(lambda: self._latest is not None and self._latest > moment, seconds)

    @property
    def gap(self) -> float:
        """The longest silence between two answers, in seconds."""
        with self._changed:
            return self._gap
