"""Who reaches which port: what is planted is told, a healthy lab is not accused, and slowness is no loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from unittest import mock

import pytest
from declaring import PORTS, lab_with
from in_turn import in_turn
from sandboxed import inside

from emulab import change
from emulab.errors import InputError, OverloadError
from emulab.kernel import counters, nftables
from emulab.lab import Lab
from emulab.model import OUTSIDE_HOST
from emulab.packet import Verdict
from emulab.probe.ports import Check, Outcome, probe

UNDECLARED = 99


def every(lab: Lab, ports: Iterable[tuple[str, int]], others: bool = False, families: tuple[int, ...] = (4, 6)) -> list[Check]:
    keys = [endpoint.key for endpoint in lab.cluster.endpoints]
    sources = [*keys, *(node.name for node in lab.cluster.nodes)] if others else keys
    return [Check(a, b, f, protocol, n) for a in sources for b in keys for f in families for protocol, n in ports]


def found(outcomes: Iterable[Outcome]) -> dict[tuple[str, str, str, int], set[tuple[str, str]]]:
    """(from, to, protocol, port) -> {(verdict, seen as)} where it is not a plain delivery."""
    bad: dict[tuple[str, str, str, int], set[tuple[str, str]]] = {}
    for outcome in outcomes:
        source, destination, _, protocol, port = outcome.check
        if outcome.verdict is not Verdict.DELIVERED:
            key = (source.removeprefix("default/"), destination.removeprefix("default/"), protocol, port)
            bad.setdefault(key, set()).add((outcome.verdict.value, str(outcome.seen_as)))
    return bad


def plant(lab: Lab, node: str, hook: str, *rules: str) -> None:
    commands = ["add table ip planted", f"add chain ip planted c {{ type {hook} ; }}"]
    nftables.run(lab.namespaces[node], "\n".join([*commands, *(f"add rule ip planted c {rule}" for rule in rules)]))


def uproot(lab: Lab, *nodes: str) -> None:
    for node in nodes:
        nftables.run(lab.namespaces[node], "delete table ip planted")


FORWARD = "filter hook forward priority 0"
DECLARED = [(port.protocol, port.number) for port in PORTS]


def a_healthy_lab_is_not_accused(lab: Lab) -> None:
    checks = every(lab, DECLARED, others=True)
    outcomes = probe(lab.namespaces, lab.cluster, checks)
    assert [outcome.check for outcome in outcomes] == checks
    assert found(outcomes) == {}
    own = {e.key: e.addresses for e in lab.cluster.endpoints}
    for outcome in outcomes:
        assert outcome.answered_by == outcome.check.destination
        if outcome.check.source in own:
            assert outcome.seen_as in own[outcome.check.source]
    closed = every(lab, [(protocol, UNDECLARED) for protocol in ("tcp", "udp", "sctp")])
    told = {one.verdict.value for one in probe(lab.namespaces, lab.cluster, closed)}
    assert told == {"refused"}, "the kernel says that nobody is there, to everybody who asks"


PLANTED = {
    "a dropped port": ("filter", "ip daddr 10.1.2.1 tcp dport 80 drop", {("tcp", 80): "dropped"}),
    "dropped datagrams": ("filter", "ip daddr 10.1.2.1 udp dport 8080 drop", {("udp", 8080): "dropped"}),
    "a dropped association": ("filter", "ip daddr 10.1.2.1 sctp dport 80 drop", {("sctp", 80): "dropped"}),
    "a reset": ("filter", "ip daddr 10.1.2.1 tcp dport 80 reject with tcp reset", {("tcp", 80): "refused"}),
    "prohibited": (
        "filter",
        "ip daddr 10.1.2.1 th dport 8080 reject with icmp type admin-prohibited",
        {(protocol, 8080): "refused" for protocol in ("tcp", "udp", "sctp")},
    ),
    "masqueraded": (
        "nat",
        "ip saddr 10.1.1.0/24 ip daddr 10.1.2.1 masquerade",
        {(port.protocol, port.number): "rewritten" for port in PORTS},
    ),
}


def what_is_planted_is_told(lab: Lab) -> None:
    """On a1's node, for its packets to b1 over IPv4; a2 is on that node, too."""
    for name, (kind, rule, expected) in PLANTED.items():
        plant(lab, "node-a", FORWARD if kind == "filter" else "nat hook postrouting priority 90", rule)
        outcomes = probe(lab.namespaces, lab.cluster, every(lab, DECLARED))
        uproot(lab, "node-a")
        seen = "10.1.1.0" if kind == "nat" else "None"  # flannel.1's address: the way there is through it
        assert found(outcomes) == {
            (source, "b1", protocol, port): {(verdict, seen)}
            for source in ("a1", "a2")
            for (protocol, port), verdict in expected.items()
        }, name
        assert {o.check.family for o in outcomes if o.verdict is not Verdict.DELIVERED} == {4}, name


def another_pod_that_answers_is_told(lab: Lab) -> None:
    plant(lab, "node-a", "nat hook prerouting priority -110", "ip daddr 10.1.2.1 tcp dport 80 dnat to 10.1.2.2")
    (outcome,) = probe(lab.namespaces, lab.cluster, [Check("default/a1", "default/b1", 4, "tcp", 80)])
    uproot(lab, "node-a")
    told = outcome.verdict.value, str(outcome.seen_as), outcome.answered_by
    assert told == ("rewritten", "10.1.1.1", "default/b2")


def a_slow_answer_is_no_loss(lab: Lab) -> None:
    """The one who answers is kept from it for far longer than silence is waited for."""
    checks = every(lab, [("udp", 80), ("tcp", 80), ("sctp", 80)])
    with lab.responder._lock:
        start = time.monotonic()
        release = threading.Event()
        outcomes: list[Outcome] = []
        asking = threading.Thread(target=lambda: outcomes.extend(probe(lab.namespaces, lab.cluster, checks, confirm=False)))
        asking.start()
        release.wait(0.6)
    asking.join()
    assert found(outcomes) == {} and len(outcomes) == len(checks)
    assert time.monotonic() - start >= 0.6


def silence_of_everybody_says_nothing(lab: Lab) -> None:
    """Not even controls are answered: nothing is reported as dropped."""
    with lab.responder._lock, pytest.raises(OverloadError, match="too busy"):
        probe(lab.namespaces, lab.cluster, every(lab, [("udp", 80)]), 0.3)


def a_full_neighbour_table_is_not_taken_for_a_drop(lab: Lab) -> None:
    """The table is the whole machine's: to fill it would break whatever runs beside, so only its counter is made up."""
    refused = iter(range(0, 1000, 7))
    with mock.patch.object(counters, "tables_full", lambda _: {4: next(refused)}):
        checks = every(lab, [("tcp", 80)], families=(4,))
        assert found(probe(lab.namespaces, lab.cluster, checks)) == {}, "nothing was silent: then it is no matter"
        plant(lab, "node-a", f"{FORWARD} ; policy drop")
        with pytest.raises(OverloadError, match=r"neighbour table was full \(7 entries refused\)"):
            probe(lab.namespaces, lab.cluster, checks)
        uproot(lab, "node-a")


def a_slow_link_is_no_loss(lab: Lab) -> None:
    """But what is dropped meanwhile is."""
    for node in ("node-a", "node-b"):
        lab.change(change.set_link(lab.design, node, rate=500_000))
    plant(lab, "node-c", FORWARD, "ip daddr 10.1.3.1 tcp dport 80 drop")
    bad = found(probe(lab.namespaces, lab.cluster, every(lab, DECLARED)))
    uproot(lab, "node-c")
    bad.pop(("c2", "c1", "tcp", 80), None)  # on one bridge, where it is up to br_netfilter
    assert set(bad) == {(source, "c1", "tcp", 80) for source in ("a1", "a2", "b1", "b2")}


def silent_once_is_not_yet_dropped(lab: Lab) -> None:
    one = "ip daddr 10.1.2.1 udp dport 80"
    told = []
    for confirm in (False, True):
        plant(lab, "node-a", FORWARD, f"{one} limit rate over 1/hour burst 1 packets accept", f"{one} drop")
        check = Check("default/a1", "default/b1", 4, "udp", 80)
        told.append(probe(lab.namespaces, lab.cluster, [check], confirm=confirm)[0].verdict.value)
        uproot(lab, "node-a")
    assert told == ["dropped", "delivered"]


def a_policy_that_came_between_rounds_decides(lab: Lab) -> None:
    """Connections of earlier rounds are known to conntrack; an established one would be let through."""
    checks = every(lab, DECLARED, families=(4,))
    assert found(probe(lab.namespaces, lab.cluster, checks)) == {}
    nodes = [node.name for node in lab.cluster.nodes]
    for node in nodes:
        plant(lab, node, f"{FORWARD} ; policy drop", "ct state established accept")
    outcomes = probe(lab.namespaces, lab.cluster, checks)
    uproot(lab, *nodes)
    there = {e.key: e.node for e in lab.cluster.endpoints}
    apart = [o for o in outcomes if there[o.check.source] != there[o.check.destination]]
    assert {o.verdict.value for o in apart} == {"dropped"}


def bad_ends_are_one_line(lab: Lab) -> None:
    for check in (
        Check("default/a1", "node-a", 4, "tcp", 80),
        Check("default/zz", "default/a1", 4, "tcp", 80),
        Check("default/a1", "default/b1", 4, "icmp", 80),
        Check("default/a1", "default/b1", 4, "tcp", 0),
    ):
        with pytest.raises(InputError):
            probe(lab.namespaces, lab.cluster, [check])
    (outside,) = probe(lab.namespaces, lab.cluster, [Check(OUTSIDE_HOST, "default/a1", 4, "tcp", 80)])
    assert outside.verdict is not Verdict.DELIVERED, "no router knows pods, so whatever the gateway says: they are not reached"


PLANTING = (another_pod_that_answers_is_told, silent_once_is_not_yet_dropped, a_policy_that_came_between_rounds_decides)
WAITING = (a_slow_answer_is_no_loss, silence_of_everybody_says_nothing, a_full_neighbour_table_is_not_taken_for_a_drop)
LABS = {
    ("user", "flannel"): (*PLANTING, what_is_planted_is_told, a_slow_link_is_no_loss, a_healthy_lab_is_not_accused),
    ("root", "flannel"): (*PLANTING, bad_ends_are_one_line, a_healthy_lab_is_not_accused),
    ("user", "calico"): (*WAITING, a_healthy_lab_is_not_accused),
    ("root", "weave"): (*WAITING, a_healthy_lab_is_not_accused),
}


@pytest.mark.parametrize(("user", "plugin"), LABS)
def test_who_reaches_which_port(user: str, plugin: str) -> None:
    def work() -> None:
        with lab_with(plugin) as lab:
            lab.build()
            in_turn(lab, LABS[user, plugin])

    inside(work, user)
