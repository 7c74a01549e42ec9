"""What holds for every series of a ring's calls."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from ringed import V4, V6, pod, topology

from emulab.dataplane import build_cluster
from emulab.errors import InputError
from emulab.ipam.ring import Ring

NODES = "abcd"
FIXED = st.lists(st.tuples(st.integers(1, 62), st.sampled_from(NODES)), max_size=6, unique_by=lambda fixed: fixed[0])
ACTS = st.lists(st.tuples(st.sampled_from(["add", "add", "release", "leave", "join"]), st.sampled_from(NODES)), max_size=90)


def played(fixed: list[tuple[int, str]], acts: list[tuple[str, str]]) -> tuple[Ring, list[object]]:
    """A life of a ring over 64 addresses, and all that it answered; refusals are answers too."""
    network = ipaddress.ip_network("10.0.0.0/26")
    pods = [pod(f"f{n}", node, str(network[n])) for n, node in fixed]
    ring, answers = Ring(topology(NODES, *pods, cidrs=str(network))), []
    for node in NODES:
        ring.add_node(node)
    alive = {each.key: each for each in pods}
    nodes = set(NODES)
    for each in pods:
        answers.append(ring.allocate(each))
    for number, (act, node) in enumerate(acts):
        here = [each for each in alive.values() if each.node == node]
        try:
            if act == "add" and node in nodes:
                answers.append(ring.allocate(pod(f"p{number}", node)))
                alive[f"default/p{number}"] = pod(f"p{number}", node)
            elif act == "release" and here:
                ring.release(alive.pop(here[0].key))
            elif act == "leave" and not here and node in nodes and len(nodes) > 1:
                ring.remove_node(node)
                nodes.remove(node)
            elif act == "join" and node not in nodes:
                ring.add_node(node)
                nodes.add(node)
        except InputError as error:
            answers.append(str(error))
        held = [a for each in alive for a in ring._pods[each]] + [a for n in nodes for a in ring.gateway(n)]
        assert len(set(held)) == len(held), "an address has two holders"
        assert not {network[0], network[-1]} & set(held)
        pieces = ring.leases()
        assert sum(lease.network.num_addresses for lease in pieces) == 64, "the ring has a hole, or an overlap"
        assert list(ipaddress.collapse_addresses(lease.network for lease in pieces)) == [network]
        owner = {address: lease.node for lease in pieces for address in lease.network}
        assert all(owner[a] == each.node for each in alive.values() for a in ring._pods[each.key])
        assert all(owner[a] == n for n in nodes for a in ring.gateway(n))
    return ring, answers


@settings(max_examples=60)
@given(FIXED, ACTS)
def test_whatever_happens_addresses_are_unique_owned_and_repeatable(
    fixed: list[tuple[int, str]], acts: list[tuple[str, str]]
) -> None:
    assert played(fixed, acts)[1] == played(fixed, acts)[1]


@settings(max_examples=30)
@given(st.integers(1, 40))
def test_another_pod_changes_nobody_s_address(count: int) -> None:
    few = topology("abc", *(pod(f"p{n}", "abc"[n % 3]) for n in range(count)), cidrs=f"{V4} {V6}")
    more = replace(few, pods=(*few.pods, pod("extra", "b")))
    before, after = (build_cluster(t, Ring(t)) for t in (few, more))
    assert after.endpoints[:-1] == before.endpoints
    assert after.gateways == before.gateways
