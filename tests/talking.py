"""Servers and clients inside a lab's namespaces: who answers, and as whom it sees the client."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple

from emulab.kernel.namespaces import Namespaces, entered

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_SAID = {errno.ECONNREFUSED: "refused", errno.EHOSTUNREACH: "unreachable", errno.ENETUNREACH: "unreachable"}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class Answer(NamedTuple):
    """Who answered, the client's address as seen there, and the address from which the answer came."""

    by: str
    seen_as: str
    came_from: str


class Servers:
    """Tells every client its own name and the client's address: ``(namespace, protocol, port)`` each, both families."""

    def __init__(self, namespaces: Namespaces, wanted: Iterable[tuple[str, str, int]]) -> None:
        self._selector, self._over = selectors.DefaultSelector(), threading.Event()
        self._open: list[socket.socket] = []
        for name, protocol, port in dict.fromkeys(wanted):
            for family in (4, 6):
                with entered(namespaces[name].net):
                    server = socket.socket(_FAMILY[family], _KINDS[protocol])
                self._open.append(server)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == 6:
                    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                server.bind(("" if family == 4 else "::", port))
                if protocol == "tcp":
                    server.listen(512)
                self._selector.register(server, selectors.EVENT_READ, (name, protocol))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.05):
                server, (name, protocol) = key.fileobj, key.data
                assert isinstance(server, socket.socket)
                if protocol == "udp":
                    _, peer = server.recvfrom(100)
                    server.sendto(f"{name} {peer[0]}".encode(), peer)
                elif protocol == "tcp":
                    connection, peer = server.accept()
                    self._open.append(connection)
                    self._selector.register(connection, selectors.EVENT_READ, (f"{name} {peer[0]}", "connection"))
                else:
                    try:
                        asked = server.recv(100)
                    except OSError:
                        asked = b""
                    if asked:
                        server.send(name.encode())
                    else:
                        self._selector.unregister(server)
                        server.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for one in self._open:
            one.close()


def client(namespaces: Namespaces, source: str, address: str, port: int, protocol: str, timeout: float) -> socket.socket:
    """A connected socket in the namespace ``source``."""
    with entered(namespaces[source].net):
        made = socket.socket(_FAMILY[ip_address(address).version], _KINDS[protocol])
    made.settimeout(timeout)
    try:
        made.connect((address, port))
    except BaseException:
        made.close()
        raise
    return made


def say(connection: socket.socket) -> Answer:
    """Ask over a socket that is connected."""
    connection.send(b"who are you")
    if connection.type == socket.SOCK_DGRAM and connection.gettimeout() > 1:  # nobody else repeats what a busy machine lost
        patience = connection.gettimeout()
        connection.settimeout(1.0)
        with suppress(TimeoutError):
            return _answer(connection)
        connection.settimeout(patience)
        connection.send(b"who are you")
    return _answer(connection)


def _answer(connection: socket.socket) -> Answer:
    by, seen_as = connection.recv(100).decode().split()
    return Answer(by.removeprefix("default/"), seen_as, connection.getpeername()[0])


def ask(
    namespaces: Namespaces, source: str, address: str, port: int, protocol: str = "tcp", timeout: float = 6.0
) -> Answer | str:
    """One connection: the answer, or "refused", "unreachable", "silent"."""
    try:
        with client(namespaces, source, address, port, protocol, timeout) as made:
            return say(made)
    except TimeoutError:
        return "silent"
    except OSError as error:
        return _SAID.get(error.errno or 0, str(error))


def tally(namespaces: Namespaces, source: str, address: str, port: int, times: int, protocol: str = "tcp") -> Counter[str]:
    """How often each answered."""
    answers = (ask(namespaces, source, address, port, protocol) for _ in range(times))
    return Counter(one if isinstance(one, str) else one.by for one in answers)
