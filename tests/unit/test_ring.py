"""The ring by tables."""

from __future__ import annotations

import pytest
from ringed import V4, V6, pod, topology
from tables import each_row

from emulab.dataplane import build_cluster
from emulab.errors import InputError
from emulab.ipam.contract import Ipam
from emulab.ipam.ring import Ring
from emulab.model import Pod, Topology

ENDS = "is the first or last address of 10.0.0.0/28, no pod's"


def joined(nodes: str = "abc", *pods: Pod, cidrs: str = V4, own: dict[str, str] | None = None) -> Ring:
    ring = Ring(topology(nodes, *pods, cidrs=cidrs, own=own))
    for node in nodes:
        ring.add_node(node)
    return ring


def leases(ring: Ipam, node: str) -> str:
    return " ".join(str(lease.network) for lease in ring.leases() if lease.node == node)


def text(addresses: tuple[object, ...]) -> str:
    return " ".join(map(str, addresses))


@each_row(
    "nodes, expected",
    [
        ("a", {"a": "10.32.0.0/12"}),
        ("ab", {"a": "10.32.0.0/13", "b": "10.40.0.0/13"}),
        ("abc", {"a": "10.32.0.0/13", "b": "10.40.0.0/14", "c": "10.44.0.0/14"}),
        ("abcd", {"a": "10.32.0.0/14", "b": "10.36.0.0/14", "c": "10.40.0.0/14", "d": "10.44.0.0/14"}),
    ],
)
def test_the_first_ring_is_halved_recursively(nodes: str, expected: dict[str, str]) -> None:
    ring = joined(nodes)
    assert {node: leases(ring, node) for node in nodes} == expected


def test_addresses_begin_with_the_first_usable_one_of_each_range() -> None:
    ring = joined(cidrs=f"{V6} {V4}")
    assert [text(ring.gateway(node)) for node in "abc"] == [
        "10.32.0.1 fd00:32::1",
        "10.40.0.0 fd00:32:0:8000::",
        "10.44.0.0 fd00:32:0:c000::",
    ]
    assert text(ring.allocate(pod("a1"))) == "10.32.0.2 fd00:32::2"
    assert text(ring.allocate(pod("b1", "b"))) == "10.40.0.1 fd00:32:0:8000::1"


def test_leases_are_in_node_order() -> None:
    assert [lease.node for lease in joined("cab").leases()] == ["c", "a", "b"]


@each_row(
    "fixed, gateways",
    [
        ([], "10.32.0.1 10.40.0.0 10.44.0.0"),
        ([pod("p", "a", "10.32.0.2")], "10.32.0.1 10.40.0.0 10.44.0.0"),
        ([pod("p", "a", "10.32.0.1")], "10.39.255.255 10.40.0.0 10.44.0.0"),
        ([pod("p", "b", "10.40.0.0")], "10.32.0.1 10.43.255.255 10.44.0.0"),
        ([pod("p", "c", "10.44.0.0")], "10.32.0.1 10.40.0.0 10.47.255.254"),
        ([pod("p", "c", "10.44.0.0"), pod("q", "c", "10.47.255.254")], "10.32.0.1 10.40.0.0 10.47.255.253"),
        ([pod("p", "b", "10.32.0.1")], "10.32.0.2 10.40.0.0 10.44.0.0"),  # the range now begins there
        ([pod("p", "b", "10.32.0.7")], "10.32.0.1 10.40.0.0 10.44.0.0"),  # no home for b's bridge
    ],
)
def test_the_bridge_gives_way_to_fixed_addresses(fixed: list[Pod], gateways: str) -> None:
    ring = joined("abc", *fixed)
    assert " ".join(text(ring.gateway(node)) for node in "abc") == gateways
    assert text(tuple(a for p in fixed for a in ring.allocate(p))) == text(tuple(a for p in fixed for a in p.addresses))


def test_a_fixed_address_moves_the_ownership_of_just_itself() -> None:
    ring = joined("ab", pod("p", "b", "10.0.0.5"), cidrs="10.0.0.0/28")
    assert leases(ring, "a") == "10.0.0.0/30 10.0.0.4/32 10.0.0.6/31"
    assert leases(ring, "b") == "10.0.0.5/32 10.0.0.8/29"


def test_an_address_fixed_later_is_honoured_too() -> None:
    ring = joined("ab", cidrs="10.0.0.0/28")
    assert text(ring.allocate(pod("p", "b", "10.0.0.5"))) == "10.0.0.5"
    assert leases(ring, "b") == "10.0.0.5/32 10.0.0.8/29"


def test_neighbouring_pieces_of_one_owner_are_one() -> None:
    ring = joined("ab", pod("p", "b", "10.0.0.6"), pod("q", "b", "10.0.0.7"), cidrs="10.0.0.0/28")
    assert leases(ring, "b") == "10.0.0.6/31 10.0.0.8/29"


def test_automatic_pods_pass_over_fixed_addresses_and_the_bridge() -> None:
    p = pod("p", "a", "10.32.0.3")
    ring = joined("abc", p)
    assert text(ring.allocate(pod("a1"))) == "10.32.0.2"
    assert text(ring.allocate(pod("a2"))) == "10.32.0.4"


def test_a_node_s_own_pod_cidr_is_where_its_addresses_come_from_first() -> None:
    ring = joined("ab", cidrs="10.1.0.0/16", own={"a": "10.1.9.0/24", "b": "10.1.2.0/30"})
    assert [text(ring.gateway(node)) for node in "ab"] == ["10.1.9.0", "10.1.2.0"]
    assert text(ring.allocate(pod("a1"))) == "10.1.9.1"
    found = [text(ring.allocate(pod(f"b{n}", "b"))) for n in range(4)]
    assert found == ["10.1.2.1", "10.1.2.2", "10.1.2.3", "10.1.128.0"]


def test_a_released_address_is_free_again() -> None:
    ring = joined()
    for name in ("p", "q"):
        ring.allocate(pod(name))
    ring.release(pod("p"))
    assert text(ring.allocate(pod("r"))) == "10.32.0.2"


def test_who_has_run_out_gets_the_upper_half_of_the_largest_free_piece() -> None:
    ring = joined("ab", cidrs="10.0.0.0/28")
    found = [text(ring.allocate(pod(f"p{n}"))) for n in range(8)]
    assert found == [f"10.0.0.{n}" for n in (2, 3, 4, 5, 6, 7, 10, 11)]
    assert (leases(ring, "a"), leases(ring, "b")) == ("10.0.0.0/29 10.0.0.10/31", "10.0.0.8/31 10.0.0.12/30")


def test_the_donor_is_the_peer_with_most_free_space() -> None:
    ring = joined("abc")
    ring.add_node("d")
    # a's range is larger than b's and c's.  Its 10.36.0.0/14 is more than half of what is free: two addresses are not.
    assert leases(ring, "d") == "10.38.0.0/15"


def test_a_later_node_starts_with_nothing_and_asks() -> None:
    ring = joined("ab", cidrs="10.0.0.0/24")
    ring.add_node("c")
    assert (leases(ring, "c"), text(ring.gateway("c"))) == ("10.0.0.96/27", "10.0.0.96")


def test_a_removed_node_s_range_goes_to_the_first_of_the_others() -> None:
    ring = joined("abc")
    ring.remove_node("b")
    assert leases(ring, "a") == "10.32.0.0/13 10.40.0.0/14"
    assert {lease.node for lease in ring.leases()} == {"a", "c"}
    ring.add_node("b")
    assert text(ring.gateway("b")) == "10.36.0.0"  # the first of two /14, each less than half of what a has free


def test_the_last_node_can_be_removed_and_come_back() -> None:
    ring = joined("a")
    ring.remove_node("a")
    assert ring.leases() == ()
    ring.add_node("a")
    assert (leases(ring, "a"), text(ring.gateway("a"))) == ("10.32.0.0/12", "10.32.0.1")


@each_row(
    "asked, message",
    [
        ([pod("p", "d")], "pod default/p: unknown node 'd' (known: a, b)"),
        ([pod("p", "a", "10.1.0.1")], "pod default/p: 10.1.0.1 is outside the pod CIDR 10.0.0.0/28"),
        ([pod("p", "a", "fd00::1")], "pod default/p: fd00::1 is outside the pod CIDR 10.0.0.0/28"),
        ([pod("p", "a", "10.0.0.0")], f"pod default/p: 10.0.0.0 {ENDS}"),
        (
            [pod("p", "a", "10.0.0.15")],
            "pod default/p: 10.0.0.15 is the first or last address of 10.0.0.0/28, no pod's",
        ),
        ([pod("p"), pod("q", "b", "10.0.0.2")], "pod default/q: 10.0.0.2 is taken by pod default/p"),
        ([pod("p", "b", "10.0.0.1")], "pod default/p: 10.0.0.1 is taken by the bridge of node a"),
        ([pod("p"), pod("p")], "pod default/p: has addresses already: 10.0.0.2"),
        ([pod(f"p{n}") for n in range(13)], "pod default/p12: no free address left for node a in 10.0.0.0/28"),
    ],
)
def test_refused(asked: list[Pod], message: str) -> None:
    ring = joined("ab", cidrs="10.0.0.0/28")
    for each in asked[:-1]:
        ring.allocate(each)
    with pytest.raises(InputError) as refused:
        ring.allocate(asked[-1])
    assert str(refused.value) == message


@each_row(
    "asked, message",
    [
        (topology("abc", cidrs="10.0.0.0/31"), "pod CIDR 10.0.0.1/32 is too small for the nodes: each needs a piece"),
        (topology("ab", cidrs="10.0.0.0/31"), "the bridge of node a: no free address left for node a in 10.0.0.0/31"),
        (topology("a", pod("p", "a", "10.0.0.1"), cidrs="10.0.0.0/30"), ""),
        (topology("a", pod("p", "a", "10.9.9.9"), cidrs="10.0.0.0/30"), "pod default/p: 10.9.9.9 is outside"),
        (
            topology("a", pod("p", "a", "10.0.0.1"), pod("q", "a", "10.0.0.1"), cidrs="10.0.0.0/28"),
            "pod default/q: 10.0.0.1 is taken by pod default/p",
        ),
    ],
)
def test_clusters_refused(asked: Topology, message: str) -> None:
    if not message:
        assert text(build_cluster(asked, Ring(asked)).gateways["a"]) == "10.0.0.2"
        return
    with pytest.raises(InputError) as refused:
        build_cluster(asked, Ring(asked))
    assert message in str(refused.value)


def test_what_fails_in_one_family_takes_nothing_in_the_other() -> None:
    ring = joined("a", cidrs="10.0.0.0/28 fd00::/126")
    ring.allocate(pod("p"))
    with pytest.raises(InputError):
        ring.allocate(pod("q"))
    ring.release(pod("p"))
    assert text(ring.allocate(pod("q"))) == "10.0.0.2 fd00::2"
