"""Requests to the pages of `emulab serve` without a network: each header as it is given, and a lab that is none."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.cookies import SimpleCookie
from types import TracebackType
from typing import Any

from emulab.errors import MachineError
from emulab.web.guard import Guard
from emulab.web.site import Site

HOST = "127.0.0.1:8080"
NO_REPORT: dict[str, Any] = {"verdict": "", "findings": [], "drawing": None}


@dataclass(frozen=True)
class Answer:
    """What came: headers by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeLab:
    """Answers ``results`` by operation, an exception by raising it; ``asked`` is what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.over = threading.Event()
        self.results: dict[str, Any] = {
            "inspect": {"name": "fake", "nodes": [], "pods": [], "links": []},
            "names": {"pods": ["a1", "c1"], "nodes": []},
            "fault_list": {"faults": [], "injected": []},
            "fault_inject": {"name": "missing-route"},
            "fault_clear": {"cleared": []},
            "link_set": {"lines": {}},
            "node_stop": {"lines": {}},
            "node_start": {"lines": {}},
            "record": {"schema": "emulab/report/1", "summary": {"flows": 2}, "title": "</script>", **NO_REPORT},
            "trace": {"ok": True, "report": '{"schema": "emulab/trace/1"}'},
        }
        self._files: list[int] = []
        self.tell: Callable[[dict[str, Any]], None] = lambda event: None

    def __call__(self) -> FakeLab:
        return self

    def __enter__(self) -> FakeLab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        pass

    def ask(self, do: str, on_event: Callable[[dict[str, Any]], None] | None = None, **arguments: Any) -> Any:
        if do == "watch":
            assert on_event
            self.tell = on_event
            on_event({"event": "watching"})
            self.over.wait()
            raise MachineError("lab 'fake' went away")
        self.asked.append((do, arguments))
        result = self.results[do]
        if isinstance(result, BaseException):
            raise result
        if do == "trace":
            self._files = [os.memfd_create("packets")]
            os.pwrite(self._files[0], b"pcapng", 0)
        if do == "record":
            assert on_event
            on_event({"event": "progress", "done": 1, "total": 2})
        return result

    def descriptors(self) -> list[int]:
        taken, self._files = self._files, []
        return taken


class Visitor:
    """Somebody who sends requests to one site, by default as the page does; ``lab`` is behind it."""

    def __init__(self, host: str = "127.0.0.1", name: str = "fake") -> None:
        self.lab = FakeLab()
        self.sent: list[Any] = []  # the last answer's messages
        self.site = Site(name, self.lab)
        self.guard = Guard(self.site.app, host)
        entrance = self.get(f"/?token={self.guard.token}")
        self.entrance = entrance
        ((_, morsel),) = SimpleCookie(entrance.headers["set-cookie"]).items()
        self.cookie, self.path = f"emulab={morsel.value}", morsel["path"]

    def get(self, target: str, *headers: tuple[str, str], **more: Any) -> Answer:
        return self.ask("GET", target, [("host", HOST), *headers], **more)

    def look(self, path: str, *headers: tuple[str, str], **more: Any) -> Answer:
        """GET what is under the hidden path, with the cookie."""
        return self.get(self.path + path, ("cookie", self.cookie), *headers, **more)

    def post(self, path: str, body: Any = None, *headers: tuple[str, str], without: str = "", **more: Any) -> Answer:
        """POST as the page does, but ``without`` one of its headers."""
        usual = {"host": HOST, "cookie": self.cookie, "origin": f"http://{HOST}", "content-type": "application/json"}
        usual = {name: value for name, value in usual.items() if name != without and name not in dict(headers)}
        data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        return self.ask("POST", self.path + path, [*usual.items(), *headers], data, **more)

    def ask(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: bytes = b"",
        arrived: tuple[str, int] = ("127.0.0.1", 8080),
        kind: str = "http",
    ) -> Answer:
        """One request through the guard; ``arrived`` is the address at which it came in."""
        path, _, query = target.partition("?")
        scope = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode("utf-8"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            "server": arrived,
            "client": ("127.0.0.1", 50000),
        }
        self.sent = sent = []
        pieces = [body[at : at + 4096] for at in range(0, len(body), 4096)] or [b""]

        async def receive() -> dict[str, Any]:
            if not pieces:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, receive, send))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        assert len(found) == len(sent[0]["headers"])
        return Answer(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))
