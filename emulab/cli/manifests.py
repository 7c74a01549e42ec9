"""`-f`: manifests from files, folders and standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emulab.errors import InputError

if TYPE_CHECKING:
    from emulab.model import Topology

_ENDINGS = (".yaml", ".yml", ".json")

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


def texts(files: Sequence[str]) -> list[tuple[str, str]]:
    """(name, text) of each file.  Raises `InputError` for what cannot be read."""
    found: list[tuple[str, str]] = []
    for file in files:
        if file == "-":
            found.append(("stdin", _decoded(sys.stdin.buffer.read, "stdin")))
            continue
        path = Path(file)
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix in _ENDINGS and not one.is_dir())
            if not inside:
                raise InputError(f"no manifest in this folder, {' or '.join(f'*{ending}' for ending in _ENDINGS)} expected", file)
            found += [(str(one), _text(one)) for one in inside]
        else:
            found.append((file, _text(path)))
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return _decoded(stream.read, str(path))
    except OSError as error:
        raise InputError(f"cannot read the manifest: {error.strerror}", str(path)) from None


def _decoded(read: Callable[[int], bytes], name: str) -> str:
    from emulab.kube.text import LONGEST

    data = read(LONGEST + 1)
    if len(data) > LONGEST:
        raise InputError(f"more than {LONGEST >> 20} MiB, which is all that the API server takes at once", name)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError("cannot read the manifest: it is not UTF-8 text", name) from None


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
