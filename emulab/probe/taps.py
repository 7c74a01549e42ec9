"""Packet sockets that see everything in a namespace, on every interface, in both directions.

One socket per namespace: its queue keeps the order in which the kernel saw the frames, and closing one costs an RCU grace
period (12 ms and more), so they are few, stay open, and are closed together.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from emulab.kernel import syscalls
from emulab.kernel.closing import close_all
from emulab.kernel.namespaces import Namespace, Namespaces, entered
from emulab.packet import Place

ETH_P_ALL = 3
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
PACKET_OUTGOING = 4
_BATCH, _SNAP = 128, 2048
_BUFFER = 32 << 20
_NAME, _CONTROL = 20, 64
# Of sockaddr_ll the interface's index, and what kind of packet it is; behind it the control message with the time.
_about = struct.Struct(f"=4xi2xB{_NAME - 11 + 16}xqq{_CONTROL - 32}x")
_length = struct.Struct("=56xI4x")  # of a mmsghdr
assert (syscalls.mmsghdr.length.offset, ctypes.sizeof(syscalls.mmsghdr)) == (56, _length.size)


class Frame(NamedTuple):
    """One frame as a tap saw it; ``time`` in nanoseconds since the epoch."""

    time: int
    place: Place
    outbound: bool
    data: bytes
    length: int


def stamped() -> socket.socket:
    """While it is open, the kernel notes the time of every frame.

    It begins a while after it was asked to, by a workqueue (net_enable_timestamp, net/core/dev.c).  Frames of that while would
    get the time at which they are read, and the order in which the taps are.
    """
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return asking


class Taps:
    """All taps of a probe run."""

    def __init__(self, namespaces: Namespaces, names: Iterable[str]) -> None:
        self._taps: list[tuple[socket.socket, _Places]] = []
        self._buffers = _Buffers()
        self.capacity = _BUFFER
        for name in names:
            self._open(namespaces[name])

    def _open(self, namespace: Namespace) -> None:
        with entered(namespace.net):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
        try:
            tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.capacity = min(self.capacity, tap.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        tap.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._taps.append((tap, _Places(namespace)))

    def frames(self) -> Iterator[tuple[int, tuple[Place, bool], bytes, int]]:
        """Every frame that is waiting, tap by tap: time, where and whether outbound, data and length of a `Frame`."""
        for tap, places in self._taps:
            yield from self._buffers.receive(tap.fileno(), places)

    def lost(self) -> int:
        """Frames that the kernel could not queue since the last call: if any, silence is no evidence."""
        total = 0
        for tap, _ in self._taps:
            total += struct.unpack("=II", tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        return total

    def close(self) -> None:
        close_all([tap for tap, _ in self._taps])
        self._taps = []


class _Places(dict[tuple[int, int], tuple[Place, bool]]):
    """Where a frame is, and whether it is outbound, by the index of its interface and the kind of packet."""

    def __init__(self, namespace: Namespace) -> None:
        self._name = namespace.name
        self._links = {index: link for link, index in namespace.links.items()}

    def __missing__(self, key: tuple[int, int]) -> tuple[Place, bool]:
        index, kind = key
        found = self[key] = Place(self._name, self._links.get(index, f"if{index}")), kind == PACKET_OUTGOING
        return found


class _Buffers:
    """Buffers for one recvmmsg call, used again and again."""

    def __init__(self) -> None:
        self._data = mmap.mmap(-1, _BATCH * _SNAP)  # a slice of it is bytes
        self._about = ctypes.create_string_buffer(_BATCH * (_NAME + _CONTROL))
        self._messages = (syscalls.mmsghdr * _BATCH)()
        self._parts = (syscalls.iovec * _BATCH)()
        data, about = ctypes.addressof(ctypes.c_char.from_buffer(self._data)), ctypes.addressof(self._about)
        for index, (message, part) in enumerate(zip(self._messages, self._parts, strict=True)):
            part.base, part.length = data + index * _SNAP, _SNAP
            header = message.header
            header.iov, header.iovlen = ctypes.pointer(part), 1
            header.name, header.namelen = about + index * (_NAME + _CONTROL), _NAME
            header.control, header.controllen = header.name + _NAME, _CONTROL
        self._fresh, self._used = bytes(self._messages), 0  # the kernel writes how much of name and control it has used
        self._views = memoryview(self._messages).cast("B"), memoryview(self._about).cast("B")

    def receive(self, fd: int, places: _Places) -> Iterator[tuple[int, tuple[Place, bool], bytes, int]]:
        """All frames that are there."""
        data, (messages, about) = self._data, self._views
        received = _BATCH
        while received == _BATCH:
            ctypes.memmove(self._messages, self._fresh, self._used * _length.size)
            self._used = received = syscalls.recvmmsg(fd, self._messages, _BATCH, syscalls.MSG_TRUNC)
            lengths = _length.iter_unpack(messages[: received * _length.size])
            abouts = _about.iter_unpack(about[: received * _about.size])
            starts = range(0, received * _SNAP, _SNAP)
            for (length,), (index, kind, seconds, nanoseconds), start in zip(lengths, abouts, starts, strict=True):
                end = start + (length if length < _SNAP else _SNAP)
                yield seconds * 1_000_000_000 + nanoseconds, places[index, kind], data[start:end], length
