"""Expectations as values: what is read is what is shown, and what cannot be meant is refused."""

from __future__ import annotations

from typing import Any

import pytest
from designed import planned
from tables import each_row

from emulab.errors import InputError
from emulab.expectation import Expectation, pairs
from emulab.fulfilment import failures
from emulab.model import SWITCHES
from emulab.packet import Finding, Flow, FlowResult, Headers, Kind, Observation, Outer, Place, Verdict

CLUSTER, _, _ = planned("flat", "flannel")
ENDS = {"from": "a1", "to": "c2"}
WORDS: list[tuple[dict[str, Any], str]] = [
    (ENDS, "a1 reaches c2 by icmp"),
    ({**ENDS, "protocol": "tcp", "port": 80, "nat": False}, "a1 reaches c2 tcp/80, without NAT"),
    ({**ENDS, "protocol": "udp", "family": 6, "size": 900}, "a1 reaches c2 by udp over IPv6 with 900 bytes"),
    ({**ENDS, "encapsulation": "vxlan", "vni": 1, "hops": 2}, "a1 reaches c2 by icmp, encapsulated vxlan VNI 1, in 2 hops"),
    ({**ENDS, "encapsulation": "none", "hops": 1}, "a1 reaches c2 by icmp, not encapsulated, in 1 hop"),
    ({**ENDS, "mtu": 1450, "seen_as": "10.1.1.1"}, "a1 reaches c2 by icmp, with MTU 1450, seen as 10.1.1.1"),
    ({**ENDS, "reaches": False, "dropped_at": "node-c"}, "a1 cannot reach c2 by icmp, dropped at node-c"),
]


@each_row("given, words", WORDS, ids=lambda value: value if isinstance(value, str) else "")
def test_read_and_shown(given: dict[str, Any], words: str) -> None:
    expected = Expectation.read(given)
    assert str(expected) == words
    assert Expectation.read(expected.show()) == expected


BAD: list[tuple[dict[str, Any], str]] = [
    ({"from": "a1"}, "an expectation needs 'to'"),
    ({**ENDS, "hop": 2}, "no 'hop' in an expectation (did you mean 'hops'?)"),
    ({**ENDS, "source": "a1"}, "no 'source' in an expectation"),
    ({**ENDS, "hops": "2"}, "hops: a whole number expected"),
    ({**ENDS, "hops": True}, "hops: a whole number expected"),
    ({**ENDS, "nat": 0}, "nat: true or false expected"),
    ({**ENDS, "protocol": "tpc", "port": 80}, "protocol 'tpc' (did you mean 'tcp'?)"),
    ({**ENDS, "protocol": "tcp", "port": 65536}, "port 65536: 1 to 65535 expected"),
    ({**ENDS, "port": 80}, "port 80: ICMP has no ports"),
    ({**ENDS, "protocol": "tcp", "size": 900}, "size: TCP chooses its own, expected with icmp and udp"),
    ({**ENDS, "family": 5}, "family '5' (known: 4, 6)"),
    ({**ENDS, "vni": 1}, "vni 1: expected with encapsulation vxlan only"),
    ({**ENDS, "encapsulation": "gre"}, "encapsulation 'gre' (known: none, vxlan)"),
    ({**ENDS, "seen_as": "10.1.1"}, "seen_as '10.1.1': an IPv4 or IPv6 address expected"),
    ({**ENDS, "reaches": False, "mtu": 1450}, "mtu: cannot be expected of a packet that is not to arrive"),
    ({**ENDS, "dropped_at": "node-c"}, "dropped_at: cannot be expected of a packet that is to arrive"),
    ({"from": "", "to": "c2"}, "from: a pod, a pattern such as shop/*, or a node expected"),
]


@each_row("given, message", BAD, ids=[message for _, message in BAD])
def test_what_cannot_be_meant(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Expectation.read(given)
    assert str(caught.value).startswith(message)


MEANT = [
    ("a1", "c2", 1),
    ("default/a1", "*", 5),
    ("*", "*", 30),
    ("default/a*", "default/?2", 5),
    ("node-a", "default/*", 6),
    ("a1", "internet", 1),
    ("*", "node-b", 6),
]


@each_row("source, destination, number", MEANT)
def test_whom_selectors_mean(source: str, destination: str, number: int) -> None:
    assert len(pairs(CLUSTER, Expectation(source, destination))) == number


NOBODY = [
    ("a9", "c2", "no pod or node 'a9' (did you mean 'a2'?)"),
    ("shop/*", "c2", "no pod is meant by 'shop/*'"),
    ("default/app=web", "c2", "no pod is meant by 'default/app=web'"),
    ("default/a=b=c", "c2", "selector a=b=c: e.g. app=web,tier!=db expected"),
    ("a1", "a1", "a1 reaches a1 by icmp: there is nobody but a1 itself"),
    ("internet", "a1", "internet reaches a1 by icmp: internet sends to Services only (svc/NAME)"),
    ("a1", "svc/web", "no Service 'svc/web'"),
]


@each_row("source, destination, message", NOBODY)
def test_selectors_that_mean_nobody(source: str, destination: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        pairs(CLUSTER, Expectation(source, destination))
    assert str(caught.value).startswith(message)


HERE, THERE = bytes([10, 1, 1, 1]), bytes([10, 1, 3, 2])
FLOW = Flow(0, Kind.POD, "default/a1", "default/c2", 4, "udp", HERE, THERE, 30000, 53)
SENT = Headers(HERE, THERE, "udp", 30000, 53, True, 64, 60)


def seen(place: str, direction: str, ttl: int = 64, vni: int | None = None, source: bytes = HERE) -> Observation:
    outer = None if vni is None else Outer(b"\0" * 4, b"\0" * 4, 1, 8472, vni, 64)
    return Observation(0.0, Place(*place.split(":")), direction, "request", SENT._replace(ttl=ttl, source=source), outer)


WAY = (seen("default/a1:eth0", "out"), seen(f"{SWITCHES}:node-a", "in", 63, 1), seen("default/c2:eth0", "in", 62))
GOOD = FlowResult(FLOW, Verdict.DELIVERED, WAY)
LOST = FlowResult(FLOW, Verdict.DROPPED, WAY[:2], (Finding("delivery", "arrival at c2", "last seen there", "underlay:node-a"),))
UNANSWERED = FlowResult(
    FLOW, Verdict.DROPPED, WAY, (Finding("delivery", "a reply at a1", "nothing", "default/c2:eth0", "reply"),)
)
SNAT = Finding("source", "10.1.1.1", "10.1.1.254", "node-a:cni0", rule="ip nat POSTROUTING: masquerade")
CHANGED = FlowResult(
    FLOW, Verdict.REWRITTEN, (*WAY[:2], seen("default/c2:eth0", "in", 62, source=bytes([10, 1, 1, 254]))), (SNAT,)
)
TRACKED = FlowResult(FLOW, Verdict.REWRITTEN, WAY, (Finding("conntrack", "untranslated", "SNAT", "node-a"),))
JUDGED: list[tuple[dict[str, Any], FlowResult, list[tuple[str, str]]]] = [
    ({}, GOOD, []),
    ({}, LOST, [("delivery", "last seen there")]),
    ({}, UNANSWERED, [("delivery", "nothing")]),
    ({"reaches": False}, GOOD, [("delivery", "delivered")]),
    ({"reaches": False}, LOST, []),
    ({"reaches": False}, UNANSWERED, [("delivery", "the request arrived, only the answer was lost")]),
    ({"reaches": False, "dropped_at": "underlay"}, LOST, []),
    ({"reaches": False, "dropped_at": "underlay:node-a"}, LOST, []),
    ({"reaches": False, "dropped_at": "node-c"}, LOST, [("dropped at", "last seen at underlay:node-a")]),
    ({"nat": False}, GOOD, []),
    ({"nat": False}, CHANGED, [("source", "10.1.1.254")]),
    ({"nat": False}, TRACKED, [("conntrack", "SNAT")]),
    ({"nat": True}, GOOD, [("NAT", "everything as it was sent")]),
    ({"nat": True}, CHANGED, []),
    ({"encapsulation": "vxlan"}, GOOD, []),
    ({"encapsulation": "vxlan", "vni": 1}, GOOD, []),
    ({"encapsulation": "vxlan", "vni": 2}, GOOD, [("encapsulation", "vxlan VNI 1")]),
    ({"encapsulation": "none"}, GOOD, [("encapsulation", "vxlan VNI 1")]),
    (
        {"encapsulation": "none"},
        FlowResult(FLOW, Verdict.DELIVERED, WAY[::2]),
        [("encapsulation", "never on the underlay: they are on one node")],
    ),
    ({"hops": 2}, GOOD, []),
    ({"hops": 1}, GOOD, [("hops", "2")]),
    ({"hops": 2}, FlowResult(FLOW, Verdict.DELIVERED, WAY[:2]), [("hops", "not seen at its destination")]),
    ({"seen_as": "10.1.1.1"}, GOOD, []),
    ({"seen_as": "10.1.1.1"}, CHANGED, [("seen as", "10.1.1.254")]),
]


@each_row("given, result, found", JUDGED)
def test_what_holds_and_what_does_not(given: dict[str, Any], result: FlowResult, found: list[tuple[str, str]]) -> None:
    expected = Expectation.read({**ENDS, "protocol": "udp", "port": 53, **given})
    assert [(one.field, one.found) for one in failures(expected, [result])] == found


def test_the_rule_that_did_it_is_told() -> None:
    (failure,) = failures(Expectation("a1", "c2", nat=False), [CHANGED])
    assert failure.show()["rule"] == "ip nat POSTROUTING: masquerade"
