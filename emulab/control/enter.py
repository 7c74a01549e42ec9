"""Run a command in a pod or node of a running lab, as `nsenter` and `ip netns exec` would: in the caller's own process.

The lab hands over its namespaces; nothing passes through it afterwards.  Terminal, signals and exit code are the
command's own, and it ends with the lab, since it is in the lab's PID namespace.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from emulab.errors import MachineError
from emulab.kernel import syscalls

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have it, and the runtimes behind `kubectl exec`
_KINDS = {
    "user": syscalls.CLONE_NEWUSER,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "pid": syscalls.CLONE_NEWPID,
    "net": syscalls.CLONE_NEWNET,
    "mnt": syscalls.CLONE_NEWNS,
}
KINDS = tuple(_KINDS)  # in the order in which they are entered
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT)


@dataclass(frozen=True)
class Target:
    """Where to go: namespace descriptors by kind, the host name there, and the files of /etc that are its own."""

    name: str
    namespaces: Mapping[str, int]
    hostname: str
    files: Mapping[str, str]
    pod: bool = True


def join(target: Target) -> None:
    """Move the calling process, which must have one thread, into the lab; its children are in the lab's PID namespace."""
    _move(target.namespaces, KINDS)
    furnish(target)


def join_network(namespaces: Mapping[str, int]) -> None:
    """Move the calling process into the network alone: files, processes and names stay the caller's."""
    _move(namespaces, ("user", "net"))


def _move(namespaces: Mapping[str, int], kinds: Sequence[str]) -> None:
    for kind in kinds:
        descriptor = namespaces.get(kind)
        if descriptor is None or _same(descriptor, kind):
            continue
        syscalls.setns(descriptor, _KINDS[kind])
        if kind == "user":
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)


def _same(descriptor: int, kind: str) -> bool:
    """Whether the process is in that namespace already: a user namespace cannot be entered twice."""
    return os.fstat(descriptor).st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino


def furnish(target: Target) -> None:
    """Give the process the target's host name and files, in mount and UTS namespaces of its own."""
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS)
    syscalls.sethostname(target.hostname)
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    # The files need a home; a pod's /run is its own, a node's keeps the names of its pods.
    home = "/run" if target.pod else "/run/netns"
    syscalls.mount("tmpfs", home, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    for name, text in target.files.items():
        path = os.path.realpath(f"/etc/{name}")
        if target.pod and path.startswith("/run/"):  # a link into /run, as systemd-resolved's
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write(path, text)
            continue
        source = f"{home}/.{name}"
        _write(source, text)
        with contextlib.suppress(OSError):  # a machine without /etc/resolv.conf has nothing to be covered
            syscalls.mount(source, path, None, syscalls.MS_BIND)
        os.unlink(source)
    if not target.pod:
        syscalls.unmount(home)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o644)


def run(target: Target, command: Sequence[str], *, stdin: bool, terminal: bool, env: Mapping[str, str] | None = None) -> int:
    """Enter and run ``command`` there; returns its exit code, 128 + N for signal N.  The caller has no way back.

    Without ``stdin`` it reads nothing; with ``terminal`` it gets the caller's terminal, job control and all.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        join(target)
    except OSError as error:
        raise MachineError(f"{target.name} cannot be entered: {error.filename or ''} {error.strerror}") from None
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _execute(command, stdin, terminal, env)

    def forward(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTTOU):  # the terminal tells the command, too
        signal.signal(number, signal.SIG_IGN)
    status = os.waitpid(child, 0)[1]
    if terminal:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, os.getpgid(parent))
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _execute(command: Sequence[str], stdin: bool, terminal: bool, env: Mapping[str, str] | None) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGHUP)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    if not stdin and not terminal:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if terminal:
        with contextlib.suppress(OSError):
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), {**os.environ, **(env or {})})
    except OSError as error:
        import shutil

        # A folder of $PATH that may not be read must not make a missing command look like a forbidden one.
        found = ("/" in command[0] and not isinstance(error, FileNotFoundError)) or shutil.which(command[0], os.F_OK)
        print(f"error: {command[0]}: {error.strerror if found else 'no such command here'}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(NOT_EXECUTABLE if found else NOT_FOUND)
