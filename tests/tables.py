"""Tables of cases: one test goes through all rows of a table, where a test for each would cost more than what it checks."""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest

Test = Callable[..., None]


def each_row(
    names: str, rows: Collection[Any], ids: Callable[[Any], str] | Iterable[str] | None = None
) -> Callable[[Test], Test]:
    """Like ``pytest.mark.parametrize`` with the same arguments, but the rows share one test, and its fixtures.

    Each row that fails is a failed subtest with its own traceback, and the others are gone through all the same.
    """
    columns = [name.strip() for name in names.split(",")]
    rows = list(rows)
    assert rows, "a table without rows checks nothing"

    def decorate(function: Test) -> Test:
        signature = inspect.signature(function)
        fixtures = [one for one in signature.parameters.values() if one.name not in columns]
        subtests = inspect.Parameter("subtests", inspect.Parameter.KEYWORD_ONLY)

        @functools.wraps(function)
        def test(*, subtests: pytest.Subtests, **given: Any) -> None:
            for number, row in enumerate(rows):
                values = dict(zip(columns, row if len(columns) > 1 else (row,), strict=True))
                try:
                    function(**given, **values)
                except (Exception, pytest.fail.Exception):
                    with subtests.test(named(number, row)):
                        raise

        test.__signature__ = signature.replace(parameters=[*fixtures, subtests])  # type: ignore[attr-defined]
        return test

    def named(number: int, row: Any) -> str:
        if ids is None:
            return f"row {number + 1}: {reprlib.repr(row)}"
        if callable(ids):
            return f"row {number + 1}: {'-'.join(filter(None, map(ids, row if len(columns) > 1 else (row,))))}"
        return list(ids)[number]

    return decorate
