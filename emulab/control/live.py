"""A running lab and the operations on it: what a client may ask for, by name, with checked arguments.

Results are JSON values.  Operations that measure or change the lab take turns; those that only look do not wait.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from emulab.lab import Lab

Operation = Callable[..., Any]
Emit = Callable[[dict[str, Any]], None]  # sends an event before the answer
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


def progress(emit: Emit) -> Callable[[int, int], None]:
    """What is told how many are done, of how many in all, and emits it."""
    return lambda done, total: emit({"event": "progress", "done": done, "total": total})


def descriptor(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
