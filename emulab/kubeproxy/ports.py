"""A port of a Service as chains, rules and elements of kube-proxy's table."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from emulab.endpoints import Backend
from emulab.model import IPAddress
from emulab.objects import Service, ServicePort

MASQUERADE = "mark set mark or 0x4000"
_LONGEST = 240  # bytes of a name without its prefix: chainNameBaseLengthMax
_AT_ONCE = 500  # elements in one command
_BLOCK = 1024  # keys of a shared map
SHARED = "service-endpoints"
FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}


@dataclass
class Part:
    """What ports of Services add to a table: sets and chains, rules of theirs, and elements by the set they are in."""

    declared: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    elements: list[tuple[str, str]] = field(default_factory=list)

    def commands(self, where: str) -> tuple[list[str], list[str], list[str]]:
        """The same as nft commands: declarations, rules, elements."""
        members: dict[str, dict[str, None]] = {}
        for name, element in self.elements:
            members.setdefault(name, {})[element] = None
        declared = [f"add {what} {where} {rest}" for what, _, rest in (words.partition(" ") for words in self.declared)]
        filled = [
            f"add element {where} {name} {{ {', '.join(some)} }}"
            for name, found in members.items()
            for some in _batches([*found])
        ]
        return declared, [f"add rule {where} {rule}" for rule in self.rules], filled


@dataclass(frozen=True)
class Backing:
    """The endpoints of a port that get new connections: ``texts`` has them as ``address . port``."""

    endpoints: tuple[Backend, ...]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(f"{one.address} . {one.port}" for one in self.endpoints)

    @cached_property
    def on(self) -> dict[str, list[int]]:
        """The places of those on each node."""
        found: dict[str, list[int]] = {}
        for place, one in enumerate(self.endpoints):
            found.setdefault(one.node, []).append(place)
        return found

    def hairpins(self, node: str, protocol: str) -> Iterator[str]:
        """Endpoints on ``node`` that may reach themselves, as keys of the set."""
        for place in self.on.get(node, ()):
            address, _, port = self.texts[place].partition(" . ")
            yield f"{address} . {address} . {protocol} . {port}"


@dataclass(frozen=True)
class Port:
    """One port of a Service in one family, and what is behind it; ``pods`` is the pods' network.

    ``shared`` is the map in which its endpoints begin at ``first``, after them those of policy Local; "": it has its own.
    """

    service: Service
    port: ServicePort
    family: int
    backing: Backing
    pods: str
    shared: str = ""
    first: int = 0

    @property
    def endpoints(self) -> tuple[Backend, ...]:
        return self.backing.endpoints

    @cached_property
    def base(self) -> str:
        return named(f"{self.service.key}/{self.port.protocol}/{self.port.name}")

    @cached_property
    def balancers(self) -> list[IPAddress]:
        return [address for address in self.service.balancer if address.version == self.family]

    @property
    def external(self) -> bool:
        """Whether it can be reached by an address that is not the cluster's own."""
        return bool(self.port.node_port or self.balancers)

    @property
    def cluster_policy(self) -> bool:
        """Whether it leads to endpoints on all nodes: where both policies are Local, too, for what pods and nodes send out."""
        return self.external or not self.service.internal_local

    @property
    def local_policy(self) -> bool:
        return self.service.internal_local or (self.service.external_local and self.external)

    @property
    def alike(self) -> bool:
        """Whether all nodes have the same chains for it."""
        return not (self.local_policy or self.service.source_ranges)

    def at(self, address: IPAddress) -> str:
        """The key of a map for one of its addresses."""
        return f"{address} . {self.port.protocol} . {self.port.port}"

    def add(self, part: Part, node: str, own: IPAddress | None) -> None:
        """Add what a node, whose address is ``own``, does with it."""
        service = self.service
        places = self.backing.on.get(node, ())
        local = tuple(self.endpoints[place] for place in places)
        whole, near = f"service-{self.base}", f"local-{self.base}"
        if self.endpoints and self.cluster_policy:
            self._choose(part, whole, range(len(self.endpoints)))
        if local and self.local_policy:
            self._choose(part, near, places)
        if service.affinity:
            for one in self.endpoints if self.cluster_policy else local:
                self._remember(part, one)
        for address in service.addresses:
            if address.version == self.family:
                part.elements.append(("cluster-ips", str(address)))
                chain, inside = (near, local) if service.internal_local else (whole, self.endpoints)
                if inside:
                    part.elements.append(("service-ips", f"{self.at(address)} : goto {chain}"))
                else:
                    part.elements.append(("no-endpoint-services", self._refusal(self.at(address))))
        if self.external:
            self._expose(part, local, own)

    def _refusal(self, key: str) -> str:
        """Without any endpoint: reject; with none that the policy allows: drop."""
        name = f"{self.service.key}:{self.port.name}" if self.port.name else self.service.key
        return f'{key} comment "{name}" : {"drop" if self.endpoints else "goto reject-chain"}'

    def _expose(self, part: Part, local: tuple[Backend, ...], own: IPAddress | None) -> None:
        """What comes by a node port or a load balancer's address."""
        service, ip, chain, whole = self.service, FAMILIES[self.family][0], f"external-{self.base}", f"service-{self.base}"
        if self.endpoints:
            part.declared.append(f"chain {chain}")
            if service.external_local:
                part.rules += [
                    f'{chain} {ip} saddr {self.pods} goto {whole} comment "short-circuit pod traffic"',
                    f'{chain} fib saddr type local {MASQUERADE} comment "masquerade local traffic"',
                    f'{chain} fib saddr type local goto {whole} comment "short-circuit local traffic"',
                ]
                part.rules += [f"{chain} goto local-{self.base}"] if local else []
            else:
                part.rules += [f"{chain} {MASQUERADE}", f"{chain} goto {whole}"]
        ways = [("services", "service-ips", self.at(address)) for address in self.balancers]
        if self.port.node_port:
            ways.append(("nodeports", "service-nodeports", f"{self.port.protocol} . {self.port.node_port}"))
        for what, leading, key in ways:
            if self.endpoints:
                part.elements.append((leading, f"{key} : goto {chain}"))
            if not (local if service.external_local else self.endpoints):
                part.elements.append((f"no-endpoint-{what}", self._refusal(key)))
        ranges = [net for net in service.source_ranges if net.version == self.family]
        if ranges and self.balancers:
            allowed = [*map(str, ranges)]
            if own is not None and any(own in net for net in ranges):  # a node may have the balancer's address for its own
                allowed += map(str, self.balancers)
            part.declared.append(f"chain firewall-{self.base}")
            part.rules.append(f"firewall-{self.base} {ip} saddr != {{ {', '.join(allowed)} }} drop")
            part.elements += [("firewall-ips", f"{self.at(a)} : goto firewall-{self.base}") for a in self.balancers]

    def _choose(self, part: Part, chain: str, places: Sequence[int]) -> None:
        """A chain that draws one of the endpoints; with session affinity the one that the client had before."""
        part.declared.append(f"chain {chain}")
        ip, number = FAMILIES[self.family][0], len(places)
        if self.service.affinity:
            names = [self._endpoint(self.endpoints[place]) for place in places]
            part.rules += [f"{chain} {ip} saddr @affinity-{name} goto endpoint-{name}" for name in names]
            drawn = ", ".join(f"{place} : goto endpoint-{name}" for place, name in enumerate(names))
            part.rules.append(f"{chain} numgen random mod {number} vmap {{ {drawn} }}")
            return
        if not self.shared:
            drawn = ", ".join(f"{index} : {self.backing.texts[place]}" for index, place in enumerate(places))
            where = f"map {{ {drawn} }}"
        else:
            first = self.first + (_blocks(len(self.endpoints)) * _BLOCK if chain.startswith("local-") else 0)
            texts = self.backing.texts
            part.elements += [(self.shared, f"{first + index} : {texts[place]}") for index, place in enumerate(places)]
            where = f"offset {first} map @{self.shared}"
        part.rules.append(f"{chain} meta l4proto {self.port.protocol} dnat {ip} to numgen random mod {number} {where}")

    def _remember(self, part: Part, one: Backend) -> None:
        """An endpoint of a Service with session affinity: its clients, and the way to it."""
        name, (ip, kind) = self._endpoint(one), FAMILIES[self.family]
        flags = f"flags dynamic,timeout ; timeout {self.service.affinity}s ;"
        part.declared += [f"set affinity-{name} {{ type {kind} ; {flags} }}", f"chain endpoint-{name}"]
        to = f"{one.address}:{one.port}" if self.family == 4 else f"[{one.address}]:{one.port}"
        update = f"update @affinity-{name} {{ {ip} saddr }}"
        part.rules += [f"endpoint-{name} {update}", f"endpoint-{name} meta l4proto {self.port.protocol} dnat to {to}"]

    def _endpoint(self, one: Backend) -> str:
        address = str(one.address).replace(":", ".")
        return named(f"{self.service.key}/{self.port.protocol}/{self.port.name}__{address}/{one.port}")


@lru_cache(maxsize=65536)
def named(name: str) -> str:
    """A chain's name without its prefix: a digest and then the words (hashAndTruncate)."""
    digest = base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:8]
    whole = f"{digest}-{name}"
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 3]}..."


def sharing(ports: list[Port]) -> Iterator[Port]:
    """The same with places in shared maps, given by their names, so that they stay when others come and go.

    With a map for each, ten thousand take the kernel a minute: it walks all sets of a table for each anonymous one
    (nf_tables_set_alloc_name).  With one map for all it checks all elements for each rule (nf_tables_bind_set).
    """
    taken: set[tuple[str, int]] = set()
    for one in ports:
        digest, number = hashlib.sha256(one.base.encode()).digest(), 2 * _blocks(len(one.endpoints))
        name = f"{SHARED}-{one.port.protocol}-{digest[0]:02x}"
        block = int.from_bytes(digest[1:5], "big") // _BLOCK
        while any((name, place) in taken for place in range(block, block + number)):
            block = (block + number) % (2**22 - number)
        taken.update((name, place) for place in range(block, block + number))
        yield replace(one, shared=name, first=block * _BLOCK)


def _blocks(endpoints: int) -> int:
    return -(-endpoints // _BLOCK) or 1


def _batches(members: list[str]) -> Iterator[list[str]]:
    return (members[start : start + _AT_ONCE] for start in range(0, len(members), _AT_ONCE))
