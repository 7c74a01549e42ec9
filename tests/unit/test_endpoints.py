"""Which pods and addresses are behind a Service."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from tables import each_row

from emulab.endpoints import Backend, endpoints
from emulab.model import Cluster, Endpoint, Node, Pod, Segment, Topology
from emulab.model import Link as Uplink
from emulab.objects import ContainerPort, EndpointSlice, HostPod, Objects, Service, ServicePort
from emulab.selector import In

WEB = In("app", ("web",))
LABELS = (("app", "web"),)
HTTP = ServicePort("http", "tcp", 80, 8080)
NAMED = ServicePort("http", "tcp", 80, "web")
SERVICE = Service("default", "web", ports=(HTTP,), selector=WEB)
NODES = ("n1", "n2")


def pod(name: str, node: str = "n1", address: str = "10.0.0.2", **values: object) -> Endpoint:
    made = Pod(name, node, labels=LABELS)
    return Endpoint(replace(made, **values), tuple(ip_address(a) for a in address.split()))  # type: ignore[arg-type]


def cluster(*found: Endpoint, objects: Objects | None = None, off: str = "") -> Cluster:
    links = tuple(
        Uplink(n, "lan", addresses=(ip_interface(f"192.168.0.{i}/24"), ip_interface(f"fd00::{i}/64")))
        for i, n in enumerate(NODES, 1)
    )
    nodes = tuple(Node(name, running=name != off) for name in NODES)
    segment = Segment("lan", (ip_network("192.168.0.0/24"), ip_network("fd00::/64")))
    pods = tuple(one.pod for one in found)
    return Cluster(Topology("t", (segment,), nodes, links, pods, (), objects=objects or Objects()), (), found)


def behind(c: Cluster, service: Service = SERVICE, port: ServicePort = HTTP) -> list[str]:
    """``address:port node pod``, in brackets what is not ready."""
    shown = []
    for one in endpoints(c, service, port):
        said = f"{one.address}:{one.port} {one.node} {one.pod}".rstrip()
        shown.append(said if one.ready else f"({said})")
    return shown


@each_row(
    "found, expected",
    [
        ((), []),
        ((pod("a"),), ["10.0.0.2:8080 n1 default/a"]),
        ((pod("a", labels=()),), []),
        ((pod("a", namespace="other"),), []),
        ((pod("a", ready=False),), ["(10.0.0.2:8080 n1 default/a)"]),
        ((pod("a", "n2"),), ["(10.0.0.2:8080 n2 default/a)"]),
        ((pod("a", address="10.0.0.2 fd01::2"),), ["10.0.0.2:8080 n1 default/a"]),
    ],
    ids=["no pods", "selected", "not selected", "of another namespace", "unready", "on a node that is off", "one family of two"],
)
def test_pods(found: tuple[Endpoint, ...], expected: list[str]) -> None:
    assert behind(cluster(*found, off="n2")) == expected


def test_both_families() -> None:
    c = cluster(pod("a", address="10.0.0.2 fd01::2"))
    assert behind(c, replace(SERVICE, families=(4, 6))) == ["10.0.0.2:8080 n1 default/a", "fd01::2:8080 n1 default/a"]


def test_a_named_port_is_each_pods_own_and_has_a_protocol() -> None:
    ports = [(ContainerPort(81, "tcp", "web"),), (ContainerPort(82, "udp", "web"), ContainerPort(83, "tcp", "web")), ()]
    c = cluster(*(pod(f"p{i}", address=f"10.0.0.{i}", ports=p) for i, p in enumerate(ports)))
    assert behind(c, port=NAMED) == ["10.0.0.0:81 n1 default/p0", "10.0.0.1:83 n1 default/p1"]


def test_pods_of_the_host_network_have_their_nodes_address() -> None:
    c = cluster(objects=Objects(host_pods=(HostPod("default", "h", "n2", LABELS),)))
    assert behind(c) == ["192.168.0.2:8080 n2 default/h"]
    assert behind(c, replace(SERVICE, families=(6,))) == ["fd00::2:8080 n2 default/h"]


def test_unready_addresses_can_be_published() -> None:
    c = cluster(pod("a", ready=False), off="n1")
    assert behind(c, replace(SERVICE, publish_not_ready=True)) == ["10.0.0.2:8080 n1 default/a"]


def test_slices_by_hand() -> None:
    there = ((ip_address("203.0.113.10"), ip_address("fd09::1")), True, "")
    slices = (
        EndpointSlice("default", "one", "web", (there, ((ip_address("10.0.0.9"),), False, "n2")), (("http", "tcp", 9376),)),
        EndpointSlice("default", "two", "web", (there,), (("http", "udp", 1), ("dns", "tcp", 2))),
        EndpointSlice("default", "three", "db", (there,), (("http", "tcp", 3),)),
        EndpointSlice("other", "four", "web", (there,), (("http", "tcp", 4),)),
    )
    c = cluster(pod("a"), objects=Objects(slices=slices))
    assert behind(c, replace(SERVICE, selector=None)) == ["203.0.113.10:9376", "(10.0.0.9:9376 n2)"]


def test_a_backend_is_a_tuple() -> None:
    found = endpoints(cluster(pod("a")), SERVICE, HTTP)
    assert found == [(ip_address("10.0.0.2"), 8080, True, "n1", "default/a")]
    assert found == [Backend(ip_address("10.0.0.2"), 8080, True, "n1", "default/a")]
