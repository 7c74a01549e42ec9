"""Amounts as people type them, ``10mbit``, ``50ms``, ``1%``: a number and a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping

from emulab.errors import InputError

RATES: Mapping[str, float] = {"": 1, "bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}  # bit/s, as in tc(8)
TIMES: Mapping[str, float] = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0}
SHARES: Mapping[str, float] = {"": 1.0, "%": 0.01}


def quantity(what: str, text: str, units: Mapping[str, float]) -> float:
    """``text`` in the units' base.  Raises `InputError`, which calls it ``what``."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)\s*([a-z%]*)", text.strip().lower(), re.ASCII)
    if not found or found[2] not in units:
        raise InputError(f"{what} {text}: a number and one of {', '.join(filter(None, units))} expected")
    return float(found[1]) * units[found[2]]
