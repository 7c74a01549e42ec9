"""What holds for every series of calls of Calico's IPAM."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from ringed import pod, topology

from emulab.dataplane import build_cluster
from emulab.ipam.blocks import Blocks
from emulab.model import Pod

STEPS = st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 7), st.sampled_from("abc")), max_size=40)


@given(STEPS, st.booleans())
def test_addresses_are_unique_and_nobody_else_moves(steps: list[tuple[str, int, str]], tunnels: bool) -> None:
    wanted = topology("abc", cidrs="10.0.0.0/28 fd00:10::/64")
    ipam = Blocks(wanted, {4: 30, 6: 126}, tunnels=tunnels)
    for node in "abc":
        ipam.add_node(node)
    held = {f"tunnel {node}": ipam.gateway(node) for node in "abc"}
    placed: dict[int, Pod] = {}
    leases = ipam.leases()
    for verb, number, node in steps:
        if verb == "-" and number in placed:
            ipam.release(placed.pop(number))
            del held[f"pod {number}"]
        elif verb == "+" and number not in placed:
            placed[number] = Pod(f"p{number}", node)
            held[f"pod {number}"] = ipam.allocate(placed[number])
            assert [a.version for a in held[f"pod {number}"]] == [4, 6]
        everything = [address for addresses in held.values() for address in addresses]
        assert len(everything) == len(set(everything))
        assert all(any(address in pool for pool in wanted.pod_cidrs) for address in everything)
        before, leases = leases, ipam.leases()
        assert set(before) <= set(leases)
        assert len({lease.network for lease in leases}) == len(leases)
    assert {f"tunnel {node}": ipam.gateway(node) for node in "abc"}.items() <= held.items()


PODS = [pod("p0"), pod("p1", "b", "10.0.0.70"), pod("p2", "c"), pod("p3"), pod("p4", "c", "10.0.0.3")]
PODS += [pod("p5", "b"), pod("p6", "a", "10.0.0.9"), pod("p7")]


@given(st.permutations(PODS))
def test_fixed_addresses_hold_in_whatever_order_pods_come(order: list[Pod]) -> None:
    wanted = topology("abc", *order, cidrs="10.0.0.0/24")
    cluster = build_cluster(wanted, Blocks(wanted, tunnels=True))
    for endpoint in cluster.endpoints:
        assert not endpoint.pod.addresses or endpoint.addresses == endpoint.pod.addresses
    assert cluster == build_cluster(wanted, Blocks(wanted, tunnels=True))
