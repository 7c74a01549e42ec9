"""What docs/checks.md and the files for CI say is so: the schema is the one printed, examples are checks, workflows are valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from emulab.checks import model, reading, rehearsal, sentence
from emulab.errors import InputError

from .test_docs import blocks, command_lines, parse

ROOT = Path(__file__).parents[2]
CHECKS = sorted((ROOT / "examples" / "checks").rglob("*.yaml"))
DOCUMENT = (ROOT / "docs" / "checks.md").read_text()
WORKFLOWS = {"github-actions.yml": "vendor.github-workflows", "gitlab-ci.yml": "vendor.gitlab-ci"}


def test_the_schema_beside_the_document_is_the_one_that_is_printed() -> None:
    assert json.loads((ROOT / "docs" / "check.schema.json").read_text()) == model.schema()


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.name)
def test_an_example_says_what_it_checks_and_where_its_schema_is(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    schema = path.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert schema.resolve() == ROOT / "docs" / "check.schema.json"
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(schema.read_text()))
    assert reading.read(path).description
    assert rehearsal.jobs(reading.read(path))


def test_checks_in_the_document_are_checks(tmp_path: Path) -> None:
    """As if they stood in examples/checks."""
    (tmp_path / "policies").symlink_to(ROOT / "examples" / "policies")
    path = tmp_path / "checks" / "shown.yaml"
    path.parent.mkdir()
    shown = [content for language, content in blocks(DOCUMENT) if language == "yaml"]
    assert len(shown) == 3
    for content in shown:
        path.write_text(content)
        assert reading.read(path).steps
        jsonschema.validate(yaml.safe_load(content), model.schema())


def test_every_key_step_and_word_is_documented() -> None:
    definitions = model.schema()["$defs"]
    spans = {span for row in re.findall(r"^\| (.*)$", DOCUMENT, re.MULTILINE) for span in re.findall(r"`([^`]+)`", row)}
    for name in ("File", "Step"):
        assert sorted(set(definitions[name]["properties"]) - spans) == []
    assert sorted(set(definitions["Expected"]["properties"]) - spans) == ["from", "reaches", "to"]  # shown in a mapping


def test_the_words_of_the_table_are_read() -> None:
    table = DOCUMENT.partition("| words | mean | as a mapping |")[2].partition("\n\n")[0]
    words = [span for row in table.splitlines()[2:] for span in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(words) > 10
    for word in words:
        sentence.read(f"a1 {'cannot reach' if 'dropped' in word else 'reaches'} c2 {word}")
    with pytest.raises(InputError):
        sentence.read("a1 reaches c2 without words")


def scripts(name: str) -> list[str]:
    """The shell lines of a workflow."""
    whole: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "ci" / name).read_text())
    if name.startswith("github"):
        return [step["run"] for job in whole["jobs"].values() for step in job["steps"] if "run" in step]
    return [line for job in whole.values() for key in ("before_script", "script") for line in job[key]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_valid_and_a_broken_one_would_not_be(name: str, tmp_path: Path) -> None:
    """By the schemas that SchemaStore and GitLab publish, as check-jsonschema brings them."""
    path = ROOT / "examples" / "ci" / name
    broken = tmp_path / name
    broken.write_text(path.read_text().replace("  timeout", "  time-out"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", WORKFLOWS[name]]
    good, bad = (subprocess.run([*command, str(one)], capture_output=True, text=True) for one in (path, broken))
    assert good.returncode == 0, good.stdout
    assert bad.returncode == 1 and "time-out" in bad.stdout + bad.stderr


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_a_workflow_types_is_right(name: str, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/bash -e\n" + "\n".join(scripts(name)) + "\n")
    checked = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    typed = script.read_text().replace("/tmp/emulab/bin/emulab", "emulab")
    lines = command_lines(f"```sh\n{typed}```\n")
    assert [line[0] for line in lines] == ["doctor", "check"]
    for line in lines:
        parse(line)
    packages = re.search(r"PACKAGES=\((.*?)\)", (ROOT / "bootstrap.sh").read_text())
    assert packages and set(packages[1].split()) - {"python3"} <= set(typed.split())
