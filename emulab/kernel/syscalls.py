"""The system calls that Python 3.10 has no function for, by ctypes.  Every one raises OSError as os.* does.

Python's `ctypes` releases the GIL during the call.
"""

from __future__ import annotations

import ctypes
import os

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
MSG_TRUNC, MSG_DONTWAIT = 0x20, 0x40

libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), what)
    return result


def unshare(flags: int) -> None:
    """Leave the calling thread's namespaces named by CLONE_* ``flags`` for new ones: unshare(2)."""
    _checked(libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace that ``fd`` refers to: setns(2)."""
    _checked(libc.setns(fd, kind), "setns")


def mount(source: str | None, target: str, filesystem: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [value.encode() if value is not None else None for value in (source, target, filesystem, data)]
    _checked(libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def unmount(target: str) -> None:
    """Detach a mount at once: umount2(2) with MNT_DETACH."""
    _checked(libc.umount2(target.encode(), 2), f"umount {target}")


def sethostname(name: str) -> None:
    """The host name of the calling thread's UTS namespace: sethostname(2)."""
    encoded = name.encode()
    _checked(libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


def prctl(option: int, value: int) -> None:
    """prctl(2) with one number."""
    _checked(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


class iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class mmsghdr(ctypes.Structure):
    _fields_ = (("header", msghdr), ("length", ctypes.c_uint32))


def sendmmsg(fd: int, messages: ctypes.Array[mmsghdr], count: int, offset: int = 0) -> int:
    """Send up to ``count`` messages from ``offset`` on; returns how many went: sendmmsg(2)."""
    address = ctypes.addressof(messages) + offset * ctypes.sizeof(mmsghdr)
    return _checked(libc.sendmmsg(fd, ctypes.c_void_p(address), count, 0), "sendmmsg")


def recvmmsg(fd: int, messages: ctypes.Array[mmsghdr], count: int, flags: int = 0) -> int:
    """Receive what is there, at most ``count`` messages, without waiting; 0 when there is nothing: recvmmsg(2)."""
    result = libc.recvmmsg(fd, ctypes.byref(messages), count, MSG_DONTWAIT | flags, None)
    if result < 0 and ctypes.get_errno() in (11, 4):  # EAGAIN, EINTR
        return 0
    return _checked(result, "recvmmsg")
