"""A stand-in for `emulab`, and for `pytest`, that costs a fork: the start of Python and its imports cost more than a command.

It is a script that only says which process it is, and waits.  A fork of the server, which has imported everything, has the
script's words, environment, folder and files, and does what was typed; its exit code becomes the script's.  Signals that the
script gets do not reach it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import terminal

# $0 is the script's path.  Its process number goes into the pipe `calls`, its exit code comes from a pipe of its own.
# In a subshell, since for a redirected echo of its own the shell's output would be that pipe, for whoever looks at once.
SCRIPT = """#!/bin/sh
mkfifo "$0.$$" && (echo $$ > "$0.calls") && read -r code < "$0.$$" && exit "$code"
"""


class Server:
    """Does what the script at ``path`` is asked."""

    def __init__(self, path: Path) -> None:
        path.write_text(SCRIPT)
        path.chmod(0o755)
        self.path = path
        os.mkfifo(f"{path}.calls")
        self._calls = os.open(f"{path}.calls", os.O_RDWR)  # for writing, too: so it never ends

    def serve(self, shell: subprocess.Popen[bytes]) -> None:
        """Until the shell, from which it is called, ends."""
        end = os.pidfd_open(shell.pid)
        running: dict[int, tuple[int, str]] = {}
        poll = select.poll()
        for descriptor in (self._calls, end):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == end:
                    return
                if descriptor == self._calls:
                    for caller in os.read(self._calls, 4096).decode().split():
                        child = os.fork()
                        if child == 0:
                            _act(Path("/proc", caller))
                        started = os.pidfd_open(child)
                        running[started] = child, caller
                        poll.register(started, select.POLLIN)
                else:
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    child, caller = running.pop(descriptor)
                    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                    answer = Path(f"{self.path}.{caller}")
                    answer.write_text(f"{code if code >= 0 else 128 - code}\n")
                    answer.unlink()  # numbers of processes come again


def _act(caller: Path) -> NoReturn:
    """Be `emulab`, or pytest, in the place of a process."""
    os.environb.clear()
    os.environb.update(one.split(b"=", 1) for one in (caller / "environ").read_bytes().split(b"\0")[:-1])
    os.chdir(caller / "cwd")
    words = (caller / "cmdline").read_text().split("\0")[2:-1]
    # Opened anew, a file is written from its beginning, but for O_APPEND.
    modes = os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_APPEND
    if "INTERRUPT_AFTER" in os.environ:  # as by Ctrl-C, which cannot come through the script
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, float(os.environ["INTERRUPT_AFTER"]))
    terminal.talk(*(os.open(caller / "fd" / str(number), mode) for number, mode in enumerate(modes)))
    if os.environ.pop("STAND_IN_FOR", "emulab") == "pytest":
        code = pytest.main(words)
        sys.stdout.flush()
        os._exit(code)
    terminal.main(words)
