"""A running lab and the operations on it: what a client may ask for, by name, with checked arguments.

Results are JSON values.  Operations that measure or change the lab take turns; those that only look do not wait.
"""

from __future__ import annotations

import inspect
import os
import queue
import threading
import time
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from emulab.errors import InputError, nearest
from emulab.lab import Lab

Operation = Callable[..., Any]
OPERATIONS: dict[str, Operation] = {}


def operation(work: Operation) -> Operation:
    """Make a function of (live lab, typed keyword arguments) an operation called like it."""
    OPERATIONS[work.__name__] = work
    return work


@dataclass
class Answer:
    """A result with descriptors beside it; those are closed once it is sent."""

    result: Any
    descriptors: list[int] = field(default_factory=list)


@dataclass
class LiveLab:
    """A lab with a name, and those who want to hear what happens in it."""

    name: str
    lab: Lab
    started: float = field(default_factory=time.time)
    faults: list[dict[str, Any]] = field(default_factory=list)
    verdicts: dict[str, str] = field(default_factory=dict)
    ending: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._turn = threading.RLock()
        self._listeners: list[queue.SimpleQueue[dict[str, Any] | None]] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else measures or changes the lab meanwhile."""
        with self._turn:
            yield

    def tell(self, event: str, **facts: Any) -> None:
        """Let listeners know of an event."""
        for listener in list(self._listeners):
            listener.put({"time": time.time(), "event": event, **facts})

    def listen(self) -> queue.SimpleQueue[dict[str, Any] | None]:
        listener: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._listeners.append(listener)
        return listener

    def unlisten(self, listener: queue.SimpleQueue[dict[str, Any] | None]) -> None:
        self._listeners.remove(listener)

    def close(self) -> None:
        for listener in self._listeners:
            listener.put(None)


def perform(live: LiveLab, request: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> Answer:
    """Carry out a request; raises `EmulabError` for what cannot be."""
    from emulab.control import operations  # noqa: F401  (fills OPERATIONS)

    name = request.get("do")
    if not isinstance(name, str) or name not in OPERATIONS:
        raise InputError(f"no operation {name!r}{nearest(str(name), OPERATIONS)}")
    work = OPERATIONS[name]
    arguments = _checked(name, work, {key: value for key, value in request.items() if key != "do"})
    if "emit" in inspect.signature(work).parameters:
        arguments["emit"] = emit
    result = work(live, **arguments)
    return result if isinstance(result, Answer) else Answer(result)


def _checked(name: str, work: Operation, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments, if they are what the operation's signature says."""
    hints = typing.get_type_hints(work)
    parameters = {key: p for key, p in inspect.signature(work).parameters.items() if key not in ("live", "emit")}
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


def descriptor(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
