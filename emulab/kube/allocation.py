"""What is allocated to a Service: addresses, node ports, a load balancer's address.  It stays while the Service does.

Source: kubernetes/pkg/registry/core/service/{storage,ipallocator}; but for chance: the lowest that is free is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from emulab.kube import syntax
from emulab.kube.document import Document
from emulab.model import Topology
from emulab.objects import BALANCER_POOLS, NODE_PORTS, SERVICE_CIDRS, IPAddress, IPNetwork, Service, ServicePort

_BAND = 256  # addresses at the start of a range that are only given to those who ask (ipallocator.calculateRangeOffset)


class Allocator:
    """Hands out what Services need, lowest first, without the addresses and ports that others hold."""

    def __init__(self, topology: Topology, others: Iterable[Service]) -> None:
        self._topology = topology
        self._addresses: dict[IPAddress, str] = {}
        self._ports: dict[tuple[str, int], str] = {}
        self._next: dict[IPNetwork, int] = {}
        self._next_port = NODE_PORTS.start
        for one in others:
            self._hold(one)

    def _hold(self, one: Service) -> None:
        self._addresses.update(dict.fromkeys((*one.addresses, *one.balancer), one.key))
        self._ports.update({(port.protocol, port.node_port): one.key for port in one.ports if port.node_port})

    def allocate(self, found: Document, asked: Service, before: Service | None) -> Service:
        """``asked`` with all that it needs: what ``before`` had, if it is still fitting, else something new."""
        spec = found.model.spec
        if asked.kind == "ExternalName":
            return replace(asked, families=self._topology.families[:1])
        headless = not asked.addresses and "None" in (spec.clusterIP, *(spec.clusterIPs or ()))
        families = self._families(found, asked, before, headless)
        published = asked.kind in ("NodePort", "LoadBalancer")
        made = replace(
            asked,
            families=families,
            addresses=() if headless else tuple(self._address(found, asked, before, family) for family in families),
            balancer=tuple(self._balancer(found, before, families)) if asked.kind == "LoadBalancer" else (),
        )
        if published and not (asked.kind == "LoadBalancer" and spec.allocateLoadBalancerNodePorts is False):
            made = replace(made, ports=tuple(self._with_node_port(found, i, p, made, before) for i, p in enumerate(made.ports)))
        self._hold(made)
        return made

    def _families(self, found: Document, asked: Service, before: Service | None, headless: bool) -> tuple[int, ...]:
        spec, offered = found.model.spec, self._topology.families
        words = {"IPv4": 4, "IPv6": 6}
        policy = spec.ipFamilyPolicy or (
            "RequireDualStack" if len(spec.ipFamilies or spec.clusterIPs or ()) > 1 else "SingleStack"
        )
        syntax.one_of(found, ("spec", "ipFamilyPolicy"), policy, ("SingleStack", "PreferDualStack", "RequireDualStack"))
        wanted = [
            words[syntax.one_of(found, ("spec", "ipFamilies", i), text, tuple(words))]
            for i, text in enumerate(spec.ipFamilies or ())
        ]
        if len(set(wanted)) < len(wanted):
            found.fail(("spec", "ipFamilies"), "the same family twice")
        given: list[int] = [address.version for address in asked.addresses]
        if given and wanted and given != wanted[: len(given)]:
            found.fail(("spec", "ipFamilies"), "its families are not those of clusterIP")
        wanted = wanted if len(wanted) >= len(given) else given
        for family in wanted:
            if family not in offered:
                has = " and ".join(f"IPv{one}" for one in offered)
                path = ("spec", "ipFamilies") if spec.ipFamilies else ("spec", "clusterIP")
                found.fail(path, f"IPv{family}: the pods of this cluster have {has} only")
        if policy == "SingleStack":
            if len(wanted) > 1:
                found.fail(("spec", "ipFamilyPolicy"), "SingleStack with two families")
            if not wanted and before is not None and before.families:
                return before.families[:1]
            return tuple(wanted) or offered[:1]
        if policy == "RequireDualStack" and len(offered) < 2:
            found.fail(("spec", "ipFamilyPolicy"), "RequireDualStack: this cluster has pods of one family only")
        return tuple(dict.fromkeys((*wanted, *(before.families if before and not wanted else ()), *offered)))

    def _address(self, found: Document, asked: Service, before: Service | None, family: int) -> IPAddress:
        cidr = next(one for one in SERVICE_CIDRS if one.version == family)
        self._check_apart(found, cidr)
        given = next((one for one in asked.addresses if one.version == family), None)
        had = next((one for one in before.addresses if one.version == family), None) if before else None
        if given is None:
            return had or self._free(found, cidr)
        path = ("spec", "clusterIPs") if found.model.spec.clusterIPs else ("spec", "clusterIP")
        if given not in cidr or given == cidr.network_address:
            found.fail(path, f"{given} is not in the Services' range {cidr}")
        if had not in (None, given):
            found.fail(path, f"{given}: it has {had} already, and a Service keeps its address")
        if self._addresses.get(given, asked.key) != asked.key:
            found.fail(path, f"{given} is taken by Service {self._addresses[given]}")
        return given

    def _check_apart(self, found: Document, cidr: IPNetwork) -> None:
        topology = self._topology
        others = [("pod CIDR", one) for one in topology.pod_cidrs]
        others += [(f"subnet of segment {segment.name}", one) for segment in topology.segments for one in segment.subnets]
        for what, other in others:
            if other.version == cidr.version and other.overlaps(cidr):
                found.fail((), f"the Services' range {cidr} overlaps the {what} {other} of topology {topology.name}")

    def _free(self, found: Document, pool: IPNetwork, first: int = _BAND) -> IPAddress:
        """The lowest free address; the search goes on where the last one ended."""
        place = self._next.get(pool, first)
        last = pool.num_addresses - 2
        while place <= last and pool[place] in self._addresses:
            place += 1
        if place > last:
            found.fail((), f"no free address is left in {pool}")
        self._next[pool] = place + 1
        return pool[place]

    def _balancer(self, found: Document, before: Service | None, families: tuple[int, ...]) -> Iterator[IPAddress]:
        text = found.model.spec.loadBalancerIP
        path = ("spec", "loadBalancerIP")
        given = syntax.address(found, path, text) if text else None
        for family in families:
            pool = next(one for one in BALANCER_POOLS if one.version == family)
            had = next((one for one in before.balancer if one.version == family), None) if before else None
            if given is None or given.version != family:
                yield had or self._free(found, pool, 1)
                continue
            if given not in pool:
                found.fail(path, f"{given} is not in the load balancer's pool {pool}")
            key = f"{found.namespace}/{found.name}"
            if self._addresses.get(given, key) != key:
                found.fail(path, f"{given} is taken by Service {self._addresses[given]}")
            yield given

    def _with_node_port(
        self, found: Document, index: int, port: ServicePort, made: Service, before: Service | None
    ) -> ServicePort:
        had = {(one.protocol, one.port): one.node_port for one in before.ports} if before else {}
        number = port.node_port or had.get((port.protocol, port.port), 0)
        path = ("spec", "ports", index, "nodePort")
        if port.node_port and self._ports.get((port.protocol, number), made.key) != made.key:
            found.fail(path, f"{number}/{port.protocol.upper()} is taken by Service {self._ports[port.protocol, number]}")
        if not number:
            number = self._next_port
            while any((protocol, number) in self._ports for protocol in ("tcp", "udp", "sctp")):
                number += 1
            if number not in NODE_PORTS:
                found.fail(path, f"no node port is left of {NODE_PORTS.start}-{NODE_PORTS.stop - 1}")
            self._next_port = number + 1
        self._ports[port.protocol, number] = made.key
        return replace(port, node_port=number)
