"""One packet's story as values: every hop, what changed there and why, and if it was lost, where and for what reason.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from emulab.packet import Flow, Headers, Observation, Outer, Place, Verdict, short, text

SCHEMA = "emulab/trace/1"
TRANSLATING = ("masquerade", "snat", "dnat", "redirect")  # the words of nft(8) in a rule that rewrites addresses


class Reason(str, Enum):
    """Why a packet did not arrive.  A fixed vocabulary, for scripts; the words beside it name the object that decided."""

    NO_ROUTE = "no-route"
    BLACKHOLE = "blackhole"  # a route that says so, or "unreachable", or "prohibit"
    ARP_UNANSWERED = "arp-unanswered"
    NDP_UNANSWERED = "ndp-unanswered"
    FDB_MISSING = "fdb-missing"
    WRONG_MAC = "wrong-mac"  # a neighbour or forwarding entry leads to a MAC address that nobody has there
    RP_FILTER = "rp-filter"
    RULE = "rule"
    POLICY = "policy"  # a rule, and network policies that deny the flow
    MTU_EXCEEDED = "mtu-exceeded"
    LINK_DOWN = "link-down"
    CHECKSUM = "checksum"
    REFUSED = "refused"  # TCP was reset
    NO_LISTENER = "no-listener"  # UDP: port unreachable
    FORWARDING_OFF = "forwarding-off"
    NODE_STOPPED = "node-stopped"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Hop:
    """The packet at one place.

    ``time_us`` is in microseconds since the first hop, ``time`` in seconds since the epoch; ``macs`` are source and destination
    of the innermost Ethernet header, ``outer_macs`` of the one around a tunnel's packet; ``mtu`` is the interface's.
    ``changed`` is what differs from the hop before, ``why`` which entries and rules led here from there.
    ``translated``: an address or a port is another one.
    """

    time_us: float
    place: Place
    direction: str
    leg: str
    inner: Headers
    outer: Outer | None
    macs: tuple[str, str]
    mtu: int
    changed: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    time: float = 0.0
    outer_macs: tuple[str, str] | None = None
    translated: bool = False

    @property
    def translator(self) -> str | None:
        """The rule or conntrack entry that rewrote it here."""
        rules = (why for why in self.why if why.startswith("conntrack") or any(word in TRANSLATING for word in why.split()))
        return next(rules, None) if self.translated else None

    def show(self) -> dict[str, object]:
        return {
            "time_us": round(self.time_us, 1),
            "place": str(self.place),
            "direction": self.direction,
            "leg": self.leg,
            "inner": self.inner.show(),
            "outer": self.outer.show() if self.outer else None,
            "macs": list(self.macs),
            "outer_macs": list(self.outer_macs) if self.outer_macs else None,
            "mtu": self.mtu,
            "translated": self.translated,
            "changed": list(self.changed),
            "why": list(self.why),
        }


@dataclass(frozen=True)
class Loss:
    """Why a packet went no further: the ``code``, the ``reason`` in words, and more ``evidence`` for it.

    ``leg`` is the "request" or the "reply", whichever was lost.
    """

    code: Reason
    reason: str
    evidence: tuple[str, ...] = ()
    leg: str = "request"


@dataclass(frozen=True)
class Trace:
    """A packet's way there and, when it arrived, the answer's way back.

    ``mtu`` is the smallest on the way there, ``round_trip_us`` the time until the answer was back, ``counters`` those of the
    kernel that rose while a packet was lost, by namespace.
    """

    flow: Flow
    verdict: Verdict
    hops: tuple[Hop, ...]
    loss: Loss | None = None
    mtu: int | None = None
    round_trip_us: float | None = None
    plugin: str = ""
    counters: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def delivered(self) -> bool:
        """Whether it was answered; a rewritten packet was, too."""
        return self.verdict in (Verdict.DELIVERED, Verdict.REWRITTEN)

    @property
    def answered_by(self) -> str | None:
        """Who answered, if it was not the destination."""
        way = self.way("request")
        if not self.delivered or not way or way[-1].place.namespace == self.flow.destination:
            return None
        return way[-1].place.namespace

    @property
    def reason(self) -> str | None:
        return self.loss.reason if self.loss else None

    @property
    def reason_code(self) -> str | None:
        return self.loss.code.value if self.loss else None

    @property
    def last_place(self) -> str | None:
        """Where the packet was seen last."""
        return str(self.hops[-1].place) if self.hops else None

    @property
    def title(self) -> str:
        return f"{short(self.flow.source)} -> {short(self.flow.destination)}"

    def way(self, leg: str) -> tuple[Hop, ...]:
        """The hops of the "request" or the "reply"."""
        return tuple(hop for hop in self.hops if hop.leg == leg)

    def show(self) -> dict[str, object]:
        """As JSON values, schema ``emulab/trace/1``."""
        flow = self.flow
        return {
            "schema": SCHEMA,
            "plugin": self.plugin,
            "from": flow.source,
            "to": flow.destination,
            "family": flow.family,
            "protocol": flow.protocol,
            "sport": flow.sport,
            "dport": flow.dport,
            "verdict": self.verdict.value,
            "reason_code": self.reason_code,
            "reason": self.reason,
            "evidence": list(self.loss.evidence) if self.loss else [],
            "last_place": self.last_place,
            "answered_by": self.answered_by or (flow.destination if self.delivered else None),
            "mtu": self.mtu,
            "round_trip_us": round(self.round_trip_us, 1) if self.round_trip_us is not None else None,
            "hops": [hop.show() for hop in self.hops],
            "counters": self.counters,
        }


def changes(before: Observation | None, seen: Observation) -> Iterator[str]:
    """What differs between two sightings of a packet that follow each other, in words."""
    if before is None:
        return
    yield from translations(before.inner, seen.inner)
    outer = seen.outer
    if outer is None and before.outer is not None:
        yield f"{before.outer.kind} removed"
    elif outer is not None and (before.outer is None or outer[:5] != before.outer[:5]):
        yield f"{outer.kind} {text(outer.source)}:{outer.sport} > {text(outer.destination)}:{outer.dport} VNI {outer.vni}"
    elif outer is not None and before.outer is not None and outer.ttl != before.outer.ttl:
        yield f"outer TTL {before.outer.ttl} -> {outer.ttl}"
    if before.inner.ttl != seen.inner.ttl:
        yield f"TTL {before.inner.ttl} -> {seen.inner.ttl}"
    if before.macs != seen.macs:
        yield f"MACs {seen.macs[0]} > {seen.macs[1]}"


def translations(before: Headers, seen: Headers) -> Iterator[str]:
    """What only a translation changes, in words."""
    ports = ("identifier", "sequence") if seen.protocol == "icmp" else ("source port", "destination port")
    if before.source != seen.source:
        yield f"source {text(before.source)} -> {text(seen.source)}"
    if before.destination != seen.destination:
        yield f"destination {text(before.destination)} -> {text(seen.destination)}"
    if before.sport != seen.sport:
        yield f"{ports[0]} {before.sport} -> {seen.sport}"
    if before.dport != seen.dport:
        yield f"{ports[1]} {before.dport} -> {seen.dport}"
    if before.payload and not seen.payload:
        yield "payload altered"
