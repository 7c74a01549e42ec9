"""Why a packet went from one place to the next: the route, neighbour, forwarding entry or rule that decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emulab.kernel.decisions import Refusal
from emulab.kernel.nftrace import Event
from emulab.packet import Observation, text
from emulab.probe.scene import Scene

_TELLING = ("accept", "drop", "queue", "stolen")


def because(scene: Scene, before: Observation | None, seen: Observation, macs: tuple[str, str]) -> Iterator[str]:
    """What led from ``before`` to ``seen``; ``macs`` are those of the frame itself, outer ones if it is a tunnel's."""
    namespace = seen.place.namespace
    view = scene.view(namespace)
    link = view.links.get(seen.place.interface)
    if before is not None and before.place.namespace != namespace:
        return
    if before is None:
        if seen.direction == "out" and namespace in (scene.flow.source, scene.flow.destination):
            yield from routed(scene, namespace, seen.inner.source, seen.inner.destination, "", seen)
        return
    former = view.links.get(before.place.interface)
    if link is None or former is None:
        return
    if seen.direction == "in":
        if link.kind == "vxlan":
            yield f"vxlan {link.name}: UDP port {link.port} and VNI {link.vni} are its own"
        elif former.master == link.number:
            entry = view.bridge_entry(link.number, macs[1])
            yield f"fdb {entry.text}: the bridge's own" if entry and entry.local else f"{former.name} is a port of {link.name}"
        return
    if former.kind == "vxlan" and seen.outer and before.direction == "out":
        yield from tunnelled(scene, namespace, former.number, seen)
    elif link.master and link.master in (former.number, former.master):
        entry = view.bridge_entry(link.master, macs[1])
        yield f"fdb {entry.text}" if entry else f"fdb: {view.name(link.master)} does not know {macs[1]} and floods it"
    elif seen.outer:
        yield from routed(scene, namespace, seen.outer.source, seen.outer.destination, former.name, seen)
    else:
        yield from routed(scene, namespace, before.inner.source, seen.inner.destination, former.name, seen)


def routed(scene: Scene, namespace: str, source: bytes, destination: bytes, iif: str, seen: Observation) -> Iterator[str]:
    """The route to ``destination``, and its next hop's MAC."""
    view = scene.view(namespace)
    route = view.route(destination, source, iif)
    if isinstance(route, Refusal):  # it is gone since
        yield f"no route to {text(destination)} now: {route.words}"
        return
    yield f"route {route.text}" + (f", MTU {route.mtu}" if route.mtu and "mtu" not in route.text else "")
    if route.kind == "local":
        return
    hop = route.gateway or destination
    neighbour = view.neighbour(route.device, hop)
    if neighbour:
        yield f"neighbour {neighbour.text}"


def tunnelled(scene: Scene, namespace: str, device: int, seen: Observation) -> Iterator[str]:
    """A VXLAN device's choice of a remote, and the way there."""
    view = scene.view(namespace)
    link = view.at(device)
    entry = view.tunnel_entry(device, seen.macs[1])
    if entry:
        yield f"fdb {entry.text}"
    elif link and link.remote:
        yield f"vxlan {link.name} has one remote, {text(link.remote)}"
    elif link:
        yield f"fdb: {link.name} does not know {seen.macs[1]}, its default destinations get it"
    if seen.outer:
        yield from routed(scene, namespace, seen.outer.source, seen.outer.destination, "", seen)


def rules(scene: Scene, leg: str, way: Sequence[Observation]) -> dict[int, list[str]]:
    """The rules met, by the hop that they belong to: the first that leaves where they say, else the one that came in."""
    found: dict[int, list[str]] = {}
    for namespace, events in scene.events.items():
        view = scene.view(namespace)
        for event in events:
            if not telling(event) or not scene.opening(event) or scene.leg(event) != leg:
                continue
            index = _belongs(way, namespace, view.name(event.before), view.name(event.after), event)
            if index is not None and str(event) not in found.setdefault(index, []):
                found[index].append(str(event))
    return found


def telling(event: Event) -> bool:
    """Whether it decided anything; a policy that accepts is no news."""
    return event.verdict in _TELLING and not event.rule.startswith("policy accept")


def _belongs(way: Sequence[Observation], namespace: str, before: str, after: str, event: Event) -> int | None:
    here = [index for index, seen in enumerate(way) if seen.place.namespace == namespace]
    if event.after:
        for index in here:
            if way[index].direction == "out" and way[index].place.interface == after:
                return index
    if event.before:
        for index in here:
            if way[index].direction == "in" and way[index].place.interface == before:
                return index
    return here[-1] if here else None
