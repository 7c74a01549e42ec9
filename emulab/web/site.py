"""What the page asks for, and the answers: docs/serve.md has the list.  To look changes nothing; the rest is POST with JSON."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from html import escape
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from emulab.drawing import Drawing
from emulab.errors import EmulabError, InputError, MachineError, nearest
from emulab.report import drawing_svg, page
from emulab.web.asking import Asked, Asking, Connect
from emulab.web.events import STREAMS, Events

LONGEST = 16 << 10  # bytes of a request's body
_PATIENCE = 10.0  # seconds for it
_TRACING = 1.0  # seconds of a measurement for traces: any other is a click away
_MANY = 40  # pods, from which on a measurement looks at the ends only, and at UDP
_AGAIN = 5.0  # seconds, after which a first measurement that failed is tried again
_EVERY = 0.1  # seconds between two events of progress
_IDLE = ("alive", "watching")
# path -> operation, and its arguments by the names that they have here
CHANGES: dict[str, tuple[str, dict[str, str]]] = {
    "/faults/inject": ("fault_inject", {"name": "name", "at": "at"}),
    "/faults/clear": ("fault_clear", {}),
    "/link": ("link_set", {"node": "node", "up": "up"}),
    "/node/stop": ("node_stop", {"node": "name"}),
    "/node/start": ("node_start", {"node": "name"}),
}
TRACE = {"from": "source", "to": "destination", "protocol": "protocol", "port": "port", "family": "family"}


class Site:
    """One lab's page: ``document`` is what the last measurement recorded, ``events`` are the lab's and those of measuring."""

    def __init__(self, name: str, connect: Connect) -> None:
        self.name, self.events = name, Events()
        self.document: dict[str, Any] | None = None
        self.measurements = 0
        self._ask = Asking(connect)
        self._measuring: dict[str, int] | None = None
        self._failure = ""  # why the last measurement was none
        self._changes = self._measured_at = 0
        self._tasks: set[asyncio.Task[None]] = set()
        routes = [
            Route("/", self._page),
            Route("/state", self._state),
            Route("/faults", self._faults),
            Route("/drawing", self._drawing),
            Route("/report", self._report),
            Route("/events", self._events),
            Route("/measure", _answered(self._measure), methods=["POST"]),
            Route("/trace", _answered(self._trace), methods=["POST"]),
            *(Route(path, _answered(self._change), methods=["POST"]) for path in CHANGES),
        ]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: _bare, EmulabError: _refused})

    async def start(self, ready: Callable[[], None], gone: Callable[[], None]) -> None:
        """Begin to listen to the lab and to measure it; ``gone`` is called when it is no more."""
        loop, listening = asyncio.get_running_loop(), asyncio.Event()

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "watching":
                loop.call_soon_threadsafe(listening.set)
            if event["event"] not in _IDLE:
                loop.call_soon_threadsafe(self._heard, event)

        async def watch() -> None:
            try:
                with contextlib.suppress(MachineError):  # its process was killed
                    await self._ask.apart(lambda lab: lab.ask("watch", on_event))
            finally:
                self.events.tell({"time": time.time(), "event": "lab gone", "lab": self.name})
                gone()

        watching = self._begin(watch())
        heard = asyncio.ensure_future(listening.wait())
        await asyncio.wait({watching, heard}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            heard.cancel()
            await watching
            raise MachineError(f"lab '{self.name}' went away")
        ready()
        self._begin(self._first())

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the event loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)
        return task

    def _heard(self, event: dict[str, Any]) -> None:
        self._changes += event["event"] != "verdict changed"
        self.events.tell(event)

    async def _state(self, _: Request) -> Response:
        found = await self._ask(lambda lab: lab.ask("inspect"))
        return JSONResponse({"schema": "emulab/serve/1", "lab": found, **self.standing()})

    async def _faults(self, _: Request) -> Response:
        """By itself: in large labs it takes seconds to find all places."""
        return JSONResponse(await self._ask(lambda lab: lab.ask("fault_list")))

    def standing(self) -> dict[str, Any]:
        """What is known of the lab: how many measurements, how far one is, whether the lab has changed since the last."""
        changed = self._changes != self._measured_at
        return {"measurements": self.measurements, "measuring": self._measuring, "changed": changed}

    async def _page(self, _: Request) -> Response:
        if self.document is None:
            return self._wait()
        served = {"lab": self.name, "last": self.events.last}
        scripts = (f"window.served = {json.dumps(served)};", _source("live.js"))
        # In a thread, as all that takes long in large labs.
        html = await asyncio.to_thread(
            page.render, self.document, scripts=scripts, styles=(_source("live.css"),), connect="'self'"
        )
        # What may be loaded and run is in the page itself, by hashes; a header can say more than a page may.
        policy = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})

    def _wait(self) -> Response:
        """Until the first measurement is there."""
        told = self._failure or "measuring" + (" {done} of {total}".format(**self._measuring) if self._measuring else "")
        text = f'<!doctype html><html lang="en"><title>{escape(self.name)}</title><p role="status">Lab {escape(self.name)}: '
        return Response(f"{text}{escape(told)} …</p></html>\n", media_type="text/html", headers={"Refresh": "1"})

    async def _drawing(self, _: Request) -> Response:
        svg = await self._ask(lambda lab: drawing_svg.render(Drawing.read(lab.ask("drawing"))))
        return Response(svg, media_type="image/svg+xml")

    async def _report(self, _: Request) -> Response:
        document = self.document
        if document is None:
            return Response(status_code=204)
        return await asyncio.to_thread(lambda: JSONResponse({**document, "svg": page.drawing(document)}))

    async def _events(self, request: Request) -> Response:
        if self.events.streams >= STREAMS:
            raise HTTPException(503)
        seen = request.headers.get("last-event-id", "")
        stream = self.events.stream(int(seen) if seen.isdecimal() and len(seen) < 16 else 0)
        return StreamingResponse(stream, media_type="text/event-stream")

    async def _measure(self, _: str, given: Mapping[str, Any]) -> Response:
        _arguments(given, {})
        if self._measuring is None:
            self._begin(self._record())
            await asyncio.sleep(0)
        return JSONResponse(self.standing(), 202)

    async def _first(self) -> None:
        """There is no page without a measurement."""
        while self.document is None:
            await self._record()
            if self.document is None:
                await asyncio.sleep(_AGAIN)

    async def _record(self) -> None:
        """Measure the lab anew; everybody hears of it."""
        loop, told = asyncio.get_running_loop(), 0.0

        def on_event(event: dict[str, Any]) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told > _EVERY:
                told = now
                loop.call_soon_threadsafe(self._progress, event)

        self._measuring, changes = {"done": 0, "total": 0}, self._changes
        self.events.tell({"event": "measuring", **self._measuring})
        try:
            document = await self._ask.apart(lambda lab: _measured(lab, on_event))
        except EmulabError as error:
            self._measuring, self._failure = None, str(error)
            self.events.tell({"time": time.time(), "event": "measurement failed", "error": str(error)})
            return
        self.document, self._measuring, self._measured_at, self._failure = document, None, changes, ""
        self.measurements += 1
        self.events.tell({"time": time.time(), "event": "measured", **document["summary"]})

    def _progress(self, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and self._measuring is not None:
            self._measuring = {"done": event["done"], "total": event["total"]}
            self.events.tell({"event": "measuring", **self._measuring})

    async def _trace(self, _: str, given: Mapping[str, Any]) -> Response:
        arguments = _arguments(given, TRACE)

        def trace(lab: Asked) -> dict[str, Any]:
            answer = lab.ask("trace", report="json", pcap=True, **arguments)
            (packets,) = lab.descriptors()
            with os.fdopen(packets, "rb") as found:
                return {**json.loads(answer["report"]), "packets": base64.b64encode(found.read()).decode()}

        return JSONResponse(await self._ask(trace))

    async def _change(self, path: str, given: Mapping[str, Any]) -> Response:
        do, names = CHANGES[path]
        arguments = _arguments(given, names)
        return JSONResponse(await self._ask(lambda lab: lab.ask(do, **arguments)))


def _measured(lab: Asked, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """A whole measurement; of many pods one that takes seconds."""
    quick = {"protocols": ["udp"], "taps": "ends"} if len(lab.ask("names")["pods"]) > _MANY else {}
    found: dict[str, Any] = lab.ask("record", on_event, seconds=_TRACING, **quick)
    return found


def _source(name: str) -> str:
    return resources.files("emulab.web").joinpath(name).read_text(encoding="utf-8")


def _arguments(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """An operation's arguments, which checks them itself; null is as if it were not there."""
    for key in given:
        if key not in names:
            raise InputError(f"no argument {key!r}{nearest(key, names)}")
    return {names[key]: value for key, value in given.items() if value is not None}


def _answered(work: Callable[[str, Mapping[str, Any]], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A handler of POST: ``work`` is given the path and the object in the body."""

    async def handle(request: Request) -> Response:
        return await work(request.scope["path"], await _body(request))

    return handle


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; nothing else is read, in no other type, not much of it, and not for long."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415)
    try:
        data = await asyncio.wait_for(_read(request), _PATIENCE)
    except asyncio.TimeoutError:
        raise HTTPException(408) from None
    except ClientDisconnect:
        raise HTTPException(400) from None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError("a JSON object expected") from None
    if not isinstance(found, dict):
        raise InputError("a JSON object expected")
    return found


async def _read(request: Request) -> bytes:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > LONGEST:
            raise HTTPException(413)
    return data


async def _bare(_: Request, error: Exception) -> Response:
    """No page: a status is all that is said."""
    return Response(status_code=error.status_code if isinstance(error, HTTPException) else 500)


async def _refused(_: Request, error: Exception) -> Response:
    """The lab's own words."""
    code = error.exit_code if isinstance(error, EmulabError) else 0
    return JSONResponse({"error": str(error)}, 400 if code == 2 else 503)
