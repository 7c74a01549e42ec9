"""Cluster DNS in a real lab: asked from within pods, through kube-proxy, as resolvers and as programs ask."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from ipaddress import ip_address

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from designed import catalogued
from in_turn import in_turn
from sandboxed import inside

from emulab import change, etc_files, registry
from emulab.control import enter
from emulab.kernel.namespaces import entered
from emulab.kube.system import with_dns
from emulab.lab import Lab
from emulab.model import Topology
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


def pod_addresses(lab: Lab, *names: str) -> set[str]:
    return {str(e.address(4)) for e in lab.cluster.endpoints if e.pod.name in names}


def programs_in_pods_find_services_by_name(lab: Lab) -> None:
    told = {}
    for name in (NAME, "web", "web.default", "pods", "internet", "nobody", "example.com"):
        told[name] = typed(lab, "default/a1", "getent", "ahostsv4", name)
    told["6"] = typed(lab, "default/a1", "getent", "ahostsv6", NAME)
    told["reverse"] = typed(lab, "default/a1", "getent", "hosts", "10.96.1.1")
    found = {name: {line.split()[0] for line in text.splitlines()} for name, (_, text) in told.items()}
    assert {name for name, (code, _) in told.items() if code} == {"nobody", "example.com"}
    assert found[NAME] == found["web"] == found["web.default"] == {"10.96.1.1"}
    assert found["pods"] == pod_addresses(lab, "b1", "c1")
    assert len(found["pods"]) == 2
    assert found["internet"] == {"203.0.113.10"}
    assert found["6"] == {"fd00:10:96::101"}
    assert NAME in told["reverse"][1]


def by_udp_and_tcp_at_the_service_and_at_the_pod(lab: Lab) -> None:
    pod = next(e for e in lab.cluster.endpoints if e.key == "kube-system/coredns")
    for server in ("10.96.0.10", "fd00:10:96::a", *map(str, pod.addresses)):
        for stream in (False, True):
            assert addresses(ask(lab, "default/b2", server, NAME, "A", stream)) == {"10.96.1.1"}, (server, stream)
    srv = ask(lab, "default/a1", "10.96.0.10", f"_http._tcp.{NAME}", "SRV")
    assert addresses(srv) == {f"0 100 80 {NAME}."}
    checks = [Check("default/a1", pod.key, family, p, 53) for family in (4, 6) for p in ("udp", "tcp")]
    verdicts = {outcome.verdict.value for outcome in probe(lab.namespaces, lab.cluster, checks)}
    assert verdicts == {"delivered"}, "probes are answered at its port, too"


def become(lab: Lab, wanted: Topology) -> None:
    lab.change(change.reshape(lab.design, wanted.pods, wanted.objects))


def answers_follow_changes_at_once(lab: Lab) -> None:
    def look(name: str) -> tuple[str, set[str]]:
        server = str(next(e for e in lab.cluster.endpoints if e.key == "kube-system/coredns").addresses[0])
        answer = ask(lab, "default/a1", server, f"{name}.default.svc.cluster.local", "A")
        return dns.rcode.to_text(answer.rcode()), addresses(answer)

    def there() -> bool:
        return any(e.pod.namespace == "kube-system" for e in lab.cluster.endpoints)

    become(lab, topology(()))
    assert not there()
    become(lab, topology(SERVICES[:1]))
    assert [look("web"), look("pods")] == [("NOERROR", {"10.96.1.1"}), ("NXDOMAIN", set())]
    become(lab, topology())
    assert [look("web"), look("pods")] == [("NOERROR", {"10.96.1.1"}), ("NOERROR", pod_addresses(lab, "b1", "c1"))]
    become(lab, replace(topology(), pods=tuple(replace(pod, ready=pod.name != "b1") for pod in topology().pods)))
    assert look("pods") == ("NOERROR", pod_addresses(lab, "c1"))
    become(lab, topology(()))
    assert not there()


def policies_decide_on_questions_too(lab: Lab) -> None:
    """a1 may send nothing, a2 to port 53 only."""
    to_dns = Rule(protocol="udp", destination=Peer(ports=(PortRange(53, 53),)))
    policies = (
        Policy("networking.k8s.io/v1", "NetworkPolicy", "default", "mute", In("who", ("a1",)), directions=(EGRESS,)),
        Policy(
            "networking.k8s.io/v1", "NetworkPolicy", "default", "dns", In("who", ("a2",)), directions=(EGRESS,), egress=(to_dns,)
        ),
    )
    wanted = topology(policies=policies)
    become(lab, replace(wanted, pods=tuple(replace(p, labels=(*p.labels, ("who", p.name))) for p in wanted.pods)))
    for name in ("a2", "c2"):
        assert addresses(ask(lab, f"default/{name}", "10.96.0.10", NAME, "A")) == {"10.96.1.1"}, name
    with pytest.raises(TimeoutError):
        ask(lab, "default/a1", "10.96.0.10", NAME, "A", patience=0.3)


def garbage_leaves_it_alive(lab: Lab) -> None:
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
    for kind in (False, True):
        assert addresses(ask(lab, "default/a1", "10.96.0.10", NAME, "A", kind)) == {"10.96.1.1"}


LABS = {
    ("user", "flannel"): (garbage_leaves_it_alive, by_udp_and_tcp_at_the_service_and_at_the_pod),
    ("root", "calico"): (policies_decide_on_questions_too, answers_follow_changes_at_once),
    ("user", "weave"): (),
}


@pytest.mark.parametrize(("user", "plugin"), LABS)
def test_cluster_dns(user: str, plugin: str) -> None:
    def work() -> None:
        with Lab(design(topology(), registry.options(registry.plugin(plugin), ()))) as lab:
            lab.build()
            in_turn(lab, (*LABS[user, plugin], programs_in_pods_find_services_by_name))

    inside(work, user)
