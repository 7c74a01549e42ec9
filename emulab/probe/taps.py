"""Packet sockets that see everything in a namespace, on every interface, in both directions.

One socket per namespace: its queue keeps the order in which the kernel saw the frames, and closing one costs an RCU grace
period (12 ms and more), so they are few, stay open, and are closed together.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from emulab.kernel import syscalls
from emulab.kernel.namespaces import Namespace, Namespaces, entered
from emulab.packet import Place

ETH_P_ALL = 3
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
PACKET_OUTGOING = 4
_BATCH, _SNAP, _CONTROL = 128, 2048, 64
_BUFFER = 32 << 20
_timespec = struct.Struct("=qq")
_link_address = struct.Struct("=4xi2xB")  # of sockaddr_ll: the interface's index, and what kind of packet it is
_length = struct.Struct("=I")
_MESSAGE, _LENGTH = ctypes.sizeof(syscalls.mmsghdr), syscalls.mmsghdr.length.offset


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
        self._taps: list[tuple[socket.socket, Namespace, dict[int, Place]]] = []
        self._ring = _Ring()
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
        places = {index: Place(namespace.name, link) for link, index in namespace.links.items()}
        self._taps.append((tap, namespace, places))

    def drain(self, handle: Callable[[Frame], None]) -> int:
        """Hand every frame that is waiting to ``handle``, tap by tap; returns how many there were."""
        count = 0
        for tap, namespace, places in self._taps:
            while True:
                received = self._ring.receive(tap.fileno())
                for index in range(received):
                    frame = self._ring.frame(index, places, namespace.name)
                    if frame is not None:
                        handle(frame)
                count += received
                if received < _BATCH:
                    break
        return count

    def lost(self) -> int:
        """Frames that the kernel could not queue since the last call: if any, silence is no evidence."""
        total = 0
        for tap, _, _ in self._taps:
            total += struct.unpack("=II", tap.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        return total

    def close(self) -> None:
        """All at once: the grace periods then overlap."""
        if self._taps:
            with ThreadPoolExecutor(min(64, len(self._taps))) as pool:
                list(pool.map(lambda tap: tap[0].close(), self._taps))
        self._taps = []


class _Ring:
    """Buffers for one recvmmsg call, used again and again."""

    def __init__(self) -> None:
        self._data = ctypes.create_string_buffer(_BATCH * _SNAP)
        self._control = ctypes.create_string_buffer(_BATCH * _CONTROL)
        self._names = ctypes.create_string_buffer(_BATCH * 20)
        self._view = memoryview(self._data).cast("B")
        self._messages = (syscalls.mmsghdr * _BATCH)()
        self._parts = (syscalls.iovec * _BATCH)()
        for index in range(_BATCH):
            self._parts[index].base = ctypes.addressof(self._data) + index * _SNAP
            self._parts[index].length = _SNAP
            header = self._messages[index].header
            header.iov = ctypes.pointer(self._parts[index])
            header.iovlen = 1
            header.name = ctypes.addressof(self._names) + index * 20
            header.control = ctypes.addressof(self._control) + index * _CONTROL
            header.namelen = 20
            header.controllen = _CONTROL
        self._fresh = bytes(self._messages)  # the kernel writes how much of name and control it has used

    def receive(self, fd: int) -> int:
        ctypes.memmove(self._messages, self._fresh, len(self._fresh))
        return syscalls.recvmmsg(fd, self._messages, _BATCH, syscalls.MSG_TRUNC)

    def frame(self, index: int, places: dict[int, Place], namespace: str) -> Frame | None:
        (length,) = _length.unpack_from(self._messages, index * _MESSAGE + _LENGTH)
        interface, kind = _link_address.unpack_from(self._names, index * 20)
        seconds, nanoseconds = _timespec.unpack_from(self._control, index * _CONTROL + 16)
        place = places.get(interface)
        if place is None:
            places[interface] = place = Place(namespace, f"if{interface}")
        start = index * _SNAP
        data = bytes(self._view[start : start + (length if length < _SNAP else _SNAP)])
        return Frame(seconds * 1_000_000_000 + nanoseconds, place, kind == PACKET_OUTGOING, data, length)
