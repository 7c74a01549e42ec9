"""weave-npc on the real kernel: what policies mean while a lab runs, and what they leave alone."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from in_turn import in_turn
from sandboxed import repaired
from streams import Stream

from emulab import change
from emulab.kernel import nftables
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import Pod
from emulab.objects import EGRESS, INGRESS, ContainerPort, Objects, Peer, Policy, PortRange, Rule
from emulab.packet import Verdict
from emulab.probe.ports import Check, probe
from emulab.probe.tracing import trace
from emulab.selector import Everything, In, Selector
from emulab.trace import Trace

ANY = Everything()
PORT, NAMED = 8000, 8001
PATIENCE = 0.4  # seconds, with what is dropped


def app(*names: str) -> Selector:
    return In("app", names)


def policy(name: str, selector: Selector, directions: tuple[str, ...], *rules: Rule) -> Policy:
    ingress = tuple(rule for rule in rules if rule.origin.startswith("ingress"))
    egress = tuple(rule for rule in rules if rule.origin.startswith("egress"))
    return Policy("networking.k8s.io/v1", "NetworkPolicy", "default", name, selector, None, directions, ingress, egress)


def came(peer: Peer = Peer(), *ports: PortRange) -> Rule:  # noqa: B008
    return Rule("allow", "tcp" if ports else None, source=peer, destination=Peer(ports=ports), origin="ingress[0]")


def goes(peer: Peer = Peer()) -> Rule:  # noqa: B008
    return Rule("allow", destination=peer, origin="egress[0]")


def closing_all(name: str, direction: str) -> Policy:
    """With a manifest, by which a trace knows what it means."""
    manifest = {"spec": {"podSelector": {}, "policyTypes": [direction.capitalize()]}}
    return replace(policy(name, ANY, (direction,)), manifest=manifest)


DENY_IN, DENY_OUT = closing_all("deny-in", INGRESS), closing_all("deny-out", EGRESS)


def set_policies(lab: Lab, *policies: Policy, **labels: str) -> None:
    """These policies, and the pods' app labels; every pod serves a port, and another that has a name."""
    lab.change(
        change.reshape(lab.design, [labelled(pod, labels) for pod in lab.cluster.topology.pods], Objects(policies=policies))
    )


def labelled(pod: Pod, labels: dict[str, str]) -> Pod:
    """``app`` is what ``labels`` says, else the pod's name."""
    ports = (ContainerPort(PORT), ContainerPort(PORT, "udp"), ContainerPort(NAMED, name="http"))
    return replace(pod, labels=(("app", labels.get(pod.name, pod.name)),), ports=ports)


def key(name: str) -> str:
    return name if name.startswith("node-") else f"default/{name}"


def passing(lab: Lab, *ways: str, port: int = PORT, protocol: str = "tcp") -> list[str]:
    """Which of the ways ``a1 > b1`` pass, in both families: "a1 > b1 (4)"."""
    checks = [Check(*map(key, way.split(" > ")), family, protocol, port) for way in ways for family in (4, 6)]
    outcomes = probe(lab.namespaces, lab.cluster, checks)
    assert {outcome.verdict for outcome in outcomes} <= {Verdict.DELIVERED, Verdict.DROPPED}, outcomes
    passed = {outcome.check for outcome in outcomes if outcome.verdict is Verdict.DELIVERED}
    return [way for way, four, six in zip(ways, checks[::2], checks[1::2], strict=True) if both(four in passed, six in passed)]


def both(four: bool, six: bool) -> bool:
    assert four == six, "the families differ"
    return four


@contextmanager
def connection(lab: Lab, source: str, destination: str, family: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    endpoint = next(endpoint for endpoint in lab.cluster.endpoints if endpoint.key == key(destination))
    with entered(lab.namespaces[key(destination)].net):
        server = socket.create_server((str(endpoint.address(family)), 7000), family=kind)
    with entered(lab.namespaces[key(source)].net):
        client = socket.socket(kind, socket.SOCK_STREAM)
    with closing(server), closing(client):
        client.settimeout(5)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        accepted.settimeout(5)
        with closing(accepted):
            yield client, accepted


def what_is_established_survives_and_what_is_new_does_not(lab: Lab) -> None:
    set_policies(lab)
    assert passing(lab, "a1 > b1", "b1 > a1") == ["a1 > b1", "b1 > a1"]
    with connection(lab, "a1", "b1", 4) as one, connection(lab, "a1", "a2", 6) as other:
        set_policies(lab, DENY_IN, DENY_OUT)
        for client, server in (one, other):
            client.send(b"there")
            assert server.recv(10) == b"there"
            server.send(b"and back")
            assert client.recv(10) == b"and back"
    assert passing(lab, "a1 > b1", "b1 > a1") == []


def labels_and_policies_come_and_go(lab: Lab) -> None:
    ways = ["a1 > a2", "a1 > b1", "b1 > a1", "c1 > a1"]
    from_web = policy("web", app("db"), (INGRESS,), came(Peer(pods=app("web"))))
    from_cache = policy("cache", app("db"), (INGRESS,), came(Peer(pods=app("cache"))))
    to_db = policy("out", app("web"), (EGRESS,), goes(Peer(pods=app("db"))))
    steps: list[tuple[tuple[Policy, ...], dict[str, str], list[str]]] = [
        ((), {}, ways),
        ((from_web,), {"a1": "web", "b1": "db"}, ways),
        ((from_web,), {"a1": "web", "b1": "db", "a2": "db"}, ways),
        ((from_web,), {"b1": "web", "a1": "db"}, ["a1 > a2", "a1 > b1", "b1 > a1"]),
        ((from_web,), {"b1": "web", "a1": "db", "c1": "cache"}, ["a1 > a2", "a1 > b1", "b1 > a1"]),
        ((from_web, from_cache), {"b1": "web", "a1": "db", "c1": "cache"}, ways),
        ((to_db,), {"a1": "web", "b1": "db"}, ["a1 > b1", "b1 > a1", "c1 > a1"]),
        ((to_db, from_cache), {"a1": "web", "b1": "db"}, ["b1 > a1", "c1 > a1"]),
        ((), {"a1": "web", "b1": "db"}, ways),
    ]
    for number, (policies, labels, expected) in enumerate(steps):
        set_policies(lab, *policies, **labels)
        assert passing(lab, *ways) == expected, number
        assert [str(one) for one in lab.drift()] == [], number


def who_is_a_node_and_who_is_not(lab: Lab) -> None:
    """Its own node always reaches a pod; another one comes by the address of its bridge, which no pod has."""
    address = lab.cluster.gateway("node-b", 4), lab.cluster.gateway("node-b", 6)
    bridges = Peer(nets=tuple(map(ip_network, filter(None, address))))
    for rule, expected in (
        (None, ["node-a > a1"]),
        (came(Peer(namespaces=ANY)), ["node-a > a1", "a1 > a2"]),
        (came(bridges), ["node-a > a1", "node-b > a1"]),
    ):
        set_policies(lab, policy("p", ANY, (INGRESS,), *filter(None, [rule])))
        assert passing(lab, "node-a > a1", "node-b > a1", "a1 > a2") == expected


def pings(lab: Lab, source: str, target: str) -> bool:
    one = trace(lab, key(source), key(target), protocol="icmp", timeout=PATIENCE)
    return one.delivered


def icmp_and_ports_by_name(lab: Lab) -> None:
    """A rule with ports is for its protocol; one with a name as its port allows nothing: weave-npc knows no names."""
    numbered, named = came(Peer(), PortRange(PORT, PORT)), came(Peer(), PortRange(name="http"))
    way = ["a1 > b1"]
    for rule, expected in ((came(), (way, way, way, True)), (numbered, (way, [], [], False)), (named, ([], [], [], False))):
        set_policies(lab, policy("p", app("b1"), (INGRESS,), rule))
        udp = passing(lab, *way, protocol="udp")
        assert (passing(lab, *way), passing(lab, *way, port=NAMED), udp, pings(lab, "a1", "b1")) == expected


def a_pod_that_may_reach_nobody_reaches_its_own_node(lab: Lab) -> None:
    set_policies(lab, DENY_OUT)
    assert [pings(lab, "a1", target) for target in ("node-a", "node-b", "a2")] == [True, False, False]


def those_not_selected_lose_nothing(lab: Lab) -> None:
    """Not even while the first policy comes and the last one goes."""
    set_policies(lab)
    streams = [Stream(lab, "default/a1", "default/c1", 4), Stream(lab, "default/a1", "default/a2", 6)]
    for number in range(10):
        closed = policy(f"p{number}", app("b1", "b2"), (INGRESS, EGRESS), came(Peer(pods=app("c2"))), goes(Peer(pods=ANY)))
        set_policies(lab, *[closed] * (number % 2), b1=f"b{1 + number % 3}")
    start = streams[0].sent
    while streams[0].sent < start + 100:
        time.sleep(0.001)
    assert [sorted(stream.stop())[:10] for stream in streams] == [[], []]
    assert min(stream.sent for stream in streams) > 100


def a_stream_notices_a_policy(lab: Lab) -> None:
    """The check above can fail: with no memory of the connection, its packets are new ones."""
    set_policies(lab)
    stream = Stream(lab, "default/a1", "default/c1", 4)
    set_policies(lab, DENY_IN)
    start = stream.sent
    while stream.sent < start + 50:
        time.sleep(0.001)
    set_policies(lab)
    assert len(stream.stop()) >= 40


def rules_count_what_they_decide_on(lab: Lab) -> None:
    set_policies(lab, DENY_IN, policy("open", app("b1"), (INGRESS, EGRESS), came(Peer(pods=app("a1"))), goes()))
    passing(lab, "a1 > b1", "b1 > b2", "b1 > a1")
    at_a, at_b = (
        {comment: int(packets) for packets, comment in re.findall(r"counter packets (\d+) .* comment \"(.*)\"", text)}
        for text in (nftables.text(lab.namespaces[node]) for node in ("node-a", "node-b"))
    )
    assert at_a["weave-npc: ingress default deny"] > 0, "b1 > a1"
    assert at_b["default|default/open|ingress|ingress[0]"] > 0, "a1 > b1"
    assert at_b["default|default/open|egress|egress[0]"] > 0, "b1 > b2, b1 > a1"
    assert at_b["weave-npc: ingress default deny"] > 0, "b1 > b2"
    assert at_b["weave-npc: egress default deny"] == 0


def attentive(lab: Lab, family: int) -> Trace:
    """A trace; again, where a busy machine had not let the packet leave its pod in time."""
    for _ in range(3):
        one = trace(lab, "default/a1", "default/b1", family=family, protocol="tcp", timeout=PATIENCE)
        if one.reason != "lost after a1, and no table there says why":
            break
    return one


def a_trace_names_the_drop(lab: Lab) -> None:
    for closed, place, rule in (
        (DENY_IN, "node-b", 'oifname "weave" counter drop comment "weave-npc: ingress default deny"'),
        (DENY_OUT, "node-a", 'counter drop comment "weave-npc: egress default deny"'),
    ):
        set_policies(lab, closed)
        for one in [attentive(lab, family) for family in (4, 6)]:
            assert one.verdict is Verdict.DROPPED
            assert one.reason and one.reason.startswith("by policy: ") and closed.key in one.reason, one.reason
            evidence = " ".join(one.loss.evidence if one.loss else ())
            assert place in evidence and rule in evidence, evidence


def what_is_broken_by_hand_is_seen_and_mended(lab: Lab) -> None:
    set_policies(lab, DENY_IN)
    nftables.run(lab.namespaces["node-b"], "flush chain ip weave FORWARD; flush set ip weave weave-local-pods")
    with entered(lab.namespaces["node-c"].net), open("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "w") as file:
        file.write("0")
    assert [str(one).partition(" (")[0] for one in repaired(lab)] == [
        "node-b: altered: nft table ip weave",
        "node-c: altered: sysctl -qw net.bridge.bridge-nf-call-ip6tables=1 ",
    ]
    assert lab.drift() == []
    assert passing(lab, "a1 > b1", "a1 > c1") == []


def what_was_denied_is_no_connection(lab: Lab) -> None:
    """A packet that was dropped before its receiver makes nobody's packet an answer: the way back is closed, too."""
    set_policies(lab, policy("closed", app("b1"), (INGRESS, EGRESS)))
    for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        ends = {}
        for name in ("a1", "b1"):
            with entered(lab.namespaces[key(name)].net):
                ends[name] = socket.socket(kind, socket.SOCK_DGRAM)
            endpoint = next(endpoint for endpoint in lab.cluster.endpoints if endpoint.key == key(name))
            ends[name].bind((str(endpoint.address(family)), 1000))
        for source, destination, direction in (("a1", "b1", "ingress"), ("b1", "a1", "egress")):
            before = dropped(lab, "node-b", direction)
            ends[source].sendto(b"anybody?", ends[destination].getsockname()[:2])
            deadline = time.monotonic() + 5
            while dropped(lab, "node-b", direction) == before and time.monotonic() < deadline:
                time.sleep(0.001)
            assert dropped(lab, "node-b", direction) - before == 1, (family, direction)
        for end in ends.values():
            end.close()


def dropped(lab: Lab, node: str, direction: str) -> int:
    """How many packets of both families weave-npc has dropped on a node."""
    counts = re.findall(rf"packets (\d+) .*weave-npc: {direction} default deny", nftables.text(lab.namespaces[node]))
    return sum(map(int, counts))


CHECKS = {
    "root": (
        labels_and_policies_come_and_go,
        icmp_and_ports_by_name,
        a_stream_notices_a_policy,
        a_trace_names_the_drop,
        what_was_denied_is_no_connection,
    ),
    "user": (
        what_is_established_survives_and_what_is_new_does_not,
        who_is_a_node_and_who_is_not,
        a_pod_that_may_reach_nobody_reaches_its_own_node,
        those_not_selected_lose_nothing,
        what_is_broken_by_hand_is_seen_and_mended,
        rules_count_what_they_decide_on,
    ),
}


@pytest.mark.parametrize("user", CHECKS)
def test_policies_while_a_lab_runs(user: str, in_lab: Callable[..., Any]) -> None:
    in_lab("flat", "weave", lambda lab: in_turn(lab, CHECKS[user]))


@pytest.mark.parametrize("user", ["root"])
def test_relays_let_pass_what_is_not_theirs(in_lab: Callable[..., Any]) -> None:
    """Opposite nodes of the ring reach each other by way of a third, whose pods are closed."""
    ways = tuple(f"{one}1 > {other}1" for one in "abcd" for other in "abcd" if one != other)
    closed = policy("closed", app("b1", "d1"), (INGRESS, EGRESS))
    from_a = policy("from-a", app("c1"), (INGRESS,), came(Peer(pods=app("a1"))))

    def check(lab: Lab) -> list[list[str]]:
        found = []
        for policies in ((), (closed,), (closed, from_a)):
            set_policies(lab, *policies)
            found.append(passing(lab, *ways))
        return found

    assert in_lab("partial-mesh", "weave", check) == [list(ways), ["a1 > c1", "c1 > a1"], ["a1 > c1", "c1 > a1"]]
