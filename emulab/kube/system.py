"""What controllers make of a cluster, and what it has of its own: namespaces and, as soon as it has a Service, DNS.  Pure.

As kubeadm installs it (kubernetes/cmd/kubeadm/app/phases/addons/dns/manifests.go), but as one pod instead of a Deployment:
Service ``kube-dns`` at the tenth address of the Services' range, and a pod ``coredns``, both in ``kube-system``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

from emulab.errors import InputError
from emulab.kube.scheduling import reconciled
from emulab.model import Pod, Topology
from emulab.objects import SERVICE_CIDRS, ContainerPort, Namespace, Objects, Service, ServicePort
from emulab.selector import In
from emulab.zone import NAMESPACE, SERVER, SERVER_LABEL, SERVICE

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_TENTH = 10
_PORTS = (
    ContainerPort(53, "udp", "dns"),
    ContainerPort(53, "tcp", "dns-tcp"),
    ContainerPort(9153, "tcp", "metrics"),
)


class Placed(NamedTuple):
    """The pods and objects of a cluster at rest, and which workloads have fewer pods than they want."""

    pods: tuple[Pod, ...]
    objects: Objects
    missing: tuple[str, ...] = ()


def converged(topology: Topology, avoid: Collection[str] = ()) -> Placed:
    """What there is when the controllers have done their work: the workloads' pods, and cluster DNS.

    ``avoid``: keys of pods that have just been deleted, whose names are not given again.
    """
    placed = reconciled(topology, avoid)
    pods, objects = with_dns(topology, placed.pods, replace(topology.objects, host_pods=placed.host_pods))
    return Placed(pods, objects, placed.missing)


def namespaces(topology: Topology) -> dict[str, Namespace]:
    """All namespaces: the system's own, those declared, and those implied by what is in them."""
    objects = topology.objects
    there: list[Any] = [*topology.pods, *objects.host_pods, *objects.workloads, *objects.services, *objects.slices]
    names = {one.namespace for one in [*there, *objects.policies] if one.namespace}
    names |= {*SYSTEM_NAMESPACES, *(one.name for one in objects.namespaces)}
    return {name: objects.namespace(name) for name in sorted(names)}


def with_dns(topology: Topology, pods: tuple[Pod, ...], objects: Objects) -> tuple[tuple[Pod, ...], Objects]:
    """The pods and objects that are to be, with cluster DNS if they have a Service of their own, else without it.

    ``topology`` has the nodes and the families.  A ``kube-dns`` or pods for it that somebody else made stay as they are, and
    the pod stays where it is.  Raises `InputError` when another Service has the address.
    """
    service = _service(topology)
    others = [one for one in objects.services if one != service]
    if not others:
        kept = tuple(pod for pod in pods if not _ours(pod))
        return kept, replace(objects, services=())
    if not any((one.namespace, one.name) == (NAMESPACE, SERVICE) for one in others):
        for one in others:
            if taken := set(one.addresses).intersection(service.addresses):
                raise InputError(f"Service {one.key}: {next(iter(taken))} belongs to Service {service.key}, the cluster's DNS")
        objects = replace(objects, services=(*others, service))
    served = [pod for pod in pods if pod.namespace == NAMESPACE and SERVER_LABEL in pod.labels]
    if any(not _ours(pod) for pod in served):
        return tuple(pod for pod in pods if not _ours(pod)), objects
    node = next((node.name for node in topology.nodes if node.running), None)
    if not served and node is not None:
        pods = (*pods, Pod(SERVER, node, NAMESPACE, labels=(SERVER_LABEL,), ports=_PORTS))
    return pods, objects


def _service(topology: Topology) -> Service:
    families = topology.families
    key, value = SERVER_LABEL
    ports = tuple(ServicePort(port.name, port.protocol, port.number, port.number) for port in _PORTS)
    written = [{"name": p.name, "port": p.port, "protocol": p.protocol.upper(), "targetPort": p.port} for p in ports]
    return Service(
        NAMESPACE,
        SERVICE,
        addresses=tuple(cidr[_TENTH] for cidr in SERVICE_CIDRS if cidr.version in families),
        families=families,
        ports=ports,
        selector=In(key, (value,)),
        labels=(SERVER_LABEL, ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")),
        manifest={"spec": {"selector": {key: value}, "ports": written}},
    )


def _ours(pod: Pod) -> bool:
    return (pod.namespace, pod.name) == (NAMESPACE, SERVER) and not pod.owner and not pod.manifest
