"""`emulab delete`: objects leave a running lab."""

from __future__ import annotations

import click

from emulab.cli.kube import complete_kind, complete_object, namespace_option, tell
from emulab.cli.lab import connect, dry_run_option, lab_option
from emulab.cli.manifests import file_option, texts
from emulab.errors import InputError


@click.command("delete", short_help="Delete objects, by name or by manifest.")
@click.argument("kind", metavar="[KIND]", required=False, shell_complete=complete_kind)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_object)
@file_option
@namespace_option
@click.option("--ignore-not-found", is_flag=True, help="Nothing to delete is no mistake.")
@dry_run_option
@lab_option
def command(
    kind: str | None,
    names: tuple[str, ...],
    files: tuple[str, ...],
    namespace: str | None,
    ignore_not_found: bool,
    dry_run: bool,
    lab: str | None,
) -> int:
    """Delete objects, all or none; returns when they are gone.

    KIND/NAME will do, too, and NAMESPACE/NAME as NAME.  A namespace takes everything in it, a Deployment its pods, a node
    what is on it; a pod of a Deployment is made anew.

    \b
    Examples:
      emulab delete netpol deny-all
      emulab delete pod shop/web
      emulab delete namespace shop
      emulab delete -f shop.yaml --ignore-not-found
    """
    options = {"namespace": namespace, "ignore_not_found": ignore_not_found, "dry_run": dry_run}
    if bool(files) == bool(kind):
        raise InputError("either -f or KIND NAME expected")
    if kind and not names and "/" in kind:
        kind, _, name = kind.partition("/")
        names = (name,)
    if kind and not names:
        raise InputError(f"resource(s) were provided, but no name was specified: emulab delete {kind} NAME")
    with connect(lab) as client:
        if files:
            answer = client.ask("delete", None, texts=[list(one) for one in texts(files)], **options)
        else:
            answer = client.ask("delete", None, kind=kind, names=list(names), **options)
    return tell(answer)
