"""A check file to a `Check`.  Mistakes have file and line; what only a cluster can tell is left to `rehearsal`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emulab.checks import model, sentence
from emulab.checks.check import Check, Step, Wanted
from emulab.checks.origin import Origin
from emulab.checks.steps import STEPS
from emulab.errors import InputError, nearest
from emulab.expectation import Expectation
from emulab.kube import models
from emulab.quantity import TIMES, quantity
from emulab.text import Path as Trail

_LONGEST = 600.0  # seconds that an expectation may take to hold


def found(paths: Sequence[Path]) -> list[Path]:
    """The check files that are meant: those named, and those in the folders that are named."""
    given: list[Path] = []
    for path in paths:
        if not path.is_dir():
            given.append(path)
            continue
        inside = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml") and one.is_file())
        if not inside:
            raise InputError("no check in this folder, *.yaml expected", str(path))
        given += inside
    return list(dict.fromkeys(given))


def read(path: Path) -> Check:
    """The check in a file.  Raises `InputError` for its first mistake."""
    origin = Origin(path)
    value = origin.raw.value
    if not isinstance(value, dict):
        origin.fail((), f"a mapping with 'expect' or 'steps' expected, got {models.said(value)}")
    if "apiVersion" in value and "kind" in value:
        origin.fail(("kind",), "a manifest, not a check: it belongs into a folder of its own, named by 'manifests' or 'apply'")
    for mistake in models.unknown(value, model.File):
        origin.fail(*mistake)
    try:
        given: model.File = models.typed(value, model.File)
    except models.MistakeError as error:
        origin.fail(*error.mistake)
    name = given.name if isinstance(given.name, str) else path.stem
    if not name.strip() or not name.isprintable():
        origin.fail(("name",), "a name in one line expected")
    plugins = tuple(dict.fromkeys([given.plugin] if isinstance(given.plugin, str) else given.plugin))
    if not plugins:
        origin.fail(("plugin",), "a plugin, or a list of some, expected")
    return Check(
        name=name.strip(),
        file=origin.file,
        description=given.description.strip(),
        topology=_topology(origin, given.topology) if isinstance(given.topology, str) else None,
        plugins=plugins,
        settings=_settings(origin, given.set, plugins),
        manifests=tuple(origin.texts(("manifests",), value["manifests"])) if "manifests" in value else (),
        steps=tuple(_steps(origin, value)),
        lines=_lines(origin, value),
    )


def _lines(origin: Origin, value: dict[str, Any]) -> dict[str, int]:
    """The lines of keys, of options (``set.vni``, ``set.calico.encap``), and of plugins (``plugin.calico``)."""
    found = {key: origin.line((key,)) for key in value}
    for key, inner in value.get("set", {}).items():
        for path in ((key, own) for own in inner) if isinstance(inner, dict) else ((key,),):
            found[".".join(("set", *path))] = origin.line(("set", *path))
    if isinstance(value.get("plugin"), list):
        found.update({f"plugin.{name}": origin.line(("plugin", index)) for index, name in enumerate(value["plugin"])})
    return found


def _topology(origin: Origin, text: str) -> str:
    """As `registry.topology` has it; a path is one from the check file's folder."""
    return str(origin.beside(text)) if "/" in text or text.endswith((".yaml", ".yml")) else text


def _settings(origin: Origin, given: dict[str, Any], plugins: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The options of each plugin, as of --set; "" is what holds for every plugin that is not named."""
    by_plugin = {key: value for key, value in given.items() if isinstance(value, dict)}
    for key in by_plugin:
        if key not in plugins:
            origin.fail(("set", key), f"none of the plugins of this check{nearest(key, plugins)}")
    for_all = {key: value for key, value in given.items() if key not in by_plugin}
    return {name: tuple(_setting(*one) for one in {**for_all, **by_plugin.get(name, {})}.items()) for name in (*plugins, "")}


def _setting(key: str, value: Any) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key}={text}"


def _steps(origin: Origin, value: dict[str, Any]) -> Iterator[Step]:
    if "expect" in value and "steps" in value:
        origin.fail(("expect",), "there are steps as well: put it among them, so that it is clear what comes first")
    if "expect" in value:
        yield _expect(origin, ("expect",), value["expect"])
        return
    if "steps" not in value:
        origin.fail((), "no 'expect' and no 'steps': a check expects something")
    made = [_step(origin, ("steps", index), one) for index, one in enumerate(value["steps"])]
    if not any(step.expected for step in made):
        origin.fail(("steps",), "no 'expect' among the steps: a check that cannot fail")
    yield from made


def _step(origin: Origin, path: Trail, given: Any) -> Step:
    if isinstance(given, str):
        if given not in model.BARE:
            origin.fail(path, f"no step '{given}'{nearest(given, model.BARE)}")
        given = {given: None}
    if len(given) != 1:
        named = ", ".join(given) or "none"
        origin.fail(path, f"one thing per step expected, got {named}: begin each with '-'")
    (word, value), at = next(iter(given.items())), (*path, *given)
    if word == "expect":
        return _expect(origin, at, value)
    title, do, arguments = STEPS[word](origin, at, value)
    return Step(title, origin.line(at), do, arguments)


def _expect(origin: Origin, path: Trail, given: Any) -> Step:
    if isinstance(given, list) and not given:
        origin.fail(path, "at least one expectation expected")
    listed = [((*path, index), one) for index, one in enumerate(given)] if isinstance(given, list) else [(path, given)]
    return Step("expect", origin.line(path), expected=tuple(_wanted(origin, at, one) for at, one in listed))


def _wanted(origin: Origin, path: Trail, given: Any) -> Wanted:
    try:
        if isinstance(given, str):
            expectation, within = sentence.read(given)
        else:
            within = quantity("within", str(given.get("within", 0)), TIMES)
            expectation = Expectation.read({key: value for key, value in given.items() if key != "within"})
        if within > _LONGEST:
            raise InputError(f"within {within:g} s: at most {_LONGEST:g} s expected")
    except InputError as error:
        key = str(error).partition(" ")[0].rstrip(":")
        origin.fail(path, str(error), key if isinstance(given, dict) and key in given else None)
    return Wanted(expectation, origin.line(path), within)
