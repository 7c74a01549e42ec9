"""However a lab ends, nothing of it is left, and `ls` says nothing false."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import Terminal

from emulab.control.protocol import LONGEST


def processes(terminal: Terminal, lab: str) -> list[int]:
    """The lab's own processes, outermost first: door, keeper, PID 1."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(terminal.folder / lab / "socket"))
        found = [struct.unpack("=iII", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]]
    for _ in range(2):
        found.append(int(Path(f"/proc/{found[-1]}/task/{found[-1]}/children").read_text().split()[0]))
    return found


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in descendants(int(child)))]


def awaited(state: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not state():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def gone(pid: int) -> bool:
    """Whether a process has ended with all its threads: what is open is so until the last of them ends."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "Z" for thread in threads)
    except (FileNotFoundError, ProcessLookupError):
        return not Path(f"/proc/{pid}").exists()


def test_killed(terminal: Terminal) -> None:
    """One lab after the other by the same name, which is free again each time."""
    for victim in ("door", "keeper", "lab", "everybody"):
        assert terminal.emulab("up", "--name", "lab").code == 0, victim
        sleeper = terminal.start("exec", "a1", "--", "sh", "-c", "echo here; exec sleep 60")
        assert sleeper.out.readline() == b"here\n"
        known = processes(terminal, "lab")
        everybody = descendants(known[0])
        targets = {"door": known[:1], "keeper": known[1:2], "lab": known[2:], "everybody": everybody}[victim]
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert awaited(lambda everybody=everybody: all(map(gone, everybody))), f"{victim}: processes are left"
        assert sleeper.wait().code == 137, victim
        if victim != "everybody":  # whoever survives takes the name away
            assert awaited(lambda: os.listdir(terminal.folder) == []), victim
        assert terminal.emulab("ls").err == "no lab is up\n", victim
        assert os.listdir(terminal.folder) == [], victim
    assert terminal.emulab("up", "--name", "lab").code == 0, "the name is free again"


def test_interrupted_while_it_starts(sit_down: Callable[[str], Terminal]) -> None:
    """A process from scratch, as a shell starts it: pytest's own workers ignore the signal."""
    terminal = sit_down("root" if os.geteuid() == 0 else "user")
    command = [sys.executable, "-m", "emulab", "up", "fleet,20,20", "--name", "lab"]
    for delay in (0.05, 0.1, 0.15, 0.2, 0.3):
        with subprocess.Popen(command, preexec_fn=terminal.become, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as starting:
            time.sleep(delay)
            starting.send_signal(signal.SIGINT)
            said = starting.communicate(timeout=30)[0]
        early = b"init_import_site" in said  # it was Python that was still starting, and says so in its own way
        assert starting.returncode in (130, -2) or early, said
        assert awaited(lambda: not terminal.folder.exists() or os.listdir(terminal.folder) == [])
    assert terminal.emulab("ls").err == "no lab is up\n"


def test_the_lab_outlives_the_terminal(terminal: Terminal) -> None:
    child, keyboard = os.forkpty()
    if child == 0:
        terminal.become()
        from terminal import main

        main(("up", "--name", "lab"))
    os.waitpid(child, 0)
    os.close(keyboard)  # the terminal hangs up
    assert terminal.emulab("exec", "a1", "--", "true").code == 0


def test_nobody_else_comes_in(sit_down: Callable[[str], Terminal]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs two users: run as root")
    root, user = sit_down("root"), sit_down("user")
    assert root.emulab("up", "single-node", "--name", "of-root").code == 0
    assert user.emulab("up", "single-node", "--name", "of-user").code == 0
    assert "of-root" not in user.emulab("ls").out
    assert "of-user" not in root.emulab("ls").out
    for words in (("exec", "-l", "of-root", "a1", "--", "true"), ("down", "of-root"), ("verify", "-l", "of-root")):
        done = user.emulab(*words)
        assert (done.code, "no lab 'of-root'" in done.err) == (2, True)
    assert _reached(user, root.folder / "of-root" / "socket") == "PermissionError"
    # Even where the folder is open to everybody, the door looks who calls.
    for path, mode in ((root.folder, 0o755), (root.folder / "of-root", 0o755), (root.folder / "of-root" / "socket", 0o777)):
        path.chmod(mode)
    assert _reached(user, root.folder / "of-root" / "socket") == "turned away"
    assert _reached(root, user.folder / "of-user" / "socket") == "answered"


def _reached(terminal: Terminal, path: Path) -> str:
    """What a process of that user meets at a lab's socket."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            terminal.become()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.connect(str(path))
                caller.sendall(b'{"do": "names"}\n')
                answer = b"answered" if caller.recv(100) else b"turned away"
        except ConnectionError:
            answer = b"turned away"
        except OSError as error:
            answer = type(error).__name__.encode()
        os.write(write, answer)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as told:
        return told.read()


def test_ten_thousand_messages_that_are_none(terminal: Terminal) -> None:
    assert terminal.emulab("up", "single-node", "--name", "lab").code == 0
    path, dice = str(terminal.folder / "lab" / "socket"), random.Random(terminal.user)  # others to either
    whole = [
        b"[]",
        b"1",
        b"null",
        b"{}",
        b'{"do": 1}',
        b'{"do": "down", "x": 1}',
        b'{"do": "enter"}',
        b'{"do": "get", "kind": 7}',
    ]
    whole += [b'{"do": "pod_add", "name": [], "node": {}}', b'{"do": "verify", "count": "x"}', b"[" * 5000, b'{"do": "nope"}']
    whole += [b'{"do": "enter", "target": "' + b"a" * 3000 + b'"}', b'{"do": "link_set", "node": "node-a", "rate": 1e400}']
    sent = 0
    while sent < 10_000:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(10)
            caller.connect(path)
            for _ in range(20):
                line = dice.choice([*whole, dice.randbytes(dice.randrange(200))])
                half = dice.random() < 0.1  # nobody answers that
                sent += 1
                try:
                    caller.sendall(line if half else line + b"\n")
                    if not half and line.strip() and dice.random() < 0.3:
                        caller.recv(65536)
                except OSError:
                    break  # it hung up on nonsense
    too_long = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with too_long, pytest.raises(ConnectionError):
        too_long.connect(path)
        for _ in range(LONGEST // 65536 + 100):
            too_long.sendall(b"x" * 65536)
    assert terminal.emulab("exec", "a1", "--", "true").code == 0
    assert "PASS" in terminal.emulab("verify", "-q").out
