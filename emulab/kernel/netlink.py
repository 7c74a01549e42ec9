"""A small rtnetlink encoder: kernel objects of `emulab.state` to messages, and a socket that sends many at once.

Formats: linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h, if_bridge.h.  An own encoder because building a thousand
pods through a general library costs ten times the kernel's own work.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_ACK_TLVS = 0x200

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH, RTM_GETNEIGHTBL, RTM_SETNEIGHTBL = 28, 29, 30, 66, 67

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_PROTINFO, IFLA_OPERSTATE = 1, 3, 4, 5, 10, 12, 16
IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 18, 28, 1, 2, 1
IFF_UP = 1

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_CHUNK = 32768

_header = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")
ifinfomsg = struct.Struct("=BxHiII")
ifaddrmsg = struct.Struct("=BBBBI")
rtmsg = struct.Struct("=BBBBBBBBI")
ndmsg = struct.Struct("=BxxxiHBB")


class Request(NamedTuple):
    """One message without its header: ``kind`` is RTM_*, ``flags`` NLM_F_*, ``body`` the payload."""

    kind: int
    flags: int
    body: bytes


class NetlinkError(OSError):
    """The kernel refused ``index``, the number of the request in its batch."""

    def __init__(self, errno: int, message: str, index: int) -> None:
        super().__init__(errno, message or os.strerror(errno))
        self.index = index


def attribute(kind: int, payload: bytes) -> bytes:
    """One TLV, padded to four bytes."""
    return _attribute.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def u8(kind: int, value: int) -> bytes:
    return _attribute.pack(5, kind) + bytes((value, 0, 0, 0))


def u32(kind: int, value: int) -> bytes:
    return _attribute.pack(8, kind) + struct.pack("=I", value)


def string(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The TLVs in ``data``; nesting and byte-order flags are taken off the type."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _attribute.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


class NetlinkSocket:
    """A netlink socket in the namespace that the calling thread is in when it is opened."""

    def __init__(self, protocol: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def execute(self, requests: Iterable[Request], tolerate: frozenset[int] = frozenset()) -> None:
        """Send all; raises NetlinkError for the first that the kernel refused (those after it were tried, too).

        ``tolerate`` are errors that mean nothing here.
        """
        pending: list[bytes] = []
        size = first = 0
        for count, request in enumerate(requests):
            message = self._message(request)
            if size + len(message) > _CHUNK and pending:
                self._flush(pending, first, tolerate)
                pending, size, first = [], 0, count
            pending.append(message)
            size += len(message)
        if pending:
            self._flush(pending, first, tolerate)

    def _message(self, request: Request) -> bytes:
        self._sequence += 1
        length = _header.size + len(request.body)
        return _header.pack(length, request.kind, request.flags | NLM_F_REQUEST, self._sequence, 0) + request.body

    def _flush(self, batch: list[bytes], first: int, tolerate: frozenset[int]) -> None:
        last = bytearray(batch[-1])
        struct.pack_into("=H", last, 6, struct.unpack_from("=H", last, 6)[0] | NLM_F_ACK)
        sequences = [struct.unpack_from("=I", message, 8)[0] for message in batch]
        start = sequences[0]
        self._socket.send(b"".join(batch[:-1]) + last)
        failed: NetlinkError | None = None
        while True:
            for kind, flags, sequence, body in messages(self._socket.recv(65536)):
                if kind != NLMSG_ERROR:
                    continue
                errno = -struct.unpack_from("=i", body)[0]
                if errno and errno not in tolerate and failed is None:
                    failed = NetlinkError(errno, _reason(flags, body), first + sequence - start)
                if sequence == sequences[-1]:
                    if failed:
                        raise failed
                    return

    def dump(self, kind: int, body: bytes, flags: int = 0) -> Iterator[tuple[int, bytes]]:
        """All objects of a kind, as (message type, payload); raises OSError when the kernel refuses."""
        self._socket.send(self._message(Request(kind, NLM_F_DUMP | flags, body)))
        while True:
            for answer, flags_, _, payload in messages(self._socket.recv(1 << 18)):
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    errno = -struct.unpack_from("=i", payload)[0]
                    if errno:
                        head = 4 if answer == NLMSG_DONE else 4 + _header.size  # an error repeats the request's header
                        raise OSError(errno, _reason(flags_, payload, head) or os.strerror(errno))
                    return
                yield answer, payload

    def ask(self, kind: int, body: bytes) -> bytes:
        """The one object that ``body`` names; raises OSError with the kernel's words when it has none."""
        self._socket.send(self._message(Request(kind, 0, body)))
        while True:
            for answer, flags, sequence, payload in messages(self._socket.recv(65536)):
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_ERROR:
                    errno = -struct.unpack_from("=i", payload)[0]
                    raise OSError(errno, _reason(flags, payload) or os.strerror(errno))
                return payload


class LinkStatus(NamedTuple):
    """An interface as the kernel has it; ``state`` is its operational state (RFC 2863; 6 is up, 0 unknown)."""

    number: int
    flags: int
    mac: bytes
    state: int
    lower: int | None  # the index of what it hangs on: a pair's other end, a tunnel's device
    kind: str = ""

    @property
    def waiting(self) -> bool:
        """Switched on, without its carrier yet.  A bridge forwards at once, whatever its own state says.

        A pair's end that is unknown has not been looked at: until it is, it drops what it shall send (net/core/link_watch.c).
        """
        ready = (6,) if self.kind == "veth" else (0, 6)
        return bool(self.flags & IFF_UP) and self.lower is not None and self.state not in ready


class RouteSocket(NetlinkSocket):
    """rtnetlink."""

    def links(self) -> dict[str, LinkStatus]:
        """Every interface here by name."""
        found = {}
        for _, payload in self.dump(RTM_GETLINK, ifinfomsg.pack(0, 0, 0, 0, 0)):
            _, _, index, flags, _ = ifinfomsg.unpack_from(payload)
            values = dict(attributes(payload[ifinfomsg.size :]))
            name = values[IFLA_IFNAME].rstrip(b"\0").decode()
            lower = struct.unpack("=I", values[IFLA_LINK])[0] if IFLA_LINK in values else None
            kind = dict(attributes(values.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
            found[name] = LinkStatus(index, flags, values.get(IFLA_ADDRESS, b""), values[IFLA_OPERSTATE][0], lower, kind)
        return found


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in a datagram: (type, flags, sequence number, payload)."""
    offset = 0
    while offset + _header.size <= len(data):
        length, kind, flags, sequence, _ = _header.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + _header.size : offset + length]
        offset += (length + 3) & ~3


def _reason(flags: int, body: bytes, head: int = 4 + _header.size) -> str:
    """The kernel's own words, when it has any (extended acknowledgement)."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    for kind, value in attributes(body[head:]):
        if kind == 1:  # NLMSGERR_ATTR_MSG
            return value.rstrip(b"\0").decode(errors="replace")
    return ""
