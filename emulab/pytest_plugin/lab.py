"""The lab as tests see it: each method is one operation of a running lab (docs/control.md), in the lab's own words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulab.pytest_plugin.members import LabError, Node, Pod, Selected

if TYPE_CHECKING:
    from emulab.pytest_plugin.evidence import Evidence
    from emulab.pytest_plugin.held import Held
    from emulab.pytest_plugin.packets import Capture


class Undo:
    """A change that is made; as a context manager it is undone at the end of the block."""

    def __init__(self, undo: Callable[[], object]) -> None:
        self._undo = undo

    def __enter__(self) -> None:
        """The change is made already."""

    def __exit__(self, *_: object) -> None:
        __tracebackhide__ = True
        self._undo()


class Lab:
    """A lab that is up, held beside the tests.  Mistakes and refusals are `LabError`."""

    def __init__(self, held: Held, evidence: Evidence, folder: Path) -> None:
        self._held, self._evidence, self._folder = held, evidence, folder
        self._faults: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return f"<lab {self.name}: {self.plugin} on {self._held.wanted.topology or 'flat'}>"

    @property
    def name(self) -> str:
        """As `emulab ls` shows it."""
        return self._held.name

    @property
    def plugin(self) -> str:
        """The data plane's name."""
        return self._held.wanted.plugin

    # What is there

    def pod(self, name: str) -> Pod:
        """The pod ``a1`` or ``shop/web``."""
        __tracebackhide__ = True
        found = [self._pod(one) for one in self.ask("get", kind="pods", name=name)]
        if len(found) != 1:  # the lab takes a node's name, too
            raise LabError(f"{name} is a node: lab.node({name!r})")
        return found[0]

    def node(self, name: str) -> Node:
        """The node ``node-a``."""
        __tracebackhide__ = True
        nodes = {one["name"]: self._node(one) for one in self.ask("get", kind="nodes")}
        if name not in nodes:
            from emulab.errors import nearest

            raise LabError(f"no node '{name}'{nearest(name, nodes)}")
        return nodes[name]

    @property
    def pods(self) -> list[Pod]:
        """All pods."""
        __tracebackhide__ = True
        return [self._pod(one) for one in self.ask("get", kind="pods")]

    @property
    def nodes(self) -> list[Node]:
        """All nodes."""
        __tracebackhide__ = True
        return [self._node(one) for one in self.ask("get", kind="nodes")]

    def select(self, selector: str) -> Selected:
        """Several pods, to expect something of them: ``shop/*``, ``*``, ``shop/app=web``; or ``internet``."""
        return Selected(self, selector)

    # Kubernetes' objects

    def apply(self, *manifests: str | Path, namespace: str | None = None) -> Undo:
        """Create or replace the objects of manifests: files, folders, or their text.  Undone, they are deleted.

        A text has several lines, a path has one; paths are relative to the test's folder.
        """
        __tracebackhide__ = True
        texts = self._texts(manifests)
        self.ask("apply", texts=texts, namespace=namespace)
        return Undo(partial(self.ask, "delete", texts=texts, namespace=namespace, ignore_not_found=True))

    def delete(self, kind: str, *names: str, namespace: str | None = None) -> None:
        """Delete objects, as `emulab delete KIND NAME` does."""
        __tracebackhide__ = True
        self.ask("delete", kind=kind, names=list(names), namespace=namespace)

    def label(self, kind: str, name: str, labels: Mapping[str, str | None], namespace: str | None = None) -> None:
        """Give an object labels; None takes one off."""
        __tracebackhide__ = True
        self.ask("label", kind=kind, names=[name], labels=dict(labels), namespace=namespace, overwrite=True)

    # Changes

    def pod_add(self, name: str, node: str | Node, labels: Mapping[str, str] | None = None) -> Undo:
        """Add a pod."""
        __tracebackhide__ = True
        self.ask("pod_add", name=name, node=str(node), labels=dict(labels or {}))
        return Undo(partial(self.pod_rm, name))

    def pod_rm(self, *names: str | Pod) -> None:
        """Remove pods, all or none."""
        __tracebackhide__ = True
        self.ask("pod_rm", names=[str(name) for name in names])

    def node_add(self, name: str) -> Undo:
        """Add a node."""
        __tracebackhide__ = True
        self.ask("node_add", name=name)
        return Undo(partial(self.node_rm, name))

    def node_rm(self, name: str | Node) -> None:
        """Remove a node and its pods."""
        __tracebackhide__ = True
        self.ask("node_rm", name=str(name))

    def node_stop(self, name: str | Node) -> Undo:
        """Switch a node off."""
        __tracebackhide__ = True
        self.ask("node_stop", name=str(name))
        return Undo(partial(self.node_start, name))

    def node_start(self, name: str | Node) -> None:
        """Switch a node on."""
        __tracebackhide__ = True
        self.ask("node_start", name=str(name))

    def link_down(self, node: str | Node) -> Undo:
        """Take the carrier from a node's uplink."""
        __tracebackhide__ = True
        self.ask("link_set", node=str(node), up=False)
        return Undo(partial(self.link_up, node))

    def link_up(self, node: str | Node) -> None:
        """Give a node's uplink its carrier back."""
        __tracebackhide__ = True
        self.ask("link_set", node=str(node), up=True)

    def link_set(
        self, node: str | Node, *, rate: int | None = None, delay: float | None = None, loss: float | None = None
    ) -> None:
        """Shape a node's uplink: bit/s (0: unshaped), seconds, a fraction; what is not given stays."""
        __tracebackhide__ = True
        self.ask("link_set", node=str(node), rate=rate, delay=delay, loss=loss)

    def partition(self, *groups: Sequence[str | Node]) -> Undo:
        """Part groups of nodes from each other."""
        __tracebackhide__ = True
        self.ask("partition", groups=[[str(node) for node in group] for group in groups])
        return Undo(self.heal)

    def heal(self) -> None:
        """Join what was parted."""
        __tracebackhide__ = True
        self.ask("heal")

    def fault(self, name: str, at: str | Selected | None = None) -> Undo:
        """Break the lab on purpose (`emulab fault list`), in the first place where it applies or ``at`` one."""
        __tracebackhide__ = True
        wanted = {"name": name, "at": None if at is None else str(at)}
        self.ask("fault_inject", **wanted)
        self._faults.append(wanted)
        return Undo(partial(self._mend, wanted))

    def repair(self) -> None:
        """Put back all that is not as planned; there is no fault after it."""
        __tracebackhide__ = True
        self.ask("fault_clear")
        self._faults.clear()

    def _mend(self, fault: dict[str, Any]) -> None:
        """The lab clears all its faults at once: the others are injected again."""
        __tracebackhide__ = True
        self.ask("fault_clear")
        self._faults = [one for one in self._faults if one is not fault]
        for one in self._faults:
            self.ask("fault_inject", **one)

    # Looking

    def exec(
        self, target: str | Selected, *command: str, input: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a pod or node, as `emulab exec` does; its output is text.

        Raises `subprocess.TimeoutExpired` after ``timeout`` seconds, and nothing for an exit code.
        """
        __tracebackhide__ = True
        self.ask("enter", target=str(target))  # says what cannot be, so that whatever comes now is the command's own
        words = ["exec", *(["--stdin"] if input is not None else []), str(target), "--", *command]
        stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        return subprocess.run(self.typed(*words), capture_output=True, text=True, timeout=timeout, env=self.environment, **stdin)

    def capture(self, target: str | Selected, filter: str = "") -> Capture:
        """Capture packets of a pod or node, ``node-a:eth0`` or all of its interfaces, in tcpdump's language if not all:

        ``with lab.capture("a1", "icmp") as packets: …``, and then ``packets.path``, ``packets.frames``.
        """
        from emulab.pytest_plugin.packets import Capture

        return Capture(self, str(target), filter, self._evidence.file(f"capture-{target}", ".pcapng"))

    def trace(
        self,
        source: str | Selected,
        destination: str | Selected,
        *,
        tcp: int | None = None,
        udp: int | None = None,
        family: int | None = None,
        size: int | None = None,
    ) -> dict[str, Any]:
        """One packet's whole story, ``emulab/trace/1`` of docs/json.md: its ``verdict``, its ``hops``, its ``reason``."""
        __tracebackhide__ = True
        import json

        from emulab.pytest_plugin.vocabulary import flow

        ends = {"source": str(source), "destination": str(destination), "family": family, "size": size}
        told: dict[str, Any] = json.loads(self.ask("trace", report="json", **ends, **flow(tcp, udp))["report"])
        return told

    def verify(self, **probing: Any) -> dict[str, int]:
        """Probe all pod pairs, or those that are chosen (`emulab verify`), and judge every packet; returns the summary.

        ``probing``: ``sources``, ``destinations``, ``protocols``, ``families``, … of docs/control.md.  Raises
        `ExpectationFailed` with the findings.
        """
        __tracebackhide__ = True
        from emulab.pytest_plugin.vocabulary import ExpectationFailed

        answer = self.ask("verify", report="text", quiet=True, **probing)
        if not answer["ok"]:
            *findings, verdict = answer["report"].strip().splitlines()
            raise ExpectationFailed("\n".join([verdict, *findings]).rstrip())
        summary: dict[str, int] = answer["summary"]
        return summary

    def ask(self, do: str, **arguments: Any) -> Any:
        """Any operation of docs/control.md; arguments that are None are left out."""
        __tracebackhide__ = True
        from emulab.control.client import Client
        from emulab.control.places import Place
        from emulab.errors import EmulabError

        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            with Client(Place(self._held.folder)) as client:
                return client.ask(do, **given)
        except EmulabError as error:
            told = str(error)
        raise LabError(told)

    # For what belongs to the plugin

    @property
    def environment(self) -> dict[str, str]:
        """Of commands that are to find this lab: as it was when it was started, whatever a test has patched since."""
        return self._held.environment

    @property
    def evidence(self) -> Evidence:
        """What failed expectations leave."""
        return self._evidence

    def typed(self, *words: str) -> list[str]:
        """The command line of `emulab WORDS…` for this lab."""
        from emulab.pytest_plugin.machine import program

        return program("emulab", words[0], f"--lab={self.name}", *words[1:])

    def _texts(self, manifests: Sequence[str | Path]) -> list[list[str]]:
        __tracebackhide__ = True
        from emulab.cli.manifests import texts
        from emulab.errors import InputError

        found: list[list[str]] = []
        for one in manifests:
            if isinstance(one, str) and "\n" in one:
                found.append(["text", one])
                continue
            try:
                found += [list(pair) for pair in texts([os.fspath(self._folder / one)])]
            except InputError as error:
                told = str(error)
                break
        else:
            return found
        raise LabError(told)

    def _pod(self, told: Mapping[str, Any]) -> Pod:
        key, addresses = told["name"], tuple(told["addresses"])
        name = key.rpartition("/")[2]
        selector = key.removeprefix("default/")
        return Pod(self, selector, name, told["namespace"], told["node"], addresses, told["labels"], told["ready"])

    def _node(self, told: Mapping[str, Any]) -> Node:
        return Node(self, told["name"], told["name"], tuple(told["addresses"]))
