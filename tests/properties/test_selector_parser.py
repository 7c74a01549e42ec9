"""A selector's own text means the same, and any text is one, or a mistake with its column."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emulab.errors import InputError
from emulab.selector import AnyOf, Every, Everything, Has, In, Not, Selector, Text
from emulab.selector_parser import parse

KEYS = st.from_regex(r"[a-z][a-z0-9_./-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="'", exclude_categories=["Cs", "Cc"]), max_size=6)
LEAVES = st.one_of(
    st.just(Everything()),
    st.builds(Has, KEYS),
    st.builds(In, KEYS, st.lists(VALUES, max_size=3).map(tuple)),
    st.builds(Text, KEYS, st.sampled_from(["contains", "starts with", "ends with"]), VALUES),
)
SELECTORS: st.SearchStrategy[Selector] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda part: part.part if isinstance(part, Not) else Not(part)),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Every(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
    ),
    max_leaves=8,
)


@given(SELECTORS)
def test_a_selectors_own_text_means_the_same(selector: Selector) -> None:
    assert parse(str(selector)) == selector
    assert str(parse(str(selector))) == str(selector)


@given(st.text("ab=!&|(){}'\", inhas", max_size=20))
def test_any_text_is_a_selector_or_a_mistake_with_its_column(text: str) -> None:
    try:
        found = parse(text)
    except InputError as error:
        assert "column " in str(error)
    else:
        assert parse(str(found)) == found
