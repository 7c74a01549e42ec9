"""`emulab check`: check files, each in labs of its own."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emulab.cli import complain
from emulab.cli.artifacts import artifacts_option, prepared
from emulab.errors import InputError

if TYPE_CHECKING:
    from emulab.checks.rehearsal import Job
    from emulab.checks.result import Result


@click.command("check", short_help="Run check files: what is done to a lab, and expected of it.")
@click.argument("paths", metavar="FILE|DIR...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-k", "choices", metavar="TEXT", multiple=True, help="Only checks with this in 'file name [plugin]'; may be repeated."
)
@click.option(
    "-p", "--plugin", "plugins", metavar="P", multiple=True, help="This data plane instead of the files'; may be repeated."
)
@click.option("-j", "--jobs", type=click.IntRange(1, 64), metavar="N", help="Labs at once; default: the number of processors.")
@click.option("--junit", metavar="FILE", type=click.Path(dir_okay=False), help="Write JUnit XML, too.")
@artifacts_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text (emulab/check/1).")
@click.option("--tap", "as_tap", is_flag=True, help="TAP instead of text (the Test Anything Protocol, version 14).")
@click.option("--schema", is_flag=True, help="Print the JSON schema of check files, for editors.")
@click.option("-q", "--quiet", is_flag=True, help="Only what does not hold, and the summary.")
def command(
    paths: tuple[Path, ...],
    choices: tuple[str, ...],
    plugins: tuple[str, ...],
    jobs: int | None,
    junit: str | None,
    artifacts: str | None,
    as_json: bool,
    as_tap: bool,
    schema: bool,
    quiet: bool,
) -> int:
    """Run the checks in files, or in all *.yaml of folders, once with each plugin that they name.

    All files are read, and their steps gone through on paper, before anything starts.

    \b
    Examples:
      sudo emulab check checks/
      sudo emulab check policies.yaml --plugin calico --plugin weave
      sudo emulab check checks/ -k shop -q
      sudo emulab check checks/ --junit junit.xml
      sudo emulab check checks/ --artifacts evidence
      sudo emulab check checks/ --json | jq .summary
      emulab check --schema > emulab-check.schema.json

    Exit codes: 0 all holds, 1 an expectation does not, 2 a file is wrong: nothing is started, 3 a check could not be carried out.
    """
    if schema:
        return _schema()
    if as_json and as_tap:
        raise click.UsageError("--json and --tap exclude each other", click.get_current_context())
    if not paths:
        raise click.UsageError("a check file, or a folder of such, expected", click.get_current_context())
    wanted = _jobs(paths, plugins, choices)
    if wanted is None:
        return 2
    if junit and not (Path(junit).parent.is_dir() and os.access(Path(junit).parent, os.W_OK)):
        raise InputError(f"--junit {junit}: cannot write there")
    folder = prepared(artifacts)
    begun = time.monotonic()
    results = _run(wanted, jobs or len(os.sched_getaffinity(0)), folder, None if as_json or as_tap else quiet)
    _report(results, time.monotonic() - begun, junit, folder, as_json, as_tap)
    states = {result.state for result in results}
    return 1 if "failed" in states else 3 if "error" in states else 0


def _schema() -> int:
    from emulab.checks import model

    click.echo(json.dumps(model.schema(), indent=1))
    return 0


def _jobs(paths: tuple[Path, ...], plugins: tuple[str, ...], choices: tuple[str, ...]) -> list[Job] | None:
    """What there is to run; None, with a line for each file, when some are wrong."""
    from emulab import registry
    from emulab.checks import reading, rehearsal

    for name in plugins:
        registry.plugin(name)
    wanted: list[Job] = []
    told, wrong = 0, False
    for path in reading.found(paths):
        try:
            check = reading.read(path)
            titles = {name: f"{path} {rehearsal.title(check, name)}".lower() for name in plugins or check.plugins}
            chosen = [name for name, title in titles.items() if not choices or any(one.lower() in title for one in choices)]
            told += len(titles)
            wanted += rehearsal.jobs(check, chosen) if chosen else []
        except InputError as error:
            complain(str(error))
            wrong = True
    if not wanted and not wrong:
        raise InputError(f"-k {' -k '.join(choices)}: none of {told} checks has that in 'file name [plugin]'")
    return None if wrong else wanted


def _run(wanted: list[Job], parallel: int, folder: Path | None, quiet: bool | None) -> list[Result]:
    """All of them, told as text while they come, unless ``quiet`` is None."""
    from emulab.checks import running, telling
    from emulab.report.text import console_for

    console = console_for(sys.stdout)
    results: list[Result] = []
    with closing(running.run(wanted, parallel, folder)) as coming:
        for result in coming:
            results.append(result)
            if quiet is not None:
                telling.text(result, console, quiet)
                sys.stdout.flush()
    return results


def _report(results: list[Result], seconds: float, junit: str | None, folder: Path | None, as_json: bool, as_tap: bool) -> None:
    """What is told when all is over: on standard output, and in files."""
    from emulab.checks import telling
    from emulab.report import tap
    from emulab.report.junit import write

    document, suites = telling.document(results, seconds), telling.suites(results)
    if as_json:
        click.echo(json.dumps(document, indent=1))
    elif as_tap:
        tap.write(suites, sys.stdout)
    else:
        telling.conclude(results, seconds, sys.stdout)
    xml = io.StringIO()
    write(suites, xml)
    files = {junit: xml.getvalue()} if junit else {}
    if folder:
        files |= {str(folder / "junit.xml"): xml.getvalue(), str(folder / "result.json"): json.dumps(document, indent=1) + "\n"}
    for file, text in files.items():
        try:
            Path(file).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{file}: cannot be written: {error.strerror}") from None
