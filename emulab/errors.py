"""Every exception that emulab raises on purpose; each knows the exit code of the command that meets it.

    EmulabError
    +-- InputError      exit 2   what the user wrote is wrong: a topology, an option, a name
    |   +-- PluginError exit 2   a plugin or topology module is broken
    +-- MachineError    exit 3   this machine cannot: a tool, a kernel feature or a privilege is missing
    |   +-- OverloadError       a measurement says nothing: the machine was too busy
    +-- KernelError     exit 3   the kernel refused one change; carries the line that a person would have typed

Exit 1 is not an error: it says that a check found something.
"""

from __future__ import annotations

from collections.abc import Iterable


class EmulabError(Exception):
    """One line that says what, where and what was expected."""

    exit_code = 2


class InputError(EmulabError):
    """The user's input is wrong; nothing has been started.

    ``file`` and ``line`` (1-based) say where, when the input came from a file.
    """

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        self.file, self.line = file, line
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(where + message)


class PluginError(InputError):
    """A plugin or topology module raised, or broke its contract."""


class MachineError(EmulabError):
    """This machine cannot run a lab; the message says what is missing and how to get it."""

    exit_code = 3


class OverloadError(MachineError):
    """The machine was too busy, or one of its limits too low, for a measurement to mean anything; the next may succeed."""


class KernelError(EmulabError):
    """The kernel refused a change: ``line`` is the command a person would have typed for it."""

    exit_code = 3

    def __init__(self, namespace: str, line: str, reason: str) -> None:
        self.namespace, self.line, self.reason = namespace, line, reason
        super().__init__(f"{namespace}: {line}: {reason}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the known name closest to ``name``, or the list of all when none is close."""
    import difflib  # only when something is wrong: a CNI runtime waits for our start

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""
