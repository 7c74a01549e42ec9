"""What is said at a served port, over connections, in datagrams and in SCTP packets by hand."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING

from emulab.probe import payload, sctp
from emulab.probe.hosts import datagrams, echo

if TYPE_CHECKING:
    from emulab.serving.dns import NameServer

_METHOD = re.compile(rb"[A-Z]{3,8} ")
_LONGEST = 8192  # bytes of a request that is not answered yet
_START = '{"pod": '


def line(pod: str, node: str, protocol: str, port: int, peer: str, peer_port: int) -> str:
    """Who answers, and whom it saw."""
    facts = {"pod": pod, "node": node, "protocol": protocol, "port": port, "peer": _plain(peer), "peer_port": peer_port}
    return json.dumps(facts)


def _plain(address: str) -> str:
    """Without the scope that the kernel adds to a link-local address."""
    return str(ip_address(address.partition("%")[0]))


def answer_datagrams(server: socket.socket, names: NameServer | None, node: str, port: int, pod: str) -> None:
    """Every datagram but our own answers: two servers would talk to each other for ever.  ``names`` answers at its port."""

    def answer(data: bytes, peer: str, peer_port: int) -> bytes:
        if data.startswith(_START.encode()) or _is_reply(data):
            return b""
        if names is not None and not data.startswith(payload.MAGIC):
            return names.respond(data)
        return _answer(data, line(pod, node, "udp", port, peer, peer_port))

    echo(server, answer)


def answer_packets(server: socket.socket, family: int, node: str, pods: Mapping[int, str]) -> None:
    """An INIT to a declared port is welcome, to any other not; the kernel is silent where a raw socket listens."""
    for data, name in datagrams(server):
        request = sctp.read(data[(data[0] & 15) * 4 :] if family == 4 else data)
        if request is not None and request.kind == "init" and request.tag:
            pod = pods.get(request.dport)
            told = line(pod, node, "sctp", request.dport, name[0], request.sport) if pod else ""
            server.sendto(sctp.init_ack(request, told.encode()) if pod else sctp.abort(request), (name[0], 0))


def _is_reply(data: bytes) -> bool:
    return data.startswith(payload.MAGIC) and data[7:8] == payload.REPLY


def _answer(data: bytes, told: str) -> bytes:
    if not data.startswith(payload.MAGIC):
        return told.encode() + b"\n"
    reply = payload.answer(data)
    return reply[: payload.SIZE] + told.encode() if data[7:8] == payload.ASK else reply


class Connection:
    """One client of a stream socket."""

    def __init__(
        self,
        sock: socket.socket,
        names: NameServer | None,
        protocol: str,
        node: str,
        port: int,
        pod: str,
        peer: str,
        peer_port: int,
    ) -> None:
        self._sock, self._names, self._facts = sock, names, (pod, node, protocol, port, peer, peer_port)
        if names is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 65536)  # the longest message goes at once
        self._read, self._answered, self._probed, self._since = b"", False, False, time.monotonic()

    @property
    def idle(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self._since

    def close(self) -> None:
        self._sock.close()

    def serve(self) -> bool:
        """Read and answer; returns whether there may be more to do."""
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return True
        if self._answered:
            return bool(data)  # whatever else it says is read, or its end would be a reset that overtakes the answer
        if self._probed or (data.startswith(payload.MAGIC) and not self._read):
            if data:
                self._sock.send(_answer(data, line(*self._facts)))
            self._probed = True
            return bool(data)  # probes close it themselves
        self._read += data
        if self._names is not None:
            return bool(data) and self._respond(self._names)
        if _METHOD.match(self._read):
            if data and b"\r\n\r\n" not in self._read and len(self._read) < _LONGEST:
                return True
            if b" HTTP/" in self._read.partition(b"\r\n")[0]:
                return self._finish(_response(line(*self._facts), self._read.startswith(b"HEAD ")))
        return self._finish(line(*self._facts).encode() + b"\n")

    def _respond(self, names: NameServer) -> bool:
        """DNS messages, each after its length (RFC 7766)."""
        while len(self._read) >= 2:
            end = 2 + int.from_bytes(self._read[:2], "big")
            if len(self._read) < end:
                break
            answer = names.respond(self._read[2:end], stream=True)
            self._read = self._read[end:]
            message = len(answer).to_bytes(2, "big") + answer
            if not answer or self._sock.send(message) < len(message):  # it does not read what it asked for
                return False
        return True

    def _finish(self, answer: bytes) -> bool:
        self._sock.send(answer)
        self._sock.shutdown(socket.SHUT_WR)
        self._answered = True
        return True


def _response(told: str, head: bool) -> bytes:
    body = told.encode() + b"\n"
    lines = [
        "HTTP/1.0 200 OK",
        "Server: emulab",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else body)
