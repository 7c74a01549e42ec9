"""A name server, a cluster for it, and questions."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import dns.message
import dns.rcode
from designed import FLANNEL, planned

from emulab.model import Cluster
from emulab.objects import EndpointSlice, Objects, Service, ServicePort
from emulab.serving.dns import NameServer

WEB = "web.default.svc.cluster.local"


def cluster(endpoints: int = 3) -> Cluster:
    made, _, _ = planned(*FLANNEL)
    addresses = tuple(((ip_address("198.18.0.0") + n,), True, "") for n in range(endpoints))
    objects = Objects(
        services=(
            Service("default", "web", addresses=(ip_address("10.96.1.1"),), ports=(ServicePort("http", "tcp", 80, 80),)),
            Service("default", "many", ports=(ServicePort("http", "tcp", 80, 80),)),
        ),
        slices=(EndpointSlice("default", "x", "many", addresses, (("http", "tcp", 80),)),),
    )
    return replace(made, topology=replace(made.topology, objects=objects))


def knowing(endpoints: int = 3) -> NameServer:
    made = NameServer()
    made.know(cluster(endpoints))
    return made


def asked(server: NameServer, query: dns.message.Message, stream: bool = False) -> dns.message.Message:
    answer = dns.message.from_wire(server.respond(query.to_wire(), stream))
    assert query.is_response(answer) or answer.rcode() in (dns.rcode.NOTIMP, dns.rcode.FORMERR)
    return answer
