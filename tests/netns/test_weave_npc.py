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


@pytest.mark.parametrize("user", ["user"])
def test_what_is_established_survives_and_what_is_new_does_not(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[Any]:
        set_policies(lab)
        found: list[Any] = [passing(lab, "a1 > b1", "b1 > a1")]
        with connection(lab, "a1", "b1", 4) as one, connection(lab, "a1", "a2", 6) as other:
            set_policies(lab, DENY_IN, DENY_OUT)
            for client, server in (one, other):
                client.send(b"there")
                found.append(server.recv(10))
                server.send(b"and back")
                found.append(client.recv(10))
        return [*found, passing(lab, "a1 > b1", "b1 > a1")]

    assert in_lab("flat", "weave", check) == [["a1 > b1", "b1 > a1"], *[b"there", b"and back"] * 2, []]


@pytest.mark.parametrize("user", ["root"])
def test_labels_and_policies_come_and_go(in_lab: Callable[..., Any]) -> None:
    ways = ("a1 > a2", "a1 > b1", "b1 > a1", "c1 > a1")
    from_web = policy("web", app("db"), (INGRESS,), came(Peer(pods=app("web"))))
    from_cache = policy("cache", app("db"), (INGRESS,), came(Peer(pods=app("cache"))))
    to_db = policy("out", app("web"), (EGRESS,), goes(Peer(pods=app("db"))))

    def check(lab: Lab) -> list[list[str]]:
        steps: list[tuple[tuple[Policy, ...], dict[str, str]]] = [
            ((), {}),
            ((from_web,), {"a1": "web", "b1": "db"}),
            ((from_web,), {"a1": "web", "b1": "db", "a2": "db"}),
            ((from_web,), {"b1": "web", "a1": "db"}),
            ((from_web,), {"b1": "web", "a1": "db", "c1": "cache"}),
            ((from_web, from_cache), {"b1": "web", "a1": "db", "c1": "cache"}),
            ((to_db,), {"a1": "web", "b1": "db"}),
            ((to_db, from_cache), {"a1": "web", "b1": "db"}),
            ((), {"a1": "web", "b1": "db"}),
        ]
        found = []
        for policies, labels in steps:
            set_policies(lab, *policies, **labels)
            found.append(passing(lab, *ways))
            assert [str(one) for one in lab.drift()] == []
        return found

    assert in_lab("flat", "weave", check) == [
        list(ways),
        ["a1 > a2", "a1 > b1", "b1 > a1", "c1 > a1"],
        ["a1 > a2", "a1 > b1", "b1 > a1", "c1 > a1"],
        ["a1 > a2", "a1 > b1", "b1 > a1"],
        ["a1 > a2", "a1 > b1", "b1 > a1"],
        ["a1 > a2", "a1 > b1", "b1 > a1", "c1 > a1"],
        ["a1 > b1", "b1 > a1", "c1 > a1"],
        ["b1 > a1", "c1 > a1"],
        list(ways),
    ]


@pytest.mark.parametrize("user", ["user"])
def test_who_is_a_node_and_who_is_not(in_lab: Callable[..., Any]) -> None:
    """Its own node always reaches a pod; another one comes by the address of its bridge, which no pod has."""
    ways = ("node-a > a1", "node-b > a1", "a1 > a2")

    def check(lab: Lab) -> list[list[str]]:
        address = lab.cluster.gateway("node-b", 4), lab.cluster.gateway("node-b", 6)
        bridges = Peer(nets=tuple(map(ip_network, filter(None, address))))
        found = []
        for rule in (None, came(Peer(namespaces=ANY)), came(bridges)):
            set_policies(lab, policy("p", ANY, (INGRESS,), *filter(None, [rule])))
            found.append(passing(lab, *ways))
        return found

    assert in_lab("flat", "weave", check) == [["node-a > a1"], ["node-a > a1", "a1 > a2"], ["node-a > a1", "node-b > a1"]]


def pings(lab: Lab, source: str, target: str) -> bool:
    one = trace(lab, key(source), key(target), protocol="icmp", timeout=PATIENCE)
    return one.delivered


@pytest.mark.parametrize("user", ["root"])
def test_icmp_and_ports_by_name(in_lab: Callable[..., Any]) -> None:
    """A rule with ports is for its protocol; one with a name as its port allows nothing: weave-npc knows no names."""
    numbered, named = came(Peer(), PortRange(PORT, PORT)), came(Peer(), PortRange(name="http"))

    def check(lab: Lab) -> list[Any]:
        found: list[Any] = []
        for rule in (came(), numbered, named):
            set_policies(lab, policy("p", app("b1"), (INGRESS,), rule))
            udp = passing(lab, "a1 > b1", protocol="udp")
            found.append((passing(lab, "a1 > b1"), passing(lab, "a1 > b1", port=NAMED), udp, pings(lab, "a1", "b1")))
        return found

    way = ["a1 > b1"]
    assert in_lab("flat", "weave", check) == [(way, way, way, True), (way, [], [], False), ([], [], [], False)]


@pytest.mark.parametrize("user", ["user"])
def test_a_pod_that_may_reach_nobody_reaches_its_own_node(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[bool]:
        set_policies(lab, DENY_OUT)
        return [pings(lab, "a1", target) for target in ("node-a", "node-b", "a2")]

    assert in_lab("flat", "weave", check) == [True, False, False]


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


@pytest.mark.parametrize("user", ["user"])
def test_those_not_selected_lose_nothing(in_lab: Callable[..., Any]) -> None:
    """Not even while the first policy comes and the last one goes."""

    def check(lab: Lab) -> dict[str, Any]:
        set_policies(lab)
        streams = [Stream(lab, "default/a1", "default/c1", 4), Stream(lab, "default/a1", "default/a2", 6)]
        for number in range(10):
            closed = policy(f"p{number}", app("b1", "b2"), (INGRESS, EGRESS), came(Peer(pods=app("c2"))), goes(Peer(pods=ANY)))
            set_policies(lab, *[closed] * (number % 2), b1=f"b{1 + number % 3}")
        start = streams[0].sent
        while streams[0].sent < start + 100:
            time.sleep(0.001)
        return {"lost": [sorted(stream.stop())[:10] for stream in streams], "sent": min(stream.sent for stream in streams)}

    found = in_lab("flat", "weave", check)
    assert found["lost"] == [[], []]
    assert found["sent"] > 100


@pytest.mark.parametrize("user", ["root"])
def test_a_stream_notices_a_policy(in_lab: Callable[..., Any]) -> None:
    """The check above can fail: with no memory of the connection, its packets are new ones."""

    def check(lab: Lab) -> int:
        set_policies(lab)
        stream = Stream(lab, "default/a1", "default/c1", 4)
        set_policies(lab, DENY_IN)
        start = stream.sent
        while stream.sent < start + 50:
            time.sleep(0.001)
        set_policies(lab)
        return len(stream.stop())

    assert in_lab("flat", "weave", check) >= 40


@pytest.mark.parametrize("user", ["user"])
def test_rules_count_what_they_decide_on(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[dict[str, int]]:
        set_policies(lab, DENY_IN, policy("open", app("b1"), (INGRESS, EGRESS), came(Peer(pods=app("a1"))), goes()))
        passing(lab, "a1 > b1", "b1 > b2", "b1 > a1")
        texts = [nftables.text(lab.namespaces[node]) for node in ("node-a", "node-b")]
        return [
            {comment: int(packets) for packets, comment in re.findall(r"counter packets (\d+) .* comment \"(.*)\"", text)}
            for text in texts
        ]

    at_a, at_b = in_lab("flat", "weave", check)
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


@pytest.mark.parametrize(
    ("user", "closed", "place", "rule"),
    [
        ("root", DENY_IN, "node-b", 'oifname "weave" counter drop comment "weave-npc: ingress default deny"'),
        ("user", DENY_OUT, "node-a", 'counter drop comment "weave-npc: egress default deny"'),
    ],
)
def test_a_trace_names_the_drop(closed: Policy, place: str, rule: str, in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[Any]:
        set_policies(lab, closed)
        traces = [attentive(lab, family) for family in (4, 6)]
        return [(one.verdict, one.reason or "", " ".join(one.loss.evidence if one.loss else ())) for one in traces]

    for verdict, reason, evidence in in_lab("flat", "weave", check):
        assert verdict is Verdict.DROPPED
        assert reason.startswith("by policy: ") and closed.key in reason, reason
        assert place in evidence and rule in evidence, evidence


@pytest.mark.parametrize("user", ["user"])
def test_what_is_broken_by_hand_is_seen_and_mended(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> list[Any]:
        set_policies(lab, DENY_IN)
        nftables.run(lab.namespaces["node-b"], "flush chain ip weave FORWARD; flush set ip weave weave-local-pods")
        with entered(lab.namespaces["node-c"].net), open("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "w") as file:
            file.write("0")
        seen = [str(one).partition(" (")[0] for one in lab.drift()]
        lab.repair()
        return [seen, [str(one) for one in lab.drift()], passing(lab, "a1 > b1", "a1 > c1")]

    seen = ["node-b: altered: nft table ip weave", "node-c: altered: sysctl -qw net.bridge.bridge-nf-call-ip6tables=1 "]
    assert in_lab("flat", "weave", check) == [seen, [], []]


@pytest.mark.parametrize("user", ["root"])
def test_what_was_denied_is_no_connection(in_lab: Callable[..., Any]) -> None:
    """A packet that was dropped before its receiver makes nobody's packet an answer: the way back is closed, too."""

    def check(lab: Lab) -> list[tuple[int, int]]:
        set_policies(lab, policy("closed", app("b1"), (INGRESS, EGRESS)))
        found = []
        for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            ends = {}
            for name in ("a1", "b1"):
                with entered(lab.namespaces[key(name)].net):
                    ends[name] = socket.socket(kind, socket.SOCK_DGRAM)
                endpoint = next(endpoint for endpoint in lab.cluster.endpoints if endpoint.key == key(name))
                ends[name].bind((str(endpoint.address(family)), 1000))
            drops = []
            for source, destination, direction in (("a1", "b1", "ingress"), ("b1", "a1", "egress")):
                before = dropped(lab, "node-b", direction)
                ends[source].sendto(b"anybody?", ends[destination].getsockname()[:2])
                deadline = time.monotonic() + 5
                while dropped(lab, "node-b", direction) == before and time.monotonic() < deadline:
                    time.sleep(0.001)
                drops.append(dropped(lab, "node-b", direction) - before)
            for end in ends.values():
                end.close()
            found.append((drops[0], drops[1]))
        return found

    assert in_lab("flat", "weave", check) == [(1, 1), (1, 1)]


def dropped(lab: Lab, node: str, direction: str) -> int:
    """How many packets of both families weave-npc has dropped on a node."""
    counts = re.findall(rf"packets (\d+) .*weave-npc: {direction} default deny", nftables.text(lab.namespaces[node]))
    return sum(map(int, counts))
