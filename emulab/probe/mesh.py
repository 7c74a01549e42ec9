"""All ordered pod pairs at once: one UDP datagram each, checked at both ends, for clusters of a thousand pods.

Every pod sends to every other from one port of its own; who receives compares sender, port and payload with what was sent.
Datagrams of one thread arrive in the order of sending, so a receiver's whole queue is compared in one memcmp with what
has to be in there; only what differs is read one by one.  Whatever is not proved here is left to `emulab.probe.engine`.

Only reachability and headers at both ends are observed; on the way, nothing is.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from emulab.kernel import syscalls
from emulab.kernel.namespaces import Namespaces, entered
from emulab.kernel.syscalls import iovec, mmsghdr
from emulab.model import Endpoint
from emulab.probe.payload import MAGIC

NOTHING, DELIVERED, REWRITTEN, DUPLICATED = range(4)
_CHUNK = 64  # senders before the receivers are read: their queues hold 200 kB
_head = struct.Struct("!7scII")  # mark, kind, round, source
_tail = struct.Struct("!I12s")  # destination, filler
_FILLER = b"each to each"
_KIND = b"M"
_NAME = {4: 16, 6: 28}  # sockaddr_in, sockaddr_in6
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}

_ONE_MORE = {NOTHING: DELIVERED, DELIVERED: DUPLICATED}

Rows = list[bytearray]


def prove(
    namespaces: Namespaces,
    endpoints: Sequence[Endpoint],
    family: int,
    *,
    round_: int,
    sport: int,
    dports: Sequence[int],
    timeout: float = 1.0,
    on_progress: Callable[[int], None] | None = None,
    denied: Sequence[bytes] = (),
) -> Rows:
    """Exchange all pairs; ``rows[destination][source]`` says how each ended.

    One thread per port of ``dports``, each with an equal share of the senders (`share`).  Where ``denied[destination][source]``
    is 1 nothing is expected to arrive; it is tried all the same.
    """
    rows = [bytearray(len(endpoints)) for _ in endpoints]
    with ExitStack() as release:
        senders = [_bound(namespaces, e, family, sport, release) for e in endpoints]
        exchange = _Exchange(endpoints, family, round_, sport, senders, rows, on_progress or (lambda _: None))
        workers = []
        for index, dport in enumerate(dports):
            receivers = [_bound(namespaces, e, family, dport, release) for e in endpoints]
            sources = share(len(endpoints), index, len(dports))
            workers.append(_Worker(exchange, receivers, sources, dport, timeout, release))
        workers[0].warm_up(denied)
        threads = [threading.Thread(target=worker.run, name=f"mesh-{i}") for i, worker in enumerate(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for worker in workers:
            if worker.error:
                raise worker.error
    return rows


def share(count: int, index: int, of: int) -> range:
    """The senders of thread ``index``."""
    return range(count * index // of, count * (index + 1) // of)


def _bound(namespaces: Namespaces, endpoint: Endpoint, family: int, port: int, release: ExitStack) -> socket.socket:
    with entered(namespaces[endpoint.key].net):
        made = socket.socket(_AF[family], socket.SOCK_DGRAM)
    release.callback(made.close)
    made.bind((str(endpoint.address(family)), port))
    return made


def _name(family: int, address: bytes, port: int) -> bytes:
    if family == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, address)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, address, 0)


class _Exchange:
    """What all threads share, read only but for the rows, in which each has columns of its own."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        family: int,
        round_: int,
        sport: int,
        senders: list[socket.socket],
        rows: Rows,
        on_progress: Callable[[int], None],
    ) -> None:
        self.family, self.round, self.rows, self.on_progress = family, round_, rows, on_progress
        self.senders = senders
        self.addresses = [endpoint.address(family).packed for endpoint in endpoints]
        self.count = len(endpoints)
        self.name_size = _NAME[family]
        self.names = b"".join(_name(family, address, sport) for address in self.addresses)
        self.heads = b"".join(_head.pack(MAGIC, _KIND, round_, i) for i in range(self.count))
        self.tails = b"".join(_tail.pack(i, _FILLER) for i in range(self.count))


class _Worker:
    """One thread: sends for its share of the pods, and reads what they sent at every pod."""

    def __init__(
        self,
        exchange: _Exchange,
        receivers: list[socket.socket],
        sources: range,
        dport: int,
        timeout: float,
        release: ExitStack,
    ) -> None:
        self._x, self._receivers, self._sources, self._timeout = exchange, receivers, sources, timeout
        self.error: BaseException | None = None
        count, size = exchange.count, exchange.name_size
        names = b"".join(_name(exchange.family, address, dport) for address in exchange.addresses)
        self._send_names = ctypes.create_string_buffer(names, len(names))
        self._send_head = ctypes.create_string_buffer(_head.size)
        self._send_tails = ctypes.create_string_buffer(exchange.tails, len(exchange.tails))
        self._out, self._out_parts = _messages(count)
        for i in range(count):
            self._out_parts[2 * i].base = ctypes.addressof(self._send_head)
            self._out_parts[2 * i + 1].base = ctypes.addressof(self._send_tails) + i * _tail.size
            header = self._out[i].header
            header.name, header.namelen = ctypes.addressof(self._send_names) + i * size, size
        self._names = ctypes.create_string_buffer(_CHUNK * size)
        self._heads = ctypes.create_string_buffer(_CHUNK * _head.size)
        self._tails = ctypes.create_string_buffer(_CHUNK * _tail.size)
        self._in, self._in_parts = _messages(_CHUNK)
        for i in range(_CHUNK):
            self._in_parts[2 * i].base = ctypes.addressof(self._heads) + i * _head.size
            self._in_parts[2 * i + 1].base = ctypes.addressof(self._tails) + i * _tail.size
            header = self._in[i].header
            header.name, header.namelen = ctypes.addressof(self._names) + i * size, size
        self._expected_names = ctypes.create_string_buffer(exchange.names, len(exchange.names))
        self._expected_heads = ctypes.create_string_buffer(exchange.heads, len(exchange.heads))
        self._by_fd = {receiver.fileno(): index for index, receiver in enumerate(receivers)}
        self._poller = release.enter_context(select.epoll())
        for fd in self._by_fd:
            self._poller.register(fd, select.EPOLLIN)

    def warm_up(self, denied: Sequence[bytes]) -> None:
        """One datagram through every pod and between every two neighbours in the list, until all neighbours are resolved.

        A queue for an unresolved neighbour holds some hundred packets; the exchange would overrun it.
        """
        count = self._x.count
        stride = max(1, count // 24)
        hops = {(i, (i + 1) % count) for i in range(count)}
        hops |= {(i, j) for i in range(0, count, stride) for j in range(0, count, stride)}
        waiting = {(i, j) for i, j in hops if i != j and not (denied and denied[j][i])}
        deadline = time.monotonic() + self._timeout
        while waiting and time.monotonic() < deadline:
            for source, destination in sorted(waiting):
                self._head(source, b"W")
                self._send(source, destination, destination + 1)
            quiet = time.monotonic() + min(0.25, self._timeout)
            while waiting and time.monotonic() < min(quiet, deadline):
                for fd, _ in self._poller.poll(0.02):
                    for i in range(syscalls.recvmmsg(fd, self._in, _CHUNK)):
                        source = _head.unpack_from(self._heads, i * _head.size)[3]
                        waiting.discard((source, self._by_fd[fd]))

    def run(self) -> None:
        try:
            self._exchange_all()
        except BaseException as error:  # handed to the thread that waits for us
            self.error = error

    def _exchange_all(self) -> None:
        lagging: set[int] = set()
        for start in range(self._sources.start, self._sources.stop, _CHUNK):
            chunk = range(start, min(start + _CHUNK, self._sources.stop))
            for source in chunk:
                self._head(source, _KIND)
                self._send(source, 0, source)
                self._send(source, source + 1, self._x.count)
            for destination in range(self._x.count):
                if not self._receive(destination, chunk):
                    lagging.add(destination)
            for destination in tuple(lagging):
                self._drain(destination)
            self._x.on_progress(len(chunk) * (self._x.count - 1))
        deadline = time.monotonic() + self._timeout
        lagging = set(range(self._x.count))
        while lagging:
            for destination in tuple(lagging):
                self._drain(destination)
                row = self._x.rows[destination]
                mine = row[self._sources.start : self._sources.stop]
                if mine.count(NOTHING) == (destination in self._sources):
                    lagging.discard(destination)
            if time.monotonic() > deadline:
                return
            if lagging:
                self._poller.poll(0.005)

    def _head(self, source: int, kind: bytes) -> None:
        _head.pack_into(self._send_head, 0, MAGIC, kind, self._x.round, source)

    def _send(self, source: int, start: int, stop: int) -> None:
        fd = self._x.senders[source].fileno()
        while start < stop:
            try:
                start += syscalls.sendmmsg(fd, self._out, stop - start, start)
            except OSError:
                start += 1  # the kernel has no way to this one: it will be missed, and told

    def _receive(self, destination: int, chunk: range) -> bool:
        """Read what ``chunk`` sent; returns whether all of it was there, in order, as sent."""
        x = self._x
        count = len(chunk) - (destination in chunk)
        received = syscalls.recvmmsg(self._receivers[destination].fileno(), self._in, count)
        before = max(0, min(destination, chunk.stop) - chunk.start)  # senders up to the receiver itself
        skip = before + (destination in chunk)
        tail = x.tails[destination * _tail.size : (destination + 1) * _tail.size]
        if received == count and self._same(self._tails, 0, tail * count, 0, count, _tail.size):
            pieces = ((0, chunk.start, before), (before, chunk.start + skip, count - before))
            if all(
                self._same(self._names, at, self._expected_names, first, length, x.name_size)
                and self._same(self._heads, at, self._expected_heads, first, length, _head.size)
                for at, first, length in pieces
            ):
                row = x.rows[destination]
                for _, first, length in pieces:
                    row[first : first + length] = b"\1" * length
                return True
        self._read_one_by_one(destination, received)
        return received == count

    @staticmethod
    def _same(one: ctypes.Array[ctypes.c_char], at: int, other: object, first: int, length: int, size: int) -> bool:
        here = ctypes.c_void_p(ctypes.addressof(one) + at * size)
        if isinstance(other, bytes):
            return not syscalls.libc.memcmp(here, other, ctypes.c_size_t(length * size))
        there = ctypes.c_void_p(ctypes.addressof(other) + first * size)  # type: ignore[arg-type]
        return not syscalls.libc.memcmp(here, there, ctypes.c_size_t(length * size))

    def _drain(self, destination: int) -> None:
        while received := syscalls.recvmmsg(self._receivers[destination].fileno(), self._in, _CHUNK):
            self._read_one_by_one(destination, received)

    def _read_one_by_one(self, here: int, received: int) -> None:
        x = self._x
        for i in range(received):
            mark, kind, round_, source = _head.unpack_from(self._heads, i * _head.size)
            destination, filler = _tail.unpack_from(self._tails, i * _tail.size)
            if (mark, kind, round_) != (MAGIC, _KIND, x.round) or source >= x.count or destination >= x.count:
                continue
            size = x.name_size
            sender: object = self._names[i * size : (i + 1) * size]
            as_sent = sender == x.names[source * size : (source + 1) * size]
            row = x.rows[destination]
            if destination != here or filler != _FILLER or not as_sent:
                row[source] = REWRITTEN
            else:
                row[source] = _ONE_MORE.get(row[source], row[source])


def _messages(count: int) -> tuple[ctypes.Array[mmsghdr], ctypes.Array[iovec]]:
    """Message headers with two parts each: head and tail of the payload."""
    messages = (mmsghdr * count)()
    parts = (iovec * (2 * count))()
    for i in range(count):
        parts[2 * i].length, parts[2 * i + 1].length = _head.size, _tail.size
        messages[i].header.iov = ctypes.pointer(parts[2 * i])
        messages[i].header.iovlen = 2
    return messages, parts


def threads() -> int:
    """How many threads are worth it: more than two do not help, since the kernel does most of the work under few locks."""
    return min(2, len(os.sched_getaffinity(0)))
