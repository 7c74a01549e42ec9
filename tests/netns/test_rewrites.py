"""The positive controls: every kind of planted translation is found, on every plugin, and nothing else is accused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from sandboxed import measured

from emulab.kernel import nftables
from emulab.lab import Lab, Probing


class Plant(NamedTuple):
    """nft rules per node, with the chain's type and hook; what changes, and (from, to, protocol) of what is changed.

    Each is about pods of its own: all are planted at once.
    """

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
        (("node-a", DESTINATION, "ip saddr 10.1.1.1 ip daddr 10.1.3.1 dnat to 10.1.3.2"),),
        "destination",
        everything(("a1", "c1")),
    ),
    "port rewrite": Plant(
        (("node-b", DESTINATION, "ip saddr 10.1.1.2 ip daddr 10.1.2.1 udp dport 8080 dnat to 10.1.2.1:8079"),),
        "destination port",
        {("a2", "b1", "udp")},
    ),
    "undone before arrival": Plant(
        (
            ("node-a", "filter hook postrouting priority 200", "ip saddr 10.1.1.2 ip daddr 10.1.3.1 ip saddr set 10.1.1.99"),
            ("node-c", "filter hook prerouting priority -300", "ip saddr 10.1.1.99 ip daddr 10.1.3.1 ip saddr set 10.1.1.2"),
        ),
        "source",
        everything(("a2", "c1"), ("c1", "a2")),  # stateless: replies, too
    ),
    "one protocol only": Plant(
        (("node-a", SOURCE, "ip saddr 10.1.1.1 ip daddr 10.1.2.2 ip protocol tcp snat to 192.168.50.1"),),
        "source",
        {("a1", "b2", "tcp")},
    ),
    "one direction only": Plant(
        (("node-b", SOURCE, "ip saddr 10.1.2.2 ip daddr 10.1.3.2 snat to 192.168.50.2"),), "source", everything(("b2", "c2"))
    ),
}


def plant(lab: Lab) -> None:
    for number, (node, hook, rule) in enumerate(rule for planted in PLANTS.values() for rule in planted.rules):
        chain = f"add chain ip planted c{number} {{ type {hook} ; }}\nadd rule ip planted c{number} {rule}"
        nftables.run(lab.namespaces[node], f"add table ip planted\n{chain}")


def clear(lab: Lab) -> None:
    for node in {node for planted in PLANTS.values() for node, *_ in planted.rules}:
        nftables.run(lab.namespaces[node], "delete table ip planted")


SHORT = Probing(timeout=0.3, nodes=False, outside=False, mtu=False)


@pytest.mark.parametrize(("user", "plugin"), [("root", "flannel"), ("user", "calico"), ("root", "weave")])
def test_a_planted_rewrite_is_found(user: str, plugin: str, in_lab: Callable[..., Any]) -> None:
    """Each by what it changes, in a lab that is healthy afterwards; that it is before, test_planes.py sees."""

    def check(lab: Lab) -> Any:
        plant(lab)
        found = measured(lab, SHORT)
        clear(lab)
        return found, measured(lab)

    found, healthy = in_lab("flat", plugin, check)
    assert healthy["ok"], healthy["findings"][:3]
    assert not found["ok"]
    rewritten = {(a, b, protocol) for (a, b, protocol, _), verdict in found["verdicts"].items() if verdict == "rewritten"}
    assert rewritten == set().union(*(planted.rewritten for planted in PLANTS.values()))
    assert {family for (*_, family), verdict in found["verdicts"].items() if verdict != "delivered"} == {4}
    for name, planted in PLANTS.items():
        flows = {f"{a} -> {b} {protocol}/IPv4" for a, b, protocol in planted.rewritten}
        assert flows == {flow for flow, field, *_ in found["findings"] if flow in flows and field == planted.field}, name


@pytest.mark.parametrize("user", ["user"])
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
