"""What the commands for running labs share: which lab is meant, and how its answers are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from emulab.control.client import Client, Here

here: Here | None = None  # the lab in this process: `emulab run --cli`


def connect(lab: str | None) -> Client | Here:
    """A connection to the lab that is meant: the named one, $EMULAB_LAB, or the only one that is up."""
    if here is not None:
        return here

    from emulab.control import places
    from emulab.control.client import Client

    place = places.find(lab)
    if place.user:
        places.become(place.user)
    return Client(place)


def _complete_lab(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from emulab.control import places

    return [CompletionItem(place.name) for place in places.labs() if place.name.startswith(incomplete)]


def _complete(*kinds: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from emulab.errors import EmulabError

        with contextlib.suppress(EmulabError, OSError), connect(context.params.get("lab")) as client:
            found = client.ask("names")
            return [CompletionItem(name) for kind in kinds for name in found[kind] if name.startswith(incomplete)]
        return []

    return complete


complete_pod, complete_node, complete_any = _complete("pods"), _complete("nodes"), _complete("pods", "nodes")

lab_option = click.option(
    "-l", "--lab", metavar="LAB", shell_complete=_complete_lab, help="The lab; needed when several are up (or set $EMULAB_LAB)."
)
lab_argument = click.argument("lab", required=False, shell_complete=_complete_lab)
dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be typed, change nothing.")
format_option = click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
output_option = click.option(
    "-o", "--output", type=click.Choice(["wide", "json", "yaml", "name"]), help="More columns, or another format."
)


def change(lab: str | None, done: str, do: str, **arguments: Any) -> int:
    """Ask for a change and say that it is ``done``, or what would be typed for it."""
    with connect(lab) as client:
        answer = client.ask(do, **arguments)
    if answer["dry_run"]:
        show_lines(answer["lines"])
    else:
        addresses = f" ({', '.join(answer['addresses'])})" if answer.get("addresses") else ""
        click.echo(f"{done}{addresses}")
    return 0


def show_lines(lines: dict[str, list[str]]) -> None:
    """Command lines by namespace, as `emulab plan` prints them."""
    click.echo("\n\n".join("\n".join([f"# {name}", *found]) for name, found in lines.items()) or "# nothing would change")


def dump(value: Any, output: str) -> None:
    """``value`` as JSON or YAML."""
    if output == "json":
        import json

        click.echo(json.dumps(value, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def table(headings: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as need be, three spaces apart, as kubectl prints them."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    for row in [headings, *rows]:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def columns() -> int | None:
    """The terminal's width, or None when the output is none."""
    import shutil
    import sys

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
