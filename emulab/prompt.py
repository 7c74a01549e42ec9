"""Mininet's own prompt over a running lab, with pods and nodes as words: ``a1 ping c2``."""

from __future__ import annotations

import cmd
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

import emulab.underlay  # noqa: F401  (prepares Mininet's import)

from mininet.cli import CLI  # isort: skip

_HELP = """
  a1 ping -c3 c2        a command in a pod; names become addresses (with -6: IPv6 addresses)
  node-a ip route       a command in a node
  node-a ip netns list  a node's pods
  pods, nodes           who is there
  verify                probe every pod pair and judge
  link down node-a      every command of `emulab`: {commands}
  exit                  leave
"""


class Asked(Protocol):
    """Somebody who can be asked about a lab: `emulab.control.client.Client`, or the lab itself."""

    def ask(self, do: str, **arguments: Any) -> Any: ...


class Prompt(CLI):  # type: ignore[misc]
    """Mininet's commands, and ours.

    ``type_in(target, command)`` runs a command in a pod or node, ``command(words)`` one of emulab's own ``commands``.
    """

    prompt = "emulab> "
    identchars = cmd.Cmd.identchars + "-./"
    doc_header = "Commands (help COMMAND tells more):"
    _ours = ("pods", "nodes", "help", "exit", "quit", "EOF", "sh", "source", "time")

    def __init__(
        self,
        lab: Asked,
        type_in: Callable[[str, Sequence[str]], int],
        command: Callable[[Sequence[str]], int],
        commands: Sequence[str],
    ) -> None:
        self._lab, self._type_in, self._command, self._commands = lab, type_in, command, commands
        # Mininet looks after its nodes' shells here: ours need no looking after.
        super().__init__({}, stdin=sys.stdin)

    @classmethod
    def initReadline(cls) -> None:
        """Completion and line editing come with the import; Mininet's history file would be left behind."""
        cls.readlineInited = True

    def get_names(self) -> list[str]:
        """Mininet's commands that are about switches and controllers are none here."""
        return [name for name in dir(type(self)) if not name.startswith("do_") or name.removeprefix("do_") in self._ours]

    def onecmd(self, line: str) -> object:
        word, _, _ = self.parseline(line)
        if word and f"do_{word}" not in self.get_names():
            self.default(line)
            return None
        return super().onecmd(line)

    def completenames(self, text: str, *_: object) -> list[str]:
        found = self._lab.ask("names")
        words = [*found["pods"], *found["nodes"], *self._commands, *self._ours]
        return sorted(word for word in words if word.startswith(text))

    def completedefault(self, text: str, *_: object) -> list[str]:
        found = self._lab.ask("names")
        return sorted(word for word in [*found["pods"], *found["nodes"]] if word.startswith(text))

    def do_pods(self, _line: str) -> None:
        "List the pods: node, addresses."
        for pod in self._lab.ask("get", kind="pods"):
            print(f"{_short(pod['name']):<16} {pod['node']:<12} {' '.join(pod['addresses'])}")

    def do_nodes(self, _line: str) -> None:
        "List the nodes: addresses."
        for node in self._lab.ask("get", kind="nodes"):
            print(f"{node['name']:<16} {' '.join(node['addresses'])}")

    def do_help(self, line: str) -> None:
        "List commands, or explain one."
        if line in self._commands:
            self._command([line, "--help"])
            return
        cmd.Cmd.do_help(self, line)
        if not line:
            print(_HELP.format(commands=", ".join(self._commands)))

    def default(self, line: str) -> None:
        """NODE COMMAND…: run it there; names of nodes and pods become their addresses."""
        first, _, rest = line.strip().partition(" ")
        if line == "EOF":
            return
        everybody = [*self._lab.ask("get", kind="nodes"), *self._lab.ask("get", kind="pods")]
        addresses = {_short(one["name"]): one["addresses"] for one in everybody}
        if first not in addresses:
            if first in self._commands:
                self._command(_words(line))
            else:
                print(f"*** no command, node or pod '{first}' (try: help, pods, nodes)")
            return
        if not rest.strip():
            print(f"*** what shall {first} do? e.g. {first} ip route")
            return
        words = _words(rest, posix=False)
        family = 6 if "-6" in words else 4
        command = " ".join(_address(addresses[word], family) if word in addresses else word for word in words)
        self._type_in(first, ("bash", "-c", command))


def _words(line: str, posix: bool = True) -> list[str]:
    try:
        return shlex.split(line, posix=posix)
    except ValueError:
        return line.split()


def _short(name: str) -> str:
    return name.removeprefix("default/")


def _address(addresses: Sequence[str], family: int) -> str:
    return next((address for address in addresses if (":" in address) == (family == 6)), addresses[0])


def interact(
    lab: Asked,
    type_in: Callable[[str, Sequence[str]], int],
    command: Callable[[Sequence[str]], int],
    commands: Sequence[str],
) -> None:
    """Read commands until the user leaves.  Ctrl-C stops the command that runs, not the lab."""
    last = 0.0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        # The terminal tells every process of the lab, and those outside hand it on: once is enough.
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > 0.1:
            raise KeyboardInterrupt

    def apart(work: Callable[[], int]) -> int:
        """In a child: entering a namespace is for good."""
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            code = 1
            try:
                code = work()
            finally:
                os._exit(code)
        while True:
            with suppress(KeyboardInterrupt):
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        Prompt(lab, lambda target, words: apart(lambda: type_in(target, words)), command, commands)
    finally:
        signal.signal(signal.SIGINT, previous)
