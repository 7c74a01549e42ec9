"""`emulab describe`: an object in words."""

from __future__ import annotations

import click

from emulab.cli.kube import complete_object, kind_argument, namespace_option
from emulab.cli.lab import connect, lab_option


@click.command("describe", short_help="Show an object in words: what it selects, who is behind it.")
@kind_argument
@click.argument("name", shell_complete=complete_object)
@namespace_option
@lab_option
def command(kind: str, name: str, namespace: str | None, lab: str | None) -> int:
    """Describe a pod, node, namespace, deployment, daemonset, service or network policy.

    \b
    Examples:
      emulab describe pod a1
      emulab describe netpol deny-all
      emulab describe service shop/web
    """
    with connect(lab) as client:
        click.echo(client.ask("describe", kind=kind, name=name, namespace=namespace)["text"])
    return 0
