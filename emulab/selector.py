"""Which labels match: Kubernetes label selectors and Calico's selector expressions, as one kind of value.

``str`` of a selector is its Calico expression (libcalico-go/lib/selector/parser), ``app == 'web' && has(tier)``: equal
selectors have equal texts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Labels = Mapping[str, str]


class Selector(ABC):
    """A condition on labels."""

    @abstractmethod
    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""


@dataclass(frozen=True)
class Everything(Selector):
    """The empty selector ``{}`` of Kubernetes, ``all()`` of Calico."""

    def matches(self, labels: Labels) -> bool:
        return True

    def __str__(self) -> str:
        return "all()"


@dataclass(frozen=True)
class Has(Selector):
    """The key is there, whatever its value (Exists)."""

    key: str

    def matches(self, labels: Labels) -> bool:
        return self.key in labels

    def __str__(self) -> str:
        return f"has({self.key})"


@dataclass(frozen=True)
class In(Selector):
    """The key is there and has one of the values."""

    key: str
    values: tuple[str, ...]

    def matches(self, labels: Labels) -> bool:
        return labels.get(self.key) in self.values

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.key} == {_quoted(self.values[0])}"
        return f"{self.key} in {{ {', '.join(map(_quoted, self.values))} }}"


_TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda found, part: part in found,
    "starts with": str.startswith,
    "ends with": str.endswith,
}


@dataclass(frozen=True)
class Text(Selector):
    """The key is there and its value ``contains``, ``starts with`` or ``ends with`` a text (Calico only)."""

    key: str
    test: str
    part: str

    def matches(self, labels: Labels) -> bool:
        found = labels.get(self.key)
        return found is not None and _TEXT_TESTS[self.test](found, self.part)

    def __str__(self) -> str:
        return f"{self.key} {self.test} {_quoted(self.part)}"


@dataclass(frozen=True)
class Not(Selector):
    """What ``part`` does not select: objects that lack the key, too (NotIn, DoesNotExist)."""

    part: Selector

    def matches(self, labels: Labels) -> bool:
        return not self.part.matches(labels)

    def __str__(self) -> str:
        return f"!{_inside(self.part)}"


@dataclass(frozen=True)
class Every(Selector):
    """All of the parts."""

    parts: tuple[Selector, ...]

    def matches(self, labels: Labels) -> bool:
        return all(part.matches(labels) for part in self.parts)

    def __str__(self) -> str:
        return " && ".join(map(_inside, self.parts))


@dataclass(frozen=True)
class AnyOf(Selector):
    """At least one of the parts."""

    parts: tuple[Selector, ...]

    def matches(self, labels: Labels) -> bool:
        return any(part.matches(labels) for part in self.parts)

    def __str__(self) -> str:
        return " || ".join(map(_inside, self.parts))


def both(parts: Iterable[Selector]) -> Selector:
    """All of the parts, in the simplest form."""
    found = tuple(part for part in parts if not isinstance(part, Everything))
    return Everything() if not found else found[0] if len(found) == 1 else Every(found)


def _inside(part: Selector) -> str:
    return f"({part})" if isinstance(part, (Every, AnyOf)) else str(part)


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"
