"""Endpoints and EndpointSlices as the controllers make them of Services: what can be looked at only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emulab.endpoints import Backends
from emulab.kube.document import Kind
from emulab.kube.scheduling import generated
from emulab.kube.services import CONTROLLER, MANAGED_BY, SERVICE_NAME
from emulab.model import Cluster, IPAddress
from emulab.objects import Service, ServicePort

ENDPOINTS = Kind("v1", "Endpoints", "endpoints", ("ep",), lambda: object, lambda _: None)
_MOST_ENDPOINTS = 3  # that a table shows, as kubectl's does
_ANY_PORT = ServicePort("", "tcp", 0, 0)  # where a headless Service has none


def endpoint_texts(cluster: Cluster, service: Service) -> list[str]:
    """``10.1.1.2:8080`` for every ready endpoint and port, in the Service's first family."""
    found = []
    for port in service.ports or (_ANY_PORT,):
        for one in Backends(cluster).of(service, port):
            if one.ready and one.address.version == service.families[0]:
                address = f"[{one.address}]" if one.address.version == 6 and port.port else str(one.address)
                found.append(f"{address}:{one.port}" if port.port else address)
    return found


def few(texts: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" + {len(texts) - _MOST_ENDPOINTS} more..." if len(texts) > _MOST_ENDPOINTS else ""
    return ",".join(texts[:_MOST_ENDPOINTS]) + more if texts else "<none>"


def endpoints_cells(cluster: Cluster, service: Service) -> dict[str, str]:
    return {"NAME": service.name, "ENDPOINTS": few(endpoint_texts(cluster, service))}


def endpoints_manifest(cluster: Cluster, service: Service) -> dict[str, Any]:
    """As the Endpoints controller has it, but for a subset per port."""
    subsets = []
    for port in service.ports or (_ANY_PORT,):
        by_number: dict[int, dict[str, Any]] = {}
        for one in Backends(cluster).of(service, port):
            if one.address.version != service.families[0]:
                continue
            subset = by_number.setdefault(one.port, {})
            namespace, _, pod = one.pod.rpartition("/")
            entry: dict[str, Any] = {"ip": str(one.address), **({"nodeName": one.node} if one.node else {})}
            if pod:
                entry["targetRef"] = {"kind": "Pod", "namespace": namespace, "name": pod}
            subset.setdefault("addresses" if one.ready else "notReadyAddresses", []).append(entry)
        for number, subset in by_number.items():
            if number:
                named = {"name": port.name} if port.name else {}
                subset["ports"] = [{**named, "port": number, "protocol": port.protocol.upper()}]
            subsets.append(subset)
    metadata = {"name": service.name, "namespace": service.namespace}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}


def slices(cluster: Cluster, kind: Kind) -> Iterator[tuple[Service, dict[str, str], dict[str, Any]]]:
    """What the EndpointSlice controller makes of Services with a selector: one per family and set of port numbers.

    The Service, the cells of a row and the manifest of each.
    """
    backends = Backends(cluster)
    for service in cluster.topology.objects.services:
        if service.selector is None:
            continue
        for family in service.families:
            found: dict[tuple[IPAddress, bool, str, str], list[tuple[ServicePort, int]]] = {}
            for port in service.ports or (_ANY_PORT,):
                for one in backends.of(service, port):
                    if one.address.version == family:
                        found.setdefault((one.address, one.ready, one.node, one.pod), []).append((port, one.port))
            alike: dict[tuple[tuple[ServicePort, int], ...], list[tuple[IPAddress, bool, str, str]]] = {}
            for endpoint, ports in found.items():
                alike.setdefault(tuple(ports), []).append(endpoint)
            for number, (numbers, endpoints) in enumerate(alike.items()):
                name = f"{service.name}-{generated(f'{service.key}/{family}/{number}')}"
                yield _slice(kind, service, name, family, numbers, endpoints)


def _slice(
    kind: Kind,
    service: Service,
    name: str,
    family: int,
    ports: Sequence[tuple[ServicePort, int]],
    endpoints: Sequence[tuple[IPAddress, bool, str, str]],
) -> tuple[Service, dict[str, str], dict[str, Any]]:
    numbers = [(port, number) for port, number in ports if number]
    shown = {
        "apiVersion": kind.api,
        "kind": kind.name,
        "metadata": {
            "name": name,
            "namespace": service.namespace,
            "labels": {SERVICE_NAME: service.name, MANAGED_BY: CONTROLLER},
        },
        "addressType": f"IPv{family}",
        "ports": [{"name": port.name, "port": number, "protocol": port.protocol.upper()} for port, number in numbers],
        "endpoints": [
            {
                "addresses": [str(address)],
                "conditions": {"ready": ready},
                "nodeName": node,
                "targetRef": {"kind": "Pod", "namespace": service.namespace, "name": pod.rpartition("/")[2]},
            }
            for address, ready, node, pod in endpoints
        ],
    }
    row = {
        "NAME": name,
        "ADDRESSTYPE": f"IPv{family}",
        "PORTS": ",".join(str(number) for _, number in numbers) or "<unset>",
        "ENDPOINTS": few([str(address) for address, _, _, _ in endpoints]),
    }
    return service, row, shown
