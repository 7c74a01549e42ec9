"""Check files, good and broken: what is refused and where, what is rehearsed, what editors know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_files import BESIDE, BROKEN, GOOD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables import each_row

from emulab.checks import model, reading, rehearsal
from emulab.errors import InputError

SCHEMA = jsonschema.Draft202012Validator(model.schema())
Laid = Callable[[str, str], Path]


@pytest.fixture
def laid(tmp_path: Path) -> Laid:
    """``laid(name, text)``: a check file with all that it may name beside it."""
    for name, text in BESIDE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def make(name: str, text: str) -> Path:
        path = tmp_path / "checks" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return make


@each_row("name", GOOD)
def test_a_good_file_is_read_and_rehearsed(name: str, laid: Laid) -> None:
    good = GOOD[name]
    jobs = rehearsal.jobs(reading.read(laid(name, good.text)))
    outcomes = good.outcomes.split()
    assert len(jobs) == len(outcomes)
    assert sum(len(step.expected) for step in jobs[0].check.steps) == len(outcomes[0])
    SCHEMA.validate(yaml.safe_load(good.text))


@each_row("name", BROKEN)
def test_a_broken_file_is_refused_where_it_is_broken(name: str, laid: Laid, monkeypatch: pytest.MonkeyPatch) -> None:
    path = laid(name, BROKEN[name].text)
    monkeypatch.chdir(path.parent)
    with pytest.raises(InputError) as error:
        rehearsal.jobs(reading.read(Path(path.name)))
    assert str(error.value) == path.name + BROKEN[name].said


@each_row("name", [name for name, broken in BROKEN.items() if broken.by_schema])
def test_an_editor_sees_what_a_schema_can_see(name: str) -> None:
    assert not SCHEMA.is_valid(yaml.safe_load(BROKEN[name].text))


def test_there_are_enough() -> None:
    assert len(GOOD) >= 30 and len(BROKEN) >= 30
    assert sum("-" in good.outcomes for good in GOOD.values()) >= 10
    used = {
        word
        for good in GOOD.values()
        for step in yaml.safe_load(good.text).get("steps", ())
        for word in ([step] if isinstance(step, str) else step)
    }
    assert used == set(model.schema()["$defs"]["Step"]["properties"])


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(model.schema())
    for name, definition in model.schema()["$defs"].items():
        for key, value in definition["properties"].items():
            assert "description" in value or (name == "PodAdd" and key == "labels"), f"{name}.{key}: editors show nothing"


JUNK = (
    None,
    True,
    -1,
    3.5,
    "",
    " ",
    "x",
    "a1",
    "a/b/c",
    "./\x00",
    "é" * 300,
    [],
    {},
    [None],
    {"x": None},
    [[]],
    ["a1", 1],
    {"to": "a1"},
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a document."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_junk_anywhere_is_refused_in_words_or_taken(laid: Laid, data: st.DataObject) -> None:
    whole = yaml.safe_load(data.draw(st.sampled_from([good.text for good in GOOD.values() if "fleet" not in good.text])))
    *path, last = data.draw(st.sampled_from([path for path in places(whole) if path]))
    inner = whole
    for step in path:
        inner = inner[step]
    inner[last] = data.draw(st.sampled_from(JUNK))
    text = yaml.safe_dump(whole, allow_unicode=True)
    try:
        rehearsal.jobs(reading.read(laid("junk", text)))
    except InputError as error:
        assert "\n" not in str(error) and str(error).partition(":")[0].endswith((".yaml", "manifests"))
