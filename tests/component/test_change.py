"""Changes of a cluster on paper: what follows for addresses, numbers and plans, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from ipaddress import ip_address

import pytest
from designed import catalogued
from tables import each_row

from emulab import change, registry
from emulab.diff import diff, lines
from emulab.errors import InputError
from emulab.model import Pod
from emulab.objects import Objects
from emulab.planning import Design, design
from emulab.state import RateLimit


@cache
def designed(plugin: str = "flannel", topology: str = "flat", *settings: str) -> Design:
    return design(catalogued(topology), registry.options(registry.plugin(plugin), settings))


def addresses(made: Design, key: str) -> list[str]:
    return [str(a) for e in made.cluster.endpoints if e.key == key for a in e.addresses]


@each_row("plugin", ["flannel", "calico", "weave", "nat"])
def test_what_comes_and_goes_leaves_no_trace_in_the_plan(plugin: str) -> None:
    before = designed(plugin, "non-flat" if plugin == "nat" else "flat")
    after = change.add_pod(before, "x", "node-a")
    assert len(after.cluster.endpoints) == len(before.cluster.endpoints) + 1
    assert change.remove_pod(after, "default/x").desired == before.desired


@each_row("plugin", ["flannel", "calico", "weave"])
def test_a_node_comes_and_goes(plugin: str) -> None:
    before = designed(plugin)
    after = change.add_node(before, "node-d")
    assert str(after.topology.uplink("node-d").addresses[0]) == "192.168.50.4/24"
    assert {"node-d"} <= set(after.desired)
    back = change.remove_node(change.add_pod(after, "d1", "node-d"), "node-d")
    assert (set(back.desired), back.topology.pods) == (set(before.desired), before.topology.pods)
    assert all(back.desired[name] == before.desired[name] for name in before.desired if "/" in name)


def test_the_design_that_was_given_stays_as_it_was() -> None:
    before = designed("calico")
    one, other = (change.add_pod(before, name, "node-a") for name in ("x", "y"))
    assert addresses(one, "default/x") == addresses(other, "default/y") == ["10.1.1.0", "fd00:10:1::2"]


def test_numbers_stay_when_others_leave() -> None:
    after = change.remove_node(designed("weave"), "node-b")
    assert [after.topology.number(node.name) for node in after.topology.nodes] == [1, 3]
    devices = {thing.name for thing in after.desired["node-a"] if hasattr(thing, "vni")}
    assert devices == {"vxlan-3"}


@each_row(
    "plugin, reused",
    [("flannel", False), ("calico", False), ("weave", True)],  # host-local goes round, a block queues, the ring takes the lowest
)
def test_when_an_address_is_used_again(plugin: str, reused: bool) -> None:
    first = change.add_pod(designed(plugin), "x", "node-a")
    second = change.add_pod(change.remove_pod(first, "default/x"), "y", "node-a")
    assert (addresses(first, "default/x") == addresses(second, "default/y")) is reused


def test_calico_gives_a_second_block_to_a_node_whose_first_is_full() -> None:
    made = designed("calico", "flat", "block_size=31", "block_size_v6=127")
    assert [str(lease.network) for lease in made.cluster.leases_of("node-a", 4)] == ["10.1.1.0/31", "10.1.1.2/31"]
    for name in ("x", "y", "z"):
        made = change.add_pod(made, name, "node-a")
    assert len(made.cluster.leases_of("node-a", 4)) == 3
    node_b = {str(thing.destination) for thing in made.desired["node-b"] if hasattr(thing, "destination")}
    assert {str(lease.network) for lease in made.cluster.leases_of("node-a", 4)} <= node_b


def test_flannel_keeps_what_it_knows_of_a_stopped_node_until_it_is_removed() -> None:
    before = designed()
    stopped = change.switch_node(before, "node-b", False)
    assert stopped.desired["node-a"] == before.desired["node-a"]
    assert not {"node-b", "default/b1"} & set(stopped.desired)
    routes = "\n".join(lines(diff(stopped.desired, change.remove_node(stopped, "node-b").desired), {})["node-a"])
    assert "ip route del 10.1.2.0/24" in routes and "bridge fdb del" in routes and "ip neigh del 10.1.2.0" in routes


def test_weave_goes_around_a_cut() -> None:
    made = change.partition(designed("weave"), [["node-a"], ["node-c"]])
    ends = {endpoint.key: endpoint for endpoint in made.cluster.endpoints}
    wire = made.plane.wire(made.cluster, ends["default/a1"], ends["default/c1"], 4)
    assert [str(tunnel.destination) for tunnel in wire.tunnels] == ["192.168.50.2", "192.168.50.3"]
    assert change.heal(made).desired == designed("weave").desired


def test_a_single_side_is_parted_from_all_others() -> None:
    made = change.partition(designed(), [["node-a"]])
    assert made.topology.apart == {frozenset(("node-a", "node-b")), frozenset(("node-a", "node-c"))}


def test_fixed_addresses_and_labels() -> None:
    made = change.add_pod(designed(), "shop/web", "node-a", [ip_address("10.1.1.77")], {"app": "web"})
    assert addresses(made, "shop/web")[0] == "10.1.1.77"
    assert made.topology.pods[-1].labels == (("app", "web"),)


def reshaped(made: Design, *more: Pod, **fields: object) -> Design:
    """The first pod altered, and some more."""
    first, *rest = made.topology.pods
    return change.reshape(made, (replace(first, **fields), *rest, *more), made.topology.objects)  # type: ignore[arg-type]


@each_row("plugin", ["flannel", "calico", "weave"])
def test_pods_come_and_go_at_once_and_the_others_keep_their_addresses(plugin: str) -> None:
    before = designed(plugin)
    fixed = Pod("f", "node-a", addresses=(ip_address("10.1.1.3" if plugin != "calico" else "10.1.1.9"),))
    after = reshaped(before, Pod("x", "node-a"), fixed, Pod("y", "node-b"), labels=(("app", "web"),), ready=False)
    assert addresses(after, "default/f")[0] == str(fixed.addresses[0]), "who asks for an address comes first"
    assert all(addresses(after, pod.key) == addresses(before, pod.key) for pod in before.topology.pods)
    assert after.topology.pods[0].labels == (("app", "web"),)
    back = change.reshape(after, before.topology.pods, Objects())
    assert back.desired == before.desired
    assert change.reshape(before, before.topology.pods[1:], Objects()).topology.pods == before.topology.pods[1:]


def test_rates_are_limits_at_both_ends() -> None:
    for plugin in ("flannel", "calico", "weave"):
        made = reshaped(designed(plugin), rates=(10**7, 5 * 10**6))
        inside = [thing for thing in made.desired["default/a1"] if isinstance(thing, RateLimit)]
        outside = [thing for thing in made.desired["node-a"] if isinstance(thing, RateLimit)]
        assert inside == [RateLimit("eth0", 5 * 10**6)]
        assert [limit.rate for limit in outside] == [10**7]
        assert "tc qdisc add" in "\n".join(lines(diff(designed(plugin).desired, made.desired), made.places)["node-a"])


REFUSED: dict[str, tuple[Callable[[Design], Design], str]] = {
    "pod twice": (lambda d: change.add_pod(d, "a1", "node-a"), "there is a pod 'default/a1' already"),
    "no node": (lambda d: change.add_pod(d, "x", "node-z"), "no node 'node-z'"),
    "bad name": (lambda d: change.add_pod(d, "X", "node-a"), "no name for a pod"),
    "taken": (lambda d: change.add_pod(d, "x", "node-a", [ip_address("10.1.1.1")]), "taken by pod default/a1"),
    "elsewhere": (lambda d: change.add_pod(d, "x", "node-a", [ip_address("10.1.2.9")]), "not in node node-a's lease"),
    "outside": (lambda d: change.add_pod(d, "x", "node-a", [ip_address("9.9.9.9")]), "outside the pod CIDRs"),
    "stopped": (lambda d: change.add_pod(change.switch_node(d, "node-a", False), "x", "node-a"), "node node-a is stopped"),
    "moves": (lambda d: reshaped(d, node="node-b"), "pod default/a1 is on node-a with 10.1.1.1, .*, and there it stays"),
    "other address": (lambda d: reshaped(d, addresses=(ip_address("10.1.1.77"),)), "and there it stays: delete it first"),
    "new on a stopped node": (
        lambda d: reshaped(change.switch_node(d, "node-b", False), Pod("x", "node-b")),
        "node node-b is stopped",
    ),
    "two of a name": (lambda d: reshaped(d, Pod("a2", "node-a")), "there are two pods 'default/a2'"),
    "node twice": (lambda d: change.add_node(d, "node-a"), "there is a node 'node-a' already"),
    "reserved": (lambda d: change.add_node(d, "gateway"), "is a name of the underlay"),
    "no segment": (lambda d: change.add_node(d, "x", "wan"), "no segment 'wan'"),
    "taken address": (lambda d: change.add_node(d, "x", None, [ip_address("192.168.50.1")]), "192.168.50.1 is taken"),
    "foreign address": (lambda d: change.add_node(d, "x", None, [ip_address("9.9.9.9")]), "not in segment lan"),
    "running": (lambda d: change.switch_node(d, "node-a", True), "running already"),
    "up": (lambda d: change.set_link(d, "node-a", up=True), "up already"),
    "too fast": (lambda d: change.set_link(d, "node-a", rate=10**13), "rate from 0 to 1000gbit expected"),
    "not parted": (change.heal, "nothing is partitioned"),
    "one side": (lambda d: change.partition(d, [["node-a", "node-b", "node-c"]]), "at least two sides"),
    "on both sides": (lambda d: change.partition(d, [["node-a"], ["node-a"]]), "named twice"),
}


@each_row("work, told", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(work: Callable[[Design], Design], told: str) -> None:
    with pytest.raises(InputError, match=told):
        work(designed())


def test_the_last_node_stays() -> None:
    with pytest.raises(InputError, match="the last node"):
        change.remove_node(designed("flannel", "single-node"), "node-a")
