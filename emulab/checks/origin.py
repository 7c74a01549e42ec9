"""The file that a check comes from: where in it something is written, and the manifests that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from emulab.errors import InputError
from emulab.kube import files
from emulab.text import Path as Trail
from emulab.text import Raw, documents, shown


class Origin:
    """One file, with one document in it."""

    def __init__(self, path: Path) -> None:
        """Raises `InputError` for what is no YAML."""
        self.path, self.file = path, str(path)
        self.raw = self._whole()

    def _whole(self) -> Raw:
        try:
            text = self.path.read_bytes().decode()
        except OSError as error:
            raise InputError(f"cannot read the check: {error.strerror}", self.file) from None
        except UnicodeDecodeError:
            raise InputError("cannot read the check: it is not UTF-8 text", self.file) from None
        found = list(documents(text, self.file))
        if not found:
            raise InputError("nothing in it: a check has at least 'expect'", self.file)
        if len(found) > 1:
            raise InputError("a second document: one check per file expected", self.file, found[1].first)
        return found[0]

    def line(self, path: Trail) -> int:
        return self.raw.line(path)

    def fail(self, path: Trail, message: str, key: str | None = None) -> NoReturn:
        """Raise `InputError` with the place of ``path``, or of a ``key`` in there."""
        line = self.line(path if key is None else (*path, key))
        raise InputError(f"{shown(path)}: {message}" if path else message, self.file, line)

    def beside(self, name: str) -> Path:
        """The path that ``name`` means: paths are seen from the file's folder."""
        return self.path.parent / name

    def texts(self, path: Trail, given: Any) -> Iterator[tuple[str, str]]:
        """(name, text) of each manifest that stands at ``path``; one that is written out keeps its line."""
        from emulab.kube import reading

        several = isinstance(given, list)
        if several and not given:
            self.fail(path, "at least one manifest expected")
        for index, one in enumerate(given if several else [given]):
            at = (*path, index) if several else path
            if isinstance(one, str):
                try:
                    yield from files.texts([str(self.beside(one))])
                except InputError as error:
                    self.fail(at, str(error))
            else:
                reading.inline(self.raw, at)
                yield self.file, "\n" * (self.line(at) - 1) + json.dumps(one)
