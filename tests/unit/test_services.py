"""What a Service owes to a flow, and when it has not kept it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from designed import catalogued
from served import SERVICES, with_services
from tables import each_row

from emulab import registry
from emulab.errors import InputError
from emulab.model import OUTSIDE_HOST, Cluster
from emulab.packet import Flow, Headers, Kind, Observation, Place, Verdict
from emulab.planning import design
from emulab.services import BALANCER, CLUSTER, NODE_PORT, Due, Services, Way, find, judge

CLIENT, SERVICE, ENDPOINT, OTHER = (ip_address(a).packed for a in ("10.1.1.1", "10.96.1.1", "10.1.2.1", "10.1.1.99"))


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return design(with_services(catalogued("flat")), registry.plugin("flannel")()).cluster


def way(services: Services, name: str, kind: str, node: str = "", family: int = 4) -> Way:
    ways = services.ways(services.named(f"svc/default/{name}"), family, kind != CLUSTER)
    return next(one for one in ways if one.kind == kind and node in ("", one.node))


DUE = {
    "cluster address": ("default/a1", "web", CLUSTER, "", "b1 c1", "b1 c1"),
    "from an endpoint": ("default/b1", "web", CLUSTER, "", "b1 c1", "c1"),
    "from a node": ("node-a", "web", CLUSTER, "", "b1 c1", ""),
    "node port": (OUTSIDE_HOST, "np", NODE_PORT, "node-a", "b1 c1", ""),
    "balancer": (OUTSIDE_HOST, "lb", BALANCER, "", "b1 c1", ""),
    "policy Local": (OUTSIDE_HOST, "lb-local", BALANCER, "", "c2", "c2"),
    "policy Local elsewhere": (OUTSIDE_HOST, "lb-local", NODE_PORT, "node-a", "dropped", ""),
    "in a source range": (OUTSIDE_HOST, "lb-open", BALANCER, "", "b1 c1", ""),
    "in none": (OUTSIDE_HOST, "lb-closed", BALANCER, "", "dropped", ""),
    "a range is no matter to node ports": (OUTSIDE_HOST, "lb-closed", NODE_PORT, "node-b", "b1 c1", ""),
    "internal Local": ("default/c1", "int-local", CLUSTER, "", "c2", "c2"),
    "internal Local elsewhere": ("default/a1", "int-local", CLUSTER, "", "dropped", ""),
    "nobody": ("default/a1", "none", CLUSTER, "", "refused", ""),
    "not ready": ("default/a1", "unready", CLUSTER, "", "refused", ""),
    "published all the same": ("default/a1", "published", CLUSTER, "", "b2", "b2"),
    "host network": ("default/a1", "host", CLUSTER, "", "h", ""),
}


@each_row("name", DUE)
def test_what_is_due(name: str, cluster: Cluster) -> None:
    source, service, kind, node, able, frank = DUE[name]
    services = Services(cluster)
    due = services.due(source, ip_address("203.0.113.10"), way(services, service, kind, node))
    names = " ".join(one.pod.removeprefix("default/") for one in due.endpoints)
    assert (names or ("refused" if due.refused else "dropped")) == able
    assert sorted(one.pod.removeprefix("default/") for one in due.frank) == frank.split()


def test_where_endpoints_listen(cluster: Cluster) -> None:
    wanted = [one for one in SERVICES if one.name in ("web", "host", "by-hand")]
    assert Services(cluster).listening(wanted) == {
        "default/b1": {("tcp", 8000), ("tcp", 8001), ("udp", 5353)},
        "default/c1": {("tcp", 8000), ("tcp", 8001), ("udp", 5353)},
        "node-c": {("tcp", 8000)},
        OUTSIDE_HOST: {("tcp", 8000)},
    }


@each_row("name", ["svc/web", "svc/default/web", "web.default", "web.default.svc", "web.default.svc.cluster.local"])
def test_names(name: str, cluster: Cluster) -> None:
    assert find(cluster, name) == "svc/default/web"


def test_other_names(cluster: Cluster) -> None:
    assert find(cluster, "a1") is None
    assert find(cluster, "default/a1") is None
    with pytest.raises(InputError, match=r"no Service 'svc/wbe' \(did you mean 'svc/web'\?\)"):
        find(cluster, "svc/wbe")


FLOW = Flow(0, Kind.SERVICE, "default/a1", "svc/default/web", 4, "udp", CLIENT, SERVICE, 40000, 80)
END = Place("default/a1", "eth0")


def seen(place: str, leg: str, source: bytes, destination: bytes, sport: int, dport: int, payload: bool = True) -> Observation:
    namespace, interface, direction = place.split()
    headers = Headers(source, destination, "udp", sport, dport, payload, 64, 60)
    return Observation(0.0, Place(namespace, interface), direction, leg, headers)


SENT = seen("default/a1 eth0 out", "request", CLIENT, SERVICE, 40000, 80)
LED = seen("default/b1 eth0 in", "request", CLIENT, ENDPOINT, 40000, 8000)
ANSWERED = seen("default/b1 eth0 out", "reply", ENDPOINT, CLIENT, 8000, 40000)
HEARD = seen("default/a1 eth0 in", "reply", SERVICE, CLIENT, 80, 40000)
GOOD = (SENT, LED, ANSWERED, HEARD)


def judged(
    cluster: Cluster, observations: tuple[Observation, ...], *, due: Due | None = None, **values: object
) -> tuple[str, set[str]]:
    services = Services(cluster)
    owed = due or services.due("default/a1", None, way(services, "web", CLUSTER))
    told = {"answered": True, "refused": "", "end": END, "led": None, "allowed": lambda _: True, **values}
    result = judge(FLOW, observations, owed, **told)  # type: ignore[arg-type]
    return result.verdict.value, {finding.field for finding in result.findings}


def test_a_healthy_flow_and_its_translations(cluster: Cluster) -> None:
    services = Services(cluster)
    due = services.due("default/a1", None, way(services, "web", CLUSTER))
    result = judge(FLOW, GOOD, due, answered=True, refused="", end=END, led=None, allowed=lambda _: True)
    assert (result.verdict, result.findings) == (Verdict.DELIVERED, ())
    assert [(one.field, one.before, one.after, one.leg) for one in result.translations] == [
        ("destination", "10.96.1.1", "10.1.2.1", "request"),
        ("destination port", "80", "8000", "request"),
        ("source", "10.1.2.1", "10.96.1.1", "reply"),
    ]


WRONG = {
    "a wrong address": ((SENT, LED._replace(inner=LED.inner._replace(destination=OTHER)), ANSWERED, HEARD), "endpoint"),
    "a wrong port": ((SENT, LED._replace(inner=LED.inner._replace(dport=8080)), ANSWERED, HEARD), "endpoint"),
    "another client": ((SENT, LED._replace(inner=LED.inner._replace(source=OTHER)), ANSWERED, HEARD), "source"),
    "an answer from the endpoint itself": ((SENT, LED, ANSWERED, ANSWERED._replace(place=END, direction="in")), "source"),
    "never translated": ((SENT, HEARD), "endpoint"),
    "an altered payload": ((SENT, LED._replace(inner=LED.inner._replace(payload=False)), ANSWERED, HEARD), "payload"),
}


@each_row("name", WRONG)
def test_what_is_wrong(name: str, cluster: Cluster) -> None:
    observations, field = WRONG[name]
    assert judged(cluster, observations) == ("delivered", {field})


def test_what_nobody_saw_connection_tracking_says(cluster: Cluster) -> None:
    assert judged(cluster, (SENT, HEARD), led=(ip_address("10.1.2.1"), 8000)) == ("delivered", set())
    assert judged(cluster, (SENT, HEARD), led=(ip_address("10.1.2.1"), 8080)) == ("delivered", {"endpoint"})


def test_refusals(cluster: Cluster) -> None:
    services = Services(cluster)
    nobody = services.due("default/a1", None, way(services, "none", CLUSTER))
    elsewhere = services.due("default/a1", None, way(services, "int-local", CLUSTER))
    no = {"answered": False}
    assert judged(cluster, (SENT,), due=nobody, **no, refused="port unreachable") == ("refused", set())
    assert judged(cluster, (SENT,), due=nobody, **no) == ("dropped", {"delivery"})
    assert judged(cluster, (SENT,), due=elsewhere, **no) == ("dropped", set())
    assert judged(cluster, GOOD, due=nobody) == ("delivered", {"delivery"})
    assert judged(cluster, (SENT,), **no) == ("dropped", {"delivery"})
    assert judged(cluster, (SENT,), **no, refused="connection refused") == ("refused", {"delivery"})


def test_policies_are_asked_about_the_endpoint(cluster: Cluster) -> None:
    no, b1, c1 = {"answered": False}, ip_address("10.1.2.1"), ip_address("10.1.3.1")
    assert judged(cluster, (SENT,), **no, allowed=lambda one: one.address == c1) == ("denied", set())
    assert judged(cluster, (SENT, LED), **no, allowed=lambda one: one.address == c1) == ("denied", set())
    assert judged(cluster, (SENT, LED), **no, allowed=lambda one: one.address == b1) == ("dropped", {"delivery"})
    assert judged(cluster, GOOD, allowed=lambda one: one.address == c1) == ("delivered", {"policy"})
    assert judged(cluster, GOOD, allowed=lambda one: one.address == b1) == ("delivered", set())


def test_a_closed_range_is_silence(cluster: Cluster) -> None:
    services = Services(cluster)
    found = way(services, "lb-closed", BALANCER)
    found = replace(found, service=replace(found.service, source_ranges=(ip_network("2001:db8::/32"),)))
    due = services.due(OUTSIDE_HOST, ip_address("203.0.113.10"), found)
    assert len(due.endpoints) == 2, "a range of the other family says nothing"
