"""Takes a lab down, also one that does not answer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time

from emulab.control.client import Client
from emulab.control.places import Place, alive, become
from emulab.errors import EmulabError, MachineError

_PATIENCE = 10.0  # seconds


def take_down(place: Place) -> None:
    """Returns when the last process of the lab is gone, and its folder.  Raises `MachineError` when it does not end."""
    if place.user:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                become(place.user)
                _end(Place(place.folder))
                os._exit(0)
            os._exit(1)
        os.waitpid(child, 0)
    else:
        _end(place)


def _end(place: Place) -> None:
    with contextlib.suppress(EmulabError), Client(place) as client:
        client.ask("down")
    if not _gone(place, _PATIENCE):
        _signal(place)
        if not _gone(place, _PATIENCE):
            raise MachineError(f"lab '{place.name}' does not end")


def _gone(place: Place, seconds: float) -> bool:
    """Whether the lock is free within that time: the last process has let go of it."""
    deadline = time.monotonic() + seconds
    while alive(place):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _signal(place: Place) -> None:
    """Tell the process that listens at the door to stop; the kernel knows which it is."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(place.socket))
        pid = struct.unpack("=iII", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if pid > 1:
            os.kill(pid, signal.SIGTERM)
