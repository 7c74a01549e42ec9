"""Calico's selector expressions as `emulab.selector` values.

The language is that of libcalico-go/lib/selector: ``all()``, ``global()``, ``has(k)``, ``k == 'v'``, ``k != 'v'``,
``k in {'a', 'b'}``, ``k not in {…}``, ``k contains 'v'``, ``k starts with 'v'``, ``k ends with 'v'``, and of those ``!``,
``&&``, ``||`` (binds least) and parentheses.  The empty text is ``all()``; ``global()``, what is in no namespace, selects no
pod.
"""

from __future__ import annotations

import re

from emulab.errors import InputError
from emulab.selector import AnyOf, Every, Everything, Has, In, Not, Selector, Text

_DEEPEST = 100  # parentheses within parentheses
_KEY = re.compile(r"[a-zA-Z0-9_./-]{1,512}")
_HAS = re.compile(r"has\([ \t]*([a-zA-Z0-9_./-]{1,512})[ \t]*\)")
_CALL = re.compile(r"(all|global)\([ \t]*\)")
_OPERATOR = re.compile(r"==|!=|contains|starts[ \t]*with|ends[ \t]*with|not[ \t]*in|in")
_STRING = re.compile(r"\"[^\"]*\"|'[^']*'")
_SPACE = re.compile(r"[ \t]*")


def parse(text: str) -> Selector:
    """The selector that ``text`` means.  Raises `InputError` with the column, from 1, of what is wrong."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0

    def whole(self) -> Selector:
        self._skip()
        if self._at == len(self._text):
            return Everything()
        found = self._any()
        if self._at < len(self._text):
            raise self._expected("&& or ||")
        return found

    def _any(self) -> Selector:
        parts = [self._every()]
        while self._take("||"):
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _every(self) -> Selector:
        parts = [self._operation()]
        while self._take("&&"):
            parts.append(self._operation())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _operation(self) -> Selector:
        negated = False
        while self._take("!"):
            negated = not negated
        found = self._term()
        return _negated(found) if negated else found

    def _term(self) -> Selector:
        if self._take("("):
            self._depth += 1
            if self._depth > _DEEPEST:
                raise self._expected(f"at most {_DEEPEST} parentheses within each other")
            found = self._any()
            if not self._take(")"):
                raise self._expected("')'")
            self._depth -= 1
            return found
        if called := self._match(_CALL):
            return Everything() if called[1] == "all" else Not(Everything())
        if has := self._match(_HAS):
            return Has(has[1])
        if re.match(r"(has|all|global)\(", self._text[self._at :]):
            raise self._expected("has(KEY), all() or global()")
        key = self._match(_KEY)
        if not key:
            raise self._expected("a label, has(KEY), all() or '('")
        return self._comparison(key[0])

    def _comparison(self, key: str) -> Selector:
        found = self._match(_OPERATOR)
        if not found:
            raise self._expected("==, !=, in, not in, contains, starts with or ends with")
        operator = re.sub(r"[ \t]+", "", found[0])
        if operator in ("in", "notin"):
            values = In(key, self._values())
            return values if operator == "in" else Not(values)
        value = self._string()
        if operator in ("==", "!="):
            return In(key, (value,)) if operator == "==" else Not(In(key, (value,)))
        return Text(key, {"startswith": "starts with", "endswith": "ends with"}.get(operator, operator), value)

    def _values(self) -> tuple[str, ...]:
        if not self._take("{"):
            raise self._expected("'{'")
        values: list[str] = []
        while not self._take("}"):
            values.append(self._string())
            if not self._take(",") and self._text[self._at : self._at + 1] != "}":
                raise self._expected("',' or '}'")
        return tuple(values)

    def _string(self) -> str:
        found = self._match(_STRING)
        if not found:
            raise self._expected("a text in quotes")
        return found[0][1:-1]

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What of the text fits ``pattern`` here; it and the blanks behind it are consumed."""
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
            self._skip()
        return found

    def _take(self, word: str) -> bool:
        if not self._text.startswith(word, self._at):
            return False
        self._at += len(word)
        self._skip()
        return True

    def _skip(self) -> None:
        blanks = _SPACE.match(self._text, self._at)
        self._at = blanks.end() if blanks else self._at

    def _expected(self, what: str) -> InputError:
        rest = self._text[self._at :].split()
        found = f"'{rest[0][:20]}'" if rest else "the end"
        return InputError(f"selector {self._text.strip()!r}, column {self._at + 1}: {what} expected, found {found}")


def _negated(part: Selector) -> Selector:
    return part.part if isinstance(part, Not) else Not(part)
