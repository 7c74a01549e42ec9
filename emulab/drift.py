"""What a running lab holds other than it should: two states compared object by object.

`emulab.kernel.observe` reads the kernel; nothing here does.  What the kernel adds by itself is no deviation: a bridge whose
MTU follows that of its ports, addresses that nobody pinned, the routes to the networks of a device's own addresses.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import SequenceMatcher
from typing import Union

from emulab.state import (
    Address,
    Bridge,
    BridgePort,
    Device,
    KernelObject,
    NftTable,
    RateLimit,
    Route,
    State,
    Sysctl,
    Up,
    Veth,
    Vxlan,
)

RTPROT_KERNEL = 2  # linux/rtnetlink.h: the kernel made it, for an address
_METRIC = {4: 0, 6: 1024}  # of a route that names none (IP6_RT_PRIO_USER in linux/ipv6_route.h)
_IP6_RT_PRIO_ADDRCONF = 256
_SHOWN = 4  # differences of one nft table


@dataclass(frozen=True)
class Foreign:
    """Something that no plan has an object for: whose place it takes, and the line that a person would type for it."""

    identity: tuple[str, ...]
    line: str

    def lines(self) -> Iterator[str]:
        yield self.line


@dataclass(frozen=True)
class Listing(NftTable):
    """A table as the kernel lists it, and ``wanted``, what it would list if the table were as planned (None: it is not)."""

    wanted: tuple[str, ...] | None = None


Found = Union[KernelObject, Foreign]
Observed = Mapping[str, tuple[Found, ...]]


@dataclass(frozen=True)
class Deviation:
    """One object of ``namespace`` that is "missing", "altered" or "extra"; ``detail`` says what differs inside an nft table.

    The far end of a pair is an object of its own namespace here: ``planned`` is then the pair as seen from there.
    """

    namespace: str
    kind: str
    planned: KernelObject | None
    found: Found | None
    detail: str = ""

    def __str__(self) -> str:
        thing = self.planned or self.found
        assert thing is not None
        detail = f" ({self.detail})" if self.detail else ""
        if self.planned and self.found and not self.detail:
            detail = f"  (found: {_difference(self.planned, self.found)})"
        return f"{self.namespace}: {self.kind}: {_line(thing)}{detail}"


def compare(desired: State, observed: Observed, only: Collection[str] | None = None) -> list[Deviation]:
    """The deviations of ``observed`` from ``desired``, everywhere or in the namespaces ``only``.

    Namespace by namespace in the order of ``desired``; in each, what is missing or altered in the order of the plan, devices
    first, then what is extra in the order of ``observed``.
    """
    near, far = _pairs(desired)
    extra_ends: set[tuple[str, str]] = set()
    deviations: list[Deviation] = []
    for namespace, objects in desired.items():
        if only is not None and namespace not in only:
            continue
        there = _Namespace(namespace, observed.get(namespace, ()))
        for pair in near.get(namespace, ()):
            deviations += there.check_pair(pair)
        for pair in far.get(namespace, ()):
            deviations += there.check_far_end(pair)
        rest = dict.fromkeys(thing for thing in objects if not isinstance(thing, Veth))
        deviations += there.check(sorted(rest, key=lambda thing: not isinstance(thing, Device)))
        deviations += there.check_connected(objects)
        for found in there.left():
            if isinstance(found, Veth):  # a pair is one object, though it is found at both ends
                extra_ends.add((namespace, found.name))
                if (found.peer_namespace or namespace, found.peer) in extra_ends:
                    continue
            deviations.append(Deviation(namespace, "extra", None, found, _contents(found)))
    return deviations


def pair_ends(desired: State) -> dict[tuple[str, str], tuple[str, str]]:
    """Each end of every planned pair, and the other: (namespace, name) -> (namespace, name)."""
    ends = {}
    for namespace, objects in desired.items():
        for thing in objects:
            if isinstance(thing, Veth):
                here, there = (namespace, thing.name), (thing.peer_namespace or namespace, thing.peer)
                ends[here], ends[there] = there, here
    return ends


def _pairs(desired: State) -> tuple[dict[str, list[Veth]], dict[str, list[Veth]]]:
    """The planned pairs by the namespace of the near end, and as seen from the far end by the namespace of that."""
    near: dict[str, list[Veth]] = {}
    far: dict[str, list[Veth]] = {}
    for namespace, objects in desired.items():
        for thing in objects:
            if isinstance(thing, Veth):
                near.setdefault(namespace, []).append(thing)
                home = namespace if thing.peer_namespace else None
                other = Veth(thing.peer, thing.name, home, home, thing.mtu, thing.peer_mac, thing.mac)
                far.setdefault(thing.peer_namespace or namespace, []).append(other)
    return near, far


class _Namespace:
    """What is found in one namespace; what a check accounts for leaves ``_found``."""

    def __init__(self, name: str, objects: Iterable[Found]) -> None:
        self.name = name
        self._all = tuple(objects)
        self._found = dict.fromkeys(self._all)
        self._by_identity: dict[tuple[str, ...], list[Found]] = {}

    def left(self) -> list[Found]:
        """What no plan accounts for.  A route to a device's own network comes and goes with its address."""
        return [f for f in self._found if not (isinstance(f, Route) and f.protocol == RTPROT_KERNEL)]

    def check(self, objects: Iterable[KernelObject]) -> Iterator[Deviation]:
        """Match each object by equality, which is quick, and what is left by identity."""
        differing = [thing for thing in objects if self._found.pop(thing, thing) is thing]
        if not differing:
            return
        last = {thing.identity: thing for thing in objects}  # the kernel holds what was set last
        for thing in differing:
            if last[thing.identity] is thing:
                yield from self._deviation(thing)

    def check_pair(self, pair: Veth) -> Iterator[Deviation]:
        """The near end.  A pair without its far end is no pair."""
        found = self._take(pair)
        if isinstance(found, Veth) and not _joined(pair, found):
            found = None
        if found is None or not _same(pair, found):
            yield Deviation(self.name, "missing" if found is None else "altered", pair, found)

    def check_far_end(self, pair: Veth) -> Iterator[Deviation]:
        """The far end; that it is gone is said of the near end, with the whole pair."""
        found = self._take(pair)
        if found is not None and not (isinstance(found, Veth) and not _joined(pair, found)) and not _same(pair, found):
            yield Deviation(self.name, "altered", pair, found)

    def check_connected(self, objects: Iterable[KernelObject]) -> Iterator[Deviation]:
        """The kernel's own routes to the networks of the addresses that are there, on devices that are up."""
        there = set(self._all)
        routes = {(f.destination, f.device) for f in self._all if isinstance(f, Route) and f.protocol == RTPROT_KERNEL}
        for thing in objects:
            if isinstance(thing, Address) and thing in there and Up(thing.device) in there:
                route = _connected(thing)
                if route and (route.destination, route.device) not in routes:
                    yield Deviation(self.name, "missing", route, None)

    def _take(self, thing: KernelObject) -> Found | None:
        """What is found in the place of ``thing``; the same rather than another."""
        if not self._by_identity:
            for found in self._all:
                self._by_identity.setdefault(found.identity, []).append(found)
        candidates = [found for found in self._by_identity.get(_canonical(thing).identity, ()) if found in self._found]
        candidates.sort(key=lambda found: not _same(thing, found))
        if candidates:
            del self._found[candidates[0]]
            return candidates[0]
        return None

    def _deviation(self, thing: KernelObject) -> Iterator[Deviation]:
        found = self._take(thing)
        if found is None:
            yield Deviation(self.name, "missing", thing, None)
        elif not _same(thing, found) and not self._follows(thing, found):
            yield Deviation(self.name, "altered", thing, found, _contents(found, thing))

    def _follows(self, planned: KernelObject, found: Found) -> bool:
        """Whether a bridge differs only by the least MTU of its ports, which it takes over (br_mtu_auto_adjust)."""
        if not isinstance(planned, Bridge) or not isinstance(found, Bridge):
            return False
        ports = {thing.device for thing in self._all if isinstance(thing, BridgePort) and thing.bridge == planned.name}
        least = min((t.mtu for t in self._all if isinstance(t, Device) and t.name in ports), default=0)
        return found.mtu == least and _same(replace(planned, mtu=least), found)


def _joined(planned: Veth, found: Veth) -> bool:
    return (planned.peer, planned.peer_namespace) == (found.peer, found.peer_namespace)


def _connected(thing: Address) -> Route | None:
    """The route that an address brings along; an IPv4 address alone in its network has none."""
    network, six = thing.address.network, thing.address.version == 6
    if network.num_addresses == 1 and not six:
        return None
    source, metric = (None, _IP6_RT_PRIO_ADDRCONF) if six else (thing.address.ip, None)
    return Route(network, thing.device, link_scope=not six, protocol=RTPROT_KERNEL, source=source, metric=metric)


def _canonical(thing: Found) -> Found:
    """``thing`` in the one form that all ways to write the same have in common; it is also what the kernel's reader gives."""
    if isinstance(thing, Route):
        version = thing.destination.version
        local = version == 4 and thing.kind == "unicast" and thing.via is None
        return replace(thing, metric=None if thing.metric in (0, _METRIC[version]) else thing.metric, link_scope=local)
    if isinstance(thing, Sysctl):
        return replace(thing, value=" ".join(thing.value.split()))
    return thing


def _same(planned: KernelObject, found: Found) -> bool:
    if isinstance(found, Listing):
        return found.rules == (found.wanted if found.wanted is not None else getattr(planned, "rules", None))
    if isinstance(planned, RateLimit) and isinstance(found, RateLimit):  # the kernel counts in ticks and 2^-32ths
        return all(
            math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6)
            for a, b in ((planned.rate, found.rate), (planned.delay, found.delay), (planned.loss, found.loss))
        )
    if isinstance(planned, Veth) and isinstance(found, Veth):  # the other end speaks for itself
        planned = replace(planned, peer_netns=found.peer_netns, peer_mac=found.peer_mac)
    if isinstance(planned, (Bridge, Veth, Vxlan)) and planned.mac is None and isinstance(found, (Bridge, Veth, Vxlan)):
        planned = replace(planned, mac=found.mac)
    return _canonical(planned) == _canonical(found)


def _line(thing: Found) -> str:
    return f"nft table {thing.family} {thing.name}" if isinstance(thing, NftTable) else "; ".join(thing.lines())


def _difference(planned: KernelObject, found: Found) -> str:
    """What of ``found`` is not as planned: the values that differ, or all of it if it is of another kind."""
    if type(planned) is not type(found):
        return _line(found)
    skipped = {"peer_netns", "peer_mac"} if isinstance(planned, Veth) else set()
    skipped |= {"mac"} if getattr(planned, "mac", "") is None else set()
    mine, theirs = _canonical(planned), _canonical(found)
    values = {f.name: getattr(theirs, f.name) for f in fields(mine) if getattr(mine, f.name) != getattr(theirs, f.name)}
    return ", ".join(_words(name, value) for name, value in values.items() if name not in skipped) or _line(found)


def _words(name: str, value: object) -> str:
    name = name.replace("_", " ")
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    return f"no {name}" if value is None else f"{name} {value}"


def _contents(found: Found, planned: KernelObject | None = None) -> str:
    """How an nft table differs from the planned one, or which rules it has if none is planned, in one line."""
    if not isinstance(found, NftTable):
        return ""
    if planned is None:
        said = [_statement(words) for words in found.rules if words.startswith("add rule ")]
    else:
        wanted = found.wanted if isinstance(found, Listing) and found.wanted is not None else getattr(planned, "rules", ())
        said = []
        for kind, i, j, k, m in SequenceMatcher(None, wanted, found.rules, autojunk=False).get_opcodes():
            if kind != "equal":
                said += [_statement(words, "missing: ") for words in wanted[i:j]]
                said += [_statement(words, "extra: ") for words in found.rules[k:m]]
    more = len(said) - _SHOWN
    return "; ".join(said[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _statement(command: str, kind: str = "") -> str:
    """``add rule ip t forward udp dport 53 drop`` as ``chain forward: udp dport 53 drop``."""
    _, what, _, _, *name = command.split(" ", 5)
    if what == "table":
        return f"{kind}{' '.join(name)}"
    where = {"rule": "chain", "element": "set"}.get(what, what)
    return f"{where} {name[0]}: {kind}{' '.join(name[1:])}".rstrip()
