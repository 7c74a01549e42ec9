"""`emulab policy`: what policies mean, and whether they are enforced."""

from __future__ import annotations

from typing import Any

import click

from emulab.cli.lab import columns, complete_pod, connect, lab_option


@click.group("policy", short_help="Who may talk to whom, and who does.")
def command() -> None:
    """Ask what the network policies of a running lab mean; see `emulab why` for one flow.

    \b
    Examples:
      emulab policy matrix
      emulab policy matrix --protocol tcp --port 80
    """


@command.command("matrix")
@click.option("--port", type=int, metavar="N", help="This port of every pod; default: what each declares, else 8080.")
@click.option("--protocol", type=click.Choice(["tcp", "udp", "sctp"]), help="This protocol only; with --port, tcp by default.")
@click.option("--family", "families", type=click.Choice(["4", "6"]), multiple=True, help="This IP family only.")
@click.option("--from", "sources", multiple=True, metavar="POD", shell_complete=complete_pod, help="From this pod; repeatable.")
@click.option("--to", "destinations", multiple=True, metavar="POD", shell_complete=complete_pod, help="To this pod; repeatable.")
@click.option("--timeout", type=float, default=2.0, show_default=True, metavar="S", help="For servers that do not answer.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "html"]), default="text", show_default=True)
@lab_option
def matrix(
    port: int | None,
    protocol: str | None,
    families: tuple[str, ...],
    sources: tuple[str, ...],
    destinations: tuple[str, ...],
    timeout: float,
    output: str,
    lab: str | None,
) -> int:
    """Show for each pair of pods and port what policies say, and what came of trying it; exit code 1 where these differ.

    \b
    Examples:
      emulab policy matrix
      emulab policy matrix --port 5432 --protocol tcp --to db
      emulab policy matrix -o json | jq .summary
      emulab policy matrix -o html > matrix.html
    """
    from emulab.cli.progress import Progress

    wanted: dict[str, Any] = {
        "port": port,
        "protocol": protocol,
        "families": [int(family) for family in families] or None,
        "sources": list(sources) or None,
        "destinations": list(destinations) or None,
    }
    arguments = {key: value for key, value in wanted.items() if value is not None}
    with connect(lab) as client, Progress() as progress:

        def show(event: dict[str, Any]) -> None:
            if event.get("event") == "progress":
                progress.update(event["done"], event["total"])

        answer = client.ask("policy_matrix", show, timeout=timeout, report=output, columns=columns(), **arguments)
    click.echo(answer["report"], nl=False)
    return 0 if answer["ok"] else 1
