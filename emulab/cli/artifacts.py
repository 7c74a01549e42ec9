"""`--artifacts DIR`: the evidence of a run as a folder of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

artifacts_option = click.option(
    "--artifacts",
    metavar="DIR",
    type=click.Path(),
    help="Write report.html, junit.xml, result.json, pcapng of flows of interest, the plan and versions there.",
)


def prepared(artifacts: str | None) -> Path | None:
    """The folder, made; raises `InputError` when it cannot be written, before anything starts."""
    if artifacts is None:
        return None
    from emulab.artifacts import prepare

    return prepare(artifacts)


def keep(folder: Path, document: dict[str, Any]) -> None:
    """Write everything, and say where, on standard error."""
    from emulab.artifacts import PAGE, write

    written = write(folder, document)
    click.echo(f"{folder / PAGE} and {len(written) - 1} more files", err=True)
