"""The cluster's names, as the DNS specification for Kubernetes has them (schema 1.1.0)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from designed import FLANNEL, planned
from tables import each_row

from emulab.model import Cluster
from emulab.objects import ContainerPort, EndpointSlice, HostPod, Namespace, Objects, Service, ServicePort
from emulab.selector import In
from emulab.zone import Zone

WEB = In("app", ("web",))
HTTP = ServicePort("http", "tcp", 80, "web")


def service(name: str, addresses: str = "", **values: object) -> Service:
    made = Service("default", name, addresses=tuple(map(ip_address, addresses.split())), families=(4, 6), ports=(HTTP,))
    return replace(made, **values)  # type: ignore[arg-type]


OBJECTS = Objects(
    namespaces=(Namespace("empty"),),
    host_pods=(HostPod("kube-system", "proxy", "node-a", (("app", "web"),)),),
    services=(
        replace(service("kube-dns", "10.96.0.10 fd00:10:96::a"), namespace="kube-system"),
        service("web", "10.96.1.1 fd00:10:96::101", selector=WEB, ports=(HTTP, ServicePort("dns", "udp", 53, 53))),
        service("one", "10.96.1.2", selector=WEB, ports=(ServicePort("", "tcp", 80, 80),)),
        service("group", selector=WEB),
        service("four", selector=WEB, families=(4,)),
        service("portless", selector=WEB, ports=()),
        service("asleep", selector=In("app", ("asleep",))),
        service("early", selector=In("app", ("asleep",)), publish_not_ready=True),
        service("nobody", selector=In("app", ("nobody",))),
        service("by-hand"),
        service("far", kind="ExternalName", external_name="Example.COM", ports=()),
        service("near", kind="ExternalName", external_name="web.default.svc.cluster.local", ports=()),
        service("round", kind="ExternalName", external_name="round.default.svc.cluster.local", ports=()),
        service("out", kind="ExternalName", external_name="internet", ports=()),
        service("lost", kind="ExternalName", external_name="none.default.svc.cluster.local", ports=()),
    ),
    slices=(
        EndpointSlice("default", "x", "by-hand", (((ip_address("192.0.2.7"),), True, ""),), (("http", "tcp", 8000),)),
        EndpointSlice("default", "y", "by-hand", (((ip_address("192.0.2.8"),), False, ""),), (("http", "tcp", 8000),)),
    ),
)


@pytest.fixture(scope="module")
def zone() -> Zone:
    """b1 and c1 are "web", c1 with a host name in "group"; a2 is not ready."""
    return Zone(cluster(OBJECTS), serial=7)


def cluster(objects: Objects) -> Cluster:
    made, _, _ = planned(*FLANNEL)
    labels = {"b1": "web", "c1": "web", "a2": "asleep"}
    names = {"c1": ("db-0", "group"), "b1": ("db-1", "elsewhere")}
    endpoints = []
    for endpoint in made.endpoints:
        hostname, subdomain = names.get(endpoint.pod.name, ("", ""))
        pod = replace(
            endpoint.pod,
            labels=(("app", labels.get(endpoint.pod.name, "client")),),
            ports=(ContainerPort(8000, "tcp", "web"),),
            ready=endpoint.pod.name != "a2",
            hostname=hostname,
            subdomain=subdomain,
        )
        endpoints.append(replace(endpoint, pod=pod))
    topology = replace(made.topology, objects=objects, pods=tuple(endpoint.pod for endpoint in endpoints))
    return replace(made, topology=topology, endpoints=tuple(endpoints))


D = "default.svc.cluster.local"
B1 = "fd00-10-1-1--2"  # how the IPv6 address of b1 is called
ANSWERS: dict[tuple[str, str], list[str]] = {
    ("dns-version.cluster.local", "TXT"): ['"1.1.0"'],
    ("cluster.local", "SOA"): ["ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 30"],
    ("cluster.local", "NS"): ["ns.dns.cluster.local."],
    ("ns.dns.cluster.local", "A"): ["10.96.0.10"],
    (f"web.{D}", "A"): ["10.96.1.1"],
    (f"web.{D}.", "A"): ["10.96.1.1"],
    (f"WEB.{D}", "A"): ["10.96.1.1"],
    (f"web.{D}", "AAAA"): ["fd00:10:96::101"],
    (f"web.{D}", "ANY"): ["10.96.1.1", "fd00:10:96::101"],
    (f"_http._tcp.web.{D}", "SRV"): [f"0 100 80 web.{D}."],
    (f"_dns._udp.web.{D}", "SRV"): [f"0 100 53 web.{D}."],
    ("1.1.96.10.in-addr.arpa", "PTR"): [f"web.{D}."],
    ("1.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa", "PTR"): [f"web.{D}."],
    (f"group.{D}", "A"): ["10.1.2.1", "10.1.3.1"],
    (f"db-0.group.{D}", "A"): ["10.1.3.1"],
    (f"10-1-2-1.group.{D}", "A"): ["10.1.2.1"],
    (f"four.{D}", "A"): ["10.1.2.1", "10.1.3.1"],
    (f"10-1-3-1.four.{D}", "A"): ["10.1.3.1"],
    (f"portless.{D}", "A"): ["10.1.2.1", "10.1.3.1"],
    (f"early.{D}", "A"): ["10.1.1.2"],
    (f"by-hand.{D}", "A"): ["192.0.2.7"],
    (f"_http._tcp.by-hand.{D}", "SRV"): [f"0 100 8000 192-0-2-7.by-hand.{D}."],
    (f"_http._tcp.four.{D}", "SRV"): [f"0 50 8000 10-1-2-1.four.{D}.", f"0 50 8000 10-1-3-1.four.{D}."],
    ("1.3.1.10.in-addr.arpa", "PTR"): [f"db-0.group.{D}."],
    (f"far.{D}", "A"): ["example.com."],
    (f"far.{D}", "CNAME"): ["example.com."],
    (f"near.{D}", "A"): [f"web.{D}.", "10.96.1.1"],
    (f"out.{D}", "AAAA"): ["internet.", "2001:db8:ffff::10"],
    ("internet", "A"): ["203.0.113.10"],
    ("10-1-2-1.default.pod.cluster.local", "A"): ["10.1.2.1"],
    ("192-168-50-1.kube-system.pod.cluster.local", "A"): ["192.168.50.1"],
}


@each_row("name, type_", ANSWERS)
def test_answers(name: str, type_: str, zone: Zone) -> None:
    found = zone.answer(name, type_)
    assert (found.code, [record.text for record in found.records]) == ("NOERROR", ANSWERS[name, type_])
    assert found.authority == ()


NO_DATA = [
    (f"web.{D}", "MX"),
    (f"one.{D}", "AAAA"),
    (f"four.{D}", "AAAA"),
    (f"_http._tcp.web.{D}", "A"),
    (f"_tcp.web.{D}", "SRV"),
    (D, "A"),
    ("svc.cluster.local", "A"),
    ("pod.cluster.local", "A"),
    ("cluster.local", "A"),
    ("empty.svc.cluster.local", "A"),
    ("empty.pod.cluster.local", "AAAA"),
    ("10-1-2-1.default.pod.cluster.local", "AAAA"),
    ("in-addr.arpa", "PTR"),
    ("96.10.in-addr.arpa", "PTR"),
    ("internet", "SRV"),
    (f"near.{D}", "MX"),
    (f"round.{D}", "A"),
]
NO_NAME = [
    (f"missing.{D}", "A"),
    ("web.other.svc.cluster.local", "A"),
    ("missing.svc.cluster.local", "A"),
    ("web.default.cluster.local", "A"),
    ("web.cluster.local", "A"),
    (f"asleep.{D}", "A"),
    (f"nobody.{D}", "A"),
    (f"10-1-1-2.asleep.{D}", "A"),
    (f"10-1-3-1.group.{D}", "A"),
    (f"db-1.group.{D}", "A"),
    (f"_http._tcp.one.{D}", "SRV"),
    (f"_http._udp.web.{D}", "SRV"),
    (f"_https._tcp.web.{D}", "SRV"),
    ("10-9-9-9.default.pod.cluster.local", "A"),
    ("10-1-2-1.kube-system.pod.cluster.local", "A"),
    ("9.9.9.10.in-addr.arpa", "PTR"),
    ("1.2.1.10.in-addr.arpa", "PTR"),
    (f"lost.{D}", "A"),
    ("x.internet.cluster.local", "A"),
]
REFUSED = [("example.com", "A"), ("", "NS"), ("local", "SOA"), ("notcluster.local", "A"), ("x.internet", "A")]


@each_row(
    "name, type_, code",
    [(*one, "NOERROR") for one in NO_DATA] + [(*one, "NXDOMAIN") for one in NO_NAME] + [(*one, "REFUSED") for one in REFUSED],
)
def test_what_is_not_there(name: str, type_: str, code: str, zone: Zone) -> None:
    found = zone.answer(name, type_)
    assert (found.code, [record for record in found.records if record.type != "CNAME"]) == (code, [])
    assert [record.type for record in found.authority] == ([] if code == "REFUSED" else ["SOA"])


def test_what_srv_records_name_comes_with_them(zone: Zone) -> None:
    found = zone.answer(f"_http._tcp.group.{D}", "SRV")
    assert [record.text for record in found.records] == [f"0 33 8000 {one}.group.{D}." for one in ("10-1-2-1", B1, "db-0")]
    targets = {record.text.split()[3].rstrip(".") for record in found.records}
    assert {record.name for record in found.additional} == targets
    assert {record.text for record in found.additional if record.name.startswith("db-0")} > {"10.1.3.1"}


def test_a_weight_is_shared() -> None:
    for count in (1, 2, 3, 150):
        addresses = tuple(((ip_address(f"192.0.2.{n}"),), True, "") for n in range(1, count + 1))
        objects = Objects(
            services=(service("many"),), slices=(EndpointSlice("default", "x", "many", addresses, (("http", "tcp", 80),)),)
        )
        found = Zone(cluster(objects)).answer(f"_http._tcp.many.{D}", "SRV")
        assert [int(record.text.split()[1]) for record in found.records] == [max(1, 100 // count)] * count


def test_addresses_as_labels() -> None:
    from emulab.zone import _dashed

    assert [_dashed(ip_address(text)) for text in ("10.1.2.3", "fd00:10::5", "::5", "fd00::")] == [
        "10-1-2-3",
        "fd00-10--5",
        "0--5",
        "fd00--0",
    ]
