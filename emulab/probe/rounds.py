"""One round of questions about ports: each is asked once, and whoever stays silent is told by how slow the machine is now."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from itertools import islice
from typing import NamedTuple

from emulab.errors import OverloadError
from emulab.kernel.namespaces import Namespaces, entered
from emulab.model import IPAddress
from emulab.packet import Verdict
from emulab.probe import payload, sctp
from emulab.probe.hosts import Poller

PROTOCOLS = ("tcp", "udp", "sctp")
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_ERRORS = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}  # IP_RECVERR, IPV6_RECVERR
_BUSY = (errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)
_PER_SOCKET = 128  # answers that surely fit into one socket's queue
_CONTROLS = 64, 3  # to let everything have its turn, and to see how long one takes
_PORTS = 10000, 10000  # source ports: the first, how many; below those that the kernel gives out by itself
_FIRST = 3  # source ports of a round: one for connections, one for each turn of controls, then one per socket
_taken = 0  # source ports, of all rounds so far
_rounds = itertools.count(1)


class Check(NamedTuple):
    """A question: does ``source`` (pod key, node name or "internet") reach this port of the pod ``destination``?"""

    source: str
    destination: str
    family: int
    protocol: str
    port: int


class Outcome(NamedTuple):
    """DELIVERED: answered, and the source seen by its own address; REWRITTEN: by another one, or somebody else answered;
    REFUSED: by a reset or an ICMP error; DROPPED: no answer.

    ``seen_as`` and ``answered_by`` (a pod key) are what the answer said; a server that is not emulab's says neither.
    ``sent_from`` is the source's address; None where it has no route.
    """

    check: Check
    verdict: Verdict
    seen_as: IPAddress | None = None
    answered_by: str = ""
    sent_from: IPAddress | None = None


class Question(NamedTuple):
    """A check with its addresses."""

    check: Check
    address: IPAddress | None  # of the source; None: the kernel chooses
    target: IPAddress


class Round:
    """Every question once, from source ports that no recent round used: what conntrack remembers of them decides nothing."""

    def __init__(self, namespaces: Namespaces, batch: Sequence[Question]) -> None:
        self._namespaces, self._batch = namespaces, batch
        self._poller = Poller()
        self._sending = 0  # the batch, the first controls, the second ones
        self._sockets: list[socket.socket] = []
        self._found: dict[int, Outcome] = {}
        self._own: dict[int, IPAddress] = {}
        self._questions = list(batch)
        self._controlled: set[int] = set()  # controls that wait for an answer
        self._silent = set(range(len(batch)))
        self._connected: set[int] = set()
        self._round, self._first = next(_rounds), _taken
        self._used: Counter[str] = Counter()  # source ports, by source
        self._streams = ("tcp", "sctp") if sctp.supported() else ("tcp",)

    def _control(self, most: int) -> None:
        first = len(self._questions)
        self._sending += 1
        self._questions += islice(self._controls(), most)
        self._controlled = set(range(first, len(self._questions)))
        self._send(self._controlled)

    def _controls(self) -> Iterator[Question]:
        seen = set()
        for question in self._batch:
            check = question.check
            if (check.destination, check.protocol) not in seen and check.destination in self._namespaces:
                seen.add((check.destination, check.protocol))
                yield Question(check._replace(source=check.destination), question.target, question.target)

    def run(self, patience: float, timeout: float) -> Iterator[Outcome]:
        self._send(range(len(self._batch)))
        limit = time.monotonic() + timeout + patience
        answered = False
        for most in _CONTROLS:
            sent = time.monotonic()
            self._control(most)
            asked = len(self._controlled)
            self._wait(limit, lambda: bool(self._controlled))
            answered = answered or len(self._controlled) < asked or not asked
        if not answered and self._silent:
            raise OverloadError(
                f"no pod answered even itself within {timeout:g} s: the machine is too busy to tell who is silent"
            )
        now = time.monotonic()
        over = min(limit, now + max(patience, 8 * (now - sent)))
        self._wait(over, lambda: bool(self._silent))
        self._wait(limit, lambda: bool(self._connected))
        for number, question in enumerate(self._batch):
            fallen = Outcome(question.check, Verdict.DELIVERED if number in self._connected else Verdict.DROPPED)
            yield self._found.get(number, fallen)._replace(sent_from=self._own.get(number))

    def close(self) -> None:
        global _taken
        for made in self._sockets:
            made.close()
        self._poller.close()
        _taken += _FIRST + max(self._used.values(), default=0)

    def _wait(self, until: float, unfinished: Callable[[], bool]) -> None:
        while unfinished() and (left := until - time.monotonic()) > 0:
            self._poller.wait(left)
        while self._poller.wait(0):  # we may have been kept from looking
            pass

    def _send(self, numbers: Iterable[int]) -> None:
        by_source: dict[str, list[int]] = {}
        for number in numbers:
            by_source.setdefault(self._questions[number].check.source, []).append(number)
        for source, mine in by_source.items():
            groups = [
                [n for n in mine if (self._questions[n].check.family, self._questions[n].check.protocol) == (family, protocol)]
                for family in (4, 6)
                for protocol in PROTOCOLS
            ]
            for group in filter(None, groups):
                if self._questions[group[0]].check.protocol in self._streams:
                    self._connect_all(source, group)
                else:
                    for start in range(0, len(group), _PER_SOCKET):
                        self._send_all(source, group[start : start + _PER_SOCKET])

    def _new(self, source: str, family: int, kind: int, protocol: int, count: int = 1) -> list[socket.socket]:
        with entered(self._namespaces[source].net):
            made = [socket.socket(_AF[family], kind | socket.SOCK_NONBLOCK, protocol) for _ in range(count)]
        if family == 6 and kind != socket.SOCK_RAW:
            for one in made:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._sockets += made
        return made

    def _port(self, place: int) -> int:
        return _PORTS[0] + (self._first + place) % _PORTS[1]

    def _bind(self, made: socket.socket, question: Question, port: int) -> None:
        address = str(question.address or ("" if question.check.family == 4 else "::"))
        try:
            made.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            made.bind((address, 0))

    # Connections

    def _connect_all(self, source: str, numbers: Sequence[int]) -> None:
        check = self._questions[numbers[0]].check
        protocol = sctp.PROTOCOL if check.protocol == "sctp" else 0
        for number, stream in zip(
            numbers, self._new(source, check.family, socket.SOCK_STREAM, protocol, len(numbers)), strict=True
        ):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # A reset ends it for both sides and for conntrack at once: the answer has been read by then.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._connect(number, stream)

    def _connect(self, number: int, stream: socket.socket) -> None:
        question = self._questions[number]
        self._bind(stream, question, self._port(self._sending))
        code = stream.connect_ex((str(question.target), question.check.port))
        if code not in (0, errno.EINPROGRESS):
            self._failed(number, code)
            return
        self._own[number] = question.address or ip_address(stream.getsockname()[0])
        self._poller.add(stream, lambda: self._opened(number, stream), select.EPOLLOUT)

    def _opened(self, number: int, stream: socket.socket) -> None:
        code = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._leave(stream)
            self._failed(number, code)
            return
        if number in self._silent:
            self._silent.discard(number)
            self._connected.add(number)
        with contextlib.suppress(OSError):  # closed by the other side: read what it said
            stream.send(payload.build(self._round, number, payload.ASK))
        self._poller.change(stream, lambda: self._told(number, stream), select.EPOLLIN)

    def _told(self, number: int, stream: socket.socket) -> None:
        try:
            data = stream.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._leave(stream)
        self._answered(number, data)

    def _leave(self, stream: socket.socket) -> None:
        self._poller.remove(stream)
        stream.close()

    # Datagrams, and SCTP packets by hand

    def _send_all(self, source: str, numbers: Sequence[int]) -> None:
        question = self._questions[numbers[0]]
        check = question.check
        by_hand = check.protocol == "sctp"
        kind, protocol = (socket.SOCK_RAW, sctp.PROTOCOL) if by_hand else (socket.SOCK_DGRAM, 0)
        (sender,) = self._new(source, check.family, kind, protocol)
        sender.setsockopt(*_ERRORS[check.family], 1)
        port = self._port(_FIRST + self._used[source])
        self._used[source] += 1
        if not by_hand or question.address:
            self._bind(sender, question, 0 if by_hand else port)
        asked = {(self._questions[n].target.packed, self._questions[n].check.port): n for n in numbers}
        read = self._read_packets if by_hand else self._read_datagrams
        self._poller.add(sender, lambda: read(sender, check.family, port, asked))
        for number in numbers:
            there, dport = self._questions[number].target, self._questions[number].check.port
            self._own[number] = question.address or self._source_for(source, there)
            packet = sctp.init(port, dport, number + 1) if by_hand else payload.build(self._round, number, payload.ASK)
            code = 0
            for _ in range(5):  # what it complains of may be an ICMP error for an earlier one: that is told, once
                try:
                    sender.sendto(packet, (str(there), 0 if by_hand else dport))
                    break
                except OSError as error:
                    code = error.errno or 0
            else:
                self._failed(number, code)

    def _source_for(self, source: str, there: IPAddress) -> IPAddress:
        (asking,) = self._new(source, there.version, socket.SOCK_DGRAM, 0)
        with contextlib.suppress(OSError):
            asking.connect((str(there), 1))
        self._sockets.remove(asking)
        with asking:
            return ip_address(asking.getsockname()[0])

    def _read_datagrams(self, sender: socket.socket, family: int, port: int, asked: dict[tuple[bytes, int], int]) -> None:
        self._read_errors(sender, asked, lambda data, place: asked.get(place))
        for data, place in _received(sender):
            found = payload.read(data, self._round)
            number = found[0] if found else asked.get(place)
            if number is not None:
                self._answered(number, data)

    def _read_packets(self, sender: socket.socket, family: int, port: int, asked: dict[tuple[bytes, int], int]) -> None:
        """Raw sockets see all that comes: what answers us carries our tag."""

        def quoted(data: bytes, place: tuple[bytes, int]) -> int | None:
            sport, dport = struct.unpack_from("!HH", data) if len(data) >= 4 else (0, 0)
            return asked.get((place[0], dport)) if sport == port else None

        self._read_errors(sender, asked, quoted)
        for data, (address, _) in _received(sender):
            packet = sctp.read(data[(data[0] & 15) * 4 :] if family == 4 else data)
            number = asked.get((address, packet.sport)) if packet and packet.dport == port else None
            if packet and number is not None and packet.verification == number + 1:
                if packet.kind == "init ack":
                    self._answered(number, bytes(payload.SIZE) + packet.cookie)
                elif packet.kind == "abort":
                    self._failed(number, errno.ECONNREFUSED)

    def _read_errors(
        self,
        sender: socket.socket,
        asked: dict[tuple[bytes, int], int],
        which: Callable[[bytes, tuple[bytes, int]], int | None],
    ) -> None:
        while True:
            try:
                data, control, _, name = sender.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            number = which(data, (ip_address(name[0].partition("%")[0]).packed, name[1]))
            if number is not None and control:
                self._failed(number, struct.unpack_from("=I", control[0][2])[0])  # sock_extended_err.ee_errno

    # Judging

    def _failed(self, number: int, code: int) -> None:
        if code in _BUSY and number < len(self._batch):
            return  # it was never sent: silent
        # EPERM: a rule of the sender's own namespace dropped it, and the kernel does not keep that from the sender.
        verdict = Verdict.DROPPED if code == errno.EPERM else Verdict.REFUSED
        self._conclude(number, verdict)

    def _answered(self, number: int, data: bytes) -> None:
        question = self._questions[number]
        try:
            told = json.loads(data[payload.SIZE :])
            seen, by = ip_address(told["peer"]), str(told["pod"])
        except (ValueError, LookupError, TypeError):
            self._conclude(number, Verdict.DELIVERED)  # a server of somebody else's
            return
        same = seen == self._own[number] and by == question.check.destination
        self._conclude(number, Verdict.DELIVERED if same else Verdict.REWRITTEN, seen, by)

    def _conclude(self, number: int, verdict: Verdict, seen: IPAddress | None = None, by: str = "") -> None:
        if number >= len(self._batch):
            self._controlled.discard(number)
            return
        self._silent.discard(number)
        self._connected.discard(number)
        self._found[number] = Outcome(self._batch[number].check, verdict, seen, by)


def _received(sock: socket.socket) -> Iterator[tuple[bytes, tuple[bytes, int]]]:
    """All datagrams that are there, with the packed address and port they came from."""
    for _ in range(2 * _PER_SOCKET):
        try:
            data, name = sock.recvfrom(2048)
        except BlockingIOError:
            return
        except OSError:  # an ICMP error, whose text is in the error queue
            continue
        yield data, (ip_address(name[0].partition("%")[0]).packed, name[1])
