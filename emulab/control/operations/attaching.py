"""Pods in network namespaces of others: what the executable `emulab-cni` asks for, one operation per command of CNI.

Raises `CniError` where the specification has a code of its own, else what adding and removing pods raises.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from emulab import change, etc_files
from emulab.cni.errors import CniError, Code
from emulab.control.live import Emit, LiveLab, operation
from emulab.control.operations.changing import address_of, carry_out
from emulab.drift import Deviation
from emulab.errors import InputError, nearest
from emulab.model import Attachment, Endpoint
from emulab.state import Address, BridgePort, Route, Veth

INTERFACE = "eth0"  # what data planes call a pod's
DEVIATES = 100  # the first code that is a plugin's own


@operation
def cni_add(
    live: LiveLab,
    emit: Emit,
    descriptors: Sequence[int],
    network: str,
    container: str,
    interface: str,
    sandbox: str,
    node: str,
    name: str,
    addresses: list[str] | None = None,
    labels: dict[str, str] | None = None,
    rates: list[int] | None = None,
) -> Any:
    """The network namespace that comes with the request becomes the pod ``name`` on ``node``.  ``rates``: in and out, bit/s."""
    if len(descriptors) != 1:
        raise InputError("cni_add: one network namespace expected as a descriptor")
    if interface != INTERFACE:
        raise CniError(
            Code.INVALID_ENVIRONMENT, f"CNI_IFNAME={interface}: a pod has one interface here, and it is called {INTERFACE}"
        )
    wanted = [address_of(text) for text in addresses or ()]
    shaped = (rates[0], rates[1]) if rates and len(rates) == 2 else (0, 0)
    attachment = Attachment(network, container, interface, sandbox)
    namespace, _, short = name.rpartition("/")
    key = f"{namespace or 'default'}/{short}"
    with live.turn():
        emit({"event": "turn"})  # fails when the caller was killed meanwhile: its DEL may have come before
        _ready(live, node)
        if _attached(live, network, container, interface):
            raise CniError(DEVIATES + 1, f"container {container} has its {interface} in network {network} already")
        if any(one.key == key for one in live.lab.cluster.endpoints):
            raise InputError(f"there is a pod '{key}' already")
        _borrow(live, key, descriptors[0], interface, sandbox)
        try:
            carry_out(live, lambda d: change.add_pod(d, name, node, wanted, labels, shaped, attachment), False)
        except BaseException:
            live.lab.namespaces.give_back([key])
            raise
        return _result(live, key)


@operation
def cni_del(live: LiveLab, network: str, container: str, interface: str) -> Any:
    """Take what was attached away, if it is there."""
    with live.turn():
        found = _attached(live, network, container, interface)
        return {"removed": _take_away(live, [found] if found else [])}


@operation
def cni_check(
    live: LiveLab,
    descriptors: Sequence[int],
    network: str,
    container: str,
    interface: str,
    addresses: list[str] | None = None,
) -> Any:
    """Raises `CniError` when an attachment is not as planned, in its namespace (the one that comes with the request) or on
    its node."""
    with live.turn():
        found = _attached(live, network, container, interface)
        if found is None:
            raise CniError(Code.UNKNOWN_CONTAINER, f"container {container} has no {interface} in network {network}")
        _ready(live, found.node)
        if any(live.lab.namespaces.holds(net) != found.key for net in descriptors):
            raise CniError(DEVIATES, f"{found.key} is in another network namespace")
        missing = set(addresses or ()).difference(map(str, found.addresses))
        if missing:
            raise CniError(DEVIATES, f"{found.key} does not have the address {', '.join(sorted(missing))} of prevResult")
        wrong = [str(one) for one in live.lab.drift() if _concerns(live, found, one)]
        if wrong:
            raise CniError(DEVIATES, f"{found.key} is not as planned", "; ".join(wrong[:8]))
        return {"pod": found.key}


@operation
def cni_gc(live: LiveLab, network: str, node: str, valid: list[dict[str, str]]) -> Any:
    """Take away whatever was attached to ``node`` by that network, but what is ``valid`` (containerID, ifname)."""
    spared = {(one.get("containerID"), one.get("ifname")) for one in valid}
    with live.turn():
        stale = [
            one
            for one in live.lab.cluster.endpoints_on(node)
            if (a := one.pod.attachment) and a.network == network and (a.container, a.interface) not in spared
        ]
        return {"removed": _take_away(live, stale)}


@operation
def cni_status(live: LiveLab, node: str) -> Any:
    """Raises `CniError` unless pods can be attached to ``node``."""
    try:
        _ready(live, node)
    except (InputError, CniError) as error:
        raise CniError(Code.NOT_AVAILABLE, error.msg if isinstance(error, CniError) else str(error)) from None
    return {"pods": len(live.lab.cluster.endpoints_on(node))}


def _ready(live: LiveLab, node: str) -> None:
    nodes = {one.name: one for one in live.lab.cluster.nodes}
    if node not in nodes:
        raise InputError(f"lab {live.name} has no node '{node}'{nearest(node, nodes)}")
    if not nodes[node].running:
        raise CniError(Code.TRY_AGAIN_LATER, f"node {node} of lab {live.name} is stopped (emulab node start {node})")


def _attached(live: LiveLab, network: str, container: str, interface: str) -> Endpoint | None:
    for endpoint in live.lab.cluster.endpoints:
        one = endpoint.pod.attachment
        if one and (one.network, one.container, one.interface) == (network, container, interface):
            return endpoint
    return None


def _borrow(live: LiveLab, key: str, net: int, interface: str, sandbox: str) -> None:
    """Have the namespace under the pod's name.  Raises `CniError` when it is none for us."""
    namespaces = live.lab.namespaces
    if (held := namespaces.holds(net)) is not None:
        raise CniError(Code.INVALID_NETNS, f"{sandbox} is {held} of lab {live.name} already")
    try:
        namespace = namespaces.lend(key, net)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise CniError(Code.INVALID_NETNS, f"{sandbox}: {error.strerror}, a network namespace expected") from None
        why = "it belongs to another user namespace than the lab" + (" (start the lab as root)" if _of_a_user() else "")
        raise CniError(Code.INVALID_NETNS, f"{sandbox}: lab {live.name} may not enter this network namespace: {why}") from None
    there = interface in namespace.links
    namespace.close()
    if there:
        namespaces.give_back([key])
        raise CniError(DEVIATES + 1, f"there is an interface {interface} in {sandbox} already")


def _of_a_user() -> bool:
    """Whether the sandbox's root is an ordinary user of the machine (user_namespaces(7))."""
    with open("/proc/self/uid_map") as file:
        return file.read().split()[:2] != ["0", "0"]


def _take_away(live: LiveLab, endpoints: Sequence[Endpoint]) -> list[str]:
    keys = [endpoint.key for endpoint in endpoints]

    def without(design: Any) -> Any:
        for key in keys:
            design = change.remove_pod(design, key)
        return design

    if keys:
        carry_out(live, without, False, keys)
    return keys


def _host_end(live: LiveLab, endpoint: Endpoint) -> Veth | None:
    things = live.lab.design.desired.get(endpoint.node, ())
    return next((thing for thing in things if isinstance(thing, Veth) and thing.peer_namespace == endpoint.key), None)


def _concerns(live: LiveLab, endpoint: Endpoint, deviation: Deviation) -> bool:
    """Whether something is about the pod: in its namespace, or about its end, bridge or addresses on its node."""
    if deviation.namespace == endpoint.key:
        return True
    pair = _host_end(live, endpoint)
    if deviation.namespace != endpoint.node or pair is None:
        return False
    names = {pair.name, *map(str, endpoint.addresses)}
    ports = (thing for thing in live.lab.design.desired[endpoint.node] if isinstance(thing, BridgePort))
    names |= {thing.bridge for thing in ports if thing.device == pair.name}
    lines = (line for thing in (deviation.planned, deviation.found) if thing for line in thing.lines())
    return any(names.intersection(line.split()) for line in lines)


def _result(live: LiveLab, key: str) -> dict[str, Any]:
    """What ADD can tell of a pod."""
    endpoint = next(one for one in live.lab.cluster.endpoints if one.key == key)
    pair = _host_end(live, endpoint)
    things = live.lab.design.desired[key]
    routes = [thing for thing in things if isinstance(thing, Route) and thing.kind == "unicast"]
    gateways = {one.destination.version: str(one.via) for one in routes if one.via and not one.destination.prefixlen}
    resolver = [line.split() for line in etc_files.of(live.lab.cluster, key)["resolv.conf"].splitlines()]
    return {
        "pod": key,
        "mac": endpoint.mac,
        "mtu": pair.mtu if pair else None,
        "addresses": [
            {"address": str(thing.address), "gateway": gateways.get(thing.address.version)}
            for thing in things
            if isinstance(thing, Address) and thing.device == INTERFACE
        ],
        "routes": [{"dst": str(one.destination), "gw": str(one.via) if one.via else None} for one in routes],
        "dns": {words[0]: words[1:] for words in resolver if words and words[0] in ("nameserver", "search", "options")},
    }
