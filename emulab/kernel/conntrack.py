"""Reads the connection tracking of namespaces, the kernel's own record of what it has translated.

Formats: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from emulab.errors import MachineError
from emulab.kernel.closing import close_all
from emulab.kernel.namespaces import Namespace, Namespaces, entered
from emulab.kernel.netlink import SOL_NETLINK, NetlinkSocket, Request, attribute, attributes, messages

_NETFILTER = 12
_SRC_NAT, _DST_NAT = 1 << 4, 1 << 5
_NAT = _SRC_NAT | _DST_NAT
_STATUS = 3
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET and _DELETE
_CTA_TUPLE_ORIG, _NESTED = 1, 1 << 15
_ENOENT = 2
_NEW_CONNECTIONS = 1  # NFNLGRP_CONNTRACK_NEW
_SO_ATTACH_FILTER = 26
_BUFFER = 4 << 20
NETLINK_ADD_MEMBERSHIP = 1


def _instruction(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, k & 0xFFFFFFFF)


_FILTER = b"".join(
    (
        _instruction(0x00, 20),  # ld #20: where attributes start, after nlmsghdr and nfgenmsg
        _instruction(0x01, _STATUS),  # ldx #CTA_STATUS
        _instruction(0x20, -0x1000 + 12),  # ld nlattr: its offset, or 0
        _instruction(0x15, 0, yes=3),  # jeq #0, reject
        _instruction(0x07, 0),  # tax
        _instruction(0x40, 4),  # ld [x + 4]: the status
        _instruction(0x45, _NAT, yes=1),  # jset #SRC_NAT|DST_NAT, accept
        _instruction(0x06, 0),  # reject
        _instruction(0x06, 0xFFFFFFFF),  # accept
    )
)
_filter_memory = ctypes.create_string_buffer(_FILTER, len(_FILTER))
_filter_address = ctypes.addressof(_filter_memory)


class Tuple(NamedTuple):
    """One direction of a connection; for ICMP ``sport`` is the identifier."""

    source: str
    destination: str
    protocol: int
    sport: int
    dport: int


class Entry(NamedTuple):
    """A connection; of a translated one ``reply`` is not the mirror of ``original``."""

    original: Tuple
    reply: Tuple
    source_nat: bool
    destination_nat: bool

    def __str__(self) -> str:
        kind = "+".join(word for word, on in (("SNAT", self.source_nat), ("DNAT", self.destination_nat)) if on)
        return f"conntrack {kind} {_show(self.original)}, replies {_show(self.reply)}"


class Watch:
    """Listens for new translated connections in namespaces, from now on.

    A filter in the kernel (linux/filter.h) passes only those with a translation: of a million connections that probes make,
    none has to be read, and a dump, which walks the table of the whole machine, is not needed.
    """

    def __init__(self, namespaces: Namespaces, names: Iterable[str]) -> None:
        self._sockets: dict[str, socket.socket] = {}
        for name in names:
            with entered(namespaces[name].net):
                listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
            self._sockets[name] = listener
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(_FILTER) // 8, _filter_address))
            listener.bind((0, 0))
            listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, _NEW_CONNECTIONS)

    def translated(self) -> dict[str, list[Entry]]:
        """By namespace, the translated connections since the last call.

        Raises `MachineError` when there were more than the kernel could keep: then silence would be no evidence.
        """
        found: dict[str, list[Entry]] = {}
        for name, listener in self._sockets.items():
            try:
                while True:
                    for _, _, _, body in messages(listener.recv(65536)):
                        found.setdefault(name, []).extend(_entry(body[4:]))
            except BlockingIOError:
                continue
            except OSError as error:
                raise MachineError(f"{name}: the connection tracking's events were lost ({error.strerror})") from None
        return found

    def close(self) -> None:
        close_all(self._sockets.values())


def forget(namespace: Namespace, protocol: int, doomed: Callable[[Entry], bool]) -> int:
    """Let the connections of an IP protocol go that are ``doomed``: their next packet is a first one.  Returns how many.

    It walks the table of the whole machine once.
    """
    with entered(namespace.net):
        netfilter = NetlinkSocket(_NETFILTER)
    with closing(netfilter):
        requests = []
        for _, body in netfilter.dump(_GET, bytes(4)):
            original = dict(attributes(body[4:])).get(_CTA_TUPLE_ORIG, b"")
            for entry in _entry(body[4:], translated=False):
                if entry.original.protocol == protocol and doomed(entry):
                    named = attribute(_CTA_TUPLE_ORIG | _NESTED, original)
                    requests.append(Request(_DELETE, 0, body[:1] + bytes(3) + named))
        netfilter.execute(requests, frozenset({_ENOENT}))
    return len(requests)


def _entry(data: bytes, translated: bool = True) -> Iterator[Entry]:
    """The one in ``data``, if it is complete; ``translated``: only if it is."""
    values = dict(attributes(data))
    status = struct.unpack("!I", values.get(3, b"\0\0\0\0"))[0]
    if (status & _NAT or not translated) and 1 in values and 2 in values:
        yield Entry(_tuple(values[1]), _tuple(values[2]), bool(status & _SRC_NAT), bool(status & _DST_NAT))


def _tuple(data: bytes) -> Tuple:
    parts = dict(attributes(data))
    addresses = dict(attributes(parts[1]))
    protocol = dict(attributes(parts[2]))
    source, destination = (str(ipaddress.ip_address(addresses.get(v4) or addresses[v6])) for v4, v6 in ((1, 3), (2, 4)))
    identifier = protocol.get(4) or protocol.get(7)  # ICMP and ICMPv6 identifiers
    sport, dport = (struct.unpack("!H", protocol.get(kind, b"\0\0"))[0] for kind in (2, 3))
    return Tuple(source, destination, protocol[1][0], struct.unpack("!H", identifier)[0] if identifier else sport, dport)


def _show(one: Tuple) -> str:
    return f"{one.source}:{one.sport} > {one.destination}:{one.dport}"
