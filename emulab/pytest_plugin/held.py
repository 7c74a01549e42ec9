"""The tests' end of a held lab: start the holder, know where the lab is, let go of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import IO

from emulab.errors import EmulabError, MachineError
from emulab.pytest_plugin.machine import program
from emulab.pytest_plugin.wanted import Wanted

_numbers = count(1)
_LONGEST = 30  # characters of a name that say which test it is: all of it has to fit into the path of a socket


class Held:
    """A lab that is up until `release`, or until this process ends, however it does.

    ``warnings`` are what `emulab up` had to say.  Raises `EmulabError` with the one line of `emulab up` and its exit code,
    `MachineError` for 3.
    """

    def __init__(self, wanted: Wanted, about: str) -> None:
        self.wanted, self.name = wanted, name_of(about, wanted.plugin)
        self.environment = {**os.environ}
        command = program("emulab.pytest_plugin.holder", self.name, *wanted.words())
        with tempfile.TemporaryFile("w+") as told:
            self._holder = _started(command, told)
            try:
                assert self._holder.stdout is not None
                ready = self._holder.stdout.readline()
                if not ready:
                    raise _error(told, self._holder.wait())
            except BaseException:
                self.release()
                raise
            told.seek(0)
            self.warnings = told.read()
        self.folder = Path(json.loads(ready)["folder"])

    def release(self, keep: bool = False) -> None:
        """Take the lab down and return when it is gone; with ``keep`` let it stay when this process ends."""
        assert self._holder.stdin is not None and self._holder.stdout is not None
        with contextlib.suppress(OSError):  # it is gone
            if keep:
                self._holder.stdin.write("keep\n")
            self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()


def name_of(about: str, plugin: str) -> str:
    """A name that no other lab of this machine has: ``test-shop-calico-4711-1``."""
    said = re.sub("[^a-z0-9]+", "-", f"{about}-{plugin}".lower())[-_LONGEST:].strip("-")
    return f"{said}-{os.getpid()}-{next(_numbers)}"


def _started(command: list[str], told: IO[str]) -> subprocess.Popen[str]:
    # A session of its own: Ctrl-C, and what kills the tests' process group, do not come between a lab and its end.
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=told, text=True, start_new_session=True)


def _error(told: IO[str], code: int) -> EmulabError:
    told.seek(0)
    lines = [line for line in told.read().splitlines() if not line.startswith("Try: ")] or ["the lab's process was killed"]
    said = next((line for line in lines if line.startswith("error: ")), lines[-1]).removeprefix("error: ")
    error = MachineError(said) if code == MachineError.exit_code else EmulabError(said)
    error.exit_code = code
    return error
