"""Brings the kernel from one state to another: the one place that carries out a plan.

What is added comes in this order: every pair that joins two namespaces, created from within the peer, and with it all of
a pod's namespace; then everything else, devices first.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress

from emulab.diff import Changes, Diff, altered_attributes, removal
from emulab.errors import KernelError, MachineError
from emulab.kernel import encode, nftables
from emulab.kernel import netlink as nl
from emulab.kernel.namespaces import Namespace, Namespaces, entered
from emulab.kernel.netlink import NetlinkError, Request
from emulab.nft_delta import delta, transactions
from emulab.state import (
    Bridge,
    Cni,
    Device,
    KernelObject,
    NftTable,
    Offload,
    RateLimit,
    Route,
    State,
    Sysctl,
    Veth,
    Vxlan,
    shell_lines,
)

_MODULES = {Vxlan: "vxlan", Bridge: "bridge", Veth: "veth"}


UNANSWERED = 0x31  # NUD_INCOMPLETE, NUD_PROBE, NUD_FAILED
_ENTERED = encode.NUD_PERMANENT | encode.NUD_NOARP
_GONE = frozenset({2, 3, 19, 99})  # ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL: what shall go is not there any more


def apply(namespaces: Namespaces, changes: Diff) -> None:
    """Carry out ``changes``; namespaces named in them must exist.  Raises `KernelError` for what the kernel refuses."""
    remove(namespaces, changes.first)
    add(namespaces, changes.add)
    change(namespaces, changes.change)
    remove(namespaces, changes.remove)


def remove(namespaces: Namespaces, state: State) -> None:
    """Take away all objects of ``state``, in their order."""
    for name, objects in state.items():
        _remove(namespaces[name], objects)


def change(namespaces: Namespaces, changes: Changes) -> None:
    """Give objects their new values, in place."""
    for name, pairs in changes.items():
        batch: list[tuple[KernelObject, Request]] = []
        tables: list[tuple[NftTable, NftTable]] = []
        for before, after in pairs:
            if isinstance(before, NftTable) and isinstance(after, NftTable):
                tables.append((before, after))
            else:
                batch += [(after, request) for request in _alteration(namespaces, namespaces[name], before, after)]
        _alter_tables(namespaces[name], tables)
        _execute(namespaces[name], batch)


def _alter_tables(here: Namespace, pairs: Sequence[tuple[NftTable, NftTable]]) -> None:
    """All in one transaction where it fits: the next one in a namespace would wait until what the first took away is freed."""
    commands = [command for before, after in pairs for command in delta(before, after)]
    for some in transactions(commands, nftables.room()):
        _nft(here, [after for _, after in pairs], "\n".join(some))


def _alteration(namespaces: Namespaces, here: Namespace, before: KernelObject, after: KernelObject) -> list[Request]:
    """The requests that turn ``before`` into ``after``; what is not set by rtnetlink is set at once."""
    if isinstance(after, Route):
        return [encode.route_replaced(after, here)]
    if isinstance(after, Device):
        altered = altered_attributes(before, after)
        mtu, mac = (after.mtu if "mtu" in altered else None), (after.mac if "address" in altered else None)
        requests = [encode.link_attributes(here, after.name, mtu, mac)] if altered else []
        if isinstance(after, Veth) and isinstance(before, Veth):
            there = namespaces[after.peer_namespace] if after.peer_namespace else here
            peer_mac = after.peer_mac if after.peer_mac != before.peer_mac else None
            if mtu or peer_mac:
                _execute(there, [(after, encode.link_attributes(there, after.peer, mtu, peer_mac))])
        if isinstance(after, Vxlan) and isinstance(before, Vxlan) and before.learning != after.learning:
            requests.append(encode.vxlan_learning(here, after.name, after.learning))
        return requests
    if _is_netlink(after):
        return encode.added(after, here)
    with entered(here.net):
        _set(here, after)
    return []


def add(namespaces: Namespaces, state: State) -> None:
    """Create all objects of ``state``."""
    pairs: dict[str, list[tuple[Namespace, Veth]]] = {}
    rest: dict[str, list[KernelObject]] = {}
    for name, things in state.items():
        rest[name] = []
        for thing in things:
            if isinstance(thing, Veth) and thing.peer_namespace is not None:
                pairs.setdefault(thing.peer_namespace, []).append((namespaces[name], thing))
            else:
                rest[name].append(thing)
        rest[name].sort(key=lambda thing: not isinstance(thing, (Bridge, Veth, Vxlan)))
    for name, attached in pairs.items():
        peer = namespaces[name]
        batch = [(pair, encode.veth_from_peer(pair, host, peer)) for host, pair in attached]
        # A pod is finished in the same datagram; a node's own objects may need pairs that are still to come.
        objects = rest.pop(name, []) if "/" in name else []
        _add(peer, objects, batch)
    for name, objects in rest.items():
        _add(namespaces[name], objects)


def forget_neighbours(namespace: Namespace, states: int = 0xFF) -> None:
    """Let a namespace ask anew for every MAC that it has learned (NUD_* ``states``); what was entered stays."""
    learned = []
    for _, payload in namespace.socket().dump(nl.RTM_GETNEIGH, nl.ndmsg.pack(0, 0, 0, 0, 0)):
        family, index, state, flags, _ = nl.ndmsg.unpack_from(payload)
        address = dict(nl.attributes(payload[nl.ndmsg.size :])).get(1)
        if address and state & states and not state & _ENTERED and not flags & encode.NTF_EXT_LEARNED:
            body = nl.ndmsg.pack(family, index, 0, flags, 0) + nl.attribute(1, address)
            learned.append(Request(nl.RTM_DELNEIGH, 0, body))
    namespace.socket().execute(learned, _GONE)


def _is_netlink(thing: KernelObject) -> bool:
    if isinstance(thing, Sysctl):
        return encode.is_neighbour_parameter(thing.key)
    return not isinstance(thing, (NftTable, Offload, RateLimit, *Cni))


def _add(namespace: Namespace, objects: Iterable[KernelObject], first: Iterable[tuple[KernelObject, Request]] = ()) -> None:
    batch = list(first)
    for thing in objects:
        if _is_netlink(thing):
            batch += [(thing, request) for request in encode.added(thing, namespace)]
        else:
            _execute(namespace, batch)
            batch = []
            with entered(namespace.net):
                _set(namespace, thing)
    _execute(namespace, batch)


def _remove(namespace: Namespace, objects: Iterable[KernelObject]) -> None:
    batch: list[tuple[KernelObject, Request]] = []
    for thing in objects:
        if isinstance(thing, NftTable):
            _nft(namespace, [thing], f"delete table {thing.family} {thing.name}")
        elif isinstance(thing, RateLimit):
            with entered(namespace.net):
                subprocess.run(next(removal(thing)).split(), capture_output=True)
        elif _is_netlink(thing) and not isinstance(thing, Sysctl):
            with suppress(KeyError):  # its device has gone meanwhile, with a namespace that was left
                batch += [(thing, request) for request in encode.removed(thing, namespace)]
    _execute(namespace, batch, _GONE)


def _execute(namespace: Namespace, batch: list[tuple[KernelObject, Request]], tolerate: frozenset[int] = frozenset()) -> None:
    if not batch:
        return
    try:
        namespace.socket().execute((request for _, request in batch), tolerate)
    except NetlinkError as error:
        raise _refused(namespace, batch[error.index][0], error) from None


def _refused(namespace: Namespace, thing: KernelObject, error: NetlinkError) -> KernelError | MachineError:
    module = _MODULES.get(type(thing))
    if module and error.errno == 95:  # EOPNOTSUPP: no such kind of link
        return MachineError(f"this kernel has no {module} devices: modprobe {module} (or see `emulab doctor`)")
    return KernelError(namespace.name, shell_lines([thing])[0], error.strerror or str(error))


def _set(namespace: Namespace, thing: KernelObject) -> None:
    """Set what is not set by rtnetlink; the calling thread is in the namespace."""
    try:
        if isinstance(thing, Sysctl):
            # A dot separates, a slash stands for a dot inside an interface's name: sysctl(8).
            path = thing.key.translate({ord("."): "/", ord("/"): "."})
            if thing.key.startswith("net.bridge.") and not os.path.exists("/proc/sys/net/bridge"):
                raise MachineError("this kernel shows no bridged packets to nftables: modprobe br_netfilter")
            with open(f"/proc/sys/{path}", "w") as file:
                file.write(thing.value)
        elif isinstance(thing, NftTable):
            commands = (f"add table {thing.family} {thing.name}", *thing.rules)
            # In one transaction where it fits: each commit waits for an RCU grace period.
            for some in transactions(commands, nftables.room()):
                _nft(namespace, [thing], "\n".join(some))
        elif isinstance(thing, Offload):
            _set_offload(thing)
        elif isinstance(thing, RateLimit):
            _shape(thing)
    except OSError as error:
        raise KernelError(namespace.name, shell_lines([thing])[0], error.strerror or str(error)) from None


def _nft(namespace: Namespace, tables: Iterable[NftTable], commands: str) -> None:
    try:
        nftables.run(namespace, commands)
    except ValueError as error:
        names = ", ".join(f"{table.family} {table.name}" for table in tables)
        raise KernelError(namespace.name, f"nft table {names}", str(error)) from None


def _set_offload(thing: Offload) -> None:
    """ethtool's ETHTOOL_STXCSUM (linux/ethtool.h)."""
    value = ctypes.create_string_buffer(struct.pack("=II", 0x17, thing.enabled))
    request = struct.pack("16sP16x", thing.device.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8946, request)  # SIOCETHTOOL


def _shape(thing: RateLimit) -> None:
    module = "sch_netem" if thing.delay or thing.loss else "sch_tbf"
    for line in thing.lines():
        done = subprocess.run(line.replace(" add ", " replace ", 1).split(), capture_output=True, text=True)
        if done.returncode and "unknown" in done.stderr:
            raise MachineError(f"this kernel cannot shape {thing.device}: modprobe {module} ({done.stderr.strip()})")
        if done.returncode:
            raise OSError(0, done.stderr.strip())
