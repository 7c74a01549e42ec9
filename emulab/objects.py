"""What was asked for in Kubernetes' words, as frozen values: namespaces, workloads, Services, policies.

They come from manifests (`emulab.kube`) and are in effect through a cluster's plan.  ``manifest`` is the object as it was
written, for those who want to see it again.  Protocols are in lower case, as everywhere in emulab.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Union

from emulab.selector import Everything, Selector

IPAddress = Union[IPv4Address, IPv6Address]
IPNetwork = Union[IPv4Network, IPv6Network]
Labels = tuple[tuple[str, str], ...]
Manifest = Mapping[str, Any]

SERVICE_CIDRS: tuple[IPNetwork, ...] = (
    IPv4Network("10.96.0.0/12"),
    IPv6Network("fd00:10:96::/112"),
)  # kubeadm's; a Service's own
BALANCER_POOLS: tuple[IPNetwork, ...] = (
    IPv4Network("198.51.100.0/24"),  # TEST-NET-2, RFC 5737
    IPv6Network("2001:db8:1b::/64"),  # in the documentation prefix, RFC 3849
)
NODE_PORTS = range(30000, 32768)
METADATA_NAME = "kubernetes.io/metadata.name"  # set by the API server on every namespace, whatever its manifest says
INGRESS, EGRESS = "ingress", "egress"
DEFAULT_TIER = "default"


@dataclass(frozen=True)
class ContainerPort:
    """A port at which a pod's container listens; ``host_port`` 0: it is not published on the node."""

    number: int
    protocol: str = "tcp"
    name: str = ""
    host_port: int = 0
    host_ip: str = ""


@dataclass(frozen=True)
class Namespace:
    """``labels`` as written; `all_labels` has the one that the system sets, too."""

    name: str
    labels: Labels = ()
    manifest: Manifest = field(default_factory=dict, compare=False)

    @cached_property
    def all_labels(self) -> dict[str, str]:
        return {**dict(self.labels), METADATA_NAME: self.name}


@dataclass(frozen=True)
class PodTemplate:
    """What a workload's pods are like."""

    labels: Labels = ()
    ports: tuple[ContainerPort, ...] = ()
    node_selector: Labels = ()
    node_name: str = ""
    host_network: bool = False
    annotations: Labels = ()
    hostname: str = ""
    subdomain: str = ""


@dataclass(frozen=True)
class Workload:
    """A Deployment (``replicas`` pods) or a DaemonSet (one per node that its node selector matches).

    A pod of it whose labels ``selector`` no longer matches is nobody's, and another takes its place.
    """

    kind: str
    namespace: str
    name: str
    template: PodTemplate
    replicas: int = 1
    labels: Labels = ()
    selector: Selector = field(default_factory=Everything)
    manifest: Manifest = field(default_factory=dict)


@dataclass(frozen=True)
class HostPod:
    """A pod with ``hostNetwork: true``: its addresses are its node's, no data plane knows of it."""

    namespace: str
    name: str
    node: str
    labels: Labels = ()
    ports: tuple[ContainerPort, ...] = ()
    ready: bool = True
    owner: str = ""
    manifest: Manifest = field(default_factory=dict, compare=False, repr=False)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class ServicePort:
    """``target`` is a port of the pods: a number, or the name under which each pod declares one.  ``node_port`` 0: none."""

    name: str
    protocol: str
    port: int
    target: int | str
    node_port: int = 0


@dataclass(frozen=True)
class Service:
    """A Service with everything allocated.

    ``kind`` is ClusterIP, NodePort, LoadBalancer or ExternalName; a headless one has no ``addresses``.  ``balancer``
    holds the load balancer's addresses; ``affinity`` is the ClientIP timeout in seconds, 0: none.  ``selector`` None:
    its endpoints are the `EndpointSlice` objects that name it.
    """

    namespace: str
    name: str
    kind: str = "ClusterIP"
    addresses: tuple[IPAddress, ...] = ()
    families: tuple[int, ...] = (4,)
    ports: tuple[ServicePort, ...] = ()
    selector: Selector | None = None
    affinity: int = 0
    external_local: bool = False
    internal_local: bool = False
    balancer: tuple[IPAddress, ...] = ()
    source_ranges: tuple[IPNetwork, ...] = ()
    external_name: str = ""
    publish_not_ready: bool = False
    labels: Labels = ()
    manifest: Manifest = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class EndpointSlice:
    """Endpoints that somebody wrote by hand: (addresses, ready, node name or "") and (name, protocol, port) each."""

    namespace: str
    name: str
    service: str
    endpoints: tuple[tuple[tuple[IPAddress, ...], bool, str], ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()
    labels: Labels = ()
    manifest: Manifest = field(default_factory=dict)


@dataclass(frozen=True)
class PortRange:
    """``low`` to ``high``, both included; or the port that each destination pod calls ``name``."""

    low: int = 0
    high: int = 0
    name: str = ""


@dataclass(frozen=True)
class Peer:
    """One side of a rule: all conditions must hold, those that are None or empty do not matter.

    ``pods`` and ``namespaces`` select pods, never anything outside of the cluster.  With ``pods`` alone a namespaced
    policy means its own namespace; ``namespaces`` alone means all pods in them.  ``nets`` are any addresses, pods' as well.
    """

    pods: Selector | None = None
    namespaces: Selector | None = None
    not_pods: Selector | None = None
    nets: tuple[IPNetwork, ...] = ()
    not_nets: tuple[IPNetwork, ...] = ()
    ports: tuple[PortRange, ...] = ()
    not_ports: tuple[PortRange, ...] = ()

    @property
    def anybody(self) -> bool:
        """Whether any address at all is meant."""
        return self.pods is None and self.namespaces is None and self.not_pods is None and not self.nets and not self.not_nets


@dataclass(frozen=True)
class Rule:
    """Packets from ``source`` to ``destination`` meet ``action``: allow, deny, pass or log.

    ``protocol`` None: any.  ``origin`` says where it was written: "ingress[0].from[1]".
    """

    action: str = "allow"
    protocol: str | None = None
    not_protocol: str | None = None
    family: int | None = None
    source: Peer = Peer()
    destination: Peer = Peer()
    icmp: tuple[int, int | None] | None = None  # type and code
    origin: str = ""


@dataclass(frozen=True)
class Policy:
    """A NetworkPolicy of Kubernetes, or Calico's own NetworkPolicy or GlobalNetworkPolicy.

    It applies to the pods that ``selector`` matches: in its ``namespace``, or, where that is "" (global), in the
    namespaces that ``namespaces`` matches.  ``directions`` holds "ingress", "egress" or both.  ``order`` decides within a
    ``tier``, lowest first, ties by name; a Kubernetes policy has 1000 and is in the default tier.
    """

    api: str  # "networking.k8s.io/v1" or "projectcalico.org/v3"
    kind: str
    namespace: str
    name: str
    selector: Selector = field(default_factory=Everything)
    namespaces: Selector | None = None
    directions: tuple[str, ...] = (INGRESS,)
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    tier: str = DEFAULT_TIER
    order: float = 1000.0
    labels: Labels = ()
    manifest: Manifest = field(default_factory=dict)

    @property
    def key(self) -> str:
        """``default/web``, or the bare name of a global policy."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def kubernetes(self) -> bool:
        return self.api == "networking.k8s.io/v1"


@dataclass(frozen=True)
class Tier:
    """Calico's groups of policies; ``default_action`` is what meets packets that no policy of the tier decided on."""

    name: str
    order: float
    default_action: str = "deny"
    labels: Labels = ()
    manifest: Manifest = field(default_factory=dict)


@dataclass(frozen=True)
class Objects:
    """Everything that was asked for, but for pods and nodes: those are a `emulab.model.Topology`'s."""

    namespaces: tuple[Namespace, ...] = ()
    workloads: tuple[Workload, ...] = ()
    host_pods: tuple[HostPod, ...] = ()
    services: tuple[Service, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    policies: tuple[Policy, ...] = ()
    tiers: tuple[Tier, ...] = ()

    @cached_property
    def _namespaces(self) -> dict[str, Namespace]:
        return {namespace.name: namespace for namespace in self.namespaces}

    def namespace(self, name: str) -> Namespace:
        """The namespace, declared or implied by what is in it."""
        return self._namespaces.get(name) or Namespace(name)
