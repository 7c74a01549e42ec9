"""Services while things change: pods that come, go, or are not ready; connections that live on and those that must not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from designed import catalogued
from sandboxed import inside
from served import BY, BY_OTHERS, SERVED, SERVICES, service, with_services
from talking import Servers, ask, client, say, tally

from emulab import change, registry
from emulab.kernel import conntrack, nftables
from emulab.lab import Lab, Probing
from emulab.model import OUTSIDE_HOST
from emulab.objects import Service
from emulab.planning import design

WEB = "10.96.1.1"


@pytest.fixture
def in_lab(user: str) -> Callable[..., Any]:
    def run(plugin: str, check: Callable[[Lab], Any], services: Sequence[Service] = SERVICES) -> Any:
        def work() -> Any:
            topology = with_services(catalogued("flat"), tuple(services))
            with Lab(design(topology, registry.plugin(plugin)())) as lab:
                lab.build()
                lab.prime()
                there = {endpoint.key for endpoint in lab.cluster.endpoints}
                with closing(Servers(lab.namespaces, [one for one in SERVED if one[0] in there])):
                    return check(lab)

        return inside(work, user)

    return run


def ready(lab: Lab, name: str, value: bool) -> None:
    pods = [replace(pod, ready=value) if pod.name == name else pod for pod in lab.cluster.topology.pods]
    lab.change(change.reshape(lab.design, pods, lab.cluster.topology.objects))


def without(lab: Lab, name: str) -> None:
    pods = [pod for pod in lab.cluster.topology.pods if pod.name != name]
    lab.change(change.reshape(lab.design, pods, lab.cluster.topology.objects))


@pytest.mark.parametrize(("user", "plugin"), BY)
def test_an_unready_pod_keeps_its_connections_and_gets_no_new_ones(plugin: str, in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> Any:
        with client(lab.namespaces, "default/a1", WEB, 80, "tcp", 6.0) as old:
            served_by = say(old).by
            ready(lab, served_by, False)
            return served_by, tally(lab.namespaces, "default/a1", WEB, 80, 30), say(old).by

    served_by, new, still = in_lab(plugin, check)
    assert still == served_by
    assert new == {("c1" if served_by == "b1" else "b1"): 30}


@pytest.mark.parametrize(
    ("user", "plugin", "leave"), [*((*one, "removed") for one in BY), *((*one, "unready") for one in BY_OTHERS)]
)
def test_udp_flows_leave_an_endpoint_that_serves_no_longer(plugin: str, leave: str, in_lab: Callable[..., Any]) -> None:
    """The client keeps its port, so only the end of the conntrack entry can lead it to another endpoint."""

    def check(lab: Lab) -> Any:
        with client(lab.namespaces, "default/a1", WEB, 53, "udp", 6.0) as old:
            before = say(old).by
            if leave == "removed":
                without(lab, before)
            else:
                ready(lab, before, False)
            return before, say(old).by

    before, after = in_lab(plugin, check)
    assert {before, after} == {"b1", "c1"}


@pytest.mark.parametrize("user", ["root"])
def test_without_kube_proxys_help_udp_would_stay(in_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test before: it is the flush that leads the flow away."""

    def check(lab: Lab) -> Any:
        monkeypatch.setattr(conntrack, "forget", lambda *_: 0)
        with client(lab.namespaces, "default/a1", WEB, 53, "udp", 0.3) as old:
            before = say(old).by
            ready(lab, before, False)
            return before, say(old).by

    before, after = in_lab("flannel", check)
    assert before == after


@pytest.mark.parametrize("user", ["user"])
def test_other_udp_flows_are_left_alone(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> Any:
        with client(lab.namespaces, "default/a1", WEB, 53, "udp", 6.0) as first:
            stays = say(first).by
            ready(lab, "c1" if stays == "b1" else "b1", False)
            kept: list[conntrack.Entry] = []
            port = first.getsockname()[1]
            conntrack.forget(lab.namespaces["node-a"], 17, lambda one: kept.append(one) or False)  # type: ignore[func-returns-value]
            return stays, [one.destination_nat for one in kept if one.original.sport == port], say(first).by

    stays, entries, still = in_lab("flannel", check)
    assert entries == [True]
    assert still == stays


@pytest.mark.parametrize("user", ["user"])
def test_affinity_ends_after_its_time(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> Any:
        def remembered() -> int:
            return nftables.text(lab.namespaces["node-a"]).count(" expires ")

        start = time.monotonic()
        assert remembered() == 0
        tally(lab.namespaces, "default/a1", "10.96.1.10", 80, 5)
        during = remembered()
        while remembered() and time.monotonic() < start + 10:
            time.sleep(0.02)
        return during, remembered(), time.monotonic() - start

    during, after, seconds = in_lab("flannel", check, [service("sticky", "10.96.1.10", "web", affinity=1)])
    assert (during, after) == (1, 0)
    assert seconds > 1


@pytest.mark.parametrize(("user", "plugin"), [("root", "flannel"), ("user", "weave")])
def test_a_shared_bridge_hands_answers_to_netfilter(plugin: str, in_lab: Callable[..., Any]) -> None:
    """Else they reach the client from the pod itself, and it does not know them."""
    key = "net.bridge.bridge-nf-call-iptables"

    def check(lab: Lab) -> Any:
        def asked() -> str:
            answer = ask(lab.namespaces, "default/a1", "10.96.1.2", 80, timeout=0.3)
            return answer if isinstance(answer, str) else answer.by

        before = asked()
        lab.network["node-a"].cmd(f"sysctl -qw {key}=0")
        off, deviations = asked(), [str(one) for one in lab.drift()]
        lab.repair()
        return before, off, deviations, asked()

    before, off, deviations, after = in_lab(plugin, check)
    assert (before, off, after) == ("a2", "silent", "a2")
    assert deviations == [f"node-a: altered: sysctl -qw {key}=1  (found: value 0)"]


@pytest.mark.parametrize(("user", "plugin"), BY_OTHERS)
def test_pods_still_meet_untranslated(plugin: str, in_lab: Callable[..., Any]) -> None:
    """All of them talk to each other while they talk to Services, and no kernel has translated anything between two pods."""

    def check(lab: Lab) -> Any:
        usual = Probing(protocols=("udp", "tcp"), nodes=False, outside=False, services=False, mtu=False)
        with closing(conntrack.Watch(lab.namespaces, ["node-a", "node-b", "node-c"])) as watch:
            tally(lab.namespaces, "default/a1", WEB, 80, 20)  # Weave's second bridge must not take them for other connections
            result = lab.verify(usual)
            entries = [entry for found in watch.translated().values() for entry in found]
        pods = {str(a) for endpoint in lab.cluster.endpoints for a in endpoint.addresses}
        between = [str(entry) for entry in entries if {entry.original.source, entry.original.destination} <= pods]
        return result.ok, len(entries), between

    ok, translated, between = in_lab(plugin, check)
    assert ok
    assert translated >= 20, "or the watch would have seen nothing"
    assert between == []


@pytest.mark.parametrize(("user", "plugin"), BY)
def test_rules_in_forward_meet_the_endpoint_not_the_service(plugin: str, in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> Any:
        seen = []
        for address in (WEB, "{ 10.1.2.1, 10.1.3.1 }"):
            chain = "{ type filter hook forward priority 0 ; }"
            commands = (
                f"add table ip p\nadd chain ip p c {chain}\nadd rule ip p c ip daddr {address} tcp dport {{ 80, 8000 }} drop"
            )
            nftables.run(lab.namespaces["node-a"], commands)
            answer = ask(lab.namespaces, "default/a1", WEB, 80, timeout=0.3)
            seen.append(answer if isinstance(answer, str) else "answered")
            nftables.run(lab.namespaces["node-a"], "delete table ip p")
        return seen

    assert in_lab(plugin, check) == ["answered", "silent"]


@pytest.mark.parametrize(("user", "plugin"), BY_OTHERS)
def test_a_service_that_comes_and_goes(plugin: str, in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> Any:
        topology = lab.cluster.topology

        def asked() -> str:
            answer = ask(lab.namespaces, "default/a1", "10.96.2.2", 80, timeout=0.3)
            return answer if isinstance(answer, str) else answer.by

        new = service("new", "10.96.2.2", "self")
        said = [asked()]
        for services in ((new, *SERVICES), SERVICES, (), SERVICES):
            objects = replace(topology.objects, services=services)
            lab.change(change.reshape(lab.design, topology.pods, objects))
            said.append(asked() if services else str("kube-proxy" in nftables.text(lab.namespaces["node-a"])))
            said += [str(one) for one in lab.drift()]
        return said

    assert in_lab(plugin, check) == ["silent", "a2", "silent", "False", "silent"]


@pytest.mark.parametrize("user", ["root"])
def test_a_node_that_stops_takes_its_endpoints_along_and_hands_the_balancer_over(in_lab: Callable[..., Any]) -> None:
    def check(lab: Lab) -> Any:
        from emulab.fabric import announcers

        def announcer() -> str:
            return next(node for address, node in announcers(lab.cluster).items() if str(address) == "198.51.100.5")

        first = announcer()
        lab.change(change.switch_node(lab.design, first, False))
        stopped = tally(lab.namespaces, OUTSIDE_HOST, "198.51.100.5", 80, 20)
        return first, announcer(), stopped, [str(one) for one in lab.drift()]

    first, second, answered, drift = in_lab("flannel", check)
    gone = {"node-a": "", "node-b": "b1", "node-c": "c1"}[first]
    assert second != first
    assert set(answered) == {"b1", "c1"} - {gone}
    assert drift == []
