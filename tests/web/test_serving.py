"""The server of `emulab serve` on a real socket, before a lab that is none: who stalls or talks nonsense holds nobody up."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.cookies import SimpleCookie

import pytest
from asking_web import FakeLab

from emulab.errors import InputError
from emulab.web import events, server


class Served:
    """A server in a thread, with a visitor's cookie."""

    def __init__(self) -> None:
        self.lab = FakeLab()
        listener = server.listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        announced, said = threading.Event(), []

        def announce(url: str) -> None:
            said.append(url)
            announced.set()

        self.thread = threading.Thread(target=server.serve, args=("fake", self.lab, listener, announce))
        self.thread.start()
        assert announced.wait(10)
        self.url = said[0]
        _, headers, _ = self.ask("GET", self.url.partition(str(self.port))[2])
        ((_, morsel),) = SimpleCookie(headers["set-cookie"]).items()
        self.path, self.cookie = morsel["path"], f"emulab={morsel.value}"

    def ask(self, method: str, target: str, body: str | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def state(self) -> int:
        return self.ask("GET", self.path + "state", Cookie=self.cookie)[0]

    def open(self, text: str = "") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        made.sendall(text.encode("latin-1"))
        return made

    def asks_for(self, path: str) -> str:
        return f"GET {self.path}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {self.cookie}\r\n\r\n"

    def stream(self) -> socket.socket:
        made = self.open(self.asks_for("events"))
        assert made.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 503")
        return made

    def end(self) -> None:
        self.lab.over.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.end()


def rest(connection: socket.socket) -> bytes:
    data = b""
    with connection:
        while piece := connection.recv(65536):
            data += piece
    return data


def test_the_address_is_a_token_at_this_port(served: Served) -> None:
    assert re.fullmatch(rf"http://127\.0\.0\.1:{served.port}/\?token=[\w-]{{43}}", served.url)
    assert served.state() == 200
    assert served.ask("GET", "/")[0] == 403
    status, headers, body = served.ask("GET", "/", Host="evil.example")
    assert (status, body) == (403, b"") and "server" not in headers


@pytest.mark.parametrize(
    "nonsense",
    [
        "\r\n\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 200,  # a browser that wants TLS
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nxxx",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + "a" * 100_000 + "\r\n\r\n",
        "GET /" + "a" * 100_000,
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /%00%ff%fe/../../etc/passwd HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n",
    ],
)
def test_nonsense_ends_its_connection_and_nothing_else(served: Served, nonsense: str) -> None:
    connection = served.open()
    try:
        connection.sendall(nonsense.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        answer = rest(connection)
    except (ConnectionError, BrokenPipeError):
        answer = b""
    assert answer == b"" or re.match(rb"HTTP/1\.[01] (400|403|431)", answer), answer
    assert b"emulab" not in answer
    assert served.state() == 200


def test_who_does_not_ask_is_given_up(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.2)
    silent, slow = served.open(), served.open("GET / HTTP/1.1\r\nHost: 127.0")
    kept = served.open(served.asks_for("state"))
    for connection in (silent, slow, kept):
        began = time.monotonic()
        try:
            answer = rest(connection)
        except ConnectionError:
            answer = b""
        assert time.monotonic() - began < 5
        assert connection is kept or answer == b""


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr("emulab.web.site._PATIENCE", 0.2)
    head = f"POST {served.path}link HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {served.cookie}\r\nContent-Type: application/json\r\n"
    connection = served.open(head + "Content-Length: 10\r\n\r\n{")
    assert connection.recv(12) == b"HTTP/1.1 408"
    connection.close()
    with served.open(head + "Content-Length: 10\r\n\r\n{"):
        pass  # and goes away
    assert ("link_set", {}) not in served.lab.asked


def test_many_streams_and_one_that_reads_nothing(served: Served) -> None:
    streams = [served.stream() for _ in range(events.STREAMS + 5)]
    try:
        for number in range(200):
            served.lab.tell({"event": "flood", "n": number, "padding": "x" * 5000})
        assert served.state() == 200
        reader, found = streams[0], b""
        while b'"n": 199' not in found[-6000:]:
            found += reader.recv(65536)
        assert served.state() == 200
    finally:
        for stream in streams:
            stream.close()
    deadline = time.monotonic() + 5  # those that are gone make room for others
    while True:
        with served.open(served.asks_for("events")) as another:
            if another.recv(12) == b"HTTP/1.1 200":
                break
        assert time.monotonic() < deadline


def test_a_stream_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_STALLED", 300)
    monkeypatch.setattr("emulab.web.site.STREAMS", 1)
    one = Served()
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    stalled.connect(("127.0.0.1", one.port))
    stalled.sendall(one.asks_for("events").encode())
    assert stalled.recv(12) == b"HTTP/1.1 200"
    statuses, deadline = [], time.monotonic() + 10
    while b"HTTP/1.1 200" not in statuses and time.monotonic() < deadline:
        one.lab.tell({"event": "flood", "padding": "x" * 100_000})
        with one.open(one.asks_for("events")) as other:
            statuses.append(other.recv(12))
    assert (statuses[0], statuses[-1]) == (b"HTTP/1.1 503", b"HTTP/1.1 200")
    stalled.close()
    one.end()


def until_end(served: Served, then: Callable[[], None]) -> tuple[float, bytes]:
    """How long a server takes to end, and what a page heard last."""
    stream = served.stream()
    began = time.monotonic()
    then()
    last = rest(stream)
    served.thread.join(10)
    assert not served.thread.is_alive()
    return time.monotonic() - began, last


def test_when_the_lab_goes_pages_are_told_and_the_server_ends() -> None:
    one = Served()
    took, last = until_end(one, one.lab.over.set)
    assert took < 3 and b'"event": "lab gone"' in last
    with pytest.raises(ConnectionRefusedError):
        one.open()


@pytest.mark.parametrize(
    ("address", "port", "said"),
    [
        ("192.0.2.1", 0, "--listen 192.0.2.1: no address of this machine"),
        ("localhost", 0, "--listen 'localhost': an IP address of this machine expected"),
        ("", 0, "--listen '': an IP address"),
    ],
)
def test_an_address_that_cannot_be_had(address: str, port: int, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        server.listen(address, port)


def test_a_port_that_is_taken(served: Served) -> None:
    with pytest.raises(InputError, match=f"port {served.port} of 127.0.0.1 is in use: choose another --port"):
        server.listen("127.0.0.1", served.port)


def test_addresses_as_they_are_typed() -> None:
    for address, shown in (("::1", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")):
        with server.listen(address, 0) as listener:
            assert server.address_of(listener, "T") == f"http://{shown}:{listener.getsockname()[1]}/?token=T"
