"""What a lab ran on: the kernel, and the tools and libraries that have a say in what comes out."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata

from emulab import __version__

_TOOLS = {"ip": ("ip", "-V"), "nft": ("nft", "--version"), "ethtool": ("ethtool", "--version"), "ping": ("ping", "-V")}
_LIBRARIES = ("mininet", "scapy")
_SECONDS = 2.0


def versions() -> dict[str, str]:
    """Name -> version, in words; "missing" for a tool that is not there, "silent" for one that does not say it in time."""
    return {
        "emulab": __version__,
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "system": _system(),
        "user": _user(),
        "python": platform.python_version(),
        **{name: _library(name) for name in _LIBRARIES},
        **{name: _tool(words) for name, words in _TOOLS.items()},
    }


def _system() -> str:
    with suppress(OSError, ValueError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return "unknown"


def _user() -> str:
    """Inside a sandbox everybody is root; its user namespace tells who is it outside."""
    with suppress(OSError), open("/proc/self/uid_map") as mapping:
        if mapping.read().split()[1] != "0":
            return "an ordinary user"
    return "root" if os.geteuid() == 0 else "an ordinary user"


def _library(name: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return "missing"


def _tool(words: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False)
    except OSError:
        return "missing"
    except subprocess.TimeoutExpired:
        return "silent"
    return next(iter((done.stdout or done.stderr).splitlines()), "silent").strip()
