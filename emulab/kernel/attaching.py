"""Pods attached by CNI plugins, each in its node: what a node's container runtime does.

A node has folders of its own: /etc/cni/net.d with its network, /opt/cni/bin with the machine's plugins, /var/lib/cni with
what is attached.  Its plugins run from a thread that lives in the node's network and mounts, one after the other; nodes work at
the same time.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from emulab.cni import config
from emulab.cni.attachment import Attachment
from emulab.cni.config import NetworkList
from emulab.cni.errors import CniError
from emulab.cni.invocation import Invocation
from emulab.cni.result import Result
from emulab.cni.runtime import Runtime
from emulab.errors import EmulabError, MachineError
from emulab.kernel import syscalls
from emulab.kernel.namespaces import Namespace, Namespaces
from emulab.state import CniAttachment, CniNetwork, KernelObject, State

T = TypeVar("T")
PLUGINS = "/opt/cni/bin"
STATE = "/var/lib/cni"
NETWORKS = "/etc/cni/net.d"
_OWN = ("/etc/cni", STATE)  # a node's own folders
_USUAL = (PLUGINS, "/usr/lib/cni", "/usr/libexec/cni")  # upstream's, Debian's, Fedora's
_REMEMBERED = 5000  # invocations
_MS_RDONLY, _MS_REMOUNT, _KEPT = 1, 32, 2 | 4 | 8 | 1024 | 2048  # linux/mount.h; nosuid, nodev, noexec, noatime, nodiratime
_PRIVATE = syscalls.MS_NOSUID | syscalls.MS_NODEV


@dataclass(frozen=True)
class Entry:
    """One invocation for the log: for whom, and where."""

    node: str
    pod: str
    invocation: Invocation


class AttachError(EmulabError):
    """A plugin failed: what it said, in one line."""

    exit_code = 1


class Attaching:
    """The container runtimes of a lab's nodes."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._nodes: dict[str, _Node] = {}
        self.log: deque[Entry] = deque(maxlen=_REMEMBERED)

    def prepare(self, state: State) -> None:
        """The machine's plugins, and places for the nodes' folders: in the lab's own mounts, before nodes get theirs."""
        networks = [thing for objects in state.values() for thing in objects if isinstance(thing, CniNetwork)]
        self._namespaces.at_home(lambda: _make_ready(networks))

    def add(self, state: State) -> dict[str, Result]:
        """Write networks, carry out attachments; returns the results by pod.  If one fails, none of them is there."""
        works: dict[str, Callable[[], dict[str, Result]]] = {}
        for name, objects in state.items():
            networks = [thing for thing in objects if isinstance(thing, CniNetwork)]
            wanted = [thing for thing in objects if isinstance(thing, CniAttachment)]
            if networks or wanted:
                if name not in self._nodes:
                    self._nodes[name] = _Node(self._namespaces[name], self.log.append)
                node = self._nodes[name]
                works[name] = lambda node=node, n=networks, w=wanted: node.add(n, w)  # type: ignore[misc]
        made: dict[str, Result] = {}
        failures: list[EmulabError] = []
        for future in [self._nodes[name].submit(work) for name, work in works.items()]:
            try:
                made |= future.result()
            except EmulabError as error:
                failures.append(error)
        if failures:
            self.remove({name: [t for t in objects if getattr(t, "pod", None) in made] for name, objects in state.items()})
            raise failures[0]
        return made

    def remove(self, state: Mapping[str, Iterable[KernelObject]]) -> None:
        """Detach, the last first; raises the first `AttachError` after all have been tried."""
        futures = []
        for name, objects in state.items():
            leaving = [thing for thing in objects if isinstance(thing, CniAttachment)]
            if leaving and name in self._nodes:
                node = self._nodes[name]
                futures.append(node.submit(lambda node=node, leaving=leaving: node.remove(leaving)))  # type: ignore[misc]
        failures = [error for error in (future.exception() for future in futures) if error is not None]
        if failures:
            raise failures[0]

    def leave(self, names: Iterable[str]) -> None:
        """These nodes are switched off: nobody is asked any more."""
        for name in names:
            if name in self._nodes:
                self._nodes.pop(name).close()

    def close(self) -> None:
        self.leave(list(self._nodes))


class _Node:
    """One node's runtime, on a thread of its own."""

    def __init__(self, namespace: Namespace, tell: Callable[[Entry], None]) -> None:
        self.name = namespace.name
        self._pod = ""
        self._networks: dict[str, NetworkList] = {}
        self._thread = ThreadPoolExecutor(1, f"cni {self.name}")

        def told(invocation: Invocation) -> None:
            tell(Entry(self.name, self._pod, invocation))

        folders = [Path(PLUGINS), *(Path(folder) for folder in _USUAL[1:] if os.path.isdir(folder))]
        self._runtime = Runtime(folders, Path(STATE), on_invocation=told)
        self.submit(lambda: _move_in(namespace)).result()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        return self._thread.submit(work)

    def add(self, networks: Sequence[CniNetwork], wanted: Sequence[CniAttachment]) -> dict[str, Result]:
        for network in networks:
            Path(network.path).write_text(f"{network.text}\n", encoding="utf-8")
            self._networks[network.name] = config.read(network.text, f"{self.name}: {network.path}")
        made: dict[str, Result] = {}
        done: list[CniAttachment] = []
        try:
            for one in wanted:
                self._pod = one.pod
                capabilities = json.loads(one.capabilities)
                try:
                    made[one.pod] = self._runtime.add(self._networks[one.network], _attachment(one), capabilities)
                except CniError as error:
                    raise AttachError(f"{one.pod} on {self.name}: {error}") from None
                done.append(one)
        except BaseException:
            for one in reversed(done):
                self._pod = one.pod
                self._runtime.delete(self._networks[one.network], _attachment(one))
            raise
        return made

    def remove(self, leaving: Sequence[CniAttachment]) -> None:
        failures: list[AttachError] = []
        for one in reversed(leaving):
            self._pod = one.pod
            try:
                self._runtime.delete(self._networks[one.network], _attachment(one))
            except CniError as error:
                failures.append(AttachError(f"{one.pod} on {self.name}: {error}"))
        if failures:
            raise failures[0]

    def close(self) -> None:
        self._thread.shutdown()


def named(state: Mapping[str, Iterable[KernelObject]]) -> Iterator[CniAttachment]:
    return (thing for objects in state.values() for thing in objects if isinstance(thing, CniAttachment))


def _attachment(one: CniAttachment) -> Attachment:
    return Attachment(one.container, f"/run/netns/{one.netns}", one.ifname, dict(one.args))


def _plugins(binaries: str, networks: Sequence[CniNetwork]) -> int:
    """The folder of the machine's plugins, opened; all that the networks name have to be in it, or where they usually are."""
    folders = [folder for folder in ((binaries, *_USUAL[1:]) if binaries else _USUAL) if os.path.isdir(folder)]
    for network in networks:
        for kind in config.read(network.text).types():
            if not any(os.access(os.path.join(folder, kind), os.X_OK) for folder in folders):
                where = ", ".join(folders) or " and ".join(_USUAL)
                raise MachineError(
                    f"network {network.name}: there is no plugin '{kind}' in {where} "
                    "(Debian's are in the package containernetworking-plugins; --set bin=FOLDER names others)"
                )
    return os.open(folders[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_ready(networks: Sequence[CniNetwork]) -> None:
    binaries = _plugins(networks[0].binaries, networks)
    try:
        for folder in (*_OWN, os.path.dirname(PLUGINS)):
            _make_room(folder)
        syscalls.mount("tmpfs", os.path.dirname(PLUGINS), "tmpfs", _PRIVATE, "mode=755")
        os.mkdir(PLUGINS, 0o755)
        syscalls.mount(f"/proc/self/fd/{binaries}", PLUGINS, None, syscalls.MS_BIND)
        flags = os.statvfs(PLUGINS).f_flag & _KEPT  # what an ordinary user may not take away
        syscalls.mount(None, PLUGINS, None, syscalls.MS_BIND | _MS_REMOUNT | _MS_RDONLY | flags)
    finally:
        os.close(binaries)


def _make_room(folder: str) -> None:
    """Let ``folder`` be there: if it is not, an overlay on its parent has it, and the machine's parent stays as it is."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    lower = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.mount("tmpfs", parent, "tmpfs", _PRIVATE, "mode=755")
        for name in ("upper", "work"):
            os.mkdir(f"{parent}/{name}", 0o755)
        room = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            there = f"/proc/self/fd/{room}"
            options = f"lowerdir=/proc/self/fd/{lower},upperdir={there}/upper,workdir={there}/work"
            syscalls.mount("overlay", parent, "overlay", _PRIVATE, options)
        finally:
            os.close(room)
        os.mkdir(folder, 0o755)
    except OSError as error:
        raise MachineError(
            f"cannot give nodes a {folder} of their own: {error.strerror} (modprobe overlay, or mkdir {folder})"
        ) from None
    finally:
        os.close(lower)


def _move_in(namespace: Namespace) -> None:
    """The calling thread lives in the node from now on."""
    assert namespace.mounts is not None
    syscalls.unshare(syscalls.CLONE_FS)
    syscalls.setns(namespace.mounts, syscalls.CLONE_NEWNS)
    syscalls.setns(namespace.net, syscalls.CLONE_NEWNET)
    for folder in _OWN:
        syscalls.mount("tmpfs", folder, "tmpfs", _PRIVATE, "mode=755")
    os.mkdir(NETWORKS, 0o755)
