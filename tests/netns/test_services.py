"""Services on the real kernel: who answers, as whom the client is seen, and what is refused or dropped."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from designed import catalogued
from sandboxed import inside
from served import BY, NODES, SERVED, with_services
from talking import Servers, ask, tally

from emulab import registry
from emulab.lab import Lab
from emulab.model import OUTSIDE_ADDRESSES, OUTSIDE_HOST
from emulab.planning import design

# What is asked: from whom, to which address and port, by which protocol.
QUESTIONS = {
    "clusterip tcp": ("a1", "10.96.1.1", 80, "tcp"),
    "clusterip second port": ("a1", "10.96.1.1", 81, "tcp"),
    "clusterip udp": ("a1", "10.96.1.1", 53, "udp"),
    "clusterip ipv6 tcp": ("a1", "fd00:10:96::101", 80, "tcp"),
    "clusterip ipv6 udp": ("a1", "fd00:10:96::101", 53, "udp"),
    "unknown port tcp": ("a1", "10.96.1.1", 82, "tcp"),
    "unknown port udp": ("a1", "10.96.1.1", 82, "udp"),
    "unallocated": ("a1", "10.96.9.9", 80, "tcp"),
    "unallocated ipv6": ("a1", "fd00:10:96::999", 80, "tcp"),
    "hairpin": ("a2", "10.96.1.2", 80, "tcp"),
    "hairpin ipv6": ("a2", "fd00:10:96::102", 80, "tcp"),
    "same bridge": ("a1", "10.96.1.2", 80, "tcp"),
    "same bridge ipv6": ("a1", "fd00:10:96::102", 80, "tcp"),
    "node": ("node-a", "10.96.1.1", 80, "tcp"),
    "node udp": ("node-a", "10.96.1.1", 53, "udp"),
    "node to own pod": ("node-a", "10.96.1.2", 80, "tcp"),
    "node ipv6": ("node-a", "fd00:10:96::101", 80, "tcp"),
    "node none": ("node-a", "10.96.1.12", 80, "tcp"),
    "node unallocated": ("node-a", "10.96.9.9", 80, "tcp"),
    "nodeport on a": (OUTSIDE_HOST, NODES["node-a"], 30080, "tcp"),
    "nodeport on b": (OUTSIDE_HOST, NODES["node-b"], 30080, "tcp"),
    "nodeport on c": (OUTSIDE_HOST, NODES["node-c"], 30080, "tcp"),
    "nodeport udp": (OUTSIDE_HOST, NODES["node-b"], 30053, "udp"),
    "nodeport pod": ("a1", NODES["node-b"], 30080, "tcp"),
    "nodeport node": ("node-a", NODES["node-b"], 30080, "tcp"),
    "nodeport own": ("node-a", NODES["node-a"], 30080, "tcp"),
    "nodeport localhost": ("node-a", "127.0.0.1", 30080, "tcp"),
    "nodeport none": (OUTSIDE_HOST, NODES["node-a"], 30089, "tcp"),
    "balancer": (OUTSIDE_HOST, "198.51.100.5", 80, "tcp"),
    "balancer ipv6": (OUTSIDE_HOST, "2001:db8:1::5", 80, "tcp"),
    "balancer from pod": ("a1", "198.51.100.5", 80, "tcp"),
    "balancer none": (OUTSIDE_HOST, "198.51.100.9", 80, "tcp"),
    "local": (OUTSIDE_HOST, "198.51.100.6", 80, "tcp"),
    "local nodeport there": (OUTSIDE_HOST, NODES["node-c"], 30086, "tcp"),
    "local nodeport elsewhere": (OUTSIDE_HOST, NODES["node-a"], 30086, "tcp"),
    "local from pod": ("a1", "198.51.100.6", 80, "tcp"),
    "local from node": ("node-a", "198.51.100.6", 80, "tcp"),
    "ranges allowed": (OUTSIDE_HOST, "198.51.100.7", 80, "tcp"),
    "ranges denied": (OUTSIDE_HOST, "198.51.100.8", 80, "tcp"),
    "ranges nodeport": (OUTSIDE_HOST, NODES["node-a"], 30088, "tcp"),
    "internal local there": ("c1", "10.96.1.11", 80, "tcp"),
    "internal local elsewhere": ("a1", "10.96.1.11", 80, "tcp"),
    "none": ("a1", "10.96.1.12", 80, "tcp"),
    "none udp": ("a1", "10.96.1.12", 80, "udp"),
    "by hand": ("a1", "10.96.1.13", 80, "tcp"),
    "host": ("a1", "10.96.1.14", 80, "tcp"),
    "host from its node": ("c1", "10.96.1.14", 80, "tcp"),
    "host from that node": ("node-c", "10.96.1.14", 80, "tcp"),
    "host nodeport": (OUTSIDE_HOST, NODES["node-a"], 30097, "tcp"),
    "unready": ("a1", "10.96.1.15", 80, "tcp"),
    "published": ("a1", "10.96.1.16", 80, "tcp"),
}


def named(source: str) -> str:
    return source if "-" in source or source == OUTSIDE_HOST else f"default/{source}"


def answers(plugin: str, user: str) -> dict[str, Any]:
    """What comes of all questions, in one lab."""

    def work() -> dict[str, Any]:
        topology = with_services(catalogued("flat"))
        with Lab(design(topology, registry.plugin(plugin)())) as lab:
            lab.build()
            lab.prime()
            with closing(Servers(lab.namespaces, SERVED)):
                found: dict[str, Any] = {
                    name: ask(lab.namespaces, named(source), address, port, protocol, 6.0 if name not in SILENT else 0.4)
                    for name, (source, address, port, protocol) in QUESTIONS.items()
                }
                found["sticky"] = tally(lab.namespaces, "default/a1", "10.96.1.10", 80, 24)
                found["spread"] = tally(lab.namespaces, "default/a1", "10.96.1.1", 80, 400)
                links = {link.node: link.addresses for link in topology.links}
                found["addresses"] = {e.pod.name: [str(a) for a in e.addresses] for e in lab.cluster.endpoints}
                found["addresses"] |= {node: [str(a.ip) for a in own] for node, own in links.items()}
                found["addresses"][OUTSIDE_HOST] = [str(a.ip) for a in OUTSIDE_ADDRESSES]
                found["drift"] = [str(one) for one in lab.drift()]
            return found

    return inside(work, user)  # type: ignore[no-any-return]


SILENT = {"unallocated", "unallocated ipv6", "node unallocated", "local nodeport elsewhere", "ranges denied"}
SILENT |= {"internal local elsewhere"}


SAME = "its own"  # the client is seen with its own address
# Who may answer, or what the client is told; and as whom it is seen, where that is the same with every plugin.
EXPECTED: dict[str, tuple[str, str]] = {
    "clusterip tcp": ("b1 c1", SAME),
    "clusterip second port": ("b1 c1", SAME),
    "clusterip udp": ("b1 c1", SAME),
    "clusterip ipv6 tcp": ("b1 c1", SAME),
    "clusterip ipv6 udp": ("b1 c1", SAME),
    "unknown port tcp": ("refused", ""),
    "unknown port udp": ("refused", ""),
    "unallocated": ("silent", ""),
    "unallocated ipv6": ("silent", ""),
    "hairpin": ("a2", "another"),
    "hairpin ipv6": ("a2", "another"),
    "same bridge": ("a2", SAME),
    "same bridge ipv6": ("a2", SAME),
    "node": ("b1 c1", ""),
    "node udp": ("b1 c1", ""),
    "node to own pod": ("a2", ""),
    "node ipv6": ("b1 c1", ""),
    "node none": ("refused", ""),
    "node unallocated": ("silent", ""),
    "nodeport on a": ("b1 c1", "another"),
    "nodeport on b": ("b1 c1", "another"),
    "nodeport on c": ("b1 c1", "another"),
    "nodeport udp": ("b1 c1", "another"),
    "nodeport pod": ("b1 c1", "another"),
    "nodeport node": ("b1 c1", ""),
    "nodeport own": ("b1 c1", ""),
    "nodeport localhost": ("refused", ""),
    "nodeport none": ("refused", ""),
    "balancer": ("b1 c1", "another"),
    "balancer ipv6": ("b1 c1", "another"),
    "balancer from pod": ("b1 c1", "another"),
    "balancer none": ("unreachable", ""),
    "local": ("c2", SAME),
    "local nodeport there": ("c2", SAME),
    "local nodeport elsewhere": ("silent", ""),
    "local from pod": ("c2", SAME),
    "local from node": ("c2", ""),
    "ranges allowed": ("b1 c1", "another"),
    "ranges denied": ("silent", ""),
    "ranges nodeport": ("b1 c1", "another"),
    "internal local there": ("c2", SAME),
    "internal local elsewhere": ("silent", ""),
    "none": ("refused", ""),
    "none udp": ("refused", ""),
    "by hand": (OUTSIDE_HOST, NODES["node-a"]),
    "host": ("node-c", NODES["node-a"]),
    "host from its node": ("node-c", SAME),
    "host from that node": ("node-c", NODES["node-c"]),
    "host nodeport": ("node-c", NODES["node-a"]),
    "unready": ("refused", ""),
    "published": ("b2", SAME),
}
# As whom a node, or a client from outside, is seen: by the address of the way that leads to the pod.
FROM_NODES = {
    "flannel": {"node to own pod": "10.1.1.254", "hairpin": "10.1.1.254", "local from node": "10.1.1.0"},
    "calico": {"node to own pod": NODES["node-a"], "hairpin": NODES["node-a"], "local from node": NODES["node-a"]},
    "weave": {"node to own pod": "10.1.1.0", "hairpin": "10.1.1.0", "local from node": "10.1.1.0"},
}


@pytest.mark.parametrize(("user", "plugin"), BY)
def test_who_answers(plugin: str, user: str, subtests: pytest.Subtests) -> None:
    found = answers(plugin, user)
    for question in QUESTIONS:
        try:
            rightly_answered(question, plugin, found)
        except AssertionError:
            with subtests.test(question):
                raise
    assert sorted(found["sticky"].values()) == [24], "affinity keeps to one endpoint"
    assert found["drift"] == []
    # Chi-square with one degree of freedom: 10.83 is passed once in a thousand fair runs, and never by a lopsided map.
    assert set(found["spread"]) == {"b1", "c1"}
    assert sum((count - 200) ** 2 / 200 for count in found["spread"].values()) < 10.83


def rightly_answered(question: str, plugin: str, found: dict[str, Any]) -> None:
    answer, (source, address, *_) = found[question], QUESTIONS[question]
    who, seen_as = EXPECTED[question]
    if isinstance(answer, str):
        assert answer == who
        return
    assert answer.by in who.split()
    assert answer.came_from == address, "the client hears from whom it has asked"
    own = found["addresses"][source]
    if seen_as == SAME:
        assert answer.seen_as in own
    elif seen_as == "another":
        assert answer.seen_as not in own
    elif seen_as:
        assert answer.seen_as == seen_as
    if question in FROM_NODES[plugin]:
        assert answer.seen_as == FROM_NODES[plugin][question]
