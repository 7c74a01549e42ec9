"""Who is attached: a container, by its id, with one interface in its network namespace.  All of it ends up in the environment
of plugins, and in names of files; so it is held to the specification (sections 2, "Parameters", and 3, "Attachment parameters").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from emulab.errors import InputError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")
_IFNAME_MAX = 15  # IFNAMSIZ of linux/if.h, without the final zero
_FILE_MAX = 255  # NAME_MAX


class _Parameters(NamedTuple):
    container_id: str
    netns: str
    ifname: str
    args: Mapping[str, str]


class Attachment(_Parameters):
    """``netns`` is the path of the network namespace; empty when it is gone, which only DEL allows.

    ``args`` are CNI_ARGS.  Raises `InputError` for what the specification does not allow.
    """

    __slots__ = ()

    def __new__(
        cls, container_id: str, netns: str = "", ifname: str = "eth0", args: Mapping[str, str] | None = None
    ) -> Attachment:
        checked_name("container id", container_id)
        checked_ifname(ifname)
        if netns and (not netns.startswith("/") or not netns.isprintable()):
            raise InputError(f"network namespace {netns!r}: an absolute path expected")
        for key, value in (args or {}).items():
            if not key or re.search(r"[;=\0\n]", key) or re.search(r"[;\0\n]", value):
                raise InputError(f"CNI_ARGS {key!r}={value!r}: keys are without ; and =, values without ;")
        return super().__new__(cls, container_id, netns, ifname, args or {})

    def __str__(self) -> str:
        return f"{self.container_id}:{self.ifname}"


def checked_name(what: str, name: str) -> str:
    """``name``, if it may be a container id or a network's name: letters, digits, ``_ . -``, a letter or digit first."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise InputError(f"{what} {name!r}: letters, digits, '_', '.' and '-' expected, the first a letter or digit")
    if len(name) > _FILE_MAX:
        raise InputError(f"{what} {name[:40]!r}…: {len(name)} characters are too many for a file's name")
    return name


def checked_ifname(name: str) -> str:
    """``name``, if an interface may have it."""
    if (
        not name
        or name in (".", "..")
        or re.search(r"[/:\s\0]", name)
        or not name.isprintable()
        or len(name.encode()) > _IFNAME_MAX
    ):
        raise InputError(f"interface name {name!r}: 1 to {_IFNAME_MAX} bytes expected, without '/', ':' and white space")
    return name


def cached_name(network: str, attachment: Attachment) -> str:
    """The file that remembers an attachment, named as libcni names it."""
    name = f"{network}-{attachment.container_id}-{attachment.ifname}"
    if len(name.encode()) > _FILE_MAX:
        raise InputError(f"network {network}, container {attachment.container_id[:40]}…: together too long for a file's name")
    return name
