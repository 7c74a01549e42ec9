"""The command line: parse, call one function, print.  `main` is the `emulab` command.

Each command is a module of its own, imported when it is asked for, so that `emulab --help` starts quickly.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

import click

from emulab import __version__
from emulab.errors import EmulabError, nearest

COMMANDS = (
    *("run", "check", "compare", "plan", "diagram", "plugins", "topologies", "doctor", "completion"),
    *("up", "down", "ls", "inspect", "exec", "shell", "cli", "get", "capture", "probe", "verify"),
    *("apply", "delete", "label", "describe"),
    *("pod", "node", "link", "partition", "heal", "watch", "drift", "repair", "trace", "fault", "diagnose"),
    *("why", "policy", "report", "serve", "cni"),
)
INTERRUPTED = 130
BROKEN = 70  # EX_SOFTWARE of sysexits.h: a mistake of ours


class Commands(click.Group):
    """The commands by name, loaded on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"emulab.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command '{args[0]}'{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="emulab %(version)s")
def emulab() -> None:
    """See and check how Kubernetes pods talk: every packet, every hop, no cluster.

    \b
    Examples:
      sudo emulab run                             flannel on three nodes
      sudo emulab run --plugin calico             the same cluster, Calico's way
      sudo emulab run non-flat --plugin nat       what a network that is not flat does
      emulab plan --plugin weave                  what would be typed, without typing it
      emulab doctor                               what this machine lacks, and how to get it

    Exit codes: 0 as expected, 1 a check found something, 2 bad input, 3 this machine cannot, 130 interrupted.
    """


def guarded(work: Callable[[], int]) -> int:
    """Run ``work`` and return its exit code; whatever it raises becomes one line on stderr and a code."""
    try:
        return work()
    except EmulabError as error:
        complain(str(error))
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx:
            complain(error.format_message())
            click.echo(f"Try: {error.ctx.command_path} --help", err=True)
        else:
            complain(error.format_message())
        return error.exit_code
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # `emulab … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except Exception as error:
        if (signal := _wrapped(error)) is not None:
            return guarded(lambda: _raise(signal))
        if os.environ.get("EMULAB_DEBUG"):
            raise
        complain(f"this is a mistake in emulab: {type(error).__name__}: {error} (EMULAB_DEBUG=1 shows where)")
        return BROKEN


def _wrapped(error: Exception) -> BaseException | None:
    """The interruption that Python 3.11 and older wrap in an error when it comes while a class is made."""
    return error.__cause__ if not isinstance(error.__cause__, Exception) else None


def _raise(error: BaseException) -> int:
    raise error


def complain(message: str) -> None:
    """One line on stderr."""
    click.echo(click.style("error: ", fg="red", bold=True) + " ".join(message.splitlines()), err=True)


def main() -> None:
    """The `emulab` command."""

    def work() -> int:
        code = emulab.main(prog_name="emulab", standalone_mode=False)
        return code if isinstance(code, int) else 0

    sys.exit(guarded(work))
