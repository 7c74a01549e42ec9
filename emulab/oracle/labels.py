"""Label selectors as they are written: Kubernetes' ``matchLabels`` and ``matchExpressions``, Calico's expressions.

Kubernetes: apimachinery pkg/apis/meta/v1 (LabelSelector); Calico: the selector syntax of the projectcalico.org/v3 reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Labels = Mapping[str, str]
Condition = Callable[[Labels], bool]

_OPERATORS: dict[str, Callable[[str, list[str]], Condition]] = {
    "In": lambda key, values: lambda labels: key in labels and labels[key] in values,
    "NotIn": lambda key, values: lambda labels: key not in labels or labels[key] not in values,
    "Exists": lambda key, _: lambda labels: key in labels,
    "DoesNotExist": lambda key, _: lambda labels: key not in labels,
}


def kubernetes(selector: Mapping[str, Any]) -> Condition:
    """All of ``matchLabels`` and ``matchExpressions``; an empty selector matches everything."""
    wanted = dict(selector.get("matchLabels") or {})
    conditions = [
        _OPERATORS[one["operator"]](one["key"], [str(value) for value in one.get("values") or ()])
        for one in selector.get("matchExpressions") or ()
    ]
    return lambda labels: all(labels.get(k) == v for k, v in wanted.items()) and all(check(labels) for check in conditions)


def kubernetes_keys(selector: Mapping[str, Any]) -> Iterator[str]:
    """The label keys that a selector asks for."""
    yield from selector.get("matchLabels") or {}
    yield from (one["key"] for one in selector.get("matchExpressions") or ())


_TOKEN = re.compile(
    r"\s*(?:(?P<mark>\|\||&&|==|!=|[!(){},])|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<word>not\s+in\b(?=\s*\{)|starts\s+with\b(?=\s*['\"])|ends\s+with\b(?=\s*['\"])|[A-Za-z0-9_./-]+))"
)


class _Expression:
    """A recursive descent over one expression; remembers which keys it asks for."""

    def __init__(self, text: str) -> None:
        self._tokens = [match.group().strip() for match in _TOKEN.finditer(text)]
        self._at = 0
        self.keys: set[str] = set()

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _meets(self, token: str) -> bool:
        met = self._at < len(self._tokens) and self._tokens[self._at] == token
        self._at += met
        return met

    def whole(self) -> Condition:
        parts = [self._both()]
        while self._meets("||"):
            parts.append(self._both())
        return lambda labels: any(part(labels) for part in parts)

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._meets("&&"):
            parts.append(self._one())
        return lambda labels: all(part(labels) for part in parts)

    def _one(self) -> Condition:
        if self._meets("!"):
            inner = self._one()
            return lambda labels: not inner(labels)
        if self._meets("("):
            inner = self.whole()
            self._next()
            return inner
        key = self._next()
        if self._meets("("):  # all(), global(), has(key)
            if key == "has":
                key = self._next()
                self._next()
                self.keys.add(key)
                return lambda labels: key in labels
            self._next()
            return lambda _: key == "all"
        self.keys.add(key)
        return self._compared(key, re.sub(r"\s+", " ", self._next()))

    def _compared(self, key: str, test: str) -> Condition:
        if test in ("in", "not in"):
            values = self._values()
            return lambda labels: (labels.get(key) in values) == (test == "in")
        value = self._next()[1:-1]
        checks: dict[str, Callable[[str | None], bool]] = {
            "==": lambda found: found == value,
            "!=": lambda found: found != value,
            "contains": lambda found: found is not None and value in found,
            "starts with": lambda found: found is not None and found.startswith(value),
            "ends with": lambda found: found is not None and found.endswith(value),
        }
        check = checks[test]
        return lambda labels: check(labels.get(key))

    def _values(self) -> set[str]:
        self._next()
        values = set()
        while not self._meets("}"):
            values.add(self._next()[1:-1])
            self._meets(",")
        return values


def calico(expression: str) -> Condition:
    """What an expression like ``app == 'web' && has(tier)`` matches; an empty one matches everything."""
    return _Expression(expression).whole() if expression.strip() else lambda _: True


def calico_keys(expression: str) -> set[str]:
    """The label keys that an expression asks for."""
    parsed = _Expression(expression)
    if expression.strip():
        parsed.whole()
    return parsed.keys
