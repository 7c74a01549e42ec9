"""What a probe carries: a mark that no other packet has, the leg, the round and the flow's number.

A probe that asks (``ASK``) wants to be told who answers, and whom the answering one saw: that follows the reply.
"""

from __future__ import annotations

import struct

MAGIC = b"emulab\x1a"
REQUEST, REPLY, ASK = b"Q", b"R", b"?"
SIZE = 32
_layout = struct.Struct("!7scII16s")


def build(round_: int, number: int, leg: bytes = REQUEST) -> bytes:
    """The payload of flow ``number``; the filler makes an altered or truncated one show."""
    return _layout.pack(MAGIC, leg, round_, number, struct.pack("!QQ", number, ~number & 0xFFFFFFFFFFFFFFFF))


def answer(request: bytes) -> bytes:
    """The reply that an echo server makes of a request, whatever state it arrived in."""
    return request[:7] + REPLY + request[8:]


def read(data: bytes, round_: int) -> tuple[int, bytes] | None:
    """(flow number, leg) of a payload of this round, else None."""
    if len(data) < SIZE or not data.startswith(MAGIC):
        return None
    _, leg, sent_in, number, _ = _layout.unpack_from(data)
    return (number, leg) if sent_in == round_ else None
