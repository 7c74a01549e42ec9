"""A plugin with its configuration, on a host, and the ways to call it: as a runtime would, and as none should."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emulab.cni import answer, config, documents, runner, versions
from emulab.cni.attachment import Attachment
from emulab.cni.config import NetworkList, PluginConf
from emulab.cni.errors import CniError
from emulab.cni.invocation import Invocation, Outcome
from emulab.cni.result import Result
from emulab.cni.runtime import PATH
from emulab.conformance.host import Host, difference
from emulab.conformance.verdict import Blocked, Failed
from emulab.errors import EmulabError, InputError

TIMEOUT = 30.0  # seconds for one call


@dataclass(frozen=True)
class Box:
    """A container: its network namespace, the interface that is asked for, what came before in its chain, the host before."""

    name: str
    netns: str
    number: int
    ifname: str
    previous: Result | None
    before: frozenset[str]


@dataclass(frozen=True)
class Subject:
    """``helpers`` are the plugins that come before in the chain.  ``kind`` as in `emulab.conformance.check`."""

    path: Path
    network: NetworkList
    plugin: PluginConf
    kind: str
    helpers: tuple[PluginConf, ...] = ()


class _Call(NamedTuple):
    """How an ADD was called, so that a DEL can be."""

    box: Box
    env: Mapping[str, str | None] | None = None
    stdin: bytes | None = None


class Bench:
    """``adds`` is how many containers are attached at once where that is the question."""

    def __init__(self, subject: Subject, folders: Sequence[Path], host: Host, adds: int) -> None:
        self.subject, self.folders, self.host, self.adds = subject, folders, host, adds
        self.kind, self.own_helper = subject.kind, subject.kind == "chained" and not subject.helpers
        self.log: list[Invocation] = []
        self.timeout = TIMEOUT
        self._boxes = 0
        self._owed: dict[str, dict[tuple[str, ...], _Call]] = {}  # by container, and the id and interface of an ADD
        self.speaks: tuple[str, ...] = ()
        try:
            self.speaks = answer.supported(self.call("VERSION", stdin=b'{"cniVersion": "1.0.0"}'), subject.path.name)
        except CniError:
            self.speaks = ()
        try:
            self.version = config.negotiated(subject.network, *([self.speaks] if self.speaks else []))
        except InputError:
            self.version = subject.network.cni_version

    # calls

    def call(
        self,
        command: str | None,
        box: Box | None = None,
        *,
        request: Mapping[str, Any] | None = None,
        stdin: bytes | None = None,
        env: Mapping[str, str | None] | None = None,
        timeout: float | None = None,
    ) -> Outcome:
        """One call.  ``request`` by default as a runtime derives it; ``env`` replaces variables, None takes them away."""
        said: dict[str, str | None] = {"PATH": PATH, "CNI_COMMAND": command, "CNI_PATH": ":".join(map(str, self.folders))}
        if box is not None:
            said |= {"CNI_CONTAINERID": box.name, "CNI_NETNS": box.netns, "CNI_IFNAME": box.ifname, "CNI_ARGS": ""}
        variables = {key: value for key, value in {**said, **(env or {})}.items() if value is not None}
        if stdin is None:
            stdin = json.dumps(self.request(box) if request is None else request).encode()
        outcome = self._run(self.subject.path, self.subject.plugin.type, variables, stdin, timeout or self.timeout, self.log)
        if box is not None:
            who = tuple(variables.get(key, "") for key in ("CNI_CONTAINERID", "CNI_IFNAME"))
            if command == "ADD" and (outcome.exit_code == 0 or outcome.problem):
                self._owed[box.name][who] = _Call(box, env, stdin)
            elif command == "ADD":
                self._owed[box.name].setdefault((box.name, box.ifname), _Call(box))
            elif command == "DEL" and outcome.exit_code == 0 and not outcome.problem:
                self._owed[box.name].pop(who, None)
        return outcome

    def _run(self, path: Path, name: str, env: Mapping[str, str], stdin: bytes, timeout: float, log: list[Invocation]) -> Outcome:
        started, before = time.time(), time.monotonic()
        try:
            outcome = runner.run(str(path), env, stdin, timeout)
        except OSError as error:
            outcome = Outcome(126, b"", b"", f"{path} cannot be run: {error.strerror}")
        out, err = (data.decode(errors="backslashreplace") for data in outcome[1:3])
        seconds = time.monotonic() - before
        text = stdin.decode(errors="backslashreplace")
        log.append(
            Invocation(
                env.get("CNI_COMMAND", ""),
                name,
                str(path),
                env,
                text,
                out,
                err,
                outcome.exit_code,
                seconds,
                started,
                outcome.problem,
            )
        )
        return outcome

    def request(
        self,
        box: Box | None,
        *,
        version: str | None = None,
        previous: Result | None = None,
        attachments: Collection[Box] | None = None,
        plugin: PluginConf | None = None,
    ) -> dict[str, Any]:
        """As a runtime derives it; ``previous`` by default what came before in the chain."""
        valid = None if attachments is None else [Attachment(one.name, one.netns, one.ifname) for one in attachments]
        return config.request(
            self.subject.network,
            plugin or self.subject.plugin,
            version=version or self.version,
            runtime_config=_arguments(box.number) if box else None,
            prev_result=previous or (box.previous if box else None),
            attachments=valid,
        )

    # what checks are made of

    def add(self, box: Box, version: str | None = None) -> Result:
        """ADD, as well as it can be understood.  Where it cannot: `Blocked`."""
        outcome = self.call("ADD", box, request=self.request(box, version=version))
        try:
            answer.succeeded(outcome, self.subject.plugin.type, "ADD")
            return Result.read(documents.parse(outcome.stdout), version or self.version)
        except EmulabError as error:
            raise Blocked("add-result", f"ADD does not work: {error}") from None

    def delete(self, box: Box, previous: Result | None = None, env: Mapping[str, str | None] | None = None) -> None:
        """DEL, which has to succeed."""
        outcome = self.call("DEL", box, request=self.request(box, previous=previous), env=env)
        self.succeeds(outcome, "DEL")

    def succeeds(self, outcome: Outcome, what: str) -> None:
        try:
            answer.succeeded(outcome, self.subject.plugin.type, "")
        except CniError as error:
            raise Failed(f"{what} fails: {str(error).removeprefix(f'{self.subject.plugin.type}: ')}") from None

    def check(self, box: Box, result: Result) -> CniError | None:
        """The error of CHECK, or None when all is well."""
        try:
            answer.succeeded(self.call("CHECK", box, request=self.request(box, previous=result)), self.subject.plugin.type, "")
        except CniError as error:
            return error
        return None

    def refused(self, outcome: Outcome, codes: Collection[int], what: str, mention: str = "") -> str:
        """That an error with one of ``codes`` was told; returns what was told."""
        if outcome.problem:
            raise Failed(f"{what}: {outcome.problem}")
        try:
            error = CniError.read(documents.parse(outcome.stdout))
        except InputError:
            error = None
        if outcome.exit_code == 0:
            raise Failed(f"{what}: exits with 0" + (f", though it prints an error (code {error.code})" if error else ""))
        if error is None:
            raise Failed(f"{what}: exits with {outcome.exit_code} and prints no error as JSON")
        if codes and error.code not in codes:
            raise Failed(f"{what}: code {error.code} ({error.msg[:100]}), not {' or '.join(map(str, codes))}")
        if mention and mention not in f"{error.msg} {error.details}":
            raise Failed(f"{what}: the message does not name {mention}: {error.msg[:100]}")
        return f"code {error.code}"

    def left(self, box: Box) -> None:
        """Nothing of a container is left on the host, nor its interface in it."""
        if self.kind == "interface" and Path(box.netns).exists() and self.host.interface(box.ifname, box.name):
            raise Failed(f"the interface {box.ifname} is still in the container")
        if more := difference(box.before, self.host.settled(box.before)):
            raise Failed(f"left behind: {', '.join(more[:4])}" + (f" and {len(more) - 4} more" if len(more) > 4 else ""))

    @contextmanager
    def box(self, watched: bool = False) -> Iterator[Box]:
        """A new container, with whatever comes before in the chain; afterwards all of it is taken away.

        To every ADD belongs a DEL, also to one that should have been refused, by its own id and configuration; what is in the
        container even then goes at once, not in the background: no check meets what is left of the one before.

        ``watched``: the host is looked at now, so that `left` can tell what is new.  Only then may the container be taken away
        meanwhile.
        """
        self._boxes += 1
        number, ifname = self._boxes, "eth0"
        name = f"box{number}"
        bare = Box(name, self.host.add(name), number, ifname, None, frozenset())
        self._owed[name] = {}
        before: frozenset[str] = frozenset()
        try:
            previous = self._prepared(bare)
            before = self.host.look() if watched else before
            yield Box(name, bare.netns, number, ifname, previous, before)
        finally:
            for owed in reversed(list(self._owed[name].values())):
                self.call("DEL", owed.box, env=owed.env, stdin=owed.stdin)
            for plugin in reversed(self.subject.helpers):
                self._helper("DEL", plugin, bare, None)
            if watched and not Path(bare.netns).exists():
                self.host.settled(before)
            self.host.empty(name)
            self.host.remove(name)

    # what comes before in a chain

    def _prepared(self, box: Box) -> Result | None:
        if self.own_helper:
            return self._plugged(box)
        result: Result | None = None
        for plugin in self.subject.helpers:
            result = self._helper("ADD", plugin, box, result)
        return result

    def _helper(self, command: str, plugin: PluginConf, box: Box, previous: Result | None) -> Result | None:
        path = next((folder / plugin.type for folder in self.folders if (folder / plugin.type).is_file()), None)
        if path is None:
            raise InputError(f"{plugin.type}, which comes before in the chain, is in none of {', '.join(map(str, self.folders))}")
        env = {"PATH": PATH, "CNI_COMMAND": command, "CNI_PATH": ":".join(map(str, self.folders)), "CNI_CONTAINERID": box.name}
        env |= {"CNI_NETNS": box.netns, "CNI_IFNAME": box.ifname, "CNI_ARGS": ""}
        request = self.request(box, previous=previous, plugin=plugin)
        outcome = self._run(path, plugin.type, env, json.dumps(request).encode(), TIMEOUT, [])
        return answer.result(outcome, plugin.type, self.version) if command == "ADD" else None

    def _plugged(self, box: Box) -> Result:
        """A pair of interfaces, as the plugins `ptp` and `host-local` would make it, without them."""
        host, high, low = f"host{box.number}", box.number >> 8, box.number & 255
        pair = f"link add {host} up type veth peer {box.ifname} netns {box.name}"
        self.host.ip("", pair, f"route add 10.213.{high}.{low}/32 dev {host}")
        address = f"addr add 10.213.{high}.{low}/16 dev {box.ifname}"
        default = f"route add default via 10.213.255.254 dev {box.ifname}"
        self.host.ip(f"-n {box.name}", f"link set {box.ifname} up", address, default)
        inside, outside = self.host.interface(box.ifname, box.name), self.host.interface(host)
        assert inside and outside
        return Result.read(
            {
                "cniVersion": "1.1.0",
                "interfaces": [
                    {"name": host, "mac": outside.mac},
                    {"name": box.ifname, "mac": inside.mac, "sandbox": box.netns},
                ],
                "ips": [{"interface": 1, "address": f"10.213.{high}.{low}/16", "gateway": "10.213.255.254"}],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.213.255.254"}],
            }
        )


def known(spoken: Collection[str]) -> tuple[str, ...]:
    """The versions that we know, of those."""
    return tuple(one for one in versions.ALL if one in spoken)


def _arguments(number: int) -> dict[str, Any]:
    """Something for every well-known capability, different for each container."""
    return {
        "portMappings": [{"hostPort": 20000 + number, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 10**6, "ingressBurst": 10**6, "egressRate": 10**6, "egressBurst": 10**6},
        "mac": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        "dns": {"servers": ["10.0.0.10"], "searches": ["example.org"], "options": ["ndots:5"]},
        "aliases": [f"box{number}"],
    }
