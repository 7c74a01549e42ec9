"""The command line as people use it: every command in a process of its own, as root or as an ordinary user."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

# An ordinary user may not be able to read this interpreter's folders: everything is imported before.
import scapy.layers.inet6
import scapy.layers.vxlan  # noqa: F401
import yaml  # noqa: F401
from sandboxed import AS_ROOT, NOBODY, PR_SET_DUMPABLE

import emulab
from emulab.kernel import syscalls
from emulab.kube.kinds import KINDS
from emulab.kube.lightkube_package import postpone_client

postpone_client()
for _module in pkgutil.walk_packages(emulab.__path__, "emulab."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)
for _name in ("emulab_plugins", "emulab_topologies"):
    for _module in pkgutil.iter_modules(importlib.import_module(_name).__path__, f"{_name}."):
        importlib.import_module(_module.name)
for _kind in KINDS.values():
    _kind.model()


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Running:
    """A command that runs: its process and the reading ends of its output."""

    def __init__(self, pid: int, out: int, err: int, stdin: int) -> None:
        self.pid, self.stdin = pid, stdin
        self.out, self.err = os.fdopen(out, "rb"), os.fdopen(err, "rb")

    def stop(self, by: signal.Signals = signal.SIGINT) -> Done:
        os.kill(self.pid, by)
        return self.wait()

    def wait(self) -> Done:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1
        with self.out, self.err:
            out, err = self.out.read(), self.err.read()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return Done(code, out.decode(errors="replace"), err.decode(errors="replace"))


class Terminal:
    """Somebody at a keyboard: ``user`` is "root" or "user", ``home`` a folder of theirs."""

    def __init__(self, user: str, home: Path) -> None:
        self.user, self.home = user, home
        self.folder = Path("/run/emulab") if user == "root" and AS_ROOT else home / "emulab"
        home.mkdir(mode=0o700, exist_ok=True)
        if user == "user" and AS_ROOT:
            os.chown(home, NOBODY, NOBODY)

    def emulab(self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Type ``emulab words…`` and wait for its end."""
        running = self.start(*words, env=env)
        if stdin:
            os.write(running.stdin, stdin.encode())
        return running.wait()

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> Running:
        """Type it and do not wait."""
        pipes = [os.pipe() for _ in range(3)]
        ready = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            self.become()
            os.environ.update(env or {})
            talk(pipes[0][0], pipes[1][1], pipes[2][1])  # that says, too, that signals are heard: pytest's workers ignore some
            main(words)
        for mine in (pipes[0][0], pipes[1][1], pipes[2][1], ready[1]):
            os.close(mine)
        os.read(ready[0], 1)
        os.close(ready[0])
        return Running(child, pipes[1][0], pipes[2][0], pipes[0][1])

    def become(self) -> None:
        """Let the calling process be this user's."""
        os.environ.pop("EMULAB_LAB", None)
        os.environ["XDG_RUNTIME_DIR"] = str(self.home)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if self.user == "user" and AS_ROOT:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            syscalls.prctl(PR_SET_DUMPABLE, 1)  # or /proc/self would still be root's


def talk(*ends: int) -> None:
    """Let the calling process read and write there, and have nothing else open."""
    for number, end in enumerate(ends):
        os.dup2(end, number)
    os.closerange(3, 4096)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)


def main(words: Sequence[str]) -> NoReturn:
    """Be `emulab words…` in the calling process, and end it."""
    from emulab import cli

    code = 70
    try:
        sys.argv = ["emulab", *words]
        cli.main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
