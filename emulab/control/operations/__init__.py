"""What can be asked of a lab, one function per operation; docs/control.md lists them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from typing import Any

from emulab.control.live import OPERATIONS, Answer, Emit, LiveLab, Operation
from emulab.control.operations import (  # noqa: F401  (they fill OPERATIONS)
    attaching,
    calls,
    changing,
    expecting,
    kube,
    looking,
    measuring,
    policing,
    ports,
    recording,
    trouble,
)
from emulab.errors import InputError, nearest


def perform(live: LiveLab, request: dict[str, Any], emit: Emit, descriptors: Sequence[int] = ()) -> Answer:
    """Carry out a request; raises `EmulabError` for what cannot be.  ``descriptors`` came with it, and stay the caller's."""
    name = request.get("do")
    if not isinstance(name, str) or name not in OPERATIONS:
        raise InputError(f"no operation {name!r}{nearest(str(name), OPERATIONS)}")
    work = OPERATIONS[name]
    arguments = _checked(name, work, {key: value for key, value in request.items() if key != "do"})
    if "emit" in inspect.signature(work).parameters:
        arguments["emit"] = emit
    if "descriptors" in inspect.signature(work).parameters:
        arguments["descriptors"] = descriptors
    result = work(live, **arguments)
    return result if isinstance(result, Answer) else Answer(result)


def _checked(name: str, work: Operation, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments, if they are what the operation's signature says."""
    hints = typing.get_type_hints(work)
    parameters = {key: p for key, p in inspect.signature(work).parameters.items() if key not in ("live", "emit", "descriptors")}
    for key, value in given.items():
        if key not in parameters:
            raise InputError(f"{name}: no argument {key!r}{nearest(key, parameters)}")
        if not _fits(value, hints[key]):
            raise InputError(f"{name}: {key}: {_named(hints[key])} expected")
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in given]
    if missing:
        raise InputError(f"{name}: argument '{missing[0]}' is missing")
    return given


def _fits(value: object, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, str) and _fits(v, inner[1]) for k, v in value.items())
    if inner:
        return any(_fits(value, one) for one in inner)
    if hint is type(None):
        return value is None
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _named(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint).replace("typing.", "")
