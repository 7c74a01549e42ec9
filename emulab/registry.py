"""Names to data planes and topologies.

The entry points ``emulab.plugins`` and ``emulab.topologies`` name packages; every module in one of them (but those that
start with an underscore) is a data plane or topology, called like its module.  So another distribution adds its own by
one line of metadata, and the built-in ones need no list.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import traceback
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import NamedTuple, TypeVar

from emulab.dataplane import DataPlane, File, Folder
from emulab.errors import EmulabError, InputError, PluginError, nearest
from emulab.model import Topology
from emulab.topology import validate

T = TypeVar("T")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class _Entry(NamedTuple):
    """Where a name comes from: a module's full name, or a file."""

    module: str
    file: Path | None = None


def plugins() -> dict[str, str]:
    """name -> summary of every data plane."""
    return {name: _summary(plugin(name).__module__) for name in sorted(_catalogue("emulab.plugins"))}


def plugin(name: str) -> type[DataPlane]:
    """The data plane called ``name``.  Raises `InputError` for an unknown one, `PluginError` for a broken module."""
    known = _catalogue("emulab.plugins")
    if name not in known:
        raise InputError(f"no plugin '{name}'{nearest(name, known)}")
    module = _load(known[name].module, "plugin", name)
    planes = [
        thing
        for thing in vars(module).values()
        # (Python 3.10 takes a generic alias, like list[int], for a class, and then not for one.)
        if isinstance(thing, type) and not isinstance(thing, GenericAlias)
        if issubclass(thing, DataPlane) and thing.__module__ == module.__name__
    ]
    if len(planes) != 1 or getattr(planes[0], "name", None) != name:
        raise PluginError(f"plugin '{name}': one DataPlane class with name = \"{name}\" expected", module.__file__)
    if missing := sorted(getattr(planes[0], "__abstractmethods__", ())):
        raise PluginError(f"plugin '{name}': {planes[0].__name__} lacks {', '.join(missing)}", module.__file__)
    if "__dataclass_fields__" not in vars(planes[0]):
        message = f"plugin '{name}': {planes[0].__name__} is no dataclass, expected @dataclass(frozen=True)"
        raise PluginError(message, module.__file__)
    return planes[0]


def options(plane: type[DataPlane], settings: Sequence[str]) -> DataPlane:
    """An instance with options as typed, ``["vni=7"]``; the fields' types say what is expected."""
    hints = typing.get_type_hints(plane)
    known = {field.name: hints[field.name] for field in fields(plane)}
    values: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise InputError(f"--set {setting}: NAME=VALUE expected")
        if key not in known:
            raise InputError(f"plugin '{plane.name}' has no option '{key}'{nearest(key, known)}")
        if key in values:
            raise InputError(f"--set {key}: given twice")
        values[key] = _value(key, text.strip(), known[key])
    missing = [f.name for f in fields(plane) if f.default is MISSING and f.default_factory is MISSING and f.name not in values]
    if missing:
        raise InputError(f"plugin '{plane.name}' needs --set {missing[0]}=…")
    return _guarded("plugin", plane.name, lambda: plane(**values))


def _value(key: str, text: str, kind: object) -> object:
    kinds = typing.get_args(kind) or (kind,)
    if type(None) in kinds and text in ("", "auto", "none"):
        return None
    if bool in kinds:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise InputError(f"--set {key}={text}: true or false expected")
    if int in kinds:
        try:
            return int(text, 0)
        except ValueError:
            raise InputError(f"--set {key}={text}: a whole number expected") from None
    if Folder in kinds:
        if text and not Path(text).is_dir():
            raise InputError(f"--set {key}={text}: a folder expected")
        return Folder(Path(text).absolute() if text else "")
    if File in kinds:
        try:
            return File(text, Path(text).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"--set {key}={text}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"--set {key}={text}: no text in UTF-8") from None
    return text


def topologies() -> dict[str, str]:
    """name -> summary of every topology in the catalogue."""
    from emulab import topology_file

    found = {}
    for name, entry in sorted(_catalogue("emulab.topologies").items()):
        found[name] = topology_file.description(entry.file) if entry.file else _summary(entry.module)
    return found


def topology(spec: str) -> Topology:
    """The topology that ``spec`` means: ``flat``, ``fleet,10,5``, or the path of a YAML file."""
    from emulab import topology_file

    if "/" in spec or spec.endswith((".yaml", ".yml")):
        return topology_file.read(Path(spec))
    name, *arguments = spec.split(",")
    known = _catalogue("emulab.topologies")
    if name not in known:
        raise InputError(f"no topology '{name}'{nearest(name, known)}")
    entry = known[name]
    if entry.file:
        if arguments:
            raise InputError(f"topology '{name}' takes no numbers, got {spec}")
        return topology_file.read(entry.file, name)
    module = _load(entry.module, "topology", name)
    numbers = []
    for argument in arguments:
        try:
            numbers.append(int(argument))
        except ValueError:
            raise InputError(f"topology {spec}: '{argument}' is no whole number, expected {_summary(entry.module)}") from None
    build = getattr(module, "topology", None)
    if not callable(build):
        raise PluginError(f"topology '{name}': a function topology(…) expected", module.__file__)
    try:
        inspect.signature(build).bind(*numbers)
    except TypeError as error:
        raise InputError(f"topology {spec}: {error}, expected {_summary(entry.module)}") from None
    made: object = _guarded("topology", name, lambda: build(*numbers))
    if not isinstance(made, Topology):
        raise PluginError(f"topology '{name}': expected a Topology, got {type(made).__name__}", module.__file__)
    _guarded("topology", name, lambda: validate(made))
    return made


@cache
def _catalogue(group: str) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for point in entry_points(group=group):
        package = _load(point.value, "entry point", f"{group}: {point.name}")
        folders = getattr(package, "__path__", None)
        if folders is None:
            raise PluginError(f"entry point '{group}: {point.name}': {point.value} is no package", package.__file__)
        entries = [(m.name, _Entry(f"{point.value}.{m.name}")) for m in pkgutil.iter_modules(folders)]
        entries += [(path.stem, _Entry(str(path), path)) for folder in folders for path in Path(folder).glob("*.yaml")]
        for name, entry in entries:
            if name.startswith("_"):
                continue
            if name in found and found[name] != entry:
                raise PluginError(f"'{name}' is provided twice: by {found[name].module} and by {entry.module}")
            found[name] = entry
    return found


def _load(module: str, kind: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise _broken(kind, name, error) from error


def _guarded(kind: str, name: str, work: Callable[[], T]) -> T:
    """Call into somebody's code; what is none of our errors becomes a `PluginError`."""
    try:
        return work()
    except EmulabError:
        raise
    except (Exception, SystemExit) as error:
        raise _broken(kind, name, error) from error


def _broken(kind: str, name: str, error: BaseException) -> PluginError:
    """A module that raised, as one line with the place."""
    if isinstance(error, SyntaxError):
        return PluginError(f"{kind} '{name}': {error.msg}", error.filename, error.lineno)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return PluginError(f"{kind} '{name}' raised {type(error).__name__}: {error}", frame.filename, frame.lineno)


def _summary(module: str) -> str:
    """The first line of a module's docstring."""
    return (importlib.import_module(module).__doc__ or "").strip().partition("\n")[0].rstrip(".")
