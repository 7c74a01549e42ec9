"""YAML and JSON text to plain values, with the place of each: what a hostile or broken file can do ends here.

YAML is read as the API server's clients do (sigs.k8s.io/yaml): YAML 1.1, but dates are text, and so are 1:30 and the like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Union

import yaml

from emulab.errors import InputError

Path = tuple[Union[str, int], ...]

LONGEST = 3 << 20  # bytes: the API server's limit for a request's body (MaxRequestBodyBytes, apiserver/pkg/server/config.go)
_DEEPEST = 100
_MOST_ALIASED = 100_000  # values that aliases may stand for
_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset(("true", "yes", "on", "y"))
_PLAIN = re.compile(r"[A-Za-z_][-A-Za-z0-9_]*")


def shown(path: Path) -> str:
    """``spec.ingress[0].from``; keys that are no plain names stand in brackets, too."""
    text = ""
    for step in path:
        text += f".{step}" if isinstance(step, str) and _PLAIN.fullmatch(step) else f"[{step}]"
    return text.removeprefix(".")


@dataclass(frozen=True)
class Raw:
    """One document of a file: its value, its ``number`` from 1, and where in the file it begins."""

    value: Any
    file: str
    number: int
    first: int = 1
    _text: str = field(default="", repr=False)
    _node: yaml.Node | None = field(default=None, repr=False)

    def line(self, path: Path) -> int:
        """The line of the deepest part of ``path`` that is there."""
        node, line = self._node, self.first
        if node is None:
            try:
                node = yaml.compose(self._text, Loader=yaml.CSafeLoader)  # JSON is YAML, but for tabs
            except yaml.YAMLError:
                return line
            return _find(node, path, node.start_mark.line + line) + line - 1 if node is not None else line
        return _find(node, path, line)


def _find(node: yaml.Node, path: Path, line: int) -> int:
    line = node.start_mark.line + 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == step), None)
            if entry is None:
                return line
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def documents(text: str, file: str) -> Iterator[Raw]:
    """The documents of a text, YAML or JSON; empty ones are left out.  Raises `InputError` with file and line."""
    if len(text) > LONGEST or len(text.encode(errors="surrogatepass")) > LONGEST:
        raise InputError(f"more than {LONGEST >> 20} MiB, which is all that the API server takes at once", file)
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        found = _json(text.removeprefix("\ufeff"), file)
        if found is not None:
            yield from found
            return
    yield from _yaml(text, file)


def _json(text: str, file: str) -> list[Raw] | None:
    """A stream of JSON objects; None when it is none: it may be YAML in braces, whose parser has the better words."""
    decoder = json.JSONDecoder(object_pairs_hook=_pairs)
    found: list[Raw] = []
    position, line = 0, 1
    while True:
        start = position
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        if position == len(text):
            return found
        line += text.count("\n", start, position)
        try:
            value, end = decoder.raw_decode(text, position)
        except _TwiceError as error:
            raise InputError(f"there are two '{error}' in one object", file, line) from None
        except RecursionError:
            raise InputError(f"nested more than {_DEEPEST} deep", file, line) from None
        except ValueError as error:
            if file.endswith(".json"):
                wrong = line + text.count("\n", position, getattr(error, "pos", position))
                raise InputError(f"broken JSON: {getattr(error, 'msg', error)}", file, wrong) from None
            return None
        _check_depth(value, file, line)
        found.append(Raw(value, file, len(found) + 1, line, text[position:end]))
        line += text.count("\n", position, end)
        position = end


class _TwiceError(Exception):
    """A key that an object has twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def _check_depth(value: Any, file: str, line: int) -> None:
    level, depth = [value], 0
    while level:
        level = [
            inner for one in level if isinstance(one, (dict, list)) for inner in (one.values() if isinstance(one, dict) else one)
        ]
        depth += 1
        if depth > _DEEPEST:
            raise InputError(f"nested more than {_DEEPEST} deep", file, line)


def _yaml(text: str, file: str) -> Iterator[Raw]:
    number = 0
    try:
        for node in yaml.compose_all(text, Loader=yaml.CSafeLoader):
            number += 1
            if node is None:
                continue
            value = _Builder(file).whole(node)
            if value is not None:
                yield Raw(value, file, number, node.start_mark.line + 1, _node=node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "no YAML").splitlines()[0]
        raise InputError(f"broken YAML: {problem}", file, mark.line + 1 if mark else 1) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        raise InputError(f"no text: {error.reason}", file, line) from None
    except yaml.YAMLError as error:
        raise InputError(f"broken YAML: {str(error).splitlines()[0]}", file, 1) from None


class _Builder:
    """Builds plain values of one document; what an anchor names is built once and counted as often as it is used."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._done: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()
        self._count = 0

    def whole(self, node: yaml.Node) -> Any:
        value, size = self._build(node, 0)
        if size - self._count > _MOST_ALIASED:
            self._fail(node, f"its aliases stand for {size - self._count} values, at most {_MOST_ALIASED} expected")
        return value

    def _fail(self, node: yaml.Node, message: str) -> Any:
        raise InputError(message, self._file, node.start_mark.line + 1)

    def _build(self, node: yaml.Node, depth: int) -> tuple[Any, int]:
        if isinstance(node, yaml.ScalarNode):
            self._count += 1
            return self._scalar(node), 1
        if id(node) in self._done:
            return self._done[id(node)]
        if id(node) in self._open:
            self._fail(node, "an alias that contains itself")
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self._fail(node, f"a tag '{node.tag[:60]}' means nothing here")
        if depth > _DEEPEST:
            self._fail(node, f"nested more than {_DEEPEST} deep")
        self._open.add(id(node))
        self._count += 1
        size = 1
        if isinstance(node, yaml.SequenceNode):
            items = []
            for one in node.value:
                value, more = self._build(one, depth + 1)
                items.append(value)
                size += more
            built: Any = items
        else:
            built, size = self._mapping(node, depth)
        self._open.discard(id(node))
        self._done[id(node)] = built, size
        return built, size

    def _mapping(self, node: yaml.Node, depth: int) -> tuple[dict[str, Any], int]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        size = 1
        for key, inner in node.value:
            value, more = self._build(inner, depth + 1)
            size += more
            if key.tag == _TAG + "merge":
                for part in value if isinstance(value, list) else [value]:
                    if not isinstance(part, dict):
                        self._fail(key, "<<: a mapping expected")
                    merged = {**part, **merged}
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._fail(key, "a name expected as a key")
            name = str(key.value)
            if name in own:
                self._fail(key, f"there are two '{name}' here")
            own[name] = value
        return ({**merged, **own} if merged else own), size

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        if tag in ("str", "timestamp", "value", "merge"):
            return text
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() in _TRUE
        try:
            if tag == "int":
                plain = text.replace("_", "")
                sign, digits = (plain[:1], plain[1:]) if plain[:1] in "+-" else ("", plain)
                if ":" in digits:
                    return text
                if digits.startswith("0") and digits.isdigit() and len(digits) > 1:
                    return int(sign + digits, 8)
                return int(plain, 0)
            if tag == "float":
                return (
                    float(re.sub(r"\.(inf|nan)$", r"\1", text.replace("_", ""), flags=re.IGNORECASE)) if ":" not in text else text
                )
        except ValueError:
            self._fail(node, f"'{text[:40]}' is no number")
        return self._fail(node, f"a tag '{node.tag[:60]}' means nothing here")
