"""Expectations as sentences: ``a1 reaches c2 tcp/80 without NAT``.  Pure.

    FROM reaches|cannot reach TO [tcp/80|by udp] [over IPv6] [with N bytes] [with|without NAT] [encapsulated vxlan [VNI N]]
    [not encapsulated] [in N hops] [with MTU N] [seen as ADDRESS] [dropped at PLACE] [within 5s]

What follows the ends may come in any order, with commas or "and" between; the words may be written in capitals or not.  The
text of an `Expectation` is such a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from emulab.errors import InputError, nearest
from emulab.expectation import ENCAPSULATIONS, PROTOCOLS, Expectation
from emulab.quantity import TIMES, quantity

_VERBS = ("reaches", "cannot reach")
_PARTS = ("by", "over", "with", "without", "encapsulated", "not", "in", "seen", "dropped", "within", *PROTOCOLS)


def read(text: str) -> tuple[Expectation, float]:
    """The expectation, and within how many seconds it has to hold.  Raises `InputError` that tells the column of a mistake."""
    return _Sentence(text).whole()


class _Sentence:
    """What is read so far of a sentence: words, and the values that they gave."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = [(found.start(), found[0].rstrip(",")) for found in re.finditer(r"\S+", text)]
        self._words = [one for one in self._words if one[1]]
        self._at = 0
        self._values: dict[str, Any] = {}
        self._within: float | None = None

    def whole(self) -> tuple[Expectation, float]:
        source = self._take("who reaches whom")
        if self._is("reaches"):
            reaches = True
        elif self._is("cannot"):
            reaches = False
            self._must("reach")
        else:
            self._fail(f"'reaches' or 'cannot reach' expected, got {self._got()}{self._near(_VERBS)}")
        self._values.update(source=source, destination=self._take("whom"), reaches=reaches)
        while self._at < len(self._words):
            self._part()
        try:
            return Expectation(**self._values), self._within or 0.0
        except InputError as error:
            raise InputError(f"'{self._text}': {error}") from None

    def _part(self) -> None:
        if self._is("and"):
            pass
        start = self._at
        word = self._take("a condition")
        name, slash, port = word.lower().partition("/")
        if name in PROTOCOLS:
            self._set(start, protocol=name)
            if slash:
                self._set(start, port=self._whole(port, start, "a port"))
            return
        follow: Callable[[], object] | None = {
            "by": self._protocol,
            "over": lambda: self._set(start, family=self._one_of({"ipv4": 4, "ipv6": 6})),
            "with": lambda: self._with(start),
            "without": lambda: self._without(start),
            "encapsulated": lambda: self._encapsulated(start),
            "not": lambda: self._not_encapsulated(start),
            "in": lambda: self._hops(start),
            "seen": lambda: self._seen(start),
            "dropped": lambda: self._dropped(start),
            "within": lambda: self._patience(start),
        }.get(word.lower())
        if follow is None:
            self._fail(f"'{word}' is no condition{nearest(word, _PARTS)}", start)
        follow()

    def _protocol(self) -> None:
        start = self._at
        word = self._take("a protocol")
        if word.lower() not in PROTOCOLS:
            self._fail(f"one of {', '.join(PROTOCOLS)} expected, got '{word}'{nearest(word, PROTOCOLS)}", start)
        self._set(start, protocol=word.lower())

    def _with(self, start: int) -> None:
        if self._is("nat"):
            self._set(start, nat=True)
        elif self._is("mtu"):
            self._set(start, mtu=self._number("a number of bytes"))
        else:
            if self._at < len(self._words) and not self._words[self._at][1].isdigit():
                self._fail(f"'NAT', 'MTU' or a number of bytes expected, got {self._got()}")
            self._set(start, size=self._number("'NAT', 'MTU' or a number of bytes"))
            self._must("bytes")

    def _without(self, start: int) -> None:
        if self._is("encapsulation"):
            self._set(start, encapsulation="none")
        else:
            self._must("NAT", "'NAT' or 'encapsulation'")
            self._set(start, nat=False)

    def _encapsulated(self, start: int) -> None:
        self._set(start, encapsulation=self._one_of({kind: kind for kind in ENCAPSULATIONS}))
        if self._is("vni"):
            self._set(start, vni=self._number("a number"))

    def _not_encapsulated(self, start: int) -> None:
        self._must("encapsulated")
        self._set(start, encapsulation="none")

    def _seen(self, start: int) -> None:
        self._must("as")
        self._set(start, seen_as=self._take("an address"))

    def _dropped(self, start: int) -> None:
        self._must("at")
        self._set(start, dropped_at=self._take("a node, a pod or node:interface"))

    def _hops(self, start: int) -> None:
        self._set(start, hops=self._number("a number of hops"))
        if not self._is("hop"):
            self._must("hops")

    def _patience(self, start: int) -> None:
        if self._within is not None:
            self._fail("'within' is there twice", start)
        at = self._at
        try:
            self._within = quantity("within", self._take("a time, e.g. 5s,"), TIMES)
        except InputError as error:
            self._fail(str(error), at)

    def _set(self, start: int, **values: Any) -> None:
        for name, value in values.items():
            if name in self._values:
                self._fail(f"{name} is there twice", start)
            self._values[name] = value

    def _number(self, what: str) -> int:
        start = self._at
        return self._whole(self._take(what), start, what)

    def _whole(self, text: str, start: int, what: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text):
            self._fail(f"{what} expected, got '{text}'", start)
        return int(text)

    def _one_of(self, known: dict[str, Any]) -> Any:
        start = self._at
        word = self._take(f"{' or '.join(known)}")
        if word.lower() not in known:
            self._fail(f"{' or '.join(known)} expected, got '{word}'", start)
        return known[word.lower()]

    def _is(self, word: str) -> bool:
        """Whether that is the next word, which is taken then."""
        if self._at < len(self._words) and self._words[self._at][1].lower() == word:
            self._at += 1
            return True
        return False

    def _must(self, word: str, what: str = "") -> None:
        if not self._is(word.lower()):
            self._fail(f"{what or repr(word)} expected, got {self._got()}")

    def _take(self, what: str) -> str:
        if self._at == len(self._words):
            self._fail(f"{what} expected, got nothing")
        self._at += 1
        return self._words[self._at - 1][1]

    def _got(self) -> str:
        return f"'{self._words[self._at][1]}'" if self._at < len(self._words) else "nothing"

    def _near(self, known: Sequence[str]) -> str:
        return nearest(self._words[self._at][1], known) if self._at < len(self._words) else ""

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        """Complain of the word number ``at``, by default the next one."""
        at = self._at if at is None else at
        column = self._words[at][0] + 1 if at < len(self._words) else len(self._text.rstrip()) + 1
        raise InputError(f"'{self._text}': column {column}: {message}")
