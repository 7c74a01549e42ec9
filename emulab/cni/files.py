"""Network configurations on disk: /etc/cni/net.d and the like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emulab.cni import config
from emulab.cni.config import NetworkList
from emulab.errors import InputError

SUFFIXES = (".conflist", ".conf", ".json")


def load(path: Path) -> NetworkList:
    """The network that a file describes, with the plugins of the folder beside it that is named as the network (section 1)."""
    text = _text(path)
    network = config.read(text, str(path))
    beside = path.parent / network.name
    if "plugins" not in network.raw or not beside.is_dir():
        return network
    return config.read(text, str(path), ((str(one), _text(one)) for one in _sorted(beside)))


def networks(folder: Path) -> Iterator[NetworkList]:
    """The networks of a folder, by the names of their files; runtimes such as containerd take the first."""
    return (load(path) for path in _sorted(folder))


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", str(folder)) from None


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", str(path)) from None
