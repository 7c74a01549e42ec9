"""`-f`: manifests from files, folders and standard input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from emulab.errors import InputError
from emulab.kube.files import texts as texts

if TYPE_CHECKING:
    from emulab.model import Topology

file_option = click.option(
    "-f",
    "--filename",
    "files",
    metavar="FILE|DIR|-",
    multiple=True,
    type=click.Path(allow_dash=True),
    help="Kubernetes manifests, YAML or JSON: a file, all of a folder, or stdin; may be repeated.",
)
ignore_option = click.option(
    "--ignore-unknown", is_flag=True, help="Leave out kinds and fields that are not known, with a warning."
)


def manifest_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """-f FILE --ignore-unknown"""
    return file_option(ignore_option(command))


def begun(usual: Topology, named: bool, files: Sequence[str], ignore_unknown: bool) -> Topology:
    """The topology with what the files hold; warnings go to stderr."""
    from emulab.kube import read
    from emulab.kube.applying import begun

    given = texts(files)
    documents = [document for name, text in given for document in read(text, name, ignore_unknown)]
    if not documents:
        raise InputError("no objects in it", given[0][0])
    topology, warnings = begun(usual, documents, named)
    warn(warnings)
    return topology


def warn(warnings: Sequence[str]) -> None:
    """One line each on stderr."""
    for text in warnings:
        click.echo(click.style("warning: ", fg="yellow", bold=True) + " ".join(text.splitlines()), err=True)
