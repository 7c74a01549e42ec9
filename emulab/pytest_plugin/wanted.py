"""Which lab a test wants: what `@pytest.mark.emulab` says on it, its class and its module.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulab.errors import InputError, nearest

ARGUMENTS = ("topology", "plugin", "manifests", "set")
PLUGIN = "flannel"
_FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Wanted:
    """One lab: a name or file of a topology, a plugin, its options as ``K=V``, files and folders of manifests."""

    topology: str = ""
    plugin: str = PLUGIN
    settings: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The arguments of `emulab up`."""
        found = [f"--plugin={self.plugin}", *(f"--set={setting}" for setting in self.settings)]
        found += [f"--filename={file}" for file in self.manifests]
        return [*found, "--", self.topology] if self.topology else found


def read(marks: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]], folder: Path) -> list[Wanted]:
    """The labs that marks ask for, (arguments, keyword arguments) each, the closest first: what it says counts.

    One lab per plugin.  Files are looked for in ``folder``, that of the test.  Raises `InputError` for mistakes.
    """
    said: dict[str, Any] = {}
    for arguments, named in marks:
        if arguments:
            raise InputError(f"emulab({arguments[0]!r}): name it, e.g. topology={str(arguments[0])!r}")
        for name, value in named.items():
            if name not in ARGUMENTS:
                raise InputError(f"emulab: no argument {name!r}{nearest(name, ARGUMENTS)}")
            said.setdefault(name, value)
    plugins = _texts("plugin", said.get("plugin", PLUGIN))
    if not plugins:
        raise InputError("emulab(plugin=[]): at least one expected")
    topology = _texts("topology", said.get("topology", ()))
    if len(topology) > 1:
        raise InputError("emulab(topology=…): one expected")
    manifests = tuple(_found(text, folder) for text in _texts("manifests", said.get("manifests", ())))
    where = _found(topology[0], folder) if topology and _is_file(topology[0]) else topology[0] if topology else ""
    return [Wanted(where, plugin, _settings(said.get("set", {}), plugin, plugins), manifests) for plugin in plugins]


def _texts(name: str, value: Any) -> list[str]:
    """A text or path, or several."""
    given = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for one in given:
        if not isinstance(one, (str, Path)) or str(one) == "":
            raise InputError(f"emulab({name}={one!r}): a text expected, or a list of them")
    return [str(one) for one in given]


def _is_file(text: str) -> bool:
    return "/" in text or text.endswith(_FILES)


def _found(text: str, folder: Path) -> str:
    path = folder / text
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return str(path)


def _settings(given: Any, plugin: str, plugins: Sequence[str]) -> tuple[str, ...]:
    """``{option: value}``, for each plugin; or ``{plugin: {option: value}}``."""
    if not isinstance(given, Mapping):
        raise InputError(f"emulab(set={given!r}): options by name expected, e.g. {{'vni': 7}}")
    if any(isinstance(value, Mapping) for value in given.values()):
        for name, value in given.items():
            if name not in plugins or not isinstance(value, Mapping):
                raise InputError(f"emulab(set=…): {name!r}: options of {' or '.join(plugins)} expected")
        given = given.get(plugin, {})
    return tuple(f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in given.items())
