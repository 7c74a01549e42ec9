"""A CNI runtime (section 3): it runs the plugins of a network's list for one container, in order, and back again.

It is what kubelet's container runtime does, by way of libcni, when a pod is born and dies.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emulab.cni import answer, config, conventions, runner, versions
from emulab.cni.attachment import Attachment
from emulab.cni.cache import Cache, Cached
from emulab.cni.config import NetworkList, PluginConf
from emulab.cni.errors import CniError, Code
from emulab.cni.invocation import Invocation, Outcome, Runner
from emulab.cni.result import Result
from emulab.cni.turns import Turns
from emulab.errors import EmulabError, InputError

__all__ = ["Attachment", "Runtime"]
TIMEOUT = 60.0  # seconds for one plugin; kubelet has two minutes for all of a pod's
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # plugins look for iptables there


class Runtime:
    """``binaries`` are the folders in which plugins are looked for, ``cache`` is the folder of what is attached.

    ``run`` carries out one call; ``on_invocation`` is told of each.  ``environment`` is what plugins get beside CNI_*: nothing
    else of this process's.  All methods may be called from several threads, and wait for each other where they have to.
    """

    def __init__(
        self,
        binaries: Sequence[Path],
        cache: Path,
        run: Runner = runner.run,
        on_invocation: Callable[[Invocation], None] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        for folder in binaries:
            if ":" in str(folder) or not folder.is_absolute():
                raise InputError(f"folder of plugins {str(folder)!r}: an absolute path without ':' expected")
        self.binaries, self.cache = tuple(binaries), Cache(cache)
        self._run, self._on_invocation, self._timeout = run, on_invocation, timeout
        self._environment = {"PATH": PATH, **(environment or {})}
        self._turns = Turns()
        self._versions: dict[tuple[str, int], tuple[str, ...]] = {}

    def add(self, network: NetworkList, attachment: Attachment, capabilities: Mapping[str, Any] | None = None) -> Result:
        """Attach, and return what the last plugin answered.

        When a plugin fails, all of the list are told to take away what they made, and the failure is raised: `CniError`.
        """
        if not attachment.netns:
            raise InputError(f"{attachment}: a network namespace expected")
        wanted = conventions.checked(capabilities or {})
        with self._turns.of_container(network.name, attachment.container_id):
            if self.cache.read(network.name, attachment) is not None:
                raise InputError(f"{attachment} is attached to network {network.name} already: DEL comes first")
            version = self.spoken(network)
            try:
                result: Result | None = None
                for plugin in network.plugins:
                    request = config.request(network, plugin, version=version, runtime_config=wanted, prev_result=result)
                    result = answer.result(self._call("ADD", plugin.type, request, attachment), plugin.type, version)
                assert result is not None
                self.cache.write(Cached(network.name, attachment, json.dumps(network.show()).encode(), result, wanted))
            except BaseException:
                self._roll_back(network, attachment, wanted, version)
                raise
            return result

    def delete(self, network: NetworkList, attachment: Attachment, capabilities: Mapping[str, Any] | None = None) -> None:
        """Detach; that nothing is attached is no error.  ``capabilities``: those of ADD, when None.

        The first plugin that fails ends it, and `CniError` is raised: then DEL can be tried again.
        """
        with self._turns.of_container(network.name, attachment.container_id):
            self._delete(network, attachment, capabilities)

    def check(self, network: NetworkList, attachment: Attachment, capabilities: Mapping[str, Any] | None = None) -> bool:
        """Ask every plugin whether all is as it was made; `CniError` says what is not.

        False when none was asked: the list says `disableCheck`, or its version is before 0.4.0, which has no CHECK.
        """
        if network.disable_check or not versions.at_least(self.spoken(network), "0.4.0"):
            return False
        with self._turns.of_container(network.name, attachment.container_id):
            cached = self.cache.read(network.name, attachment)
            if cached is None:
                raise InputError(f"{attachment} is not attached to network {network.name}: there is nothing to check")
            wanted = cached.capabilities if capabilities is None else conventions.checked(capabilities)
            version = self.spoken(network)
            for plugin in network.plugins:
                request = config.request(network, plugin, version=version, runtime_config=wanted, prev_result=cached.result)
                answer.succeeded(self._call("CHECK", plugin.type, request, attachment), plugin.type, "CHECK")
            return True

    def gc(self, network: NetworkList, valid: Collection[Attachment]) -> None:
        """Take away what belongs to none of the ``valid`` attachments: DEL for those remembered here, then each plugin's GC.

        A list that says `disableGC` is left alone.  All is tried; then the first `CniError` is raised, which tells of the others.
        """
        if network.disable_gc:
            return
        spared = {(one.container_id, one.ifname) for one in valid}
        failures: list[EmulabError] = []
        with self._turns.of_network(network.name):
            for stale in list(self.cache.all(network.name)):
                if (stale.attachment.container_id, stale.attachment.ifname) in spared:
                    continue
                try:
                    self._delete(
                        config.read(stale.config) if stale.config else network, _without_lost_netns(stale.attachment), None
                    )
                except EmulabError as error:
                    failures.append(error)
            version = self.spoken(network)
            if versions.at_least(version, "1.1.0"):
                for plugin in network.plugins:
                    request = config.request(network, plugin, version=version, attachments=valid)
                    try:
                        answer.succeeded(self._call("GC", plugin.type, request, None), plugin.type, "GC")
                    except CniError as error:
                        failures.append(error)
        if failures:
            _tell(failures[0], failures[1:])
            raise failures[0]

    def status(self, network: NetworkList) -> bool:
        """Ask the plugins whether they could attach; `CniError` with code 50 or 51 says that one cannot.

        False when none was asked, because the version spoken is before 1.1.0, which has no STATUS.
        """
        version = self.spoken(network)
        if not versions.at_least(version, "1.1.0"):
            return False
        for plugin in network.plugins:
            request = config.request(network, plugin, version=version)
            answer.succeeded(self._call("STATUS", plugin.type, request, None), plugin.type, "STATUS")
        return True

    def version(self, type_: str) -> tuple[str, ...]:
        """The versions of the protocol that a plugin speaks.  Asked once for each state of its file."""
        path = self.find(type_)
        key = path, os.stat(path).st_mtime_ns
        if key not in self._versions:
            outcome = self._call("VERSION", type_, {"cniVersion": versions.ALL[-1]}, None)
            self._versions[key] = answer.supported(outcome, type_)
        return self._versions[key]

    def spoken(self, network: NetworkList) -> str:
        """The version to speak.  Plugins are asked only where the configuration leaves a choice."""
        ours = [one for one in network.versions if one in versions.ALL]
        if len(ours) < 2:
            return config.negotiated(network)
        return config.negotiated(network, *(self.version(plugin.type) for plugin in network.plugins))

    def validate(self, network: NetworkList) -> str:
        """Whether the plugins of a list are there and speak a version of it, which is returned; nothing is attached."""
        for kind in network.types():
            self.find(kind)
        return config.negotiated(network, *(self.version(plugin.type) for plugin in network.plugins))

    def find(self, type_: str) -> str:
        """The executable of a plugin; `CniError` names the folders in which there is none."""
        unfit = ""
        for folder in self.binaries:
            path = str(folder / type_)
            if os.path.isfile(path):
                if os.access(path, os.X_OK):
                    return path
                unfit = f"{path} is not executable"
            elif os.path.lexists(path):
                unfit = unfit or f"{path} is not a file"
        where = ", ".join(map(str, self.binaries)) or "no folder"
        raise CniError(Code.INTERNAL, unfit or f"there is no such plugin in {where}", plugin=type_)

    def _delete(self, network: NetworkList, attachment: Attachment, capabilities: Mapping[str, Any] | None) -> None:
        try:
            cached = self.cache.read(network.name, attachment)
        except InputError:  # unreadable is as good as none: plugins find their own way
            cached = None
        wanted = conventions.checked((cached.capabilities if cached else {}) if capabilities is None else capabilities)
        version = self.spoken(network)
        previous = cached.result if cached and versions.at_least(version, "0.4.0") else None
        for plugin in reversed(network.plugins):
            self._take_away(network, plugin, attachment, wanted, version, previous)
        self.cache.forget(network.name, attachment)

    def _take_away(
        self,
        network: NetworkList,
        plugin: PluginConf,
        attachment: Attachment,
        wanted: Mapping[str, Any],
        version: str,
        previous: Result | None,
    ) -> None:
        request = config.request(network, plugin, version=version, runtime_config=wanted, prev_result=previous)
        answer.succeeded(self._call("DEL", plugin.type, request, attachment), plugin.type, "DEL")

    def _roll_back(self, network: NetworkList, attachment: Attachment, wanted: Mapping[str, Any], version: str) -> None:
        """All of the list, those that were never reached, too; what fails here is not what the caller has to know first."""
        for plugin in reversed(network.plugins):
            try:
                self._take_away(network, plugin, attachment, wanted, version, None)
            except CniError:
                continue

    def _call(self, command: str, type_: str, request: Mapping[str, Any], attachment: Attachment | None) -> Outcome:
        env = {**self._environment, "CNI_COMMAND": command, "CNI_PATH": ":".join(map(str, self.binaries))}
        if attachment is not None:
            env |= {"CNI_CONTAINERID": attachment.container_id, "CNI_NETNS": attachment.netns, "CNI_IFNAME": attachment.ifname}
            env["CNI_ARGS"] = ";".join(f"{key}={value}" for key, value in attachment.args.items())
        stdin = json.dumps(request).encode()
        started, before = time.time(), time.monotonic()
        path, exit_code = "", None
        try:
            path = self.find(type_)
            outcome = Outcome(*self._run(path, env, stdin, self._timeout))
            exit_code = outcome.exit_code
        except CniError as error:
            outcome = Outcome(127, b"", b"", error.msg)
        except OSError as error:
            outcome = Outcome(126, b"", b"", f"{path} cannot be run: {error.strerror or error}")
        if self._on_invocation is not None:
            out, err = (data.decode(errors="backslashreplace") for data in outcome[1:3])
            seconds = time.monotonic() - before
            done = Invocation(command, type_, path, env, stdin.decode(), out, err, exit_code, seconds, started, outcome.problem)
            self._on_invocation(done)
        return outcome


def _without_lost_netns(attachment: Attachment) -> Attachment:
    """DEL may be called without a namespace, not with one that is not there."""
    if attachment.netns and os.path.exists(attachment.netns):
        return attachment
    return Attachment(attachment.container_id, "", attachment.ifname, attachment.args)


def _tell(first: EmulabError, others: Iterable[EmulabError]) -> None:
    if isinstance(first, CniError) and (more := "; ".join(map(str, others))):
        first.details = "; ".join(part for part in (first.details, f"also failed: {more}") if part)
