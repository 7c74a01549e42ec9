"""`emulab apply`: the objects of manifests, in a running lab."""

from __future__ import annotations

import click

from emulab.cli.kube import namespace_option, tell
from emulab.cli.lab import connect, dry_run_option, lab_option
from emulab.cli.manifests import manifest_options, texts
from emulab.errors import InputError


@click.command("apply", short_help="Create or replace the objects of Kubernetes manifests.")
@manifest_options
@namespace_option
@dry_run_option
@lab_option
def command(files: tuple[str, ...], ignore_unknown: bool, namespace: str | None, dry_run: bool, lab: str | None) -> int:
    """Apply manifests (YAML or JSON) to a lab; returns when they are in force.

    Kinds: Namespace, Node, Pod, Deployment, DaemonSet, Service, EndpointSlice, NetworkPolicy, and List.  An object that is
    there is replaced as a whole.  It is all or nothing: one mistake, and nothing changes.

    \b
    Examples:
      emulab apply -f shop.yaml
      emulab apply -f policies/ -n shop
      emulab apply -f deny.yaml --dry-run
      emulab get netpol -o yaml | emulab apply -f -
    """
    if not files:
        raise InputError("must specify -f")
    with connect(lab) as client:
        options = {"namespace": namespace, "ignore_unknown": ignore_unknown, "dry_run": dry_run}
        return tell(client.ask("apply", None, texts=[list(one) for one in texts(files)], **options))
