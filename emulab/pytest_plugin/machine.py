"""Whether this machine can run labs, in the words of `emulab doctor`; asked only when a lab would not start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping


def in_ci(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is continuous integration, where tests that do not run are a failure."""
    return environment.get("CI", "").lower() not in ("", "0", "false", "no")


def program(module: str, *words: str) -> list[str]:
    """The command line of a module of emulab.  Unlike with ``-m``, a folder of tests may have a folder called emulab."""
    return [
        sys.executable,
        "-c",
        f"import runpy, sys; del sys.path[0]; runpy.run_module({module!r}, run_name='__main__')",
        *words,
    ]


def lacking(error: str) -> str:
    """What the machine lacks such that a lab failed with ``error``; nothing if that is not the machine's fault."""
    told = subprocess.run(program("emulab", "doctor", "--format=json"), capture_output=True, text=True)
    try:
        checks = json.loads(told.stdout)["checks"]
    except ValueError:  # no sandbox, no document
        return (told.stdout or told.stderr).strip().removeprefix("✗ ")
    return words(checks, error)


def words(checks: list[dict[str, str | bool]], error: str) -> str:
    """What is missing: all that every lab needs, and of the rest what the ``error`` is about."""
    missing = [one for one in checks if not one["ok"] and (one["required"] or str(one["name"]) in error)]
    return "; ".join(f"{one['name']} is missing ({one['reason']}), to get it: {one['advice']}" for one in missing)
