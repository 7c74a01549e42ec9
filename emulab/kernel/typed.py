"""Command lines carried out where they would be typed: a program per line, no shell."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable

from emulab.errors import KernelError
from emulab.faults import Step
from emulab.kernel.namespaces import Namespaces, entered


def type_lines(namespaces: Namespaces, steps: Iterable[Step]) -> None:
    """Run each line in its namespace, one after the other.  Raises `KernelError` with the first that fails, and its words."""
    for step in steps:
        try:
            with entered(namespaces[step.namespace].net):  # a child starts in its parent's namespace
                done = subprocess.run(shlex.split(step.line), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except OSError as error:  # which of several, if it is not installed, hangs on what folders the user may read
            raise KernelError(step.namespace, step.line, f"cannot run {error.filename}: {error.strerror}") from None
        if done.returncode:
            raise KernelError(step.namespace, step.line, done.stderr.strip() or f"exit {done.returncode}")
