"""Lines that are typed into bash as they are shown, with labs that are nobody else's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sandboxed import AS_ROOT
from shown import ROOT

from emulab.kernel import syscalls


class Typed(NamedTuple):
    """A line, the exit code, and all that came."""

    line: str
    code: int
    output: str


def typed(lines: Sequence[str], folder: Path) -> list[Typed]:
    """Type the lines in ``folder``, where the examples are too; `sudo` is whoever runs the tests."""
    prologue = f"""sudo() {{ "$@"; }}
emulab() {{ {sys.executable} -m emulab "$@"; }}
emulab-cni() {{ {sysconfig.get_path("scripts")}/emulab-cni "$@"; }}
pytest() {{ {sys.executable} -m pytest -p no:cacheprovider "$@"; }}
unset "${{!PYTEST@}}" CI  # nobody types in a worker of these tests
interrupted() {{ timeout --preserve-status --signal=INT 2 {sys.executable} -m emulab "$@"; }}
export HOME={folder}
cd {folder}
ln -sfn {ROOT}/examples .
"""
    script = prologue + "".join(f"echo @@@\n{line}\ncode=$?; echo; echo @@@$code\n" for line in lines)
    environment = os.environ if AS_ROOT else {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(
        ["bash", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=_own_run if AS_ROOT else None,
    )
    pieces = re.findall(r"^@@@\n(.*?)\n@@@(\d+)$", done.stdout.decode(errors="replace"), re.MULTILINE | re.DOTALL)
    return [Typed(line, int(code), output) for line, (output, code) in zip(lines, pieces, strict=True)]


def _own_run() -> None:
    """Root's labs are in /run/emulab, which is another folder here, as is that of `ip netns`."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    os.makedirs("/run/emulab", mode=0o700, exist_ok=True)
    syscalls.mount("tmpfs", "/run/emulab", "tmpfs", 0, "mode=700")
    os.makedirs("/run/netns", exist_ok=True)
    syscalls.mount("tmpfs", "/run/netns", "tmpfs", 0, "mode=755")
