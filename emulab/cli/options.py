"""The options that several commands share, and what they lead to: a topology and a data plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from emulab.cli.manifests import manifest_options

if TYPE_CHECKING:
    from emulab.planning import Design

DEFAULT_TOPOLOGY, DEFAULT_PLUGIN = "flat", "flannel"


def complete_topology(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from emulab import registry

    names = [CompletionItem(name, help=text) for name, text in registry.topologies().items() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def complete_plugin(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from emulab import registry

    return [CompletionItem(name, help=text) for name, text in registry.plugins().items() if name.startswith(incomplete)]


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """[TOPOLOGY] --plugin P --set K=V -f FILE"""
    for decorate in (
        click.option("--set", "settings", metavar="K=V", multiple=True, help="An option of the plugin; may be repeated."),
        click.option(
            "-p",
            "--plugin",
            default=DEFAULT_PLUGIN,
            show_default=True,
            metavar="P",
            shell_complete=complete_plugin,
            help="The data plane (see `emulab plugins`).",
        ),
        manifest_options,
        click.argument("topology", required=False, shell_complete=complete_topology),
    ):
        command = decorate(command)
    return command


def design(
    topology: str | None, plugin: str, settings: tuple[str, ...], files: tuple[str, ...] = (), ignore_unknown: bool = False
) -> Design:
    """Everything that can be known before a namespace exists; every mistake of the user shows here.

    With manifests (``files``) and no topology named there are the nodes of the default one, and no pods but theirs.
    """
    from emulab import registry
    from emulab.planning import design as address_and_plan

    wanted = registry.topology(topology or DEFAULT_TOPOLOGY)
    plane = registry.options(registry.plugin(plugin), settings)
    if files:
        from emulab.cli import manifests

        wanted = manifests.begun(wanted, topology is not None, files, ignore_unknown)
        manifests.warn(
            [f"{policy.kind} {policy.key}: {lacks}" for policy in wanted.objects.policies if (lacks := plane.unenforced(policy))]
        )
    return address_and_plan(wanted, plane)
