"""What the commands with kubectl's words share: a kind, a namespace, and how results are told."""

from __future__ import annotations

import contextlib
from typing import Any

import click
from click.shell_completion import CompletionItem

from emulab.cli.lab import connect, show_lines
from emulab.cli.manifests import warn

_ONLY_SHOWN = ("endpoints", "ep", "links", "routes")


def complete_kind(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Every word for every kind."""
    from emulab.kube.kinds import known

    more = _ONLY_SHOWN if context.info_name == "get" else ()
    return [CompletionItem(word) for word in sorted((*known(), *more)) if word.startswith(incomplete)]


def complete_object(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the kind that has been typed."""
    known = _names(context)
    kind = str(context.params.get("kind")).lower()
    word = "nodes" if kind in ("link", "links", "route", "routes") else "services" if kind in ("ep", "endpoints") else kind
    names = known.get(word, [])
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names(context: click.Context) -> dict[str, list[str]]:
    from emulab.errors import EmulabError

    with contextlib.suppress(EmulabError, OSError), connect(context.params.get("lab")) as client:
        found: dict[str, list[str]] = client.ask("kube_names")
        return found
    return {}


kind_argument = click.argument("kind", metavar="KIND", shell_complete=complete_kind)
namespace_option = click.option("-n", "--namespace", metavar="NS", help="The namespace; default: default.")


def tell(answer: dict[str, Any]) -> int:
    """Print what became of each object, or what would be typed for it."""
    warn(answer["warnings"])
    if answer["dry_run"]:
        show_lines(answer["lines"])
        return 0
    for title, what in answer["results"]:
        click.echo(f"{title} {what}")
    return 0
