"""What a cause is, and the deviations that it is found in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from emulab.drift import Deviation, Found
from emulab.packet import short
from emulab.scene import Scene
from emulab.state import (
    Address,
    Bridge,
    BridgePort,
    FdbEntry,
    Neighbor,
    Offload,
    RateLimit,
    Route,
    Sysctl,
    Up,
    Veth,
    Vxlan,
)

T = TypeVar("T")


class Cause(NamedTuple):
    """What is wrong where, in words, and the deviations that this explains.

    ``fault``: a name in `emulab.faults.FAULTS` or "unknown-drift"; ``where``: a node (also for its uplink) or a pod.
    """

    fault: str
    where: str
    words: str
    explained: Sequence[Deviation]
    seen: tuple[str, ...] = ()  # rules that do it

    @property
    def namespaces(self) -> list[str]:
        return list(dict.fromkeys(d.namespace for d in self.explained))


Causes = Iterator[Cause]
Finder = Callable[[Scene, Sequence[Deviation]], Causes]


def pairs(deviations: Iterable[Deviation], kind: type[T]) -> Iterator[tuple[Deviation, T | None, T | None]]:
    """The deviations of one kind of object: (deviation, as planned, as found)."""
    for d in deviations:
        planned, found = (thing if isinstance(thing, kind) else None for thing in (d.planned, d.found))
        if planned is not None or found is not None:
            yield d, planned, found


def devices_of(thing: Found | None) -> list[str]:
    """The devices that an object is, or hangs on."""
    if isinstance(thing, Veth):
        return [thing.name] if thing.peer_namespace else [thing.name, thing.peer]
    if isinstance(thing, (Bridge, Vxlan)):
        return [thing.name]
    if isinstance(thing, BridgePort):
        return [thing.device, thing.bridge]
    if isinstance(thing, (Up, Offload, RateLimit, Address, Route, Neighbor, FdbEntry)):
        return [thing.device] if thing.device else []
    if isinstance(thing, Sysctl):
        return [word.replace("/", ".") for word in thing.key.split(".")[3:-1]]
    return []


def on(deviations: Iterable[Deviation], namespace: str, devices: Iterable[str]) -> list[Deviation]:
    """What deviates on these devices of a namespace."""
    names = set(devices)
    return [d for d in deviations if d.namespace == namespace and names & {*devices_of(d.planned), *devices_of(d.found)}]


def listed(names: Iterable[object]) -> str:
    """Each name once, in order, the many cut short."""
    words = list(dict.fromkeys(short(str(name)) for name in names))
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")
