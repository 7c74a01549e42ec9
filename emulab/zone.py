"""What the cluster's DNS knows: Kubernetes DNS-Based Service Discovery, schema 1.1.0 (kubernetes/dns, docs/specification.md).

Pure: names and records as text.  Where the specification leaves a choice, it is CoreDNS' (plugin/kubernetes): endpoints
without a host name are called by their address with dashes, and a headless Service without ready endpoints has no name.
Pods have the names that CoreDNS calls verified: an address in a namespace is answered if a pod there has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from ipaddress import IPv6Address
from typing import Any, NamedTuple

from emulab.endpoints import Backend, Backends
from emulab.model import OUTSIDE_ADDRESSES, OUTSIDE_HOST, Cluster, IPAddress
from emulab.objects import Service, ServicePort

DOMAIN = "cluster.local"
TTL = 30  # seconds: kubeadm's Corefile
NAMESPACE, SERVICE, SERVER = "kube-system", "kube-dns", "coredns"
PORT = 53
SERVER_LABEL = ("k8s-app", "kube-dns")
NOERROR, NXDOMAIN, REFUSED = "NOERROR", "NXDOMAIN", "REFUSED"
_VERSION = '"1.1.0"'
_REVERSE = ("in-addr.arpa", "ip6.arpa")
_LONGEST_CHAIN = 8  # aliases followed


class Record(NamedTuple):
    """``name`` without the last dot, in lower case; ``text`` as a zone file has it, names in it with the last dot."""

    name: str
    type: str
    text: str


class Answer(NamedTuple):
    """``code`` NOERROR without ``records``: the name exists, but has none of the type.

    ``additional`` are the addresses of what SRV records name; ``authority`` is the SOA of a zone that has no answer.
    """

    code: str
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()


class Zone:
    """The names of one cluster.  They are collected at the first question."""

    def __init__(self, cluster: Cluster, serial: int = 1) -> None:
        self._cluster, self._serial = cluster, serial

    def answer(self, name: str, type_: str) -> Answer:
        """The answer to a question; ``type_`` is "A", "SRV", or "ANY" for all of them.

        A name that nobody here is responsible for is refused: there is no name server beyond this one.
        """
        name = name.rstrip(".").lower()
        if not self.responsible(name):
            return Answer(REFUSED)
        found: list[Record] = []
        for _ in range(_LONGEST_CHAIN):
            types = self._records.get(name, {})
            wanted = [Record(name, kind, text) for kind in types if type_ in (kind, "ANY") for text in types[kind]]
            found += wanted
            if wanted or "CNAME" not in types:
                break
            target = types["CNAME"][0]
            found.append(Record(name, "CNAME", target))
            name = target.rstrip(".")
            if not self.responsible(name):  # whoever asks may ask somebody else
                return Answer(NOERROR, tuple(found))
        exists = name in self._records or name in self._within
        if any(record.type != "CNAME" for record in found) or (type_ == "CNAME" and found):
            return Answer(NOERROR, tuple(found), tuple(self._named(found)))
        return Answer(NOERROR if exists else NXDOMAIN, tuple(found), (), (self._authority(name),))

    def responsible(self, name: str) -> bool:
        return name == OUTSIDE_HOST or any(name == one or name.endswith(f".{one}") for one in (DOMAIN, *_REVERSE))

    def _authority(self, name: str) -> Record:
        zone = next((one for one in (DOMAIN, *_REVERSE) if name == one or name.endswith(f".{one}")), name)
        times = f"{self._serial} 7200 1800 86400 {TTL}"  # CoreDNS' refresh, retry, expire; how long "no" may be remembered
        return Record(zone, "SOA", f"ns.dns.{DOMAIN}. hostmaster.{DOMAIN}. {times}")

    def _named(self, found: Iterable[Record]) -> Iterator[Record]:
        for target in dict.fromkeys(one.text.split()[3].rstrip(".") for one in found if one.type == "SRV"):
            types = self._records.get(target, {})
            yield from (Record(target, kind, text) for kind in ("A", "AAAA") for text in types.get(kind, ()))

    @cached_property
    def _records(self) -> dict[str, dict[str, list[str]]]:
        """Texts by name and type, each once, in the order of the cluster."""
        table: dict[str, dict[str, dict[str, None]]] = {}
        for name, kind, text in self._all():
            table.setdefault(name.lower(), {}).setdefault(kind, {})[text] = None
        return {name: {kind: list(_weighed(kind, texts)) for kind, texts in types.items()} for name, types in table.items()}

    @cached_property
    def _within(self) -> set[str]:
        """Names without records that have names below them, and those of namespaces: they exist (RFC 8020)."""
        topology = self._cluster.topology
        objects = topology.objects
        there: list[Any] = [*topology.pods, *objects.host_pods, *objects.services, *objects.workloads, *objects.policies]
        spaces = {"default", *(one.namespace for one in there), *(one.name for one in objects.namespaces)} - {""}
        names = [*self._records, *(f"{space}.{kind}.{DOMAIN}" for space in spaces for kind in ("svc", "pod"))]
        return {name[at + 1 :] for name in names for at, character in enumerate(name) if character == "."}.union(names)

    def _all(self) -> Iterator[Record]:
        yield Record(DOMAIN, "SOA", self._authority(DOMAIN).text)
        yield Record(DOMAIN, "NS", f"ns.dns.{DOMAIN}.")
        yield Record(f"dns-version.{DOMAIN}", "TXT", _VERSION)
        for address in OUTSIDE_ADDRESSES:
            yield _address(OUTSIDE_HOST, address.ip)
        backends = Backends(self._cluster)
        for service in self._cluster.topology.objects.services:
            yield from self._service(service, backends)
        for endpoint in self._cluster.endpoints:
            for own in endpoint.addresses:
                yield _address(f"{_dashed(own)}.{endpoint.pod.namespace}.pod.{DOMAIN}", own)
        topology = self._cluster.topology
        for pod in topology.objects.host_pods:
            for family in (4, 6):
                own = topology.underlay_address(pod.node, family)
                yield _address(f"{_dashed(own)}.{pod.namespace}.pod.{DOMAIN}", own)

    def _service(self, service: Service, backends: Backends) -> Iterator[Record]:
        name = f"{service.name}.{service.namespace}.svc.{DOMAIN}"
        if (service.namespace, service.name) == (NAMESPACE, SERVICE):
            yield from (_address(f"ns.dns.{DOMAIN}", address) for address in service.addresses)
        if service.kind == "ExternalName":
            yield Record(name, "CNAME", f"{service.external_name.lower()}.")
            return
        for address in service.addresses:
            yield _address(name, address)
            yield Record(_reversed(address), "PTR", f"{name}.")
            for port in service.ports:
                yield from _srv(name, port, port.port, name)
        if not service.addresses:
            for port in (ServicePort("", "tcp", 0, 0), *service.ports):  # an endpoint is one whatever ports it has
                for backend in backends.of(service, port):
                    if backend.ready:
                        yield from self._endpoint(service, name, port, backend)

    def _endpoint(self, service: Service, name: str, port: ServicePort, backend: Backend) -> Iterator[Record]:
        hostname = self._hostnames.get((backend.pod, service.name), "")
        own = f"{hostname or _dashed(backend.address)}.{name}"
        yield _address(name, backend.address)
        yield _address(own, backend.address)
        yield from _srv(name, port, backend.port, own)
        if hostname:
            yield Record(_reversed(backend.address), "PTR", f"{own}.")

    @cached_property
    def _hostnames(self) -> dict[tuple[str, str], str]:
        """The host names that pods have as endpoints of the Service that is their subdomain (pod key, Service name)."""
        pods = (endpoint.pod for endpoint in self._cluster.endpoints)
        return {(pod.key, pod.subdomain): pod.hostname for pod in pods if pod.hostname and pod.subdomain}


def _address(name: str, address: IPAddress) -> Record:
    return Record(name, "A" if address.version == 4 else "AAAA", str(address))


def _srv(name: str, port: ServicePort, number: int, target: str) -> Iterator[Record]:
    """A port without a name has none."""
    if port.name:
        yield Record(f"_{port.name}._{port.protocol}.{name}", "SRV", f"0 {{weight}} {number} {target}.")


def _weighed(kind: str, texts: Collection[str]) -> Iterator[str]:
    """Priority 0; the endpoints share a weight of 100 (CoreDNS' plugin/backend_lookup.go)."""
    weight = max(1, 100 // len(texts))
    return (text.format(weight=weight) for text in texts) if kind == "SRV" else iter(texts)


def _dashed(address: IPAddress) -> str:
    """1-2-3-4, fd00-10--5: two colons are two dashes, and none is a label's first character (CoreDNS' endpointHostname)."""
    text = str(address).replace(".", "-").replace(":", "-")
    if not isinstance(address, IPv6Address):
        return text
    return f"{'0' if text.startswith('-') else ''}{text}{'0' if text.endswith('-') else ''}"


def _reversed(address: IPAddress) -> str:
    return address.reverse_pointer
