"""Cluster DNS in a real lab: asked from within pods, through kube-proxy, as resolvers and as programs ask."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from designed import catalogued
from sandboxed import inside
from served import BY_OTHERS

from emulab import change, etc_files, registry
from emulab.control import enter
from emulab.kernel.namespaces import entered
from emulab.kube.system import with_dns
from emulab.lab import Lab
from emulab.model import Pod, Topology
from emulab.objects import EGRESS, ContainerPort, Objects, Peer, Policy, PortRange, Rule, Service, ServicePort
from emulab.planning import design
from emulab.probe.ports import Check, probe
from emulab.selector import In

dns.rdatatype.from_text("TYPE1")  # what dnspython imports on demand: an ordinary user may not be able to
for _record in ("A 10.0.0.1", "AAAA ::1", "SRV 0 0 1 a.", "SOA a. b. 1 1 1 1 1", "PTR a.", "CNAME a.", "TXT a", "NS a."):
    dns.rrset.from_text("a.", 1, "IN", *_record.split(maxsplit=1))
dns.message.make_query("a.", "A", use_edns=0).to_wire()

WEB = In("app", ("web",))
SERVICES = (
    Service(
        "default",
        "web",
        addresses=(ip_address("10.96.1.1"), ip_address("fd00:10:96::101")),
        families=(4, 6),
        ports=(ServicePort("http", "tcp", 80, 8000),),
        selector=WEB,
    ),
    Service("default", "pods", families=(4, 6), ports=(ServicePort("http", "tcp", 80, 8000),), selector=WEB),
)
NAME = "web.default.svc.cluster.local"


def topology(services: tuple[Service, ...] = SERVICES, policies: tuple[Policy, ...] = ()) -> Topology:
    """b1 and c1 are "web"."""
    plain = catalogued("flat")
    labels = {"b1": (("app", "web"),), "c1": (("app", "web"),)}
    pods = tuple(replace(pod, labels=labels.get(pod.name, ()), ports=(ContainerPort(8000),)) for pod in plain.pods)
    pods, objects = with_dns(plain, pods, Objects(services=services, policies=policies))
    return replace(plain, pods=pods, objects=objects)


def lab_of(wanted: Topology, plugin: str = "flannel") -> Lab:
    return Lab(design(wanted, registry.options(registry.plugin(plugin), ())))


def typed(lab: Lab, pod: str, *command: str) -> tuple[int, str]:
    """Exit code and output of a command in a pod that has its own /etc, as by `emulab exec`."""
    endpoint = next(e for e in lab.cluster.endpoints if e.key == pod)
    mounts = lab.namespaces[endpoint.node].mounts
    assert mounts is not None
    namespaces = {"net": lab.namespaces[pod].net, "mnt": mounts}
    target = enter.Target(pod, namespaces, endpoint.pod.name, etc_files.of(lab.cluster, pod))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter.join(target)
            os.dup2(write, 1)
            os.execvp(command[0], command)
        finally:
            os._exit(126)
    os.close(write)
    with open(read) as output:
        text = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def ask(
    lab: Lab, source: str, server: str, name: str, type_: str, stream: bool = False, patience: float = 2
) -> dns.message.Message:
    """By sockets of our own in the pod's namespace."""
    query = dns.message.make_query(name, type_)
    with entered(lab.namespaces[source].net):
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        client = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind)
    with client:
        client.settimeout(patience)
        client.connect((server, 53))
        if not stream:
            client.send(query.to_wire())
            return dns.message.from_wire(client.recv(65535))
        client.setblocking(False)
        dns.query.send_tcp(client, query)
        return dns.query.receive_tcp(client)[0]


def addresses(answer: dns.message.Message) -> set[str]:
    return {str(record) for found in answer.answer for record in found}


@pytest.mark.parametrize(("user", "plugin"), BY_OTHERS)
def test_programs_in_pods_find_services_by_name(plugin: str, user: str) -> None:
    def work() -> Any:
        with lab_of(topology(), plugin) as lab:
            lab.build()
            told = {}
            for name in (NAME, "web", "web.default", "pods", "internet", "nobody", "example.com"):
                told[name] = typed(lab, "default/a1", "getent", "ahostsv4", name)
            told["6"] = typed(lab, "default/a1", "getent", "ahostsv6", NAME)
            told["reverse"] = typed(lab, "default/a1", "getent", "hosts", "10.96.1.1")
            return told

    told = inside(work, user)
    found = {name: {line.split()[0] for line in text.splitlines()} for name, (_, text) in told.items()}
    assert {name for name, (code, _) in told.items() if code} == {"nobody", "example.com"}
    assert found[NAME] == found["web"] == found["web.default"] == {"10.96.1.1"}
    assert found["pods"] == {"10.1.2.1", "10.1.3.1"} if plugin == "flannel" else len(found["pods"]) == 2
    assert found["internet"] == {"203.0.113.10"}
    assert found["6"] == {"fd00:10:96::101"}
    assert NAME in told["reverse"][1]


@pytest.mark.parametrize("user", ["user"])
def test_by_udp_and_tcp_at_the_service_and_at_the_pod(user: str) -> None:
    def work() -> Any:
        with lab_of(topology()) as lab:
            lab.build()
            pod = next(e for e in lab.cluster.endpoints if e.key == "kube-system/coredns")
            servers = ["10.96.0.10", "fd00:10:96::a", *map(str, pod.addresses)]
            answers = [ask(lab, "default/b2", server, NAME, "A", stream) for server in servers for stream in (False, True)]
            srv = ask(lab, "default/a1", "10.96.0.10", f"_http._tcp.{NAME}", "SRV")
            checks = [Check("default/a1", pod.key, family, p, 53) for family in (4, 6) for p in ("udp", "tcp")]
            verdicts = {outcome.verdict.value for outcome in probe(lab.namespaces, lab.cluster, checks)}
            return [addresses(answer) for answer in answers], addresses(srv), verdicts

    answers, srv, verdicts = inside(work, user)
    assert answers == [{"10.96.1.1"}] * 8
    assert srv == {f"0 100 80 {NAME}."}
    assert verdicts == {"delivered"}, "probes are answered at its port, too"


@pytest.mark.parametrize("user", ["root"])
def test_answers_follow_changes_at_once(user: str) -> None:
    def work() -> Any:
        with lab_of(topology(())) as lab:
            lab.build()
            assert not any(e.pod.namespace == "kube-system" for e in lab.cluster.endpoints)
            told = []

            def look(*names: str) -> None:
                server = str(next(e for e in lab.cluster.endpoints if e.key == "kube-system/coredns").addresses[0])
                for name in names:
                    answer = ask(lab, "default/a1", server, f"{name}.default.svc.cluster.local", "A")
                    told.append((name, dns.rcode.to_text(answer.rcode()), addresses(answer)))

            def become(wanted: Topology) -> None:
                lab.change(change.reshape(lab.design, wanted.pods, wanted.objects))

            become(topology(SERVICES[:1]))
            look("web", "pods")
            become(topology())
            look("web", "pods")

            def unready(pod: Pod) -> Pod:
                return replace(pod, ready=pod.name != "b1")

            become(replace(topology(), pods=tuple(map(unready, topology().pods))))
            look("pods")
            become(topology(()))
            return told, [e.key for e in lab.cluster.endpoints if e.pod.namespace == "kube-system"]

    told, left = inside(work, user)
    assert told == [
        ("web", "NOERROR", {"10.96.1.1"}),
        ("pods", "NXDOMAIN", set()),
        ("web", "NOERROR", {"10.96.1.1"}),
        ("pods", "NOERROR", {"10.1.2.1", "10.1.3.1"}),
        ("pods", "NOERROR", {"10.1.3.1"}),
    ]
    assert left == []


@pytest.mark.parametrize("user", ["root"])
def test_policies_decide_on_questions_too(user: str) -> None:
    """a1 may send nothing, a2 to port 53 only."""
    to_dns = Rule(protocol="udp", destination=Peer(ports=(PortRange(53, 53),)))
    policies = (
        Policy("networking.k8s.io/v1", "NetworkPolicy", "default", "mute", In("who", ("a1",)), directions=(EGRESS,)),
        Policy(
            "networking.k8s.io/v1", "NetworkPolicy", "default", "dns", In("who", ("a2",)), directions=(EGRESS,), egress=(to_dns,)
        ),
    )
    wanted = topology(policies=policies)
    named = replace(wanted, pods=tuple(replace(p, labels=(*p.labels, ("who", p.name))) for p in wanted.pods))

    def work() -> Any:
        with lab_of(named, "calico") as lab:
            lab.build()
            told = {}
            for name, patience in (("a2", 2.0), ("c2", 2.0), ("a1", 0.3)):
                try:
                    told[name] = addresses(ask(lab, f"default/{name}", "10.96.0.10", NAME, "A", patience=patience))
                except TimeoutError:
                    told[name] = set()
            return told

    assert inside(work, user) == {"a1": set(), "a2": {"10.96.1.1"}, "c2": {"10.96.1.1"}}


@pytest.mark.parametrize("user", ["user"])
def test_garbage_leaves_it_alive(user: str) -> None:
    def work() -> Any:
        with lab_of(topology()) as lab:
            lab.build()
            server = str(next(e for e in lab.cluster.endpoints if e.key == "kube-system/coredns").addresses[0])
            with entered(lab.namespaces["default/a1"].net):
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.connect((server, 53))
            wire = dns.message.make_query(NAME, "A").to_wire()
            for number in range(4_000):
                client.send(os.urandom(number % 90) if number % 2 else wire[: number % len(wire)] + os.urandom(number % 7))
            client.close()
            for number in range(200):
                with entered(lab.namespaces["default/a1"].net):
                    stream = socket.create_connection((server, 53))
                stream.send(os.urandom(number))
                stream.close()
            answers = [ask(lab, "default/a1", "10.96.0.10", NAME, "A", stream) for stream in (False, True)]
            return [addresses(answer) for answer in answers]

    assert inside(work, user) == [{"10.96.1.1"}] * 2
