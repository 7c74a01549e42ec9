"""Services while things change: pods that come, go, or are not ready; connections that live on and those that must not."""

from __future__ import annotations

import functools
import time
from contextlib import closing
from dataclasses import replace
from unittest import mock

import pytest
from designed import catalogued
from in_turn import in_turn
from sandboxed import Check, inside, measured, repaired
from served import SERVED, SERVICES, service, with_services
from talking import Servers, ask, client, say, tally

from emulab import change, registry
from emulab.fabric import announcers
from emulab.kernel import conntrack, nftables
from emulab.lab import Lab, Probing
from emulab.model import OUTSIDE_HOST
from emulab.planning import design

WEB = "10.96.1.1"


def ready(lab: Lab, name: str, value: bool) -> None:
    pods = [replace(pod, ready=value) if pod.name == name else pod for pod in lab.cluster.topology.pods]
    lab.change(change.reshape(lab.design, pods, lab.cluster.topology.objects))


def without(lab: Lab, name: str) -> None:
    pods = [pod for pod in lab.cluster.topology.pods if pod.name != name]
    lab.change(change.reshape(lab.design, pods, lab.cluster.topology.objects))


def served(check: Check) -> Check:
    """With somebody who answers in all pods that are there when it begins."""

    @functools.wraps(check)
    def work(lab: Lab) -> None:
        with closing(Servers(lab.namespaces, SERVED)):
            check(lab)

    return work


@served
def an_unready_pod_keeps_its_connections_and_gets_no_new_ones(lab: Lab) -> None:
    with client(lab.namespaces, "default/a1", WEB, 80, "tcp", 6.0) as old:
        served_by = say(old).by
        ready(lab, served_by, False)
        new, still = tally(lab.namespaces, "default/a1", WEB, 80, 30), say(old).by
    assert still == served_by
    assert new == {("c1" if served_by == "b1" else "b1"): 30}


@served
def udp_flows_leave_an_endpoint_that_is_removed(lab: Lab) -> None:
    """The client keeps its port, so only the end of the conntrack entry can lead it to another endpoint."""
    with client(lab.namespaces, "default/a1", WEB, 53, "udp", 6.0) as old:
        before = say(old).by
        without(lab, before)
        assert {before, say(old).by} == {"b1", "c1"}


@served
def udp_flows_leave_an_endpoint_that_is_not_ready(lab: Lab) -> None:
    with client(lab.namespaces, "default/a1", WEB, 53, "udp", 6.0) as old:
        before = say(old).by
        ready(lab, before, False)
        assert {before, say(old).by} == {"b1", "c1"}


@served
def without_kube_proxys_help_udp_would_stay(lab: Lab) -> None:
    """The control of the check before: it is the flush that leads the flow away."""
    with (
        mock.patch.object(conntrack, "forget", lambda *_: 0),
        client(lab.namespaces, "default/a1", WEB, 53, "udp", 0.3) as old,
    ):
        before = say(old).by
        ready(lab, before, False)
        assert say(old).by == before


@served
def other_udp_flows_are_left_alone(lab: Lab) -> None:
    with client(lab.namespaces, "default/a1", WEB, 53, "udp", 6.0) as first:
        stays = say(first).by
        ready(lab, "c1" if stays == "b1" else "b1", False)
        kept: list[conntrack.Entry] = []
        port = first.getsockname()[1]
        conntrack.forget(lab.namespaces["node-a"], 17, lambda one: kept.append(one) or False)  # type: ignore[func-returns-value]
        assert [one.destination_nat for one in kept if one.original.sport == port] == [True]
        assert say(first).by == stays


@served
def affinity_ends_after_its_time(lab: Lab) -> None:
    def remembered() -> int:
        return nftables.text(lab.namespaces["node-a"]).count(" expires ")

    topology = lab.cluster.topology
    objects = replace(topology.objects, services=(service("sticky", "10.96.1.10", "web", affinity=1),))
    lab.change(change.reshape(lab.design, topology.pods, objects))
    start = time.monotonic()
    assert remembered() == 0
    tally(lab.namespaces, "default/a1", "10.96.1.10", 80, 5)
    assert remembered() == 1
    while remembered() and time.monotonic() < start + 10:
        time.sleep(0.02)
    assert remembered() == 0
    assert time.monotonic() - start > 1


@served
def a_shared_bridge_hands_answers_to_netfilter(lab: Lab) -> None:
    """Else they reach the client from the pod itself, and it does not know them."""
    key = "net.bridge.bridge-nf-call-iptables"

    def asked() -> str:
        answer = ask(lab.namespaces, "default/a1", "10.96.1.2", 80, timeout=0.3)
        return answer if isinstance(answer, str) else answer.by

    assert asked() == "a2"
    lab.network["node-a"].cmd(f"sysctl -qw {key}=0")
    assert asked() == "silent"
    assert [str(one) for one in repaired(lab)] == [f"node-a: altered: sysctl -qw {key}=1  (found: value 0)"]
    assert asked() == "a2"


@served
def pods_still_meet_untranslated(lab: Lab) -> None:
    """All of them talk to each other while they talk to Services, and no kernel has translated anything between two pods."""
    usual = Probing(protocols=("udp", "tcp"), nodes=False, outside=False, services=False, mtu=False)
    with closing(conntrack.Watch(lab.namespaces, ["node-a", "node-b", "node-c"])) as watch:
        tally(lab.namespaces, "default/a1", WEB, 80, 20)  # Weave's second bridge must not take them for other connections
        assert measured(lab, usual)["findings"] == []
        entries = [entry for found in watch.translated().values() for entry in found]
    assert len(entries) >= 20, "or the watch would have seen nothing"
    pods = {str(a) for endpoint in lab.cluster.endpoints for a in endpoint.addresses}
    assert [str(entry) for entry in entries if {entry.original.source, entry.original.destination} <= pods] == []


@served
def rules_in_forward_meet_the_endpoint_not_the_service(lab: Lab) -> None:
    seen = []
    for address in (WEB, "{ 10.1.2.1, 10.1.3.1 }"):
        chain = "{ type filter hook forward priority 0 ; }"
        commands = f"add table ip p\nadd chain ip p c {chain}\nadd rule ip p c ip daddr {address} tcp dport {{ 80, 8000 }} drop"
        nftables.run(lab.namespaces["node-a"], commands)
        answer = ask(lab.namespaces, "default/a1", WEB, 80, timeout=0.3)
        seen.append(answer if isinstance(answer, str) else "answered")
        nftables.run(lab.namespaces["node-a"], "delete table ip p")
    assert seen == ["answered", "silent"]


@served
def a_service_that_comes_and_goes(lab: Lab) -> None:
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
    assert said == ["silent", "a2", "silent", "False", "silent"]


@served
def a_node_that_stops_takes_its_endpoints_along_and_hands_the_balancer_over(lab: Lab) -> None:
    def announcer() -> str:
        return next(node for address, node in announcers(lab.cluster).items() if str(address) == "198.51.100.5")

    first = announcer()
    lab.change(change.switch_node(lab.design, first, False))
    gone = {"node-a": "", "node-b": "b1", "node-c": "c1"}[first]
    assert announcer() != first
    assert set(tally(lab.namespaces, OUTSIDE_HOST, "198.51.100.5", 80, 20)) == {"b1", "c1"} - {gone}
    assert lab.drift() == []


EVERYWHERE = (
    an_unready_pod_keeps_its_connections_and_gets_no_new_ones,
    udp_flows_leave_an_endpoint_that_is_removed,
    udp_flows_leave_an_endpoint_that_is_not_ready,
    rules_in_forward_meet_the_endpoint_not_the_service,
    a_service_that_comes_and_goes,
    pods_still_meet_untranslated,
)
LABS = {
    ("root", "flannel"): (
        without_kube_proxys_help_udp_would_stay,
        a_shared_bridge_hands_answers_to_netfilter,
        a_node_that_stops_takes_its_endpoints_along_and_hands_the_balancer_over,
    ),
    ("user", "calico"): (other_udp_flows_are_left_alone, affinity_ends_after_its_time),
    ("user", "weave"): (a_shared_bridge_hands_answers_to_netfilter,),
}


@pytest.mark.parametrize(("user", "plugin"), LABS)
def test_services_while_things_change(user: str, plugin: str) -> None:
    def work() -> None:
        with Lab(design(with_services(catalogued("flat")), registry.plugin(plugin)())) as lab:
            lab.build()
            lab.prime()
            in_turn(lab, (*LABS[user, plugin], *EVERYWHERE))

    inside(work, user)
