"""From what all taps saw to one packet's way: which sighting led to which.  Pure.

Times alone do not order it: a frame keeps its timestamp from one end of a pair to the other.  So each sighting follows the
latest one that can have led to it, by how the interfaces hang together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from emulab.packet import Observation, Place


class Wiring(NamedTuple):
    """How interfaces hang together: the other ends of pairs, the bridges of ports, kinds, MAC addresses."""

    peers: Mapping[Place, Place]
    masters: Mapping[Place, Place]
    kinds: Mapping[Place, str]
    macs: Mapping[Place, str]


class Way(NamedTuple):
    """One packet's sightings in order.  ``flooded``: at these places it was copied to so many ports."""

    seen: tuple[Observation, ...]
    flooded: Mapping[int, int]


def way(seen: Sequence[Observation], wiring: Wiring, end: Place | None) -> Way:
    """The sightings on the way to ``end``, or, when it was not reached, as far as the packet came."""
    ordered = _once(seen)
    parents: list[int | None] = []
    for index, one in enumerate(ordered):
        parents.append(_parent(index, one, ordered, wiring))
    _cut_cycles(parents)
    children: dict[int | None, list[int]] = {}
    for index, parent in enumerate(parents):
        children.setdefault(parent, []).append(index)
    arrived = [i for i, o in enumerate(ordered) if o.place == end and o.direction == "in"]
    if arrived:
        chain = _up(arrived[0], parents)
    elif ordered:
        chain = _down(children, ordered, wiring)
    else:
        chain = []
    flooded = {}
    for position, index in enumerate(chain):
        copies = sum(ordered[child].direction == "out" for child in children.get(index, ()))
        if copies > 1:
            flooded[position] = copies
    return Way(tuple(ordered[index] for index in chain), flooded)


def _once(seen: Sequence[Observation]) -> list[Observation]:
    """In order of time, without repetitions: TCP sends again what got no answer."""
    found: dict[tuple[object, ...], Observation] = {}
    for one in sorted(seen, key=lambda o: o.time):
        found.setdefault((one.place, one.direction, one.inner.ttl, one.outer and one.outer[:2], one.inner.note), one)
    return list(found.values())


def _parent(index: int, one: Observation, ordered: Sequence[Observation], wiring: Wiring) -> int | None:
    """The latest that can have led to it; of those with the same time, a bridge before the port by which it got there."""
    candidates = [
        (candidate.time, _near(candidate, one, wiring), other)
        for other, candidate in enumerate(ordered)
        if other != index and candidate.time <= one.time and _leads(candidate, one, wiring)
    ]
    return max(candidates)[2] if candidates else None


def _near(candidate: Observation, one: Observation, wiring: Wiring) -> bool:
    return wiring.masters.get(one.place) == candidate.place or not wiring.masters.get(candidate.place)


def _leads(a: Observation, b: Observation, wiring: Wiring) -> bool:
    """Whether a packet seen as ``a`` can be seen as ``b`` next."""
    if a.place.namespace != b.place.namespace:
        return a.direction == "out" and b.direction == "in" and wiring.peers.get(a.place) == b.place
    master = wiring.masters.get(b.place)
    if b.direction == "in":
        if b.place.interface == "lo":
            return a.place == b.place and a.direction == "out"
        if a.direction != "in":
            return wiring.peers.get(a.place) == b.place
        if wiring.kinds.get(b.place) == "vxlan":
            return a.outer is not None and b.outer is None
        return wiring.masters.get(a.place) == b.place
    if wiring.kinds.get(a.place) == "vxlan" and a.direction == "out":
        return b.outer is not None
    if master:
        return a.place == master or (a.direction == "in" and wiring.masters.get(a.place) == master)
    return a.direction == "in" and (a.outer is None) == (b.outer is None)


def _cut_cycles(parents: list[int | None]) -> None:
    for start in range(len(parents)):
        met = {start}
        index = start
        while (parent := parents[index]) is not None:
            if parent in met:
                parents[index] = None
                break
            met.add(parent)
            index = parent


def _up(index: int, parents: Sequence[int | None]) -> list[int]:
    chain: list[int] = []
    at: int | None = index
    while at is not None:
        chain.append(at)
        at = parents[at]
    return chain[::-1]


def _down(children: Mapping[int | None, Sequence[int]], ordered: Sequence[Observation], wiring: Wiring) -> list[int]:
    """From the first sighting on; a flooded frame is followed to where it is addressed to, or not at all."""
    chain = [children[None][0]]
    while following := children.get(chain[-1], ()):
        if len(following) > 1:
            to = [child for child in following if _addressed(child, children, ordered, wiring)]
            if not to:
                break
            following = to
        chain.append(following[0])
    return chain


def _addressed(index: int, children: Mapping[int | None, Sequence[int]], ordered: Sequence[Observation], wiring: Wiring) -> bool:
    """Whether the frame gets anywhere by this way: it goes on behind the link's other end, or carries that end's MAC."""
    if ordered[index].direction == "in":
        return True
    beyond = children.get(index, ())
    return any(
        children.get(child) or (ordered[child].outer is None and wiring.macs.get(ordered[child].place) == ordered[child].macs[1])
        for child in beyond
    )
