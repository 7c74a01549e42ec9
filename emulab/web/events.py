"""What happens, for everybody who looks on: one ring of the latest events, however many read it and however slowly."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

KEPT = 500  # events: those who are further behind, or come back later, are told that they missed some
STREAMS = 32
_PULSE = 10.0  # seconds without an event, after which a stream says that it is alive


class Events:
    """``kept`` are the latest with their numbers, up to ``last``.  All of it belongs to one event loop."""

    def __init__(self) -> None:
        self.kept: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT)
        self.last, self._news, self._over = 0, asyncio.Event(), False
        self.streams = 0

    def tell(self, event: dict[str, Any]) -> None:
        self.last += 1
        self.kept.append((self.last, event))
        self._wake()

    def close(self) -> None:
        """No more: streams end when they have sent the rest."""
        self._over = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def stream(self, seen: int) -> AsyncIterator[bytes]:
        """Events after number ``seen`` as server-sent events (HTML standard, section 9.2), until they end."""
        self.streams += 1
        try:
            yield b"retry: 1000\n\n"
            while True:
                news = self._news
                if seen > self.last:  # of another server at this address
                    seen = 0
                first = self.kept[0][0] if self.kept else self.last + 1
                if seen + 1 < first:
                    yield _record(first - 1, {"event": "missed", "number": first - 1 - seen})
                for number, event in list(self.kept):
                    if number > seen:
                        yield _record(number, event)
                        seen = number
                seen = max(seen, first - 1)
                if seen < self.last:
                    continue
                if self._over:
                    return
                try:
                    await asyncio.wait_for(news.wait(), _PULSE)
                except asyncio.TimeoutError:
                    yield b":\n\n"
        finally:
            self.streams -= 1


def _record(number: int, event: dict[str, Any]) -> bytes:
    return f"id: {number}\ndata: {json.dumps(event)}\n\n".encode()
