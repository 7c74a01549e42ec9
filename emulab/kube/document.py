"""One object of a manifest: its kind, its typed model, and where it was written.  A registry of kinds is in `kinds`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

from emulab.errors import InputError
from emulab.objects import Labels, Manifest
from emulab.text import Path, Raw, shown


@dataclass(frozen=True)
class Kind:
    """A kind of object: what the API server calls it, its lightkube model, and what becomes of it.

    ``model`` imports the model only when one is read; ``convert`` gives the value of `emulab.objects` (or one of this room's
    own) or has the document `fail`.
    """

    api: str
    name: str
    plural: str
    short: tuple[str, ...]
    model: Callable[[], type]
    convert: Callable[[Document], Any]
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api.partition("/")[0] if "/" in self.api else ""

    @property
    def words(self) -> tuple[str, ...]:
        """All that it can be called by on a command line."""
        full = (f"{self.plural}.{self.group}", f"{self.name.lower()}.{self.group}") if self.group else ()
        return (self.plural, self.name.lower(), *self.short, *full)

    def title(self, name: str) -> str:
        """``networkpolicy.networking.k8s.io/web``: how kubectl names an object."""
        return f"{self.name.lower()}{'.' + self.group if self.group else ''}/{name}"


@dataclass(frozen=True)
class Document:
    """An object as it was read; ``trail`` leads to it from the document's top, when it is an item of a list."""

    kind: Kind
    model: Any
    manifest: Manifest
    raw: Raw = field(repr=False)
    trail: Path = ()
    warnings: list[str] = field(default_factory=list)
    usual: str = "default"  # the namespace of an object that names none

    @cached_property
    def name(self) -> str:
        return str(self.model.metadata.name)

    @cached_property
    def namespace(self) -> str:
        """Its namespace; "" when its kind has none."""
        return (self.model.metadata.namespace or self.usual) if self.kind.namespaced else ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """No other object of a cluster has it."""
        return self.kind.api, self.kind.name, self.namespace, self.name

    @property
    def labels(self) -> Labels:
        return tuple(sorted((self.model.metadata.labels or {}).items()))

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.model.metadata.annotations or {})

    @property
    def where(self) -> str:
        """``web.yaml:12: document 2, NetworkPolicy default/web``, without the line."""
        return _where(self.raw, self.trail, f"{self.kind.name} {'/'.join(filter(None, (self.namespace, self.name)))}")

    def fail(self, path: Path, message: str) -> NoReturn:
        """Raise `InputError` with the place of ``path``."""
        line = self.raw.line((*self.trail, *path))
        raise InputError(f"{self.where}: {shown(path)}: {message}" if path else f"{self.where}: {message}", self.raw.file, line)

    def warn(self, path: Path, message: str) -> None:
        """Let the user know of something that has no effect."""
        line = self.raw.line((*self.trail, *path))
        self.warnings.append(f"{self.raw.file}:{line}: {self.where}: {shown(path)}: {message}")


def _where(raw: Raw, trail: Path, what: str) -> str:
    return ", ".join(filter(None, (f"document {raw.number}", shown(trail), what)))


def refuse(raw: Raw, trail: Path, what: str, path: Path, message: str) -> NoReturn:
    """The same as `Document.fail` for what has not become a document."""
    at = f": {shown(path)}" if path else ""
    raise InputError(f"{_where(raw, trail, what)}{at}: {message}", raw.file, raw.line((*trail, *path)))
