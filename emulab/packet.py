"""The no-NAT law: what was sent is what is seen, at every place, in both directions.

Kubernetes promises that pods reach each other by their own addresses, without translation.  So a packet between two pods
shows, wherever its inner headers appear, the source, destination, protocol, ports and payload with which it was sent; only
the TTL, checksums and link-layer addresses may change.  This module knows packets as values: no sockets, no Scapy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from emulab.dataplane import Wire
from emulab.model import SWITCHES

INITIAL_TTL = 64
PROTOCOL_NUMBERS = {"icmp": {4: 1, 6: 58}, "tcp": {4: 6, 6: 6}, "udp": {4: 17, 6: 17}}
PROTOCOL_NAMES = {1: "icmp", 58: "icmp", 6: "tcp", 17: "udp"}


class Verdict(str, Enum):
    """How a flow ended, worst first: a flow that was both rewritten and lost counts as rewritten.

    A flow is denied when policies do not let it pass, and it did not pass.
    """

    REWRITTEN = "rewritten"
    DUPLICATED = "duplicated"
    REFUSED = "refused"
    DROPPED = "dropped"
    DENIED = "denied"
    DELIVERED = "delivered"


LET_THROUGH, BROKEN_PROMISE = "let through", "not as promised"  # delivered, and yet not as it should be


class Kind(str, Enum):
    """Who talks to whom; only pod to pod is under the no-NAT law, elsewhere translation is shown.

    What a Service has to keep is said in `emulab.services`.
    """

    POD = "pod-to-pod"
    NODE = "node-to-pod"
    OUTSIDE = "pod-to-outside"
    SERVICE = "pod-to-service"  # or from a node, or from outside


class Headers(NamedTuple):
    """What a packet says of itself.  Addresses are packed; for ICMP the ports are identifier and sequence number."""

    source: bytes
    destination: bytes
    protocol: str
    sport: int
    dport: int
    payload: bool  # whether the probe's payload, if the packet carries any, is as it was sent
    ttl: int
    length: int  # of the IP packet, bytes
    note: str = ""  # e.g. TCP flags

    def show(self) -> dict[str, object]:
        """As JSON values."""
        shown: dict[str, object] = {
            "source": text(self.source),
            "destination": text(self.destination),
            "protocol": self.protocol,
            "sport": self.sport,
            "dport": self.dport,
            "ttl": self.ttl,
            "length": self.length,
        }
        return {**shown, "note": self.note} if self.note else shown


class Outer(NamedTuple):
    """The headers around an encapsulated packet."""

    source: bytes
    destination: bytes
    sport: int
    dport: int
    vni: int
    ttl: int
    kind: str = "vxlan"

    def show(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "source": text(self.source),
            "destination": text(self.destination),
            "sport": self.sport,
            "dport": self.dport,
            "vni": self.vni,
            "ttl": self.ttl,
        }


class Place(NamedTuple):
    """A tap: an interface of a namespace."""

    namespace: str
    interface: str

    def __str__(self) -> str:
        return f"{self.namespace}:{self.interface}"


class Observation(NamedTuple):
    """One packet seen at one place.  ``direction`` is "in" or "out" as the interface sees it; ``time`` in seconds."""

    time: float
    place: Place
    direction: str
    leg: str  # "request" or "reply"
    inner: Headers
    outer: Outer | None = None
    macs: tuple[str, str] = ("", "")  # innermost Ethernet source and destination

    def show(self) -> dict[str, object]:
        return {
            "place": str(self.place),
            "direction": self.direction,
            "leg": self.leg,
            "outer": self.outer.show() if self.outer else None,
            "inner": self.inner.show(),
        }


@dataclass(frozen=True)
class Flow:
    """What a probe sends and wants answered.

    ``source`` and ``destination`` are pod keys, node names or "internet", a destination also a Service, "svc/namespace/name";
    ``size`` is the payload's, in bytes.
    """

    number: int
    kind: Kind
    source: str
    destination: str
    family: int
    protocol: str
    source_address: bytes
    destination_address: bytes
    sport: int
    dport: int
    size: int = 32

    def __str__(self) -> str:
        return f"{short(self.source)} -> {short(self.destination)} {self.protocol}/IPv{self.family}"


@dataclass(frozen=True)
class Finding:
    """A difference that matters: ``field`` was ``before`` when sent and ``after`` when first seen otherwise, at ``place``.

    ``rule`` is the nftables rule or conntrack entry that did it, when known.
    """

    field: str
    before: str
    after: str
    place: str
    leg: str = "request"
    rule: str | None = None

    def show(self) -> dict[str, object]:
        return {
            "field": self.field,
            "before": self.before,
            "after": self.after,
            "place": self.place,
            "leg": self.leg,
            "rule": self.rule,
        }

    def __str__(self) -> str:
        if self.field in ("delivery", "endpoint"):
            return f"{self.after} instead of {self.before}"
        if self.field == "policy":
            told = self.after if self.before == "enforced" else f"{self.after} although {self.before}"
            return f"{told}: {self.rule}" if self.rule else told
        by = f" by {self.rule}" if self.rule and self.rule != self.after else ""
        return f"{self.field} of the {self.leg} {self.before} -> {self.after} at {self.place}{by}"


@dataclass(frozen=True)
class FlowResult:
    """One flow judged.

    ``translations`` are address rewrites that are no findings: the flow left the pod network.  ``policy`` is what policies say
    of it, "" where there are none.
    """

    flow: Flow
    verdict: Verdict
    observations: tuple[Observation, ...] = ()
    findings: tuple[Finding, ...] = ()
    translations: tuple[Finding, ...] = ()
    policy: str = ""

    @property
    def state(self) -> str:
        """The verdict; of a flow that was delivered otherwise than it should be, `LET_THROUGH` or `BROKEN_PROMISE`."""
        if any(finding.field == "policy" for finding in self.findings):
            return LET_THROUGH
        return BROKEN_PROMISE if self.findings and self.verdict is Verdict.DELIVERED else self.verdict.value


@dataclass(frozen=True)
class MtuResult:
    """A full-size packet with DF between two pods, and one a byte longer that has to be reported as too big.

    ``full`` is "delivered" or "lost"; ``over`` is "too big" (with ``reported_by`` and the MTU it named), "delivered" or "lost".
    """

    source: str
    destination: str
    family: int
    mtu: int
    full: str
    over: str
    reported_by: str = ""
    findings: tuple[Finding, ...] = ()


@lru_cache(4096)
def text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def short(name: str) -> str:
    """A pod or Service of the default namespace without it, everything else as it is."""
    return f"svc/{name[12:]}" if name.startswith("svc/default/") else name.removeprefix("default/")


_time = itemgetter(Observation._fields.index("time"))


def judge(
    flow: Flow,
    seen: Sequence[Observation],
    *,
    answered: bool,
    refused: str = "",
    ends: tuple[Place | None, Place | None] = (None, None),
    wire: Wire | None = None,
) -> FlowResult:
    """Apply the law to all that was ``seen`` of a flow.

    ``answered`` says whether the reply came back to the sender, ``refused`` is the error that it got instead, ``ends`` are
    the places at the source and the destination, and ``wire`` is the data plane's promise, where it made one.
    """
    observations = tuple(sorted(seen, key=_time))
    changed = tuple(rewrites(flow, observations))
    arrived = [o for o in observations if o.place == ends[1] and o.direction == "in" and o.leg == "request"]
    reached = bool(arrived) if ends[1] else answered
    returned = [o for o in observations if o.place == ends[0] and o.direction == "in" and o.leg == "reply"]
    findings: list[Finding] = []
    translations: tuple[Finding, ...] = ()
    verdict = Verdict.DELIVERED
    last = str(observations[-1].place) if observations else flow.source
    if not answered:
        where = f"last seen at {last}" + (f" going {observations[-1].direction}" if observations else "")
        verdict = Verdict.REFUSED if refused else Verdict.DROPPED
        expected = f"a reply at {short(flow.source)}" if reached else f"arrival at {short(flow.destination)}"
        findings.append(Finding("delivery", expected, refused or where, last, "reply" if reached else "request"))
    elif flow.protocol != "tcp" and (len(arrived) > 1 or len(returned) > 1):
        verdict = Verdict.DUPLICATED
        leg, copies = ("request", len(arrived)) if len(arrived) > 1 else ("reply", len(returned))
        findings.append(Finding("copies", "1", str(copies), str(ends[1 if leg == "request" else 0]), leg))
    elif ends[1] and not arrived and flow.kind is Kind.POD:
        verdict = Verdict.DROPPED
        findings.append(Finding("delivery", f"arrival at {short(flow.destination)}", f"answered by another, {last}", last))
    if flow.kind is Kind.POD:
        if changed:
            verdict = Verdict.REWRITTEN
        findings = [*changed, *findings]
        if wire and answered and not changed:
            findings += _broken_promises(flow, observations, arrived, wire)
    else:
        translations = changed
    return FlowResult(flow, verdict, observations, tuple(findings), translations)


def rewrites(flow: Flow, observations: Iterable[Observation]) -> Iterable[Finding]:
    """For each leg and field, the first place at which it differs from what was sent."""
    request = (flow.source_address, flow.destination_address, flow.protocol, flow.sport, flow.dport, True)
    reply = (flow.destination_address, flow.source_address, flow.protocol, flow.dport, flow.sport, True)
    if flow.protocol == "icmp":
        reply = (*reply[:3], flow.sport, flow.dport, True)
    found: set[tuple[str, str]] = set()
    as_sent: dict[str, Headers | None] = {"request": None, "reply": None}  # by leg, the last: most places see the same packet
    for seen in observations:
        if seen.inner is as_sent[seen.leg]:
            continue
        sent = request if seen.leg == "request" else reply
        if seen.inner[:6] == sent:
            as_sent[seen.leg] = seen.inner
            continue
        for index, (before, after) in enumerate(zip(sent, seen.inner, strict=False)):
            name = _FIELDS[index] if flow.protocol != "icmp" else _ICMP_FIELDS[index]
            if before != after and (seen.leg, name) not in found:
                found.add((seen.leg, name))
                yield Finding(name, _show(before), _show(after), str(seen.place), seen.leg)


_FIELDS = ("source", "destination", "protocol", "source port", "destination port", "payload")
_ICMP_FIELDS = ("source", "destination", "protocol", "identifier", "sequence", "payload")


def _show(value: object) -> str:
    if isinstance(value, bytes):
        return text(value)
    return {True: "as sent", False: "altered"}[value] if isinstance(value, bool) else str(value)


def _broken_promises(
    flow: Flow, observations: Sequence[Observation], arrived: Sequence[Observation], wire: Wire
) -> Iterable[Finding]:
    """Where the packets on the underlay, or the TTL on arrival, differ from what the data plane promised."""
    on_wire = [o for o in observations if o.place.namespace == SWITCHES and o.direction == "in"]
    for leg in ("request", "reply"):
        tunnels = list(wire.tunnels if leg == "request" else reversed(wire.tunnels))
        seen = [o for o in on_wire if o.leg == leg]
        if not seen:
            continue
        if flow.protocol == "tcp":  # many packets each way: compare the path of the first one
            seen = [o for o in seen if o.inner == seen[0].inner]
        promised = []
        for tunnel in tunnels:
            ends = (tunnel.source, tunnel.destination) if leg == "request" else (tunnel.destination, tunnel.source)
            promised.append(f"{tunnel.kind} {ends[0]} -> {ends[1]} port {tunnel.port} vni {tunnel.vni}")
        met = [
            f"{o.outer.kind} {text(o.outer.source)} -> {text(o.outer.destination)} port {o.outer.dport} vni {o.outer.vni}"
            if o.outer
            else "plain"
            for o in seen
        ]
        if not tunnels:
            promised = ["plain"]
            met = sorted(set(met))
        else:
            met = list(dict.fromkeys(met))
        if met != promised:
            yield Finding("encapsulation", ", ".join(promised), ", ".join(met), str(seen[0].place), leg)
    for o in arrived[:1]:
        if o.inner.ttl != INITIAL_TTL - wire.ttl_loss:
            yield Finding("ttl", str(INITIAL_TTL - wire.ttl_loss), str(o.inner.ttl), str(o.place))
