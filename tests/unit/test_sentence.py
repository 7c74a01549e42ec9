"""What sentences mean, and where in one a mistake is."""

from __future__ import annotations

import pytest
from tables import each_row

from emulab.checks.sentence import read
from emulab.errors import InputError
from emulab.expectation import Expectation

A, NOT = Expectation("a1", "c2"), Expectation("a1", "c2", reaches=False)


@each_row(
    "text, expectation, within",
    [
        ("a1 reaches c2", A, 0),
        ("  a1   REACHES  c2 ", A, 0),
        ("a1 cannot reach c2", NOT, 0),
        ("x/* cannot reach y/* tcp/80", Expectation("x/*", "y/*", reaches=False, protocol="tcp", port=80), 0),
        ("shop/app=web,tier!=db reaches svc/db udp", Expectation("shop/app=web,tier!=db", "svc/db", protocol="udp"), 0),
        ("a1 reaches c2 by tcp", Expectation("a1", "c2", protocol="tcp"), 0),
        ("a1 reaches c2 over ipv6", Expectation("a1", "c2", family=6), 0),
        ("a1 reaches c2 without nat", Expectation("a1", "c2", nat=False), 0),
        ("a1 reaches internet with NAT over IPv4", Expectation("a1", "internet", nat=True, family=4), 0),
        ("a1 reaches c2, encapsulated vxlan VNI 7", Expectation("a1", "c2", encapsulation="vxlan", vni=7), 0),
        ("a1 reaches c2 not encapsulated", Expectation("a1", "c2", encapsulation="none"), 0),
        ("a1 reaches c2 without encapsulation", Expectation("a1", "c2", encapsulation="none"), 0),
        ("a1 reaches c2 in 1 hop", Expectation("a1", "c2", hops=1), 0),
        ("a1 reaches c2 in 2 hops and with MTU 1450", Expectation("a1", "c2", hops=2, mtu=1450), 0),
        ("a1 reaches c2 with 1400 bytes", Expectation("a1", "c2", size=1400), 0),
        ("a1 reaches c2 seen as fd00::1", Expectation("a1", "c2", seen_as="fd00::1"), 0),
        ("a1 cannot reach c2, dropped at node-c:eth0", Expectation("a1", "c2", reaches=False, dropped_at="node-c:eth0"), 0),
        ("a1 reaches c2 within 500ms", A, 0.5),
        ("within reaches with", Expectation("within", "with"), 0),
    ],
)
def test_a_sentence_means(text: str, expectation: Expectation, within: float) -> None:
    assert read(text) == (expectation, within)


@each_row(
    "text, said",
    [
        ("", "column 1: who reaches whom expected, got nothing"),
        ("a1 can reach c2", "column 4: 'reaches' or 'cannot reach' expected, got 'can' (known: cannot reach, reaches)"),
        ("a1 cannot c2", "column 11: 'reach' expected, got 'c2'"),
        ("a1 reaches", "column 11: whom expected, got nothing"),
        ("a1 reaches c2 and", "column 18: a condition expected, got nothing"),
        ("a1 reaches c2 by sctp", "column 18: one of icmp, udp, tcp expected, got 'sctp' (did you mean 'tcp'?)"),
        ("a1 reaches c2 over IPv5", "column 20: ipv4 or ipv6 expected, got 'IPv5'"),
        ("a1 reaches c2 with 1400", "column 24: 'bytes' expected, got nothing"),
        ("a1 reaches c2 without", "column 22: 'NAT' or 'encapsulation' expected, got nothing"),
        ("a1 reaches c2 encapsulated gre", "column 28: vxlan or none expected, got 'gre'"),
        ("a1 reaches c2 in two hops", "column 18: a number of hops expected, got 'two'"),
        ("a1 reaches c2 in 2 steps", "column 20: 'hops' expected, got 'steps'"),
        ("a1 reaches c2 seen 10.1.1.1", "column 20: 'as' expected, got '10.1.1.1'"),
        ("a1 reaches c2 seen as me", "seen_as 'me': an IPv4 or IPv6 address expected"),
        ("a1 reaches c2 within 5s within 6s", "column 25: 'within' is there twice"),
        ("a1 reaches c2 within 5 s", "column 24: 's' is no condition"),
        ("a1 reaches c2 tcp/80 without NAT with NAT", "column 34: nat is there twice"),
        ("a1 reaches c2 tcp/²", "column 15: a port expected, got '²'"),
    ],
)
def test_a_mistake_is_told_with_its_column(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read(text)
    assert str(error.value).startswith(f"'{text}': {said}")
