"""Cluster DNS comes with the first Service, goes with the last one, and leaves what others made as it is."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from designed import catalogued

from emulab import etc_files, registry
from emulab.errors import InputError
from emulab.kube.system import with_dns
from emulab.model import Pod
from emulab.objects import Objects, Service
from emulab.planning import design
from emulab.topology import validate

TOPOLOGY = catalogued("flat")
WEB = Service("default", "web", addresses=(ip_address("10.96.1.1"),))


def names(pods: tuple[Pod, ...]) -> set[str]:
    return {pod.key for pod in pods} - {pod.key for pod in TOPOLOGY.pods}


def test_it_comes_with_the_first_service() -> None:
    pods, objects = with_dns(TOPOLOGY, TOPOLOGY.pods, Objects(services=(WEB,)))
    assert names(pods) == {"kube-system/coredns"}
    assert pods[-1].node == TOPOLOGY.nodes[0].name
    made = objects.services[-1]
    assert [str(address) for address in made.addresses] == ["10.96.0.10", "fd00:10:96::a"]
    assert {(port.name, port.protocol, port.port) for port in made.ports} == {
        ("dns", "udp", 53),
        ("dns-tcp", "tcp", 53),
        ("metrics", "tcp", 9153),
    }
    assert made.selector is not None and made.selector.matches(dict(pods[-1].labels))
    validate(replace(TOPOLOGY, pods=pods, objects=objects))


def test_once_it_is_there_nothing_changes_and_without_services_it_goes() -> None:
    first = with_dns(TOPOLOGY, TOPOLOGY.pods, Objects(services=(WEB,)))
    assert with_dns(TOPOLOGY, *first) == first
    pods, objects = first
    assert with_dns(TOPOLOGY, pods, replace(objects, services=objects.services[1:])) == (TOPOLOGY.pods, Objects())
    assert with_dns(TOPOLOGY, TOPOLOGY.pods, Objects()) == (TOPOLOGY.pods, Objects())


def test_the_first_node_that_runs_has_it_and_keeps_it() -> None:
    first, *others = TOPOLOGY.nodes
    stopped = replace(TOPOLOGY, nodes=(replace(first, running=False), *others))
    pods, objects = with_dns(stopped, TOPOLOGY.pods, Objects(services=(WEB,)))
    assert pods[-1].node == others[0].name
    assert with_dns(TOPOLOGY, pods, objects) == (pods, objects)
    assert with_dns(TOPOLOGY, TOPOLOGY.pods, objects)[0][-1].node == first.name, "its node is gone, and the pod with it"


def test_families_are_the_clusters() -> None:
    four = replace(TOPOLOGY, pod_cidrs=tuple(one for one in TOPOLOGY.pod_cidrs if one.version == 4))
    _, objects = with_dns(four, (), Objects(services=(WEB,)))
    assert ([str(a) for a in objects.services[-1].addresses], objects.services[-1].families) == (["10.96.0.10"], (4,))


def test_what_somebody_made_is_used() -> None:
    own = Pod("coredns-x7", "node-b", "kube-system", labels=(("k8s-app", "kube-dns"),))
    service = Service("kube-system", "kube-dns", addresses=(ip_address("10.96.0.10"),))
    pods, objects = with_dns(TOPOLOGY, (*TOPOLOGY.pods, own), Objects(services=(WEB, service)))
    assert names(pods) == {"kube-system/coredns-x7"}
    assert objects.services == (WEB, service)
    assert names(with_dns(TOPOLOGY, (*pods, Pod("coredns", "node-a", "kube-system", labels=own.labels)), objects)[0]) == {own.key}


def test_its_address_is_its_own() -> None:
    thief = replace(WEB, addresses=(ip_address("10.96.0.10"),))
    with pytest.raises(InputError, match=r"default/web: 10\.96\.0\.10 belongs to Service kube-system/kube-dns"):
        with_dns(TOPOLOGY, TOPOLOGY.pods, Objects(services=(thief,)))


def test_pods_are_told_their_name_server() -> None:
    pods, objects = with_dns(TOPOLOGY, TOPOLOGY.pods, Objects(services=(WEB,)))
    plane = registry.options(registry.plugin("flannel"), ())
    cluster = design(replace(TOPOLOGY, pods=pods, objects=objects), plane).cluster
    search = "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    assert etc_files.of(cluster, "default/a1")["resolv.conf"] == f"nameserver 10.96.0.10\n{search}"
    assert "nameserver" not in etc_files.of(cluster, "node-a")["resolv.conf"]
    plain = design(TOPOLOGY, plane).cluster
    assert etc_files.of(plain, "default/a1")["resolv.conf"] == search
