"""Starts a lab that stays: a daemon outside the sandbox, which is the door, and the lab inside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from emulab.control.places import Place, claim
from emulab.errors import EmulabError, KernelError, MachineError
from emulab.planning import Design

_BROKEN = 70


def start(name: str, design: Design) -> dict[str, Any]:
    """Start a lab and return when it is ready, with its timings.  Interrupted, it leaves nothing.

    Raises `InputError` when the name is taken, `MachineError` when this machine cannot.
    """
    place, lock = claim(name)
    read, write = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    daemon = 0
    try:
        # Ctrl-C is heard again once it is known whom to tell.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        daemon = os.fork()
        if daemon == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(read)
            _run(place, lock, design, write)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write)
        with open(read) as report:
            line = report.readline()
    except BaseException:
        if daemon:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGTERM)
            os.waitpid(daemon, 0)
        place.bury(lock)  # it may have ended before it could do that itself
        raise
    finally:
        os.close(lock)
    answer: dict[str, Any] = json.loads(line) if line else {"error": "the lab was killed while it was built"}
    if "error" in answer:
        os.waitpid(daemon, 0)
        error = EmulabError(answer["error"])
        error.exit_code = answer.get("exit_code", MachineError.exit_code)
        raise error
    return answer


def _run(place: Place, lock: int, design: Design, report: int) -> NoReturn:
    """The daemon.  It ends with the lab and the lab with it."""
    from emulab.control.server import open_door
    from emulab.kernel import sandbox

    code = _BROKEN
    try:
        os.setsid()
        _detach(place)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        listener.bind(str(place.socket))
        os.umask(before)
        listener.listen(64)
        door, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def live() -> int:
            listener.close()
            door.close()
            return _live(place.folder.name, design, inside, report)

        def open_it() -> None:
            inside.close()
            open_door(listener, door)

        code = sandbox.run(live, bury=lambda: place.bury(lock), door=open_it)
    except BaseException as error:
        place.bury(lock)
        _report_failure(report, error)
    finally:
        os._exit(code)


def _detach(place: Place) -> None:
    """No terminal, no folder and no descriptors of whoever started the lab."""
    os.chdir("/")
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    # Sleeping in the background is what the lab is for: Ctrl-C of the terminal that started it is not meant.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _live(name: str, design: Design, inside: socket.socket, report: int) -> int:
    """The lab: build it, say so, serve."""
    from emulab.control.live import LiveLab
    from emulab.control.server import quiet_signals, serve
    from emulab.lab import Lab

    try:
        with Lab(design) as lab:
            lab.build()
            quiet_signals()
            live = LiveLab(name, lab)
            os.write(report, json.dumps({"name": name, "timings": lab.timings}).encode() + b"\n")
            os.close(report)
            serve(live, inside)
    except Exception as error:
        _report_failure(report, error)
        return KernelError.exit_code
    return 0


def _report_failure(report: int, error: BaseException) -> None:
    """Say why there will be no lab, to whoever waits for it, and in the log."""
    if not isinstance(error, EmulabError):
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
    code = getattr(error, "exit_code", _BROKEN)
    with contextlib.suppress(OSError):
        os.write(report, json.dumps({"error": " ".join(str(error).splitlines()), "exit_code": code}).encode() + b"\n")
