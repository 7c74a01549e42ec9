"""Lines that are typed into bash as they are shown, with labs that are nobody else's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from sandboxed import AS_ROOT
from shown import ROOT
from standing_in import Server

from emulab.kernel import syscalls

UNWANTED = (
    "-p",
    "no:hypothesispytest",
    "-p",
    "no:anyio",
)  # plugins of ours that nobody's tests of packets have: 0.5 s each start
REAL = f"{sys.executable} -m emulab"


class Typed(NamedTuple):
    """A line, the exit code, and all that came."""

    line: str
    code: int
    output: str


def typed(lines: Sequence[str], folder: Path, real: bool = False) -> list[Typed]:
    """Type the lines in ``folder``, where the examples are too; `sudo` is whoever runs the tests.

    `emulab` is a fork of this process, unless it has to be the ``real`` one.  A fork gets Ctrl-C after INTERRUPT_AFTER seconds.
    """
    with tempfile.TemporaryDirectory(prefix="emulab-typed-") as own:
        stand_in = Path(own, "emulab")
        prologue = f"""sudo() {{ "$@"; }}
emulab() {{ {REAL if real else stand_in} "$@"; }}
emulab-cni() {{ {sysconfig.get_path("scripts")}/emulab-cni "$@"; }}
pytest() {{ STAND_IN_FOR=pytest {stand_in} -p no:cacheprovider {" ".join(UNWANTED)} "$@"; }}
unset "${{!PYTEST@}}" CI  # nobody types in a worker of these tests
export HOME={folder}
cd {folder}
ln -sfn {ROOT}/examples .
"""
        script = prologue + "".join(f"echo @@@\n{line}\ncode=$?; echo; echo @@@$code\n" for line in lines)
        script += "wait\n"  # for what was typed with a & at its end: it may need us
        output, end = os.pipe()
        typist = os.fork()
        if typist == 0:
            _type(script, stand_in, end)
        os.close(end)
        with open(output, "rb") as pipe:
            done = pipe.read().decode(errors="replace")
        assert os.waitpid(typist, 0)[1] == 0, done
    pieces = re.findall(r"^@@@\n(.*?)\n@@@(\d+)$", done, re.MULTILINE | re.DOTALL)
    return [Typed(line, int(code), output) for line, (output, code) in zip(lines, pieces, strict=True)]


def _type(script: str, stand_in: Path, out: int) -> NoReturn:
    """Let bash type the script, and be its `emulab`."""
    try:
        if AS_ROOT:
            _own_run()
        else:
            os.environ["XDG_RUNTIME_DIR"] = str(stand_in.parent)
        server = Server(stand_in)
        shell = subprocess.Popen(["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        try:
            server.serve(shell)
        except BaseException:
            os.killpg(shell.pid, signal.SIGKILL)  # it would wait for an answer, and our reader for its last word
            raise
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _own_run() -> None:
    """Root's labs are in /run/emulab, which is another folder here, as is that of `ip netns`."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    os.makedirs("/run/emulab", mode=0o700, exist_ok=True)
    syscalls.mount("tmpfs", "/run/emulab", "tmpfs", 0, "mode=700")
    os.makedirs("/run/netns", exist_ok=True)
    syscalls.mount("tmpfs", "/run/netns", "tmpfs", 0, "mode=755")
