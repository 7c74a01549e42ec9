"""What somebody expects of flows: who reaches whom, how, and what may happen to the packets on their way.  Pure.

An expectation is a value with a JSON form (docs/json.md), so that tests in Python, check files and other programs mean the
same by the same words.  Whether it holds is judged by `emulab.fulfilment`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from emulab import services
from emulab.errors import InputError, nearest
from emulab.etc_files import resolve
from emulab.model import OUTSIDE_HOST, Cluster
from emulab.packet import short

PROTOCOLS = ("icmp", "udp", "tcp")
ENCAPSULATIONS = ("vxlan", "none")
DEFAULT_PORT = 8080
_MOST = 20_000  # flows of one expectation
_WHEN_REACHED = ("nat", "encapsulation", "vni", "hops", "mtu", "seen_as")
_RANGES = {"port": (1, 65535), "vni": (0, 2**24 - 1), "hops": (0, 64), "mtu": (68, 65000), "size": (60, 65000)}


@dataclass(frozen=True)
class Expectation:
    """Flows from ``source`` to ``destination``, and what is expected of each of them.

    Both ends are selectors: a pod (``a1``, ``shop/web``), pods by pattern (``shop/*``, ``*/web-*``, ``*``: all pods) or by labels
    (``shop/app=web,tier!=db``), a node, ``internet``; the destination also a Service (``svc/web``).  Something answers at every
    port.  None means that nothing is expected there.
    """

    source: str
    destination: str
    reaches: bool = True  # False: the request does not arrive, and nobody answers
    protocol: str = "icmp"
    port: int | None = None  # of UDP and TCP, 8080 if not given; of a Service its first
    family: int | None = None  # None: each that both ends have
    size: int | None = None  # of the IP packet in bytes, for ICMP and UDP
    nat: bool | None = None  # False: no address and no port is rewritten; True: some is
    encapsulation: str | None = None  # of what crosses the underlay: "vxlan", or "none"
    vni: int | None = None
    hops: int | None = None  # routers on the way: what the packet loses of its TTL
    mtu: int | None = None  # the largest IP packet with DF that passes, in bytes
    seen_as: str | None = None  # the source address that the destination sees
    dropped_at: str | None = None  # where a packet was seen last: a node, a pod, or an interface ("node-c:eth0")

    def __post_init__(self) -> None:
        for name in ("source", "destination"):
            if not getattr(self, name):
                raise InputError(f"{_WORDS[name]}: a pod, a pattern such as shop/*, or a node expected")
        for name, known in (("protocol", PROTOCOLS), ("encapsulation", ENCAPSULATIONS), ("family", (4, 6))):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise InputError(f"{name} '{value}'{nearest(str(value), map(str, known))}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} {value}: {least} to {most} expected")
        if self.port is not None and self.protocol == "icmp":
            raise InputError(f"port {self.port}: ICMP has no ports")
        if self.size is not None and self.protocol == "tcp":
            raise InputError("size: TCP chooses its own, expected with icmp and udp")
        if self.vni is not None and self.encapsulation != "vxlan":
            raise InputError(f"vni {self.vni}: expected with encapsulation vxlan only")
        if self.seen_as is not None:
            _address(self.seen_as)
        wrong = [name for name in _WHEN_REACHED if getattr(self, name) is not None] if not self.reaches else []
        if wrong:
            raise InputError(f"{_WORDS.get(wrong[0], wrong[0])}: cannot be expected of a packet that is not to arrive")
        if self.reaches and self.dropped_at is not None:
            raise InputError("dropped_at: cannot be expected of a packet that is to arrive")

    def show(self) -> dict[str, Any]:
        """As JSON values: ``from``, ``to``, ``reaches``, and all else that is expected."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        ends = {"from": told.pop("source"), "to": told.pop("destination"), "reaches": told.pop("reaches")}
        return {**ends, **{name: value for name, value in told.items() if value is not None}}

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Expectation:
        """The inverse of `show`.  Raises `InputError` that names the key."""
        values: dict[str, Any] = {}
        for key, value in given.items():
            name = {"from": "source", "to": "destination"}.get(key, key)
            if key in ("source", "destination") or name not in _TYPES:
                raise InputError(f"no '{key}' in an expectation{nearest(key, [_WORDS.get(one, one) for one in _TYPES])}")
            if value is not None and type(value) is not _TYPES[name]:
                raise InputError(f"{key}: {_NAMES[_TYPES[name]]} expected")
            values[name] = value
        for name in ("source", "destination"):
            if values.get(name) is None:
                raise InputError(f"an expectation needs '{_WORDS[name]}'")
        for name in ("reaches", "protocol"):
            if name in values and values[name] is None:
                del values[name]
        return cls(**values)

    def __str__(self) -> str:
        verb = "reaches" if self.reaches else "cannot reach"
        by = f" by {self.protocol}" if self.port is None else f" {self.protocol}/{self.port}"
        words = [f"{self.source} {verb} {self.destination}{by}"]
        if self.family:
            words[0] += f" over IPv{self.family}"
        if self.size:
            words[0] += f" with {self.size} bytes"
        if self.nat is not None:
            words.append("with NAT" if self.nat else "without NAT")
        if self.encapsulation:
            vni = "" if self.vni is None else f" VNI {self.vni}"
            words.append("not encapsulated" if self.encapsulation == "none" else f"encapsulated {self.encapsulation}{vni}")
        if self.hops is not None:
            words.append(f"in {self.hops} hop{'' if self.hops == 1 else 's'}")
        if self.mtu is not None:
            words.append(f"with MTU {self.mtu}")
        if self.seen_as is not None:
            words.append(f"seen as {self.seen_as}")
        if self.dropped_at is not None:
            words.append(f"dropped at {self.dropped_at}")
        return ", ".join(words)


_TYPES: dict[str, type] = {
    field.name: {"int": int, "bool": bool}.get(str(field.type).split()[0], str) for field in fields(Expectation)
}
_NAMES = {int: "a whole number", bool: "true or false", str: "a text"}
_WORDS = {"source": "from", "destination": "to"}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InputError(f"seen_as '{text}': an IPv4 or IPv6 address expected") from None


def pairs(cluster: Cluster, expected: Expectation) -> list[tuple[str, str]]:
    """The (source, destination) that an expectation is about: pod keys, nodes, "internet", Services.  Nobody to himself.

    Raises `InputError` for a name that nobody has, a pattern that fits nobody, and too many.
    """
    sources = list(_selected(cluster, expected.source))
    destinations = list(_selected(cluster, expected.destination, services_too=True))
    if len(sources) * len(destinations) > _MOST:
        raise InputError(f"{expected}: {len(sources)} x {len(destinations)} flows, at most {_MOST} expected")
    found = [(here, there) for here in sources for there in destinations if here != there]
    if not found:
        raise InputError(f"{expected}: there is nobody but {short(sources[0])} itself")
    if any(here == OUTSIDE_HOST and not there.startswith(services.PREFIX) for here, there in found):
        raise InputError(f"{expected}: {OUTSIDE_HOST} sends to Services only (svc/NAME)")
    return found


def _selected(cluster: Cluster, text: str, services_too: bool = False) -> Iterator[str]:
    if service := services.find(cluster, text) if services_too else None:
        yield service
        return
    namespace, slash, rest = text.partition("/")
    if not slash:
        namespace, rest = "*" if text == "*" else "default", text
    labelled = any(sign in rest for sign in "=!(")
    if not labelled and "*" not in text and "?" not in text:
        yield resolve(cluster, text) if text == OUTSIDE_HOST else resolve(cluster, text, others=False)
        return
    from emulab.kube.syntax import typed_selector

    selector = typed_selector(rest) if labelled else None
    found = False
    for endpoint in cluster.endpoints:
        pod = endpoint.pod
        fits = selector.matches(dict(pod.labels)) if selector else fnmatchcase(pod.name, rest)
        if fits and fnmatchcase(pod.namespace, namespace):
            found = True
            yield endpoint.key
    if not found:
        raise InputError(f"no pod is meant by '{text}'{nearest(text, _known(cluster))}")


def _known(cluster: Cluster) -> Iterable[str]:
    return {f"{endpoint.pod.namespace}/*" for endpoint in cluster.endpoints}
