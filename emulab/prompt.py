"""Mininet's own prompt over a running lab, with pods as first-class names: ``a1 ping c2``."""

from __future__ import annotations

import cmd
import shlex
import signal
import time
from collections.abc import Callable
from types import FrameType

from emulab.lab import Lab
from emulab.underlay import NamespaceNode

from mininet.cli import CLI  # isort: skip  (emulab.underlay has to prepare Mininet's import first)

_HELP = """
  a1 ping -c3 c2        a command in a pod; names become addresses (with -6: IPv6 addresses)
  node-a ip route       a command in a node
  node-a ip netns list  a node's pods
  pods, nodes           who is there
  verify                probe every pod pair and judge
  exit                  leave; the lab goes with you
"""


class Prompt(CLI):  # type: ignore[misc]
    """Mininet's commands, and ours."""

    prompt = "emulab> "
    identchars = cmd.Cmd.identchars + "-./"
    doc_header = "Commands (help COMMAND tells more):"
    _ours = ("pods", "nodes", "verify", "help", "exit", "quit", "EOF", "sh", "source", "time")

    def __init__(self, lab: Lab, verify: Callable[[], None]) -> None:
        self._lab, self._verify = lab, verify
        for endpoint in lab.cluster.endpoints:
            name = endpoint.key.removeprefix("default/")
            objects = lab.plan[endpoint.key]
            pod = NamespaceNode(name, lab.namespaces, objects, key=endpoint.key, mounts=endpoint.node)
            lab.network.nameToNode[name] = pod
        super().__init__(lab.network)

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

    def do_pods(self, _line: str) -> None:
        "List the pods: node, addresses."
        for endpoint in self._lab.cluster.endpoints:
            name = endpoint.key.removeprefix("default/")
            print(f"{name:<16} {endpoint.node:<12} {' '.join(map(str, endpoint.addresses))}")

    def do_nodes(self, _line: str) -> None:
        "List the nodes: addresses."
        for node in self._lab.cluster.nodes:
            addresses = self._lab.cluster.topology.uplink(node.name).addresses
            print(f"{node.name:<16} {' '.join(str(address.ip) for address in addresses)}")

    def do_verify(self, _line: str) -> None:
        "Probe every pod pair again and judge."
        self._verify()

    def do_help(self, line: str) -> None:
        "List commands, or explain one."
        cmd.Cmd.do_help(self, line)
        if not line:
            print(_HELP)

    def default(self, line: str) -> None:
        """NODE COMMAND…: run it there; names of nodes and pods become their addresses."""
        first, _, rest = line.strip().partition(" ")
        if line == "EOF":
            return
        if first not in self.mn:
            print(f"*** no command, node or pod '{first}' (try: help, pods, nodes)")
            return
        if not rest.strip():
            print(f"*** what shall {first} do? e.g. {first} ip route")
            return
        family = 6 if "-6" in rest.split() else 4
        node = self.mn[first]
        try:
            words = shlex.split(rest, posix=False)
        except ValueError:
            words = rest.split()
        node.sendCmd(" ".join(str(self.mn[w].IP(family=family)) if w in self.mn else w for w in words))
        self.waitForNode(node)


def interact(lab: Lab, verify: Callable[[], None]) -> None:
    """Read commands until the user leaves.  Ctrl-C stops the command that runs, not the lab."""
    last = 0.0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        # The terminal tells every process of the lab, and those outside hand it on: once is enough.
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > 0.1:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        Prompt(lab, verify)
    finally:
        signal.signal(signal.SIGINT, previous)
