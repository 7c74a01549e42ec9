"""`emulab trace`: one packet's whole story."""

from __future__ import annotations

import os
import shutil
from typing import IO, Any

import click

from emulab.cli.lab import columns, complete_any, connect, lab_option
from emulab.errors import InputError


@click.command("trace", short_help="One packet's whole story: every hop, and why.")
@click.argument("source", metavar="FROM", shell_complete=complete_any)
@click.argument("destination", metavar="TO", shell_complete=complete_any)
@click.option("--protocol", type=click.Choice(["icmp", "udp", "tcp"]), help="Default: icmp; of a Service that of its port.")
@click.option("--port", type=int, metavar="N", help="Destination port of UDP and TCP; default 8080, or a Service's first.")
@click.option("--family", type=click.Choice(["4", "6"]), help="IPv4 or IPv6; default: the first that both have.")
@click.option("--size", type=int, metavar="BYTES", help="Size of the IP packet, for ICMP and UDP.")
@click.option("--timeout", type=float, default=1.0, show_default=True, metavar="S", help="How long a lost packet is waited for.")
@click.option("--format", "format_", type=click.Choice(["text", "json", "mermaid"]), default="text", show_default=True)
@click.option("-w", "--write", "file", metavar="FILE", help="Write the packets as pcapng too, a comment to each.")
@click.option("-q", "--quiet", is_flag=True, help="Only what became of it, and why.")
@lab_option
def command(
    source: str,
    destination: str,
    protocol: str | None,
    port: int | None,
    family: str | None,
    size: int | None,
    timeout: float,
    format_: str,
    file: str | None,
    quiet: bool,
    lab: str | None,
) -> int:
    """Send one packet and tell its way: each hop with its headers, what changed there and what decided it; the way back too.

    FROM is a pod, a node or internet, TO too, or a Service: svc/web, svc/NAMESPACE/web, web.NAMESPACE.  Exit code 1 when it
    does not arrive.

    \b
    Examples:
      emulab trace a1 c1
      emulab trace a1 c1 --protocol tcp --port 8080
      emulab trace a1 c1 --size 1451
      emulab trace a1 internet --format json
      emulab trace node-a c1 --format mermaid
      emulab trace a1 c1 -w story.pcapng
      emulab trace a1 svc/web --port 80
    """
    wanted = {"protocol": protocol, "port": port, "family": int(family) if family else None, "size": size, "timeout": timeout}
    arguments: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    arguments.update(source=source, destination=destination, report=format_, quiet=quiet, columns=columns())
    out = _opened(file) if file else None
    with connect(lab) as client:
        answer = client.ask("trace", pcap=out is not None, **arguments)
        if out is not None:
            (packets,) = client.descriptors()
            with out, os.fdopen(packets, "rb") as found:
                shutil.copyfileobj(found, out)
    click.echo(answer["report"], nl=False)
    return 0 if answer["ok"] else 1


def _opened(file: str) -> IO[bytes]:
    try:
        return open(file, "wb")
    except OSError as error:
        raise InputError(f"{file}: cannot write there: {error.strerror}") from None
