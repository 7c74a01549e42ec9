"""The probe engine: sends every flow, watches every tap, and lets `emulab.packet` judge.

No sleeps and no time-out per probe: flows go out in batches as large as the taps can hold, the engine waits for what can be
observed, and all that stayed silent shares one deadline at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import Union

from emulab.errors import OverloadError
from emulab.kernel.namespaces import Namespaces
from emulab.model import GATEWAY, OUTSIDE_HOST, SWITCHES
from emulab.packet import PROTOCOL_NAMES, PROTOCOL_NUMBERS, Flow, Headers, Observation, Outer, Place
from emulab.probe import craft, payload
from emulab.probe.dissect import ACK, RST, SYN, Dissected, IcmpError, dissect, flag_names
from emulab.probe.flows import PORT
from emulab.probe.hosts import Answer, Host, Poller
from emulab.probe.taps import Frame, Taps

_FRAME_COST = 2304  # bytes of socket buffer that one small frame takes (sk_buff and page)
_FRAMES_PER_FLOW = {"icmp": 16, "udp": 16, "tcp": 80}  # at the busiest tap: a node of Weave, both ways
_IDLE = 0.004
_new = tuple.__new__
# Where the observations of its flow are, its leg, headers, encapsulation and innermost link-layer addresses
_Known = tuple[list[Observation], str, Headers, Union[Outer, None], tuple[str, str]]


class Outcome:
    """Everything known of one flow when its time is over."""

    __slots__ = ("answered", "flow", "refused", "seen")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.seen: list[Observation] = []
        self.answered = False
        self.refused = ""


class Engine:
    """One round of probing in a lab.  ``watched`` are the tapped namespaces, ``timeout`` the common deadline in seconds.

    ``serving`` are the ports (protocol, number), besides ``port`` in pods, at which a namespace answers.

    Frames that the taps could not hold end a ``complete`` run; else they are counted in ``missed``.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        *,
        pods: Sequence[str],
        nodes: Sequence[str],
        families: tuple[int, ...],
        watched: Sequence[str],
        tunnel_ports: frozenset[int],
        round_: int,
        timeout: float = 1.0,
        on_frame: Callable[[Frame], None] | None = None,
        port: int = PORT,
        complete: bool = True,
        serving: Mapping[str, Collection[tuple[str, int]]] | None = None,
    ) -> None:
        serving = serving or {}
        self._complete, self.missed = complete, 0
        self._round, self._timeout, self._tunnel_ports, self._on_frame = round_, timeout, tunnel_ports, on_frame
        self._poller = Poller()
        self._taps = Taps(namespaces, watched)
        self._pending: dict[int, Outcome] = {}
        self._keys: dict[tuple[object, ...], tuple[int, str]] = {}
        self._initial: dict[int, int] = {}  # TCP: the client's initial sequence number -> flow
        # A frame is seen at many taps, unchanged: what was found in it, by its bytes, and in all frames alike.
        self._known: dict[bytes, _Known] = {}
        self._headers: dict[Headers, Headers] = {}
        self._macs: dict[bytes, tuple[str, str]] = {}
        self._hosts = {
            name: Host(
                namespaces[name],
                self._poller,
                families if name not in (OUTSIDE_HOST,) else (4, 6),
                serve=name in pods or name == OUTSIDE_HOST,
                round_=round_,
                report=self._answer,
                on_icmp=self._icmp_error,
                port=port,
                more=serving.get(name, ()),
            )
            for name in dict.fromkeys((*pods, *nodes, OUTSIDE_HOST, *serving))
        }
        self._silent = 0

    def close(self) -> None:
        for host in self._hosts.values():
            host.close()
        self._poller.close()
        self._taps.close()

    def host(self, name: str) -> Host:
        return self._hosts[name]

    def forget(self) -> None:
        """Let go of what the taps have seen until now: a lab that was just built is busy with itself."""
        for _ in self._taps.frames():
            pass
        self._taps.lost()

    def run(self, flows: Iterable[Flow]) -> Iterator[Outcome]:
        """Send all flows; yields each outcome once, in the order of sending.

        Outcomes of answered flows are handed out (and forgotten) batch by batch; silent ones wait for the deadline.
        """
        waiting: list[Outcome] = []
        source = iter(flows)
        while batch := list(self._batch(source)):
            self._send(batch)
            self._settle(len(waiting))
            for flow in batch:
                waiting.append(self._pending[flow.number])
            while waiting and self._done(waiting[0]):
                yield self._finish(waiting.pop(0))
        deadline = time.monotonic() + self._timeout
        while not all(self._done(outcome) for outcome in waiting) and time.monotonic() < deadline:
            self._poller.wait(min(0.05, max(0.0, deadline - time.monotonic())))
            self._drain()
        self._drain()
        for outcome in waiting:
            yield self._finish(outcome)

    def _batch(self, source: Iterator[Flow]) -> Iterator[Flow]:
        """As many flows as the taps can hold the frames of."""
        room = self._taps.capacity // _FRAME_COST
        for flow in islice(source, 256):
            yield flow
            room -= _FRAMES_PER_FLOW[flow.protocol]
            if room <= 0:
                return

    def _send(self, batch: Sequence[Flow]) -> None:
        self._known.clear()
        self._headers.clear()
        for flow in batch:
            self._pending[flow.number] = Outcome(flow)
            number = PROTOCOL_NUMBERS[flow.protocol][flow.family]
            back = (flow.sport, flow.dport) if flow.protocol == "icmp" else (flow.dport, flow.sport)
            there, here = flow.source_address, flow.destination_address
            sent, returned = ("request", "reply") if flow.protocol == "icmp" else ("", "")
            self._keys[number, there, here, flow.sport, flow.dport, sent] = (flow.number, "request")
            self._keys[number, here, there, back[0], back[1], returned] = (flow.number, "reply")
        for source, flows in groupby(batch, attrgetter("source")):
            host = self._hosts[source]
            with host.entered():
                for flow in flows:
                    self._open(host, flow)

    def _open(self, host: Host, flow: Flow) -> None:
        if flow.protocol == "tcp":
            host.connect(flow)
            return
        if flow.protocol == "udp":
            host.open_client(flow)
        refused = host.send(craft.request(flow, self._round, flow.size), flow)
        if refused:
            self._pending[flow.number].refused = refused

    def _settle(self, earlier: int) -> None:
        """Serve and drain until this batch is answered, or nothing more happens."""
        idle = 0
        while idle < 2:
            busy = False
            while self._poller.wait(0 if busy else _IDLE):  # the taps hold it all, and there are many to look into
                busy = True
            busy = self._drain() or busy
            idle = 0 if busy else idle + 1
            if idle and self._silent_count() <= earlier:
                return

    def _silent_count(self) -> int:
        return sum(not self._done(outcome) for outcome in self._pending.values())

    @staticmethod
    def _done(outcome: Outcome) -> bool:
        return outcome.answered or bool(outcome.refused)

    def _finish(self, outcome: Outcome) -> Outcome:
        self._pending.pop(outcome.flow.number, None)
        if outcome.flow.protocol == "udp":
            self._hosts[outcome.flow.source].close_client(outcome.flow)
        return outcome

    def _answer(self, answer: Answer) -> None:
        outcome = self._pending.get(answer.number)
        if outcome is None:
            return
        if answer.error:
            outcome.refused = outcome.refused or answer.error
        else:
            outcome.answered = True

    def _icmp_error(self, error: IcmpError) -> None:
        found = self._keys.get(
            (
                error.protocol,
                error.source,
                error.destination,
                error.sport,
                error.dport,
                "request" if error.protocol in (1, 58) else "",
            )
        )
        outcome = self._pending.get(found[0]) if found else None
        if outcome is not None:
            outcome.refused = outcome.refused or error.text

    def _drain(self) -> bool:
        """Take in what the taps saw; returns whether there was anything."""
        known, frame = self._known, None
        for frame in self._taps.frames():
            time, (place, outbound), data, length = frame
            if self._on_frame:
                self._on_frame(Frame(time, place, outbound, data, length))
            found = known.get(data) or self._look(data)
            if found:
                seen, leg, headers, outer, macs = found
                direction = "out" if outbound else "in"
                # As Observation(...), at a third of its price
                seen.append(_new(Observation, (time / 1e9, place, direction, leg, headers, outer, macs)))
        self.missed += self._taps.lost()
        if self.missed and self._complete:
            raise OverloadError("the taps lost packets: raise net.core.rmem_max, or use --taps ends")
        return frame is not None

    def _look(self, data: bytes) -> _Known | None:
        """What a frame is that was not seen before; None for one of no flow."""
        packet = dissect(data, self._tunnel_ports)
        if packet is None:
            return None
        carried = payload.read(data[packet.payload : packet.payload + payload.SIZE], self._round)
        # What a packet carries says whose it is; a translated one may look like a packet of another flow.
        sure = self._carried(packet, carried)
        found = sure or self._keys.get(
            (packet.protocol, packet.source, packet.destination, packet.sport, packet.dport, packet.echo)
        )
        outcome = self._pending.get(found[0]) if found else None
        if outcome is None or found is None:
            return None
        number, leg = found
        if packet.flags & (SYN | ACK) == SYN:
            self._initial.setdefault(packet.sequence, number)
        headers = Headers(
            packet.source,
            packet.destination,
            PROTOCOL_NAMES[packet.protocol],
            packet.sport,
            packet.dport,
            self._intact(packet, data, number, carried),
            packet.ttl,
            packet.length,
            flag_names(packet.flags),
        )
        ethernet = data[packet.offset - 14 : packet.offset - 2]
        macs = self._macs.get(ethernet)
        if macs is None:
            macs = self._macs[ethernet] = (ethernet[6:].hex(":"), ethernet[:6].hex(":"))
        known = outcome.seen, leg, self._headers.setdefault(headers, headers), packet.outer, macs
        if sure or not packet.flags & (SYN | RST):  # by what those are recognised may not have been seen yet
            self._known[data] = known
        return known

    def _carried(self, packet: Dissected, carried: tuple[int, bytes] | None) -> tuple[int, str] | None:
        """Recognise a packet whatever its headers say: by its payload, or a TCP handshake by its sequence numbers."""
        if carried is not None:
            return carried[0], "request" if carried[1] == payload.REQUEST and packet.echo != "reply" else "reply"
        if packet.protocol == 6 and packet.flags & SYN:
            if packet.flags & ACK:
                return self._answering(packet)
            number = self._initial.get(packet.sequence)
            return None if number is None else (number, "request")
        if packet.protocol == 6 and packet.flags & (RST | ACK) == RST | ACK:
            return self._answering(packet)
        return None

    def _answering(self, packet: Dissected) -> tuple[int, str] | None:
        """Whose opening a TCP handshake's answer acknowledges: it accepts, or resets."""
        number = self._initial.get((packet.acknowledged - 1) & 0xFFFFFFFF)
        return None if number is None else (number, "reply")

    def _intact(self, packet: Dissected, frame: bytes, number: int, carried: tuple[int, bytes] | None) -> bool:
        """Whether the payload, if there is any, is byte by byte what was sent."""
        data = frame[packet.payload : packet.offset + packet.length]
        if not data:
            return True
        if carried is None:
            return len(frame) < packet.offset + packet.length  # cut short by the tap, not on the way
        return carried[0] == number and data[: payload.SIZE] == payload.build(self._round, number, carried[1])


def watched(taps: str, pods: Sequence[str], nodes: Sequence[str]) -> list[str]:
    """The namespaces to tap: pods and outside first, since what was sent is compared with what is seen."""
    ends = [*pods, OUTSIDE_HOST]
    return ends if taps == "ends" else [*ends, *nodes, SWITCHES, GATEWAY]


def place_of(name: str, nodes: Sequence[str]) -> Place | None:
    """The tap at the end of a flow: a pod's eth0, the outside host's; none for a node, which has many."""
    return None if name in nodes else Place(name, "eth0")
