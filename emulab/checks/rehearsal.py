"""A check carried out on paper, by the very operations that a lab has: what cannot be is known before anything starts."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from emulab import planning, registry
from emulab.checks.check import Check, Step
from emulab.control.live import LiveLab
from emulab.dataplane import DataPlane
from emulab.diff import Diff, diff
from emulab.errors import InputError
from emulab.expectation import pairs
from emulab.lab import Lab
from emulab.model import Cluster, Topology
from emulab.planning import Design

_USUAL = "flat"


def title(check: Check, plugin: str) -> str:
    """What a check with one plugin is called."""
    return f"{check.name} [{plugin}]"


@dataclass(frozen=True)
class Job:
    """A check with one of its plugins, and the design that it begins with."""

    check: Check
    plugin: str
    design: Design
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return title(self.check, self.plugin)


@dataclass
class _Paper:
    """A lab that exists as its design only."""

    design: Design

    @property
    def cluster(self) -> Cluster:
        return self.design.cluster

    @property
    def plane(self) -> DataPlane:
        return self.design.plane

    def change(self, after: Design) -> Diff:
        changes = diff(self.design.desired, after.desired)
        self.design = after
        return changes

    def drift(self) -> list[Any]:
        return []

    def repair(self, _: Collection[str] | None = None) -> list[Any]:
        return []


def jobs(check: Check, plugins: Sequence[str] = ()) -> list[Job]:
    """The check with each of its plugins, or with some of ``plugins``.  Raises `InputError` with file and line."""
    from emulab.kube import read

    documents = [document for name, text in check.manifests for document in read(text, name)]
    topology, warnings = _topology(check, documents)
    return [_rehearsed(check, name, topology, warnings) for name in plugins or check.plugins]


def _topology(check: Check, documents: Sequence[Any]) -> tuple[Topology, tuple[str, ...]]:
    try:
        topology = registry.topology(check.topology or _USUAL)
        if not documents:
            return topology, ()
        from emulab.kube.applying import begun

        return begun(topology, documents, check.topology is not None)
    except InputError as error:
        raise _placed(error, check, "topology", "manifests") from None


def _rehearsed(check: Check, plugin: str, topology: Topology, warnings: tuple[str, ...]) -> Job:
    try:
        kind = registry.plugin(plugin)
    except InputError as error:
        raise _placed(error, check, f"plugin.{plugin}", "plugin") from None
    settings = check.settings.get(plugin, check.settings[""])
    try:
        plane = registry.options(kind, settings)
        design = planning.design(topology, plane)
    except InputError as error:
        raise _placed(error, check, *_to_blame(kind, settings, topology), f"plugin.{plugin}", "plugin", "topology") from None
    lacking = [f"{one.kind} {one.key}: {lacks}" for one in topology.objects.policies if (lacks := plane.unenforced(one))]
    live = LiveLab(check.name, cast(Lab, _Paper(design)))
    for step in check.steps:
        _carry_out(check, plugin, live, step)
    return Job(check, plugin, design, (*warnings, *lacking))


def _to_blame(kind: type[DataPlane], settings: Sequence[str], topology: Topology) -> Iterator[str]:
    """The option without which the plugin would do, if there is one."""
    for setting in settings:
        with contextlib.suppress(InputError):
            planning.design(topology, registry.options(kind, [one for one in settings if one != setting]))
            key = setting.partition("=")[0]
            yield from (f"set.{kind.name}.{key}", f"set.{key}")


def _carry_out(check: Check, plugin: str, live: LiveLab, step: Step) -> None:
    from emulab.control.operations import perform
    from emulab.control.operations.measuring import check_probe, present
    from emulab.control.operations.trouble import breakages

    by = f"with plugin {plugin}: " if len(check.plugins) > 1 else ""
    line = step.line
    try:
        if step.do == "fault_inject":
            breakages(live.lab.design, step.arguments["name"], step.arguments.get("at"))
        elif step.do:
            perform(live, {"do": step.do, **step.arguments}, lambda _: None)
        for wanted in step.expected:
            line, one = wanted.line, wanted.expectation
            families = [one.family] if one.family else []
            check_probe(live.lab.cluster.topology.families, [one.protocol], families, one.port, one.size, timeout=1.0)
            for source in {source for source, _ in pairs(live.lab.cluster, one)}:
                present(live.lab.design, source)
    except InputError as error:
        if error.file:
            raise
        raise InputError(f"{by}{f'{step.title}: ' if step.do else ''}{error}", check.file, line) from None


def _placed(error: InputError, check: Check, *paths: str) -> InputError:
    """The error with its place, that of the first of ``paths`` which is in the file, if it has none yet."""
    if error.file and error.line:
        return error
    return InputError(str(error).replace("--set ", "set "), check.file, check.line(*paths))
