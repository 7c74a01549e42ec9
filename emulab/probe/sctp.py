"""SCTP by hand: the two packets that open an association, for kernels that have no SCTP (RFC 9260).

An INIT crosses the network as any client's, so what stands in its way is met for real.  Whoever answers for a pod says in
the state cookie of its INIT ACK, which is its own business by the RFC, who it is and whom it saw.
"""

from __future__ import annotations

import socket
import struct
from functools import cache
from typing import NamedTuple

PROTOCOL = 132
MISSING = "sctp: this kernel has no SCTP sockets (modprobe sctp)"
_INIT, _INIT_ACK, _ABORT, _COOKIE = 1, 2, 6, 7
_header = struct.Struct("!HHII")  # source port, destination port, verification tag, checksum
_chunk = struct.Struct("!BBH")  # type, flags, length
_opening = struct.Struct("!IIHHI")  # initiate tag, window, outbound and inbound streams, initial TSN
_WINDOW, _STREAMS = 65536, 1


class Opening(NamedTuple):
    """An SCTP packet that opens an association or refuses to: what kind it is, its ports, its chunk's tag, its cookie."""

    kind: str  # "init", "init ack", "abort"
    sport: int
    dport: int
    verification: int
    tag: int
    cookie: bytes


@cache
def supported() -> bool:
    """Whether this kernel has SCTP sockets: tried, since its module may be loaded by that."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, PROTOCOL).close()
    except OSError:
        return False
    return True


def init(sport: int, dport: int, tag: int) -> bytes:
    """An INIT; ``tag``, not 0, comes back as the verification tag of the answer."""
    return _packet(sport, dport, 0, _INIT, _opening.pack(tag, _WINDOW, _STREAMS, _STREAMS, tag))


def init_ack(request: Opening, cookie: bytes) -> bytes:
    """The answer of one who listens."""
    parameter = struct.pack("!HH", _COOKIE, 4 + len(cookie)) + cookie + bytes(-len(cookie) % 4)
    own = ~request.tag & 0xFFFFFFFF or 1
    body = _opening.pack(own, _WINDOW, _STREAMS, _STREAMS, own) + parameter
    return _packet(request.dport, request.sport, request.tag, _INIT_ACK, body)


def abort(request: Opening) -> bytes:
    """The answer where nobody listens (section 8.4, rule 3)."""
    return _packet(request.dport, request.sport, request.tag, _ABORT, b"")


def read(packet: bytes) -> Opening | None:
    """What an SCTP packet (without IP header) opens; None for all others and for those with a wrong checksum."""
    try:
        sport, dport, verification, check = _header.unpack_from(packet)
        kind, _, length = _chunk.unpack_from(packet, 12)
        if check != _crc(packet[:8] + bytes(4) + packet[12:]):
            return None
        if kind == _ABORT:
            return Opening("abort", sport, dport, verification, 0, b"")
        if kind not in (_INIT, _INIT_ACK):
            return None
        tag = _opening.unpack_from(packet, 16)[0]
        cookie = b""
        if kind == _INIT_ACK and length > 20:
            parameter, size = struct.unpack_from("!HH", packet, 32)
            cookie = packet[36 : 32 + size] if parameter == _COOKIE else b""
        return Opening("init" if kind == _INIT else "init ack", sport, dport, verification, tag, cookie)
    except struct.error:
        return None


def _packet(sport: int, dport: int, verification: int, kind: int, body: bytes) -> bytes:
    rest = _chunk.pack(kind, 0, 4 + len(body) - _padding(kind, body)) + body
    blank = _header.pack(sport, dport, verification, 0) + rest
    return _header.pack(sport, dport, verification, _crc(blank)) + rest


def _padding(kind: int, body: bytes) -> int:
    """A chunk's length counts no padding of its last parameter (section 3.2)."""
    if kind != _INIT_ACK:
        return 0
    return len(body) - _opening.size - int(struct.unpack_from("!H", body, _opening.size + 2)[0])


@cache
def _table() -> tuple[int, ...]:
    """CRC32c, bit by bit reversed (appendix A)."""
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


def _crc(data: bytes) -> int:
    """As the header holds it, in network order: the checksum is transmitted with its least significant byte first."""
    crc, table = 0xFFFFFFFF, _table()
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return int.from_bytes((crc ^ 0xFFFFFFFF).to_bytes(4, "little"), "big")
