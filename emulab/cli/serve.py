"""`emulab serve`: a running lab in the browser."""

from __future__ import annotations

from ipaddress import ip_address

import click

from emulab.cli.lab import lab_argument


@click.command("serve", short_help="A running lab in the browser.")
@lab_argument
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Default: any that is free.")
@click.option(
    "--listen", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Let other machines in, at this address of yours."
)
def command(lab: str | None, port: int, listen: str) -> int:
    """Show the page of a running lab: drawing, matrix, events; trace by clicking two pods, switch faults, links and nodes.

    Prints the address to open; its token is good until this command ends.  Stays until Ctrl-C, or until the lab is taken down.

    \b
    Examples:
      emulab serve
      emulab serve flat-calico --port 8080
    """
    from emulab.control import places
    from emulab.control.client import Client
    from emulab.web import server

    place = places.find(lab)
    listener = server.listen(listen, port)
    if not ip_address(listen).is_loopback:
        click.echo(
            f"warning: whoever can reach {listen} and reads the address can break this lab, and nothing is encrypted", err=True
        )
    if place.user:
        places.become(place.user)
    server.serve(place.name, lambda: Client(place), listener, lambda url: click.echo(f"lab '{place.name}': {url}  (Ctrl-C ends)"))
    click.echo(f"lab '{place.name}' is down")
    return 0
