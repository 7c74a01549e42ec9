"""Who reaches which port: what is planted is told, a healthy lab is not accused, and slowness is no loss."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest
from declaring import PORTS, lab_with
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


@pytest.mark.parametrize(("user", "plugin"), [("root", "flannel"), ("root", "calico"), ("root", "weave"), ("user", "calico")])
def test_a_healthy_lab_is_not_accused(user: str, plugin: str) -> None:
    def work() -> Any:
        with lab_with(plugin) as lab:
            lab.build()
            declared = [(port.protocol, port.number) for port in PORTS]
            checks = every(lab, declared, others=True)
            outcomes = probe(lab.namespaces, lab.cluster, checks)
            assert [outcome.check for outcome in outcomes] == checks
            own = {e.key: e.addresses for e in lab.cluster.endpoints}
            for outcome in outcomes:
                assert outcome.answered_by == outcome.check.destination
                if outcome.check.source in own:
                    assert outcome.seen_as in own[outcome.check.source]
            closed = every(lab, [(protocol, UNDECLARED) for protocol in ("tcp", "udp", "sctp")])
            return found(outcomes), {one.verdict.value for one in probe(lab.namespaces, lab.cluster, closed)}

    healthy, closed = inside(work, user)
    assert healthy == {}
    assert closed == {"refused"}, "the kernel says that nobody is there, to everybody who asks"


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


def test_what_is_planted_is_told(user: str) -> None:
    """On a1's node, for its packets to b1 over IPv4; a2 is on that node, too."""

    def work() -> Any:
        told = {}
        with lab_with("flannel") as lab:
            lab.build()
            for name, (kind, rule, _) in PLANTED.items():
                hook = "filter hook forward priority 0" if kind == "filter" else "nat hook postrouting priority 90"
                commands = f"add table ip planted\nadd chain ip planted c {{ type {hook} ; }}\nadd rule ip planted c {rule}"
                nftables.run(lab.namespaces["node-a"], commands)
                outcomes = probe(lab.namespaces, lab.cluster, every(lab, [(p.protocol, p.number) for p in PORTS]))
                nftables.run(lab.namespaces["node-a"], "delete table ip planted")
                told[name] = found(outcomes), {o.check.family for o in outcomes if o.verdict is not Verdict.DELIVERED}
        return told

    for name, (bad, families) in inside(work, user).items():
        kind, _, expected = PLANTED[name]
        seen = "10.1.1.0" if kind == "nat" else "None"  # flannel.1's address: the way there is through it
        assert bad == {
            (source, "b1", protocol, port): {(verdict, seen)}
            for source in ("a1", "a2")
            for (protocol, port), verdict in expected.items()
        }, name
        assert families == {4}, name


def test_another_pod_that_answers_is_told(user: str) -> None:
    def work() -> Any:
        with lab_with("flannel") as lab:
            lab.build()
            rule = "ip daddr 10.1.2.1 tcp dport 80 dnat to 10.1.2.2"
            hook = "nat hook prerouting priority -110"
            commands = f"add table ip planted\nadd chain ip planted c {{ type {hook} ; }}\nadd rule ip planted c {rule}"
            nftables.run(lab.namespaces["node-a"], commands)
            (outcome,) = probe(lab.namespaces, lab.cluster, [Check("default/a1", "default/b1", 4, "tcp", 80)])
            return outcome.verdict.value, str(outcome.seen_as), outcome.answered_by

    assert inside(work, user) == ("rewritten", "10.1.1.1", "default/b2")


def test_a_slow_answer_is_no_loss(user: str) -> None:
    """The one who answers is kept from it for far longer than silence is waited for."""

    def work() -> Any:
        with lab_with("calico") as lab:
            lab.build()
            checks = every(lab, [("udp", 80), ("tcp", 80), ("sctp", 80)])
            with lab.responder._lock:
                start = time.monotonic()
                release = threading.Event()
                outcomes: list[Outcome] = []
                asking = threading.Thread(
                    target=lambda: outcomes.extend(probe(lab.namespaces, lab.cluster, checks, confirm=False))
                )
                asking.start()
                release.wait(0.6)
            asking.join()
            return found(outcomes), len(outcomes) == len(checks), time.monotonic() - start

    bad, complete, seconds = inside(work, user)
    assert bad == {} and complete
    assert seconds >= 0.6


def test_silence_of_everybody_says_nothing() -> None:
    """Not even controls are answered: nothing is reported as dropped."""

    def work() -> Any:
        with lab_with("calico") as lab:
            lab.build()
            with lab.responder._lock:
                try:
                    probe(lab.namespaces, lab.cluster, every(lab, [("udp", 80)]), 0.3)
                except OverloadError as error:
                    return str(error)

    assert "too busy" in inside(work, "root")


def test_a_full_neighbour_table_is_not_taken_for_a_drop() -> None:
    """The table is the whole machine's: to fill it would break whatever runs beside, so only its counter is made up."""

    def work() -> Any:
        with lab_with("calico") as lab:
            lab.build()
            refused = iter(range(0, 1000, 7))
            counters.tables_full = lambda _: {4: next(refused)}  # type: ignore[assignment]
            checks = every(lab, [("tcp", 80)], families=(4,))
            healthy = found(probe(lab.namespaces, lab.cluster, checks))
            rules = "add table ip planted\nadd chain ip planted c { type filter hook forward priority 0 ; policy drop ; }"
            nftables.run(lab.namespaces["node-a"], rules)
            try:
                probe(lab.namespaces, lab.cluster, checks)
            except OverloadError as error:
                return healthy, str(error)
            return healthy, ""

    healthy, told = inside(work, "root")
    assert healthy == {}, "nothing was silent: then it is no matter"
    assert "neighbour table was full (7 entries refused)" in told


def test_a_slow_link_is_no_loss(user: str) -> None:
    def work() -> Any:
        with lab_with("flannel") as lab:
            lab.build()
            for node in ("node-a", "node-b"):
                lab.change(change.set_link(lab.design, node, rate=500_000))
            checks = every(lab, [(p.protocol, p.number) for p in PORTS])
            commands = "add table ip planted\nadd chain ip planted c { type filter hook forward priority 0 ; }\n"
            nftables.run(lab.namespaces["node-c"], commands + "add rule ip planted c ip daddr 10.1.3.1 tcp dport 80 drop")
            return found(probe(lab.namespaces, lab.cluster, checks))

    bad = inside(work, user)
    bad.pop(("c2", "c1", "tcp", 80), None)  # on one bridge, where it is up to br_netfilter
    assert set(bad) == {(source, "c1", "tcp", 80) for source in ("a1", "a2", "b1", "b2")}


def test_silent_once_is_not_yet_dropped(user: str) -> None:
    def work() -> Any:
        with lab_with("flannel") as lab:
            lab.build()
            rule = "ip daddr 10.1.2.1 udp dport 80 limit rate over 1/hour burst 1 packets accept"
            commands = "add table ip planted\nadd chain ip planted c { type filter hook forward priority 0 ; }\n"
            commands += f"add rule ip planted c {rule}\nadd rule ip planted c ip daddr 10.1.2.1 udp dport 80 drop"
            check = Check("default/a1", "default/b1", 4, "udp", 80)
            told = []
            for confirm in (False, True):
                nftables.run(lab.namespaces["node-a"], commands)
                told.append(probe(lab.namespaces, lab.cluster, [check], confirm=confirm)[0].verdict.value)
                nftables.run(lab.namespaces["node-a"], "delete table ip planted")
            return told

    assert inside(work, user) == ["dropped", "delivered"]


def test_a_policy_that_came_between_rounds_decides(user: str) -> None:
    """Connections of earlier rounds are known to conntrack; an established one would be let through."""

    def work() -> Any:
        with lab_with("flannel") as lab:
            lab.build()
            checks = every(lab, [(p.protocol, p.number) for p in PORTS], families=(4,))
            before = found(probe(lab.namespaces, lab.cluster, checks))
            for node in lab.cluster.nodes:
                commands = (
                    "add table ip planted\nadd chain ip planted c { type filter hook forward priority 0 ; policy drop ; }\n"
                )
                nftables.run(lab.namespaces[node.name], commands + "add rule ip planted c ct state established accept")
            outcomes = probe(lab.namespaces, lab.cluster, checks)
            there = {e.key: e.node for e in lab.cluster.endpoints}
            apart = [o for o in outcomes if there[o.check.source] != there[o.check.destination]]
            return before, len(apart), {o.verdict.value for o in apart}

    before, count, verdicts = inside(work, user)
    assert before == {} and count
    assert verdicts == {"dropped"}


def test_bad_ends_are_one_line() -> None:
    def work() -> Any:
        with lab_with("flannel") as lab:
            lab.build()
            told = []
            for check in (
                Check("default/a1", "node-a", 4, "tcp", 80),
                Check("default/zz", "default/a1", 4, "tcp", 80),
                Check("default/a1", "default/b1", 4, "icmp", 80),
                Check("default/a1", "default/b1", 4, "tcp", 0),
            ):
                try:
                    probe(lab.namespaces, lab.cluster, [check])
                except InputError as error:
                    told.append(str(error))
            return told, probe(lab.namespaces, lab.cluster, [Check(OUTSIDE_HOST, "default/a1", 4, "tcp", 80)])[0].verdict.value

    told, outside = inside(work, "root")
    assert len(told) == 4
    assert outside != "delivered", "no router knows pods, so whatever the gateway says: they are not reached"
