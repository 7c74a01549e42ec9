"""Questions to the lab from an event loop: each in a thread and on a connection of its own, a few at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from emulab.errors import MachineError

AT_ONCE = 8
_WAITING = 32


class Asked(Protocol):
    """What a client is, as far as it is needed here."""

    def ask(self, do: str, on_event: Callable[[dict[str, Any]], None] | None = None, **arguments: Any) -> Any: ...

    def descriptors(self) -> list[int]: ...


Connect = Callable[[], AbstractContextManager[Asked]]
Work = Callable[[Asked], Any]


class Asking:
    """``await asking(work)``: the result of ``work`` with a connection; what it raises is raised here."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def __call__(self, work: Work) -> Any:
        if self._waiting >= _WAITING:
            raise MachineError("too many questions at once")
        self._waiting += 1
        try:
            async with self._slots:
                return await self.apart(work)
        finally:
            self._waiting -= 1

    async def apart(self, work: Work) -> Any:
        """The same beside all others, for what takes long.

        The thread is a daemon, so that nobody who presses Ctrl-C has to wait for an answer.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if answer.cancelled():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        def ask() -> None:
            result, failed = None, None
            try:
                with self._connect() as lab:
                    result = work(lab)
            except BaseException as error:
                failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failed)

        threading.Thread(target=ask, daemon=True).start()
        return await answer
