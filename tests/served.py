"""A cluster on paper with a Service of every kind: what tests of Services have in common."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from emulab.model import OUTSIDE_HOST, Topology
from emulab.objects import ContainerPort, EndpointSlice, HostPod, Objects, Service, ServicePort
from emulab.selector import In

PLANES = ("flannel", "calico", "weave")
BY = [("root", "flannel"), ("user", "calico"), ("root", "weave")]  # whose lab, and its plugin
NODES = {"node-a": "192.168.50.1", "node-b": "192.168.50.2", "node-c": "192.168.50.3"}
INTERNET = "203.0.113.10"
HTTP = ServicePort("http", "tcp", 80, 8000)
LABELS = {"b1": "web", "c1": "web", "a2": "self", "b2": "unready", "c2": "one"}


def selecting(app: str) -> In:
    return In("app", (app,))


def service(name: str, address: str, app: str | None, *ports: ServicePort, **values: Any) -> Service:
    selector = selecting(app) if app else None
    made = Service("default", name, addresses=tuple(map(ip_address, address.split())), ports=ports or (HTTP,), selector=selector)
    return replace(made, **values)


def nodeport(number: int, protocol: str = "tcp") -> ServicePort:
    return ServicePort("http", protocol, 80, 8000, number)


def balanced(name: str, address: str, app: str, balancer: str, port: int, **values: Any) -> Service:
    return service(
        name, address, app, nodeport(port), kind="LoadBalancer", balancer=tuple(map(ip_address, balancer.split())), **values
    )


SERVICES = (
    service(
        "web",
        "10.96.1.1 fd00:10:96::101",
        "web",
        ServicePort("named", "tcp", 80, "http"),
        ServicePort("number", "tcp", 81, 8001),
        ServicePort("dns", "udp", 53, 5353),
        families=(4, 6),
    ),
    service("self", "10.96.1.2 fd00:10:96::102", "self", families=(4, 6)),
    service("headless", "10.96.1.3", "web", addresses=()),
    service("np", "10.96.1.4", "web", nodeport(30080), ServicePort("dns", "udp", 53, 5353, 30053), kind="NodePort"),
    balanced("lb", "10.96.1.5 fd00:10:96::105", "web", "198.51.100.5 2001:db8:1::5", 30085, families=(4, 6)),
    balanced("lb-local", "10.96.1.6", "one", "198.51.100.6", 30086, external_local=True),
    balanced("lb-open", "10.96.1.7", "web", "198.51.100.7", 30087, source_ranges=(ip_network("203.0.113.0/25"),)),
    balanced("lb-closed", "10.96.1.8", "web", "198.51.100.8", 30088, source_ranges=(ip_network("198.18.0.0/15"),)),
    balanced("lb-none", "10.96.1.9", "nobody", "198.51.100.9", 30089),
    service("sticky", "10.96.1.10", "web", affinity=10800),
    service("int-local", "10.96.1.11", "one", internal_local=True),
    service("none", "10.96.1.12", "nobody"),
    service("by-hand", "10.96.1.13", None),
    service("host", "10.96.1.14", "host"),
    service("unready", "10.96.1.15", "unready"),
    service("published", "10.96.1.16", "unready", publish_not_ready=True),
    service("host-np", "10.96.1.17", "host", nodeport(30097), kind="NodePort"),
)
SLICES = (EndpointSlice("default", "x", "by-hand", (((ip_address(INTERNET),), True, ""),), (("http", "tcp", 8000),)),)


def with_services(topology: Topology, services: tuple[Service, ...] = SERVICES) -> Topology:
    ports = (ContainerPort(8000, "tcp", "http"), ContainerPort(5353, "udp", "dns"))
    pods = tuple(
        replace(
            pod,
            labels=(("app", LABELS.get(pod.name, "client")), ("emulab.io/responder", "off")),
            ports=ports,
            ready=pod.name != "b2",
        )
        for pod in topology.pods
    )
    host = (HostPod("default", "h", "node-c", (("app", "host"),)),)
    return replace(topology, pods=pods, objects=Objects(services=services, slices=SLICES, host_pods=host))


PORTS = (("tcp", 8000), ("tcp", 8001), ("udp", 5353))
SERVED = [(f"default/{pod}", *port) for pod in LABELS for port in PORTS]
SERVED += [("node-c", "tcp", 8000), (OUTSIDE_HOST, "tcp", 8000)]
