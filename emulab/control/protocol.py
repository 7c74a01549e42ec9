"""What is said to a lab: one JSON object per line, over a Unix socket; docs/control.md describes it.

A request is ``{"do": OPERATION, ...arguments}``.  Any number of ``{"event": …}`` lines may come before the answer, which is
``{"ok": true, "result": …}`` or ``{"ok": false, "error": TEXT, "exit_code": N}``.  Descriptors travel beside an answer
(SCM_RIGHTS, unix(7)), and beside a request of an operation that takes some.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from emulab.errors import InputError

LONGEST = 16 << 20  # bytes of a request, which may bring manifests along; answers may be longer
_MOST_DESCRIPTORS = 16


class ProtocolError(Exception):
    """What came is no message."""


class Channel:
    """One end of a conversation."""

    def __init__(self, connection: socket.socket, longest: int | None = None) -> None:
        self._connection, self._longest = connection, longest
        self._buffer = bytearray()
        self.descriptors: list[int] = []  # those that came and have not been taken

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = (), most: int | None = None) -> None:
        """Send one message; raises OSError when nobody listens, `InputError` when it has more than ``most`` bytes."""
        data = json.dumps(message).encode() + b"\n"
        if most is not None and len(data) > most:
            raise InputError(f"more than {most >> 20} MiB in one request: ask in several steps")
        if descriptors:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            sent = self._connection.sendmsg([data], rights)
            data = data[sent:]
        self._connection.sendall(data)

    def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end.  Raises `ProtocolError` for anything else."""
        while b"\n" not in self._buffer:
            if self._longest is not None and len(self._buffer) > self._longest:
                raise ProtocolError(f"a message has at most {self._longest} bytes")
            data = self._read()
            if not data:
                if self._buffer.strip():
                    raise ProtocolError("half a message")
                return None
            self._buffer += data
            if len(self.descriptors) > _MOST_DESCRIPTORS:
                raise ProtocolError(f"at most {_MOST_DESCRIPTORS} descriptors come with a message")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        if self._longest is not None and len(line) > self._longest:
            raise ProtocolError(f"a message has at most {self._longest} bytes")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise ProtocolError("not a line of JSON") from None
        if not isinstance(message, dict):
            raise ProtocolError("a JSON object expected")
        return message

    def _read(self) -> bytes:
        space = socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
        data, control, _, _ = self._connection.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, value in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(value[: len(value) - len(value) % 4])
                self.descriptors += found
        return data

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []
        self._connection.close()
