"""Every plugin on every topology, end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sandboxed import build, inside, measured

from emulab.lab import Probing


def named(value: object) -> str:
    return value if isinstance(value, str) else " ".join(value) if isinstance(value, tuple) else ""


HEALTHY = [
    ("flat", "flannel"),
    ("flat", "flannel", "backend=host-gw"),
    ("flat", "calico"),
    ("flat", "calico", "encap=vxlan"),
    ("flat", "weave"),
    ("single-node", "flannel"),
    ("single-node", "calico"),
    ("single-node", "weave"),
    ("two-racks", "flannel"),
    ("two-racks", "flannel", "direct_routing=true"),
    ("two-racks", "calico", "encap=cross-subnet"),
    ("two-racks", "calico", "encap=vxlan"),
    ("two-racks", "weave"),
    ("partial-mesh", "weave"),
]


# What an ordinary user's labs have on the other topologies, an ordinary user's labs have on these.
AS_USER = [case for case in HEALTHY if case[0] in ("flat", "single-node")] + [("partial-mesh", "weave")]


def told(case: tuple[str, ...], user: str, probing: Probing | None = None) -> dict[str, Any]:
    """A verification in a new lab."""
    topology, plugin, *settings = case

    def work() -> dict[str, Any]:
        with build(topology, plugin, tuple(settings)) as lab:
            lab.build()
            return measured(lab, probing)

    return dict(inside(work, user))


@pytest.mark.parametrize(("user", "case"), [*(("root", c) for c in HEALTHY), *(("user", c) for c in AS_USER)], ids=named)
def test_every_flow_is_delivered_as_sent(user: str, case: tuple[str, ...]) -> None:
    found = told(case, user)
    assert found["findings"] == []
    assert found["ok"]
    assert found["summary"]["flows"] == found["summary"]["delivered"] > 0
    assert found["kinds"] == {"pod-to-pod", "node-to-pod", "pod-to-outside"}
    assert found["translated"] > 0, "pods reach the outside by their node's address"
    assert {(full, over) for *_, full, over in found["mtu"]} == {("delivered", "too big")}
    shapes = {(protocol, family) for _, _, protocol, family in found["verdicts"]}
    assert shapes == {(protocol, family) for protocol in ("icmp", "udp", "tcp") for family in (4, 6)}


RACKS = {"a1": 1, "b1": 1, "c1": 2, "d1": 2}
OPPOSITE = ({"a1", "c1"}, {"b1", "d1"})


@pytest.mark.parametrize(
    ("case", "reached"),
    [
        (("two-racks", "calico"), lambda a, b: RACKS[a] == RACKS[b]),
        (("two-racks", "flannel", "backend=host-gw"), lambda a, b: RACKS[a] == RACKS[b]),
        (("partial-mesh", "flannel"), lambda a, b: {a, b} not in OPPOSITE),
        (("partial-mesh", "calico"), lambda a, b: {a, b} not in OPPOSITE),
    ],
    ids=named,
)
def test_what_the_underlay_does_not_carry_is_dropped(case: tuple[str, ...], reached: Callable[[str, str], bool]) -> None:
    found = told(case, "root", Probing(timeout=0.5))
    assert found["verdicts"] == {
        (a, b, protocol, family): "delivered" if reached(a, b) else "dropped" for a, b, protocol, family in found["verdicts"]
    }
    assert not found["ok"]


# Each hop of such a fleet is Calico's to show here; the others' hops are seen in the small labs, and what they do at the ends.
@pytest.mark.parametrize(("plugin", "taps"), [("flannel", "ends"), ("calico", "every"), ("weave", "ends")])
def test_a_fleet(plugin: str, taps: str) -> None:
    found = told(("fleet,10,5", plugin), "root", Probing(taps=taps))
    assert found["ok"], found["findings"][:3]
    from_nodes = 10 * 50 if taps == "every" else 10 * (5 + 9)
    assert found["summary"]["delivered"] == (50 * 49 + from_nodes + 50) * 6


@pytest.mark.parametrize("plugin", ["flannel", "calico", "weave"])
def test_a_fleet_of_an_ordinary_user(plugin: str) -> None:
    """Seen at the ends, where what is lost or rewritten shows as well; each place on the way is seen in the small labs."""
    found = told(("fleet,10,5", plugin), "user", Probing(protocols=("icmp", "udp"), taps="ends"))
    assert found["ok"], found["findings"][:3]
    assert found["summary"]["delivered"] == 50 * 49 * 4 + 10 * (5 + 9) * 4 + 50 * 4


def test_ends_only() -> None:
    found = told(("fleet,10,5", "calico"), "root", Probing(protocols=("udp",), taps="ends"))
    assert found["ok"], found["findings"][:3]
    assert set(found["verdicts"].values()) == {"delivered"}
    assert len(found["verdicts"]) == 50 * 49 * 2


def test_what_is_not_flat_is_told(in_lab: Callable[..., Any]) -> None:
    found = in_lab("non-flat", "nat", measured)
    assert set(found["verdicts"].values()) == {"rewritten"}
    assert ("a1 -> b1 udp/IPv4", "source", "192.168.1.1", "192.168.50.1", "node-a:eth0") in found["findings"]
    assert any(field == "destination" and after == "172.16.2.2" for _, field, _, after, _ in found["findings"])
