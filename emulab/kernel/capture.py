"""Packets of one namespace as they pass, chosen by a filter in the language of pcap-filter(7).

Filters are compiled by libpcap itself (pcap_compile(3PCAP)) and run in the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from emulab.errors import InputError, MachineError

_ETH_P_ALL, _SO_TIMESTAMPNS, _SO_ATTACH_FILTER, _OUTGOING = 3, 35, 26, 4
_ETHERNET, _ANY_NETMASK, _LONGEST = 1, 0xFFFFFFFF, 262144


class Captured(NamedTuple):
    """One frame: nanoseconds since the epoch, the interface's name, whether it left through it, its bytes."""

    time: int
    interface: str
    outbound: bool
    data: bytes


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def compile_filter(expression: str) -> bytes:
    """The instructions of a filter.  Raises `InputError` in libpcap's words, `MachineError` when libpcap is missing."""
    try:
        pcap = ctypes.CDLL("libpcap.so.0.8")
    except OSError:
        raise MachineError("a filter needs libpcap: apt-get install libpcap0.8") from None
    pcap.pcap_open_dead.restype = ctypes.c_void_p
    pcap.pcap_geterr.restype = ctypes.c_char_p
    handle = ctypes.c_void_p(pcap.pcap_open_dead(_ETHERNET, _LONGEST))
    program = _Program()
    if pcap.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, _ANY_NETMASK):
        raise InputError(f"filter '{expression}': {pcap.pcap_geterr(handle).decode(errors='replace')}")
    return ctypes.string_at(program.instructions, program.length * 8)


def open_tap(interface: str | None, instructions: bytes = b"") -> socket.socket:
    """A packet socket at ``interface`` (None: at all) in the namespace that the calling thread is in; it sees all from now on."""
    # Python binds to an interface by name only: a socket for all of them has its protocol from the beginning.
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0 if interface is not None else socket.htons(_ETH_P_ALL))
    try:
        if instructions:
            memory = ctypes.create_string_buffer(instructions, len(instructions))
            fprog = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(memory))
            tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        if interface is not None:
            tap.bind((interface, _ETH_P_ALL))
        else:
            with contextlib.suppress(BlockingIOError):  # what came before the filter
                while tap.recv(1, socket.MSG_DONTWAIT):
                    pass
    except BaseException:
        tap.close()
        raise
    return tap


def frames(tap: socket.socket) -> Iterator[Captured]:
    """What the tap sees.  Once it is made non-blocking, by a signal handler say, what it has seen until then, and the end."""
    names, end = dict(socket.if_nameindex()), 0
    while True:
        try:
            data, control, _, sender = tap.recvmsg(_LONGEST, 64)
        except BlockingIOError:
            return
        seconds, nanoseconds = struct.unpack_from("=qq", control[0][2]) if control else (0, 0)
        taken = seconds * 1_000_000_000 + nanoseconds
        if not tap.getblocking():
            end = end or time.time_ns()
            if taken > end:
                return
        name = sender[0]
        yield Captured(taken, names.get(name, name), sender[2] == _OUTGOING, data)
