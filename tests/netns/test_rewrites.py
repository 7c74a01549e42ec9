"""The positive controls: every kind of planted translation is found, on every plugin, and nothing else is accused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from sandboxed import measured

from emulab.kernel import nftables
from emulab.lab import Lab, Probing

HOOK = "type nat hook {hook} priority {priority} ;"


class Plant(NamedTuple):
    """nft rules per node, with the chain's type and hook; what changes, and (from, to, protocol) of what is changed."""

    rules: tuple[tuple[str, str, str], ...]
    field: str
    rewritten: set[tuple[str, str, str]]


def everything(*pairs: tuple[str, str]) -> set[tuple[str, str, str]]:
    return {(a, b, protocol) for a, b in pairs for protocol in ("icmp", "udp", "tcp")}


SOURCE, DESTINATION = "nat hook postrouting priority 90", "nat hook prerouting priority -110"
PLANTS = {
    "SNAT": Plant(
        (("node-a", SOURCE, "ip saddr 10.1.1.1 ip daddr 10.1.2.1 snat to 192.168.50.1"),), "source", everything(("a1", "b1"))
    ),
    "DNAT": Plant(
        (("node-a", DESTINATION, "ip saddr 10.1.1.1 ip daddr 10.1.2.1 dnat to 10.1.2.2"),),
        "destination",
        everything(("a1", "b1")),
    ),
    "port rewrite": Plant(
        (("node-b", DESTINATION, "ip saddr 10.1.1.1 ip daddr 10.1.2.1 udp dport 8080 dnat to 10.1.2.1:8079"),),
        "destination port",
        {("a1", "b1", "udp")},
    ),
    "undone before arrival": Plant(
        (
            ("node-a", "filter hook postrouting priority 200", "ip saddr 10.1.1.1 ip daddr 10.1.2.1 ip saddr set 10.1.1.99"),
            ("node-b", "filter hook prerouting priority -300", "ip saddr 10.1.1.99 ip daddr 10.1.2.1 ip saddr set 10.1.1.1"),
        ),
        "source",
        everything(("a1", "b1"), ("b1", "a1")),  # stateless: replies, too
    ),
    "one protocol only": Plant(
        (("node-a", SOURCE, "ip saddr 10.1.1.1 ip daddr 10.1.2.1 ip protocol tcp snat to 192.168.50.1"),),
        "source",
        {("a1", "b1", "tcp")},
    ),
    "one direction only": Plant(
        (("node-b", SOURCE, "ip saddr 10.1.2.1 ip daddr 10.1.1.1 snat to 192.168.50.2"),), "source", everything(("b1", "a1"))
    ),
}


def plant(lab: Lab, rules: tuple[tuple[str, str, str], ...]) -> None:
    for node, hook, rule in rules:
        commands = f"add table ip planted\nadd chain ip planted c {{ type {hook} ; }}\nadd rule ip planted c {rule}"
        nftables.run(lab.namespaces[node], commands)


def clear(lab: Lab, rules: tuple[tuple[str, str, str], ...]) -> None:
    for node, *_ in rules:
        nftables.run(lab.namespaces[node], "delete table ip planted")


SHORT = Probing(timeout=0.3, nodes=False, outside=False, mtu=False)


@pytest.mark.parametrize(("user", "plugin"), [("root", "flannel"), ("root", "calico"), ("root", "weave"), ("user", "calico")])
def test_a_planted_rewrite_is_found(user: str, plugin: str, in_lab: Callable[..., Any]) -> None:
    """One after another in one lab, which is healthy before and afterwards."""

    def check(lab: Lab) -> Any:
        healthy, found = [measured(lab)], {}
        for name, planted in PLANTS.items():
            plant(lab, planted.rules)
            found[name] = measured(lab, SHORT)
            clear(lab, planted.rules)
        return [*healthy, measured(lab)], found

    healthy, found = in_lab("flat", plugin, check)
    for before_and_after in healthy:
        assert before_and_after["ok"], before_and_after["findings"][:3]
    assert list(found) == list(PLANTS)
    for name, planted in PLANTS.items():
        one = found[name]
        assert not one["ok"], name
        rewritten = {(a, b, protocol) for (a, b, protocol, _), verdict in one["verdicts"].items() if verdict == "rewritten"}
        assert rewritten == planted.rewritten, name
        assert planted.field in {field for _, field, *_ in one["findings"]}, name
        assert {family for (*_, family), verdict in one["verdicts"].items() if verdict != "delivered"} == {4}, name


def test_a_full_neighbour_table_is_not_taken_for_a_broken_lab(in_lab: Callable[..., Any]) -> None:
    """The table is the whole machine's: to fill it would break whatever runs beside, so only its counter is made up."""
    from emulab.errors import MachineError
    from emulab.kernel import counters

    def check(lab: Lab) -> tuple[bool, str]:
        refused = iter(range(0, 1000, 7))
        counters.tables_full = lambda _: {4: next(refused)}  # type: ignore[assignment]
        healthy = lab.verify(Probing(protocols=("udp",), families=(4,))).ok
        lab.network["node-a"].cmd("ip route del 10.1.2.0/24")
        try:
            lab.verify(Probing(protocols=("udp",), families=(4,), timeout=0.2))
        except MachineError as error:
            return healthy, str(error)
        return healthy, ""

    healthy, told = in_lab("flat", "flannel", check)
    assert healthy, "nothing was lost: then it is no matter"
    assert "neighbour table was full (7 entries refused)" in told
