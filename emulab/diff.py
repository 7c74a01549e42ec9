"""The difference between two desired states: what an applier does, and what a person would type for it.

The order makes new ways before it breaks old ones, so that what stays loses no packet: first go the devices, then comes
what is new, then changes what has another value, and at last goes the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch

from emulab.nft_delta import delta
from emulab.state import (
    Address,
    Bridge,
    BridgePort,
    CniAttachment,
    CniNetwork,
    Device,
    FdbEntry,
    KernelObject,
    Neighbor,
    NftTable,
    RateLimit,
    Route,
    State,
    Up,
    Veth,
    Vxlan,
    shell_lines,
)

Changes = Mapping[str, tuple[tuple[KernelObject, KernelObject], ...]]


@dataclass(frozen=True)
class Diff:
    """What turns one state into another, by namespace.

    ``gone`` and ``new`` are namespaces; ``first`` is removed before ``add`` is added, then ``change`` (before, after) is
    set, and ``remove`` goes last.
    """

    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    first: State = field(default_factory=dict)
    add: State = field(default_factory=dict)
    change: Changes = field(default_factory=dict)
    remove: State = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any((self.gone, self.new, self.first, self.add, self.change, self.remove))

    @property
    def touched(self) -> tuple[str, ...]:
        """The namespaces that stay or come and in which something is set."""
        return tuple(dict.fromkeys((*self.first, *self.add, *self.change, *self.remove)))


def diff(before: State, after: State) -> Diff:
    """The changes from ``before`` to ``after``."""
    first: dict[str, tuple[KernelObject, ...]] = {}
    add: dict[str, tuple[KernelObject, ...]] = {}
    change: dict[str, tuple[tuple[KernelObject, KernelObject], ...]] = {}
    remove: dict[str, tuple[KernelObject, ...]] = {}
    for namespace, objects in after.items():
        was = before.get(namespace, ())
        if was == objects:
            continue
        altered = tuple((o, n) for o, n in zip(was, objects, strict=False) if o is not n and o != n)
        if len(was) == len(objects) and all(o.identity == n.identity and _alterable(o, n) for o, n in altered):
            change[namespace] = altered  # nothing comes or goes
            continue
        old, new = {thing.identity: thing for thing in was}, {thing.identity: thing for thing in objects}
        leaving = [thing for thing in was if thing.identity not in new]
        replaced = [o for key, o in old.items() if key in new and o != new[key] and not _alterable(o, new[key])]
        early = [thing for thing in (*leaving, *replaced) if isinstance(thing, Device) or thing in replaced]
        lost = {name for thing in early if isinstance(thing, Device) for name in _names(thing)}
        put(first, namespace, reversed(early))
        put(remove, namespace, (t for t in reversed(leaving) if t not in early and not lost.intersection(_needs(t))))
        again = [t for t in objects if t.identity not in old or old[t.identity] in replaced or lost.intersection(_needs(t))]
        put(add, namespace, again)
        kept = set(again)
        pairs = tuple((old[t.identity], t) for t in objects if t not in kept and old[t.identity] != t)
        if pairs:
            change[namespace] = pairs
    gone = tuple(namespace for namespace in before if namespace not in after)
    return Diff(gone, tuple(namespace for namespace in after if namespace not in before), first, add, change, remove)


def put(into: dict[str, tuple[KernelObject, ...]], namespace: str, things: Iterable[KernelObject]) -> None:
    """Enter ``things``, if there are any."""
    if found := tuple(things):
        into[namespace] = found


def _alterable(before: KernelObject, after: KernelObject) -> bool:
    """Whether the kernel can change the one into the other in place."""
    if isinstance(before, Vxlan) and isinstance(after, Vxlan):
        return replace(before, mtu=after.mtu, mac=after.mac, learning=after.learning) == after
    if isinstance(before, Veth) and isinstance(after, Veth):
        return replace(before, mtu=after.mtu, mac=after.mac, peer_mac=after.peer_mac) == after
    return type(before) is type(after) and not isinstance(before, (Address, CniAttachment))


def _names(thing: KernelObject) -> tuple[str, ...]:
    """The devices here that vanish with ``thing``."""
    if isinstance(thing, Veth):
        return (thing.name, thing.peer) if thing.peer_namespace is None else (thing.name,)
    return (thing.name,) if isinstance(thing, (Bridge, Vxlan)) else ()


def _needs(thing: KernelObject) -> set[str]:
    """The devices without which ``thing`` cannot be here; a bridge does not take its ports along."""
    needed = {getattr(thing, "device", None) or "", getattr(thing, "bridge", "")}
    return needed - {""}


def lines(changes: Diff, pods: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """``changes`` as a person would type them, by namespace; ``pods`` gives the node and netns name of pods."""
    typed: dict[str, list[str]] = {}
    for namespace in changes.new:
        if namespace in pods:
            node, name = pods[namespace]
            typed.setdefault(node, []).append(f"ip netns add {name}")
    for namespace, things in changes.first.items():
        typed.setdefault(namespace, []).extend(line for thing in things for line in removal(thing))
    for namespace, things in changes.add.items():
        typed.setdefault(namespace, []).extend(shell_lines(things))
    for namespace, pairs in changes.change.items():
        typed.setdefault(namespace, []).extend(line for pair in pairs for line in alteration(*pair))
    for namespace, things in changes.remove.items():
        typed.setdefault(namespace, []).extend(line for thing in things for line in removal(thing))
    for namespace in changes.gone:
        if namespace in pods:
            node, name = pods[namespace]
            if node not in changes.gone:
                typed.setdefault(node, []).append(f"ip netns del {name}")
    return {namespace: found for namespace, found in typed.items() if found}


@singledispatch
def removal(thing: KernelObject) -> Iterator[str]:
    """The lines that take ``thing`` away; none for a setting, which has no absence."""
    yield from ()


@removal.register(Bridge)
@removal.register(Veth)
@removal.register(Vxlan)
def _(thing: Bridge | Veth | Vxlan) -> Iterator[str]:
    yield f"ip link del dev {thing.name}"


@removal.register
def _(thing: BridgePort) -> Iterator[str]:
    yield f"ip link set dev {thing.device} nomaster"


@removal.register
def _(thing: Up) -> Iterator[str]:
    yield f"ip link set dev {thing.device} down"


@removal.register
def _(thing: Address) -> Iterator[str]:
    yield f"ip addr del {thing.address} dev {thing.device}"


@removal.register
def _(thing: Route) -> Iterator[str]:
    yield next(thing.lines()).replace(" route add ", " route del ", 1)


@removal.register
def _(thing: Neighbor) -> Iterator[str]:
    yield f"ip neigh del {thing.address} dev {thing.device}"


@removal.register
def _(thing: FdbEntry) -> Iterator[str]:
    where = f"dst {thing.remote} self" if thing.remote else "master"
    yield f"bridge fdb del {thing.mac} dev {thing.device} {where}"


@removal.register
def _(thing: RateLimit) -> Iterator[str]:
    yield f"tc qdisc del dev {thing.device} root"


@removal.register
def _(thing: CniNetwork) -> Iterator[str]:
    yield f"rm {thing.path}"


@removal.register
def _(thing: CniAttachment) -> Iterator[str]:
    yield from thing.removal()


@removal.register
def _(thing: NftTable) -> Iterator[str]:
    yield f"nft delete table {thing.family} {thing.name}"


def alteration(before: KernelObject, after: KernelObject) -> Iterator[str]:
    """The lines that change ``before`` into ``after`` in place."""
    if isinstance(before, NftTable) and isinstance(after, NftTable):
        yield from (f"nft '{command}'" for command in delta(before, after))
    elif isinstance(after, Route):
        yield next(after.lines()).replace(" route add ", " route replace ", 1)
    elif isinstance(after, RateLimit):
        yield next(after.lines()).replace(" qdisc add ", " qdisc replace ", 1)
    elif isinstance(after, Device):
        yield from _device_alteration(before, after)
    else:
        yield from after.lines()


def _device_alteration(before: KernelObject, after: Bridge | Veth | Vxlan) -> Iterator[str]:
    words = [f"{key} {value}" for key, value in altered_attributes(before, after).items()]
    if words:
        yield f"ip link set dev {after.name} {' '.join(words)}"
    if isinstance(after, Vxlan) and isinstance(before, Vxlan) and before.learning != after.learning:
        yield f"ip link set dev {after.name} type vxlan {'learning' if after.learning else 'nolearning'}"


def altered_attributes(before: KernelObject, after: Bridge | Veth | Vxlan) -> dict[str, object]:
    """MTU and MAC of a device where they are to be another: ``{"mtu": 1450, "address": "02:…"}``."""
    assert isinstance(before, Device)
    found: dict[str, object] = {"mtu": after.mtu} if before.mtu != after.mtu else {}
    return found | ({"address": after.mac} if after.mac and before.mac != after.mac else {})
