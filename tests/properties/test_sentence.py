"""Expectations in words are sentences, whatever they expect."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from emulab.checks.sentence import read
from emulab.errors import InputError
from emulab.expectation import Expectation


@st.composite
def expectations(draw: st.DrawFn) -> dict[str, Any]:
    reaches = draw(st.booleans())
    protocol = draw(st.sampled_from(("icmp", "udp", "tcp")))
    values: dict[str, Any] = {
        "source": draw(st.sampled_from(("a1", "x/*", "*", "shop/app=web,tier!=db", "internet", "by"))),
        "destination": draw(st.sampled_from(("c2", "*/web-*", "svc/web", "with"))),
        "reaches": reaches,
        "protocol": protocol,
        "port": draw(st.none() | st.integers(1, 65535)) if protocol != "icmp" else None,
        "family": draw(st.sampled_from((None, 4, 6))),
        "size": draw(st.none() | st.integers(60, 65000)) if protocol != "tcp" else None,
    }
    if reaches:
        values["nat"] = draw(st.sampled_from((None, True, False)))
        values["encapsulation"] = draw(st.sampled_from((None, "vxlan", "none")))
        values["vni"] = draw(st.none() | st.integers(0, 2**24 - 1)) if values["encapsulation"] == "vxlan" else None
        values["hops"] = draw(st.none() | st.integers(0, 64))
        values["mtu"] = draw(st.none() | st.integers(68, 65000))
        values["seen_as"] = draw(st.sampled_from((None, "10.1.1.1", "fd00::1")))
    else:
        values["dropped_at"] = draw(st.sampled_from((None, "node-c", "default/c2", "node-c:eth0")))
    return values


@given(expectations())
def test_an_expectation_in_words_is_a_sentence(values: dict[str, Any]) -> None:
    expectation = Expectation(**values)
    assert read(str(expectation)) == (expectation, 0.0)


WORDS = ("a1", "reaches", "cannot", "reach", "c2", "by", "tcp/80", "over", "with", "5", "NAT", "in", "hops", ",", "²", "\u2028")


@given(st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_whatever_is_said_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        read(text)
