"""From deviations to the changes that put them back.  Pure; what it cannot mend it says.

Deviations come from `emulab.drift`, which sees both ends of a pair, and things that no plan has an object for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import replace

from emulab.diff import Diff, put
from emulab.drift import Deviation, Foreign, Found, Listing
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


def mend(desired: State, deviations: Iterable[Deviation]) -> Diff:
    """What has to be done for ``deviations`` to vanish."""
    first: dict[str, list[KernelObject]] = {}
    add: dict[str, list[KernelObject]] = {}
    change: dict[str, tuple[tuple[KernelObject, KernelObject], ...]] = {}
    remove: dict[str, list[KernelObject]] = {}
    for deviation in deviations:
        namespace, planned, found = deviation.namespace, deviation.planned, deviation.found
        if isinstance(planned, Veth):
            namespace, planned, found = _near(desired, namespace, planned, found)
        if planned is None:
            assert found is not None
            if (thing := _removable(found)) is not None:
                # A pair that was carried off still has its other end's name.
                (first if isinstance(thing, Veth) else remove).setdefault(namespace, []).append(thing)
        elif found is None:
            add.setdefault(namespace, []).append(planned)
        elif isinstance(found, Foreign) or isinstance(planned, (NftTable, Address)) or not _alike(found, planned):
            if (thing := _removable(found)) is not None:
                first.setdefault(namespace, []).append(thing)
            add.setdefault(namespace, []).append(planned)
            add[namespace] += _dependants(desired, namespace, planned)
        else:
            change[namespace] = (*change.get(namespace, ()), (found, planned))
    ordered: dict[str, tuple[KernelObject, ...]] = {}
    for namespace, things in add.items():
        place = {thing: number for number, thing in enumerate(desired[namespace])}
        put(ordered, namespace, sorted(dict.fromkeys(things), key=lambda thing: _place(place, thing)))
    return Diff(first=_fixed(first), add=ordered, change=change, remove=_fixed(remove))


def _place(place: dict[KernelObject, int], thing: KernelObject) -> float:
    """As it is planned; the kernel's own route to a device's network, which no plan has, once that has its addresses."""
    if thing in place:
        return place[thing]
    device = getattr(thing, "device", None)
    needed = [number for one, number in place.items() if isinstance(one, (Address, Up)) and one.device == device]
    return max(needed, default=len(place)) + 0.5


def _fixed(state: dict[str, list[KernelObject]]) -> State:
    return {namespace: tuple(things) for namespace, things in state.items()}


def _near(desired: State, namespace: str, planned: Veth, found: Found | None) -> tuple[str, KernelObject, Found | None]:
    """A deviation of a pair as one of its near end, which is the object of the plan."""
    for home, objects in desired.items():
        for thing in objects:
            if not isinstance(thing, Veth):
                continue
            if (home, thing.name) == (namespace, planned.name):
                if isinstance(found, Veth):
                    found = replace(found, peer_netns=thing.peer_netns, peer_mac=thing.peer_mac)
                return home, thing, found
            if (thing.peer_namespace or home, thing.peer) == (namespace, planned.name):
                if isinstance(found, Veth):
                    found = replace(thing, mtu=found.mtu, peer_mac=found.mac)
                return home, thing, found
    return namespace, planned, found


def _alike(found: Found, planned: KernelObject) -> bool:
    """Whether the one becomes the other in place; of IPv6 routes the kernel takes its pick which to replace."""
    if isinstance(planned, Route) and planned.destination.version == 6:
        return False
    if isinstance(found, Vxlan) and isinstance(planned, Vxlan):
        return replace(found, mtu=planned.mtu, mac=planned.mac, learning=planned.learning) == planned
    if isinstance(found, Veth) and isinstance(planned, Veth):
        return (found.name, found.peer) == (planned.name, planned.peer)
    return type(found) is type(planned)


def _dependants(desired: State, namespace: str, planned: KernelObject) -> list[KernelObject]:
    """What vanishes with a device that has to be made anew, at both ends of a pair in its own namespace."""
    if not isinstance(planned, Device):
        return []
    names = {planned.name} | ({planned.peer} if isinstance(planned, Veth) and planned.peer_namespace is None else set())
    return [t for t in desired[namespace] if {getattr(t, "device", None), getattr(t, "bridge", None)} & names and t != planned]


def _removable(found: Found) -> KernelObject | None:
    """An object whose removal takes ``found`` away; None for a setting, which has no absence."""
    if not isinstance(found, Foreign):
        return None if isinstance(found, Sysctl) else found
    kind, *rest = found.identity
    if kind == "link":
        return Bridge(rest[0])
    if kind == "port":
        return BridgePort(rest[0], "")
    if kind == "qdisc" and len(rest) == 1:
        return RateLimit(rest[0], 0)
    if kind == "address":
        return Address(rest[0], ipaddress.ip_interface(rest[1]))
    if kind == "route":
        return Route(ipaddress.ip_network(rest[0]), metric=int(rest[1]) if rest[1] else None, protocol=0)  # of any
    return None


def of(deviations: Iterable[Deviation], names: Collection[str] | None) -> list[Deviation]:
    """The deviations in the namespaces ``names`` (None: all) that can be mended: tables as a CNI plugin left them cannot, since
    nft does not take what it lists of rules of iptables."""
    meant = (deviation for deviation in deviations if names is None or deviation.namespace in names)
    return [deviation for deviation in meant if not isinstance(deviation.planned, Listing)]
