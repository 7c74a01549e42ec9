"""The versions of the protocol, and which one two parties speak."""

from __future__ import annotations

import re
from collections.abc import Iterable

from emulab.errors import InputError

ALL = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST = ALL[0]  # what a configuration without a version is


def key(version: str) -> tuple[int, ...]:
    """For comparing; raises `InputError` for what is not MAJOR.MINOR.PATCH."""
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}", version):
        raise InputError(f"CNI version {version!r}: three numbers with dots between them expected, such as 1.0.0")
    return tuple(map(int, version.split(".")))


def at_least(version: str, least: str) -> bool:
    return key(version) >= key(least)


def highest(*sides: Iterable[str]) -> str | None:
    """The highest version that all ``sides`` speak, None when there is none."""
    common = set.intersection(*(set(side) for side in sides))
    return max(common, key=key) if common else None
