"""The options that say what to probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from emulab.cli.lab import complete_any

if TYPE_CHECKING:
    from emulab.control.client import Client, Here

PROTOCOLS = ("icmp", "udp", "tcp")


def probing_options(command: Callable[..., Any], protocols: tuple[str, ...] = PROTOCOLS) -> Callable[..., Any]:
    """--from --to --protocol --port --family --size --count --taps --timeout"""
    every = {"shell_complete": complete_any, "multiple": True, "metavar": "NAME"}
    for decorate in (
        click.option("--timeout", type=float, default=2.0, show_default=True, metavar="S", help="For all that stays silent."),
        click.option("--taps", type=click.Choice(["every", "ends"]), default="every", show_default=True, help="Where to look."),
        click.option("--count", type=int, default=1, show_default=True, metavar="N", help="Flows of each sort."),
        click.option("--size", type=int, metavar="BYTES", help="Size of the IP packet, for ICMP and UDP."),
        click.option("--family", "families", type=click.Choice(["4", "6"]), multiple=True, help="This IP family only."),
        click.option("--port", type=int, metavar="N", help="The servers' port, default 8080; of a Service, its own."),
        click.option("--protocol", "protocols", type=click.Choice(protocols), multiple=True, help="May be repeated."),
        click.option("--to", "destinations", help="To this pod, Service (svc/NAME), or internet; may be repeated.", **every),  # type: ignore[arg-type]
        click.option("--from", "sources", help="From this pod or node, or internet to Services; may be repeated.", **every),  # type: ignore[arg-type]
    ):
        command = decorate(command)
    return command


def ask(client: Client | Here, wanted: dict[str, Any], do: str = "verify", **more: Any) -> dict[str, Any]:
    """Have it probed, with a bar if it takes long; returns the answer."""
    from emulab.cli.progress import Progress

    arguments = {key: list(value) if isinstance(value, tuple) else value for key, value in wanted.items()}
    arguments["families"] = [int(family) for family in arguments["families"]]
    arguments = {key: value for key, value in {**arguments, **more}.items() if value not in (None, [])}
    with Progress() as progress:

        def show(event: dict[str, Any]) -> None:
            if event.get("event") == "progress":
                progress.update(event["done"], event["total"])

        answer: dict[str, Any] = client.ask(do, show, **arguments)
    return answer
