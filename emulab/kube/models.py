"""Plain values to lightkube's models: types checked by msgspec, unknown fields found, both with their path.

lightkube's structs take fields that they do not know in silence; the API server, asked strictly, does not.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec

from emulab.errors import nearest
from emulab.text import Path

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_WORDS = {
    "int": "a whole number",
    "str": "text",
    "object": "a mapping",
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "null": "nothing",
}


class Mistake(NamedTuple):
    path: Path
    message: str


class MistakeError(Exception):
    """A value that does not fit its model."""

    def __init__(self, mistake: Mistake) -> None:
        self.mistake = mistake
        super().__init__(mistake.message)


def typed(value: Any, model: type) -> Any:
    """``value`` as a ``model``.  Raises `MistakeError`."""
    try:
        return msgspec.convert(value, model)
    except msgspec.ValidationError as error:
        raise MistakeError(_mistake(str(error), value)) from None


def _mistake(text: str, value: Any) -> Mistake:
    """msgspec's words in ours: ``Expected `int | null`, got `str` - at `$.spec.ports[0].port```."""
    message, _, at = text.partition(" - at `")
    path: list[str | int] = []
    for name, index in _STEP.findall(at.rstrip("`").removeprefix("key in `")):
        if index == "...":
            break
        path.append(int(index) if index else name)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", message):
        return Mistake((*path, missing[1]), "required")
    if match := re.fullmatch(r"Expected `(.*)`, got `(.*)`", message):
        wanted = [_WORDS.get(one, one) for one in match[1].split(" | ") if one != "null"]
        found: Any = value
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                found = None
                break
        shown = f", got {said(found)}" if found is not None or match[2] == "null" else f", got {_WORDS.get(match[2], match[2])}"
        return Mistake(tuple(path), f"{' or '.join(wanted)} expected{shown}")
    return Mistake(tuple(path), message)


def said(value: Any) -> str:
    """What a value is, in words for whoever wrote it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else f"'{value[:60]}'" if isinstance(value, str) else str(value)


class _Shape(NamedTuple):
    """What a value holds: the fields of a struct, the items of a list or the values of a mapping; nothing else matters."""

    fields: dict[str, Any] | None = None
    items: Any = None


@cache
def _shape(kind: Any) -> _Shape:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _shape(inner[0])
    if origin in (typing.Union, types.UnionType):
        shapes = [_shape(one) for one in inner if one is not type(None)]
        fields = next((shape.fields for shape in shapes if shape.fields is not None), None)
        return _Shape(fields, next((shape.items for shape in shapes if shape.items is not None), None))
    if origin is list:
        return _Shape(items=inner[0])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _Shape(fields={field.encode_name: field.type for field in msgspec.structs.fields(kind)})
    return _Shape()


def unknown(value: Any, model: Any, path: Path = ()) -> Iterator[Mistake]:
    """The fields of ``value`` that ``model`` does not have, in the order in which they were written."""
    shape = _shape(model)
    if shape.fields is not None and isinstance(value, dict):
        for key, inner in value.items():
            if key not in shape.fields:
                yield Mistake((*path, key), f"unknown field{nearest(key, shape.fields)}")
            elif isinstance(inner, (dict, list)):
                yield from unknown(inner, shape.fields[key], (*path, key))
    elif shape.items is not None and isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, (dict, list)):
                yield from unknown(inner, shape.items, (*path, index))
