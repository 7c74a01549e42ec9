"""The lab's end of the socket: takes callers in, one thread each, and lets them ask.

The door stands outside the sandbox, where user numbers are the machine's own: it looks who calls (SO_PEERCRED, unix(7)),
turns away everybody but the lab's owner and root, and hands the connection in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from emulab.cni import versions
from emulab.cni.errors import CniError
from emulab.control.live import LiveLab
from emulab.control.operations import perform
from emulab.control.protocol import LONGEST, Channel, ProtocolError
from emulab.errors import EmulabError

_MOST_CALLERS = 64
_PATIENCE = 600.0  # seconds for the next request, and for a caller that does not take its answer
_BROKEN = 70  # EX_SOFTWARE of sysexits.h


def open_door(listener: socket.socket, inside: socket.socket) -> None:
    """Hand every caller who may come in to ``inside``, until the lab is gone."""
    owners = {0, os.geteuid()}
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        with caller:
            uid = struct.unpack("=iII", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if uid not in owners:
                continue
            try:
                socket.send_fds(inside, [b"c"], [caller.fileno()])
            except OSError:
                return


def serve(live: LiveLab, door: socket.socket) -> None:
    """Take callers in until somebody takes the lab down.  Signals end it by an exception, as everywhere."""
    callers = threading.BoundedSemaphore(_MOST_CALLERS)
    door.setblocking(True)
    watcher = threading.Thread(target=_until_the_end, args=(live, door), daemon=True)
    watcher.start()
    while not live.ending.is_set():
        data, descriptors, _, _ = socket.recv_fds(door, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return
        for descriptor in descriptors:
            caller = socket.socket(fileno=descriptor)
            if callers.acquire(blocking=False):
                threading.Thread(target=_converse, args=(live, caller, callers), daemon=True).start()
            else:
                with contextlib.suppress(OSError):
                    Channel(caller).send(_failure("too many callers at once", 3))
                caller.close()


def _until_the_end(live: LiveLab, door: socket.socket) -> None:
    live.ending.wait()
    live.close()
    with contextlib.suppress(OSError):
        door.shutdown(socket.SHUT_RDWR)


def _converse(live: LiveLab, caller: socket.socket, callers: threading.BoundedSemaphore) -> None:
    caller.settimeout(_PATIENCE)
    channel = Channel(caller, LONGEST)
    try:
        while (request := channel.receive()) is not None:
            came, channel.descriptors = channel.descriptors, []
            try:
                if not _respond(live, channel, request, came):
                    return
            finally:
                for descriptor in came:
                    os.close(descriptor)
    except ProtocolError as error:
        with contextlib.suppress(OSError):
            channel.send(_failure(str(error), 2))
    except OSError:
        pass  # gone, or asleep
    finally:
        channel.close()
        callers.release()


def _respond(live: LiveLab, channel: Channel, request: dict[str, Any], descriptors: Sequence[int]) -> bool:
    """Carry out a request and answer; returns whether there may be another."""
    try:
        answer = perform(live, request, channel.send, descriptors)
    except CniError as error:
        channel.send({**_failure(str(error), error.exit_code), "cni": error.show(versions.ALL[-1])})
        return True
    except EmulabError as error:
        channel.send(_failure(str(error), error.exit_code))
        return True
    except OSError as error:
        if isinstance(error, (BrokenPipeError, ConnectionError, TimeoutError)):
            return False
        channel.send(_failure(f"{error.filename or ''} {error.strerror or error}".strip(), 3))
        return True
    except Exception as error:  # a mistake of ours: the lab goes on
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        channel.send(_failure(f"this is a mistake in emulab: {type(error).__name__}: {error}", _BROKEN))
        return True
    try:
        channel.send({"ok": True, "result": answer.result}, answer.descriptors)
    finally:
        for descriptor in answer.descriptors:
            os.close(descriptor)
    return True


def _failure(error: str, code: int) -> dict[str, Any]:
    return {"ok": False, "error": error, "exit_code": code}


def quiet_signals() -> None:
    """A client that vanishes must not end the lab."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
