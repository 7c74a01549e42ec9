"""Services on the real kernel: who answers, as whom the client is seen, and what is refused or dropped."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from sandboxed import AS_ROOT, inside
from talking import Answer, Servers, ask, tally

from emulab import registry
from emulab.lab import Lab
from emulab.model import OUTSIDE_HOST, Topology
from emulab.objects import ContainerPort, EndpointSlice, HostPod, Objects, Service, ServicePort
from emulab.planning import design
from emulab.selector import In

PLANES = ("flannel", "calico", "weave")
USERS = ("root", "user") if AS_ROOT else ("user",)
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
        replace(pod, labels=(("app", LABELS.get(pod.name, "client")),), ports=ports, ready=pod.name != "b2")
        for pod in topology.pods
    )
    host = (HostPod("default", "h", "node-c", (("app", "host"),)),)
    return replace(topology, pods=pods, objects=Objects(services=services, slices=SLICES, host_pods=host))


SERVED = [(f"default/{pod}", protocol, port) for pod in LABELS for protocol, port in (("tcp", 8000), ("tcp", 8001), ("udp", 5353))]
SERVED += [("node-c", "tcp", 8000), (OUTSIDE_HOST, "tcp", 8000)]

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


@lru_cache(maxsize=None)
def answers(plugin: str, user: str) -> dict[str, Answer | str]:
    """What comes of all questions, in one lab."""

    def work() -> dict[str, Answer | str]:
        topology = with_services(registry.topology("flat"))
        with Lab(design(topology, registry.plugin(plugin)())) as lab:
            lab.build()
            lab.prime()
            with closing(Servers(lab.namespaces, SERVED)):
                found: dict[str, Any] = {
                    name: ask(lab.namespaces, named(source), address, port, protocol, 2.0 if name not in SILENT else 0.4)
                    for name, (source, address, port, protocol) in QUESTIONS.items()
                }
                found["sticky"] = tally(lab.namespaces, "default/a1", "10.96.1.10", 80, 24)
                found["spread"] = tally(lab.namespaces, "default/a1", "10.96.1.1", 80, 400)
                found["drift"] = [str(one) for one in lab.drift()]
            return found

    return inside(work, user)  # type: ignore[no-any-return]


SILENT = {"unallocated", "unallocated ipv6", "node unallocated", "local nodeport elsewhere", "ranges denied"}
SILENT |= {"internal local elsewhere"}


if __name__ == "__main__":
    import sys

    for name, answer in answers(*sys.argv[1:3]).items():
        print(f"{name:26} {answer}")
