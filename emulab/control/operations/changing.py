"""To change a lab: pods, nodes, links, partitions.  Everything can be shown instead of done (``dry_run``)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import Any

from emulab import change
from emulab.control.live import LiveLab, operation
from emulab.diff import diff, lines
from emulab.errors import InputError, nearest
from emulab.etc_files import resolve
from emulab.planning import Design
from emulab.report import objects


@operation
def pod_add(
    live: LiveLab,
    name: str,
    node: str,
    addresses: list[str] | None = None,
    labels: dict[str, str] | None = None,
    dry_run: bool = False,
) -> Any:
    """Add a pod."""
    wanted = [address_of(text) for text in addresses or ()]
    with live.turn():
        shown = carry_out(live, lambda design: change.add_pod(design, name, node, wanted, labels), dry_run)
        if not dry_run:
            key = resolve(live.lab.cluster, name)
            endpoint = next(e for e in live.lab.cluster.endpoints if e.key == key)
            shown["addresses"] = [str(address) for address in endpoint.addresses]
    return shown


@operation
def pod_rm(live: LiveLab, names: list[str], dry_run: bool = False) -> Any:
    """Remove pods, all or none."""
    with live.turn():
        keys = [_pod(live, name) for name in names]

        def without(design: Design) -> Design:
            for key in keys:
                design = change.remove_pod(design, key)
            return design

        return carry_out(live, without, dry_run, keys)


@operation
def node_add(
    live: LiveLab, name: str, segment: str | None = None, addresses: list[str] | None = None, dry_run: bool = False
) -> Any:
    """Add a node."""
    wanted = [address_of(text) for text in addresses or ()]
    with live.turn():
        shown = carry_out(live, lambda design: change.add_node(design, name, segment, wanted), dry_run)
        if not dry_run:
            shown["addresses"] = [str(a.ip) for a in live.lab.cluster.topology.uplink(name).addresses]
            live.tell("node added", node=name, addresses=shown["addresses"])
    return shown


@operation
def node_rm(live: LiveLab, name: str, dry_run: bool = False) -> Any:
    """Remove a node and its pods."""
    return _node_change(live, name, "node removed", change.remove_node, dry_run)


@operation
def node_stop(live: LiveLab, name: str, dry_run: bool = False) -> Any:
    """Switch a node off."""
    return _node_change(live, name, "node stopped", lambda design, node: change.switch_node(design, node, False), dry_run)


@operation
def node_start(live: LiveLab, name: str, dry_run: bool = False) -> Any:
    """Switch a node on."""
    return _node_change(live, name, "node started", lambda design, node: change.switch_node(design, node, True), dry_run)


@operation
def link_set(
    live: LiveLab,
    node: str,
    up: bool | None = None,
    rate: int | None = None,
    delay: float | None = None,
    loss: float | None = None,
    dry_run: bool = False,
) -> Any:
    """Give a node's uplink another state or shape: bit/s, seconds, fraction."""
    with live.turn():
        name = _node(live, node)
        shown = carry_out(live, lambda d: change.set_link(d, name, up=up, rate=rate, delay=delay, loss=loss), dry_run)
        if not dry_run:
            event = "link changed" if up is None else f"link {'up' if up else 'down'}"
            live.tell(event, node=name, **objects.shape(live.lab.cluster.topology.uplink(name)))
    return shown


@operation
def partition(live: LiveLab, groups: list[list[str]], dry_run: bool = False) -> Any:
    """Part groups of nodes from each other."""
    with live.turn():
        sides = [[_node(live, name) for name in group] for group in groups]
        shown = carry_out(live, lambda design: change.partition(design, sides), dry_run)
        if not dry_run:
            live.tell("partition", groups=sides)
    return shown


@operation
def heal(live: LiveLab, dry_run: bool = False) -> Any:
    """Join what was parted."""
    with live.turn():
        shown = carry_out(live, change.heal, dry_run)
        if not dry_run:
            live.tell("healed")
    return shown


def _node_change(live: LiveLab, name: str, event: str, work: Callable[[Design, str], Design], dry_run: bool) -> Any:
    with live.turn():
        node = _node(live, name)
        shown = carry_out(live, lambda design: work(design, node), dry_run)
        if not dry_run:
            live.tell(event, node=node)
    return shown


def carry_out(live: LiveLab, work: Callable[[Design], Design], dry_run: bool, avoid: Collection[str] = ()) -> dict[str, Any]:
    """Plan a change with all that follows for workloads, and carry it out unless it is only to be shown.

    ``avoid``: keys of pods that are deleted, so that no other gets one of those names.
    """
    before = live.lab.design
    after = change.settled(work(before), avoid)
    changes = diff(before.desired, after.desired) if dry_run else live.lab.change(after)
    if not dry_run:
        _tell_pods(live, before, after)
    return {"lines": lines(changes, before.places | after.places), "dry_run": dry_run}


def _tell_pods(live: LiveLab, before: Design, after: Design) -> None:
    """Which pods have come and gone, whatever the reason."""
    were, are = ({endpoint.key: endpoint for endpoint in one.cluster.endpoints} for one in (before, after))
    for key in were:
        if key not in are:
            live.tell("pod removed", pod=key)
    for key, endpoint in are.items():
        if key not in were:
            live.tell("pod added", pod=key, node=endpoint.node, addresses=[str(address) for address in endpoint.addresses])


def address_of(text: str) -> Any:
    try:
        return ip_address(text)
    except ValueError:
        raise InputError(f"'{text}' is no IP address") from None


def _node(live: LiveLab, name: str) -> str:
    known = [node.name for node in live.lab.cluster.nodes]
    if name not in known:
        raise InputError(f"no node '{name}'{nearest(name, known)}")
    return name


def _pod(live: LiveLab, name: str) -> str:
    key = resolve(live.lab.cluster, name, others=False)
    if "/" not in key:
        if name != key:
            raise InputError(f"{name} lives in the network of {key}: emulab delete pod {name}")
        raise InputError(f"{name} is a node: a pod expected")
    return key
