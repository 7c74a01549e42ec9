"""The options that several commands share, and what they lead to: a topology and a data plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from emulab.planning import Design

DEFAULT_TOPOLOGY, DEFAULT_PLUGIN = "flat", "flannel"


def _complete_topology(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from emulab import registry

    names = [CompletionItem(name, help=text) for name, text in registry.topologies().items() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def _complete_plugin(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from emulab import registry

    return [CompletionItem(name, help=text) for name, text in registry.plugins().items() if name.startswith(incomplete)]


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """[TOPOLOGY] --plugin P --set K=V"""
    for decorate in (
        click.option("--set", "settings", metavar="K=V", multiple=True, help="An option of the plugin; may be repeated."),
        click.option(
            "-p",
            "--plugin",
            default=DEFAULT_PLUGIN,
            show_default=True,
            metavar="P",
            shell_complete=_complete_plugin,
            help="The data plane (see `emulab plugins`).",
        ),
        click.argument("topology", default=DEFAULT_TOPOLOGY, shell_complete=_complete_topology),
    ):
        command = decorate(command)
    return command


def design(topology: str, plugin: str, settings: tuple[str, ...]) -> Design:
    """Everything that can be known before a namespace exists; every mistake of the user shows here."""
    from emulab import registry
    from emulab.planning import design as address_and_plan

    wanted = registry.topology(topology)
    return address_and_plan(wanted, registry.options(registry.plugin(plugin), settings))
