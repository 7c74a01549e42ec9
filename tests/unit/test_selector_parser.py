"""Calico's selector expressions: what they mean, and where a mistake is."""

from __future__ import annotations

import pytest
from tables import each_row

from emulab.errors import InputError
from emulab.selector import AnyOf, Every, Everything, Has, In, Not, Selector, Text, both
from emulab.selector_parser import parse

WEB, DB = In("app", ("web",)), In("app", ("db",))


@each_row(
    "text, expected",
    [
        ("", Everything()),
        ("  ", Everything()),
        ("all()", Everything()),
        ("all( )", Everything()),
        ("global()", Not(Everything())),
        ("has(app)", Has("app")),
        ("!has(app)", Not(Has("app"))),
        ("! has( app )", Not(Has("app"))),
        ("app == 'web'", WEB),
        ('app=="web"', WEB),
        ("app != 'web'", Not(WEB)),
        ("!app == 'web'", Not(WEB)),
        ("!!has(app)", Has("app")),
        ("!(app != 'web')", WEB),
        ("app in {'web', 'db'}", In("app", ("web", "db"))),
        ("app in{'web'}", WEB),
        ("app in {'web',}", WEB),
        ("app not in { 'web' }", Not(WEB)),
        ("app in {}", In("app", ())),
        ("app contains 'e'", Text("app", "contains", "e")),
        ("app starts with 'w'", Text("app", "starts with", "w")),
        ("app ends  with 'b'", Text("app", "ends with", "b")),
        ("a.b/c-d_e == ''", In("a.b/c-d_e", ("",))),
        ("has == 'x' && all == 'y'", Every((In("has", ("x",)), In("all", ("y",))))),
        ("in in {'in'}", In("in", ("in",))),
        ("app == 'web' && has(a) || has(b)", AnyOf((Every((WEB, Has("a"))), Has("b")))),
        ("app == 'web' && (has(a) || has(b))", Every((WEB, AnyOf((Has("a"), Has("b")))))),
        ('app == "it\'s"', In("app", ("it's",))),
    ],
)
def test_parse(text: str, expected: Selector) -> None:
    assert parse(text) == expected


@each_row(
    "text, labels, expected",
    [
        ("app != 'web'", {}, True),
        ("app not in {'web'}", {}, True),
        ("app == 'web'", {}, False),
        ("app contains 'e'", {"app": "web"}, True),
        ("app contains 'e'", {}, False),
        ("global()", {"app": "web"}, False),
        ("has(a) || app starts with 'w' && app ends with 'x'", {"app": "web"}, False),
    ],
)
def test_meaning(text: str, labels: dict[str, str], expected: bool) -> None:
    assert parse(text).matches(labels) is expected


@each_row(
    "text, problem",
    [
        ("app = 'web'", "column 5: ==, !=, in, not in, contains, starts with or ends with expected, found '='"),
        ("app == web", "column 8: a text in quotes expected, found 'web'"),
        ("app == 'web", "column 8: a text in quotes expected, found ''web'"),
        ("app == 'web' & has(a)", "column 14: && or || expected, found '&'"),
        ("app == 'web' &&", "column 16: a label, has(KEY), all() or '(' expected, found the end"),
        ("(has(a)", "column 8: ')' expected, found the end"),
        ("has(a", "column 1: has(KEY), all() or global() expected, found 'has(a'"),
        ("all(x)", "column 1: has(KEY), all() or global() expected, found 'all(x)'"),
        ("app in 'web'", "column 8: '{' expected, found ''web''"),
        ("app in {'web' 'db'}", "column 15: ',' or '}' expected, found ''db'}'"),
        ("app in {'web'", "column 14: ',' or '}' expected, found the end"),
        ("has(a)\n&& has(b)", "column 7: && or || expected, found '&&'"),
        ("(" * 1000, "column 102: at most 100 parentheses within each other expected, found '(((((((((((((((((((('"),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert str(caught.value) == f"selector {text!r}, {problem}"


def test_the_simplest_form() -> None:
    assert both([Everything(), WEB]) == WEB
    assert both([WEB, DB]) == Every((WEB, DB))
    assert both([]) == Everything()
