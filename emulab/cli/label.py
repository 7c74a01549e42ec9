"""`emulab label`: labels of pods, nodes, namespaces and the rest."""

from __future__ import annotations

import click

from emulab.cli.kube import complete_object, kind_argument, namespace_option, tell
from emulab.cli.lab import connect, dry_run_option, lab_option
from emulab.errors import InputError


@click.command("label", short_help="Set labels and take them off.")
@kind_argument
@click.argument("name", shell_complete=complete_object)
@click.argument("labels", metavar="KEY=VALUE|KEY-...", nargs=-1, required=True)
@click.option("--overwrite", is_flag=True, help="A label may have another value already.")
@namespace_option
@dry_run_option
@lab_option
def command(
    kind: str, name: str, labels: tuple[str, ...], overwrite: bool, namespace: str | None, dry_run: bool, lab: str | None
) -> int:
    """Set labels of an object (KEY=VALUE), or take them off (KEY-); policies and Services follow at once.

    \b
    Examples:
      emulab label pod a1 app=web
      emulab label pod a1 app=db --overwrite
      emulab label namespace default team=blue
      emulab label node node-a disk-
    """
    wanted: dict[str, str | None] = {}
    for text in labels:
        key, equals, value = text.partition("=")
        if not equals and not (text.endswith("-") and len(text) > 1):
            raise InputError(f"{text}: KEY=VALUE or KEY- expected")
        if (key if equals else text[:-1]) in wanted:
            raise InputError(f"{key.rstrip('-')}: given twice")
        wanted[key if equals else text[:-1]] = value if equals else None
    with connect(lab) as client:
        options = {"namespace": namespace, "overwrite": overwrite, "dry_run": dry_run}
        return tell(client.ask("label", None, kind=kind, names=[name], labels=wanted, **options))
