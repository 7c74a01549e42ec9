"""`emulab completion`: the script that teaches a shell our words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", short_help="The completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print the completion script for SHELL.

    \b
    Examples:
      source <(emulab completion bash)
      emulab completion zsh > "${fpath[1]}/_emulab"
      emulab completion fish > ~/.config/fish/completions/emulab.fish
    """
    completion = get_completion_class(shell)
    assert completion is not None
    root = context.find_root()
    click.echo(completion(root.command, {}, "emulab", "_EMULAB_COMPLETE").source())
    return 0
