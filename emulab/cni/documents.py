"""JSON text to Python values, strictly, and typed looks at what is in there.  Mistakes are `InputError`s with the key's path."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from emulab.errors import InputError

T = TypeVar("T")
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def parse(text: str | bytes, file: str | None = None) -> Any:
    """The value of a JSON text; `InputError` with file and line when it is none.  NaN is none, nor is anything after the end."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} (column {error.colno})", file, error.lineno if file else None) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not JSON: not UTF-8 at byte {error.start}", file) from None
    except RecursionError:
        raise InputError("not JSON that anybody reads: nested too deeply", file) from None
    except ValueError as error:  # numbers with thousands of digits
        raise InputError(f"not JSON: {error}", file) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON")


def kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


class At:
    """An object of a document, with the way to it."""

    def __init__(self, value: Any, where: str = "", file: str | None = None) -> None:
        self.where, self.file = where, file
        if not isinstance(value, Mapping):
            self.fail("", f"an object expected, got {kind(value)}")
        self.value = value

    def fail(self, name: str, problem: str) -> NoReturn:
        path = ".".join(part for part in (self.where, name) if part)
        raise InputError(f"{path}: {problem}" if path else problem, self.file)

    def _typed(self, name: str, wanted: type, default: Any) -> Any:
        value = self.value.get(name)
        if value is None:
            return default
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            self.fail(name, f"{_KINDS[wanted]} expected, got {kind(value)}")
        return value

    def text(self, name: str, default: str = "") -> str:
        value: str = self._typed(name, str, default)
        return value

    def number(self, name: str, least: int = 0, most: int = 2**32 - 1) -> int | None:
        value: int | None = self._typed(name, int, None)
        if value is not None and not least <= value <= most:
            self.fail(name, f"a number from {least} to {most} expected, got {value if abs(value) < 10**20 else 'a huge one'}")
        return value

    def flag(self, name: str) -> bool:
        """libcni also takes the words."""
        value = self.value.get(name)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        return bool(self._typed(name, bool, False))

    def items(self, name: str) -> list[Any]:
        value: list[Any] = self._typed(name, list, [])
        return value

    def objects(self, name: str) -> list[At]:
        return [self.into(f"{name}[{number}]", one) for number, one in enumerate(self.items(name))]

    def texts(self, name: str) -> tuple[str, ...]:
        for number, one in enumerate(self.items(name)):
            if not isinstance(one, str):
                self.fail(f"{name}[{number}]", f"text expected, got {kind(one)}")
        return tuple(self.items(name))

    def into(self, name: str, value: Any) -> At:
        return At(value, ".".join(part for part in (self.where, name) if part), self.file)

    def made(self, name: str, make: Callable[[str], T], expected: str) -> T | None:
        """``make`` of the text there; None where there is none."""
        text = self.text(name)
        if not text:
            return None
        try:
            return make(text)
        except ValueError:
            self.fail(name, f"{expected} expected, got {text[:60]!r}")
