"""`emulab why`: allowed or denied, by which policy, and what the kernel says."""

from __future__ import annotations

from typing import Any

import click

from emulab.cli.lab import columns, complete_any, connect, format_option, lab_option


@click.command("why", short_help="Say why a flow is allowed or denied, by policies and by the kernel.")
@click.argument("source", metavar="FROM", shell_complete=complete_any)
@click.argument("destination", metavar="TO", shell_complete=complete_any)
@click.option("--protocol", type=click.Choice(["tcp", "udp", "icmp"]), default="tcp", show_default=True)
@click.option("--port", type=int, metavar="N", help="Destination port; default: the first that TO declares, else 8080.")
@click.option("--family", type=click.Choice(["4", "6"]), help="IPv4 or IPv6; default: the first that both have.")
@click.option("--timeout", type=float, default=1.0, show_default=True, metavar="S", help="How long a lost packet is waited for.")
@format_option
@lab_option
def command(
    source: str,
    destination: str,
    protocol: str,
    port: int | None,
    family: str | None,
    timeout: float,
    format_: str,
    lab: str | None,
) -> int:
    """Say which policies and rules allow or deny a flow, at which end; send a packet, and show the rules that decided on it.

    FROM is a pod or node, TO a pod, a node, or internet.  Exit code 0 when words and evidence agree, be it allowed or denied;
    1 when the kernel does otherwise than the policies say.

    \b
    Examples:
      emulab why a1 c1
      emulab why a1 c1 --protocol udp --port 53
      emulab why a1 internet --family 6
      emulab why a1 c1 --format json
    """
    wanted = {"protocol": protocol, "port": port, "family": int(family) if family else None, "timeout": timeout}
    arguments: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    with connect(lab) as client:
        answer = client.ask("why", source=source, destination=destination, report=format_, columns=columns(), **arguments)
    click.echo(answer["report"], nl=False)
    return 0 if answer["ok"] else 1
