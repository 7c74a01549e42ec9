"""The probing end of a namespace: its raw sockets, its servers, its clients.  One process holds those of all pods.

A socket stays in the namespace in which it was opened, so nothing runs inside a pod.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import struct
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import NamedTuple

from emulab.errors import InputError
from emulab.kernel.namespaces import Namespace, entered
from emulab.packet import Flow, short, text
from emulab.probe import payload
from emulab.probe.dissect import IcmpError, icmp_error
from emulab.probe.flows import PORT

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_IPV6_HDRINCL, _SOL_RAW = 36, 255


class Answer(NamedTuple):
    """What came back for a flow: a good reply, or the error that its sender was told, and by whom."""

    number: int
    error: str = ""


Report = Callable[[Answer], None]
TOO_BIG = "packet too big"


class Host:
    """Sockets in one namespace, registered with a shared epoll object under the handlers that serve them.

    With ``serve`` it answers at ``port``, and in any case at ``more`` (protocol, port).
    """

    def __init__(
        self,
        namespace: Namespace,
        poller: Poller,
        families: tuple[int, ...],
        *,
        serve: bool,
        round_: int,
        report: Report,
        on_icmp: Callable[[IcmpError], None],
        port: int = PORT,
        more: Collection[tuple[str, int]] = (),
    ) -> None:
        self._namespace, self._poller, self._round, self._report, self._on_icmp = (
            namespace,
            poller,
            round_,
            report,
            on_icmp,
        )
        self._release = contextlib.ExitStack()
        self._raw: dict[int, socket.socket] = {}
        self._clients: dict[tuple[int, bytes, int], socket.socket] = {}
        with entered(namespace.net):
            for family in families:
                self._open_raw(family)
                if serve:
                    for protocol in ("udp", "tcp"):
                        self._serve(family, protocol, port)
                for protocol, number in more:
                    if not (serve and number == port):
                        with contextlib.suppress(InputError):  # an own server may answer; if not, that is what is measured
                            self._serve(family, protocol, number)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._release.close()

    def _socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        made = socket.socket(_AF[family], kind | socket.SOCK_NONBLOCK, protocol)
        self._release.callback(made.close)
        return made

    def _open_raw(self, family: int) -> None:
        sender = self._socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        if family == 6:
            sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        self._raw[family] = sender
        receiver = self._socket(family, socket.SOCK_RAW, 1 if family == 4 else 58)
        if family == 4:  # all but echo requests, which the kernel answers: icmp(7), raw(7) ICMP_FILTER
            receiver.setsockopt(_SOL_RAW, 1, struct.pack("=I", 1 << 8))
        else:  # only errors and echo replies: ICMP6_FILTER blocks the types whose bit is set
            receiver.setsockopt(58, 1, _filter6())
        self._poller.add(receiver, lambda: self._read_icmp(family, receiver))

    def _read_icmp(self, family: int, receiver: socket.socket) -> None:
        for packet, sender in datagrams(receiver):
            message = packet[(packet[0] & 15) * 4 :] if family == 4 else packet
            if message[:1] in (b"\x00", b"\x81"):
                found = payload.read(message[8:], self._round)
                if found:
                    self._report(Answer(found[0]))
            else:
                error = icmp_error(family, message)
                if error:
                    self._on_icmp(error._replace(text=f"{error.text}, by {sender[0]}"))

    def _serve(self, family: int, protocol: str, port: int) -> None:
        """An echo server on all of the namespace's addresses: a rewritten packet is answered, too, and so is seen.

        A port that a pod declares has a server that answers as ours would (`emulab.serving.responder`).
        """
        if (protocol, port, family) in self._namespace.served:
            return
        server = self._socket(family, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == 6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            server.bind(("" if family == 4 else "::", port))
        except OSError as error:
            taken = f"{short(self._namespace.name)}: {protocol} port {port} is taken by somebody's own server"
            raise InputError(f"{taken} ({error.strerror}): probe another one (--port)") from None
        if protocol == "tcp":
            server.listen(4096)
            self._poller.add(server, lambda: self._accept(server))
            return
        level, option = (socket.IPPROTO_IP, 8) if family == 4 else (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)
        server.setsockopt(level, option, 1)
        self._poller.add(server, lambda: echo(server, lambda data, *_: payload.answer(data)))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError:
                continue
            connection.setblocking(False)
            self._poller.add(connection, lambda c=connection: self._echo_stream(c))  # type: ignore[misc]

    def _echo_stream(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(4096)
            if data:
                connection.send(payload.answer(data))
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._poller.remove(connection)
        connection.close()

    def send(self, packet: bytes, flow: Flow) -> str:
        """Send a crafted packet; returns the kernel's words, if it refused at once."""
        try:
            self._raw[flow.family].sendto(packet, (text(flow.destination_address), 0))
        except OSError as error:
            return f"{TOO_BIG}, by its own kernel" if error.errno == errno.EMSGSIZE else _plain(error.errno or 0)
        return ""

    def entered(self) -> AbstractContextManager[None]:
        """The calling thread is in here meanwhile, as those who open a client or connect have to be."""
        return entered(self._namespace.net)

    def open_client(self, flow: Flow) -> None:
        """Bind the UDP port that ``flow`` sends from, so that its reply is received and not refused."""
        key = (flow.family, flow.source_address, flow.sport)
        if key in self._clients:
            return
        self._clients[key] = client = socket.socket(_AF[flow.family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        client.bind((text(flow.source_address), flow.sport))
        self._poller.add(client, lambda: self._read_replies(client))

    def close_client(self, flow: Flow) -> None:
        """Let go of the port that ``flow`` sent from: a thousand pods have more flows than a process descriptors."""
        client = self._clients.pop((flow.family, flow.source_address, flow.sport), None)
        if client is not None:
            self._poller.remove(client)
            client.close()

    def _read_replies(self, client: socket.socket) -> None:
        for data, _ in datagrams(client):
            found = payload.read(data, self._round)
            if found and found[1] == payload.REPLY:
                self._report(Answer(found[0]))

    def connect(self, flow: Flow) -> None:
        """Start a TCP conversation: handshake, payload, echo, orderly close."""
        stream = self._socket(flow.family, socket.SOCK_STREAM)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _piggyback(stream)
        try:
            stream.bind((text(flow.source_address), flow.sport))
            stream.connect((text(flow.destination_address), flow.dport))
        except BlockingIOError:
            pass
        except OSError as error:
            self._finish(stream, Answer(flow.number, error.strerror or str(error)), registered=False)
            return
        self._poller.add(stream, lambda: self._opened(stream, flow), select.EPOLLOUT)

    def _opened(self, stream: socket.socket, flow: Flow) -> None:
        code = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._finish(stream, Answer(flow.number, _plain(code)))
            return
        stream.send(payload.build(self._round, flow.number))
        _piggyback(stream)
        self._poller.change(stream, lambda: self._answered(stream, flow), select.EPOLLIN)

    def _answered(self, stream: socket.socket, flow: Flow) -> None:
        try:
            found = payload.read(stream.recv(4096), self._round)
        except OSError as error:
            self._finish(stream, Answer(flow.number, _plain(error.errno or 0)))
            return
        good = found == (flow.number, payload.REPLY)
        self._finish(stream, Answer(flow.number, "" if good else "connection closed without an answer"))

    def _finish(self, stream: socket.socket, answer: Answer, registered: bool = True) -> None:
        if registered:
            self._poller.remove(stream)
        stream.close()
        self._report(answer)

    def source_for(self, destination: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
        """The address that the kernel here would use towards ``destination``; None when it has no route."""
        with entered(self._namespace.net), socket.socket(_AF[destination.version], socket.SOCK_DGRAM) as asking:
            try:
                asking.connect((str(destination), PORT))
            except OSError:
                return None
            return str(asking.getsockname()[0])


class Poller:
    """epoll with a handler per socket."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}

    def add(self, sock: socket.socket, handler: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock.fileno(), events)

    def change(self, sock: socket.socket, handler: Callable[[], None], events: int) -> None:
        self._handlers[sock.fileno()] = handler
        self._epoll.modify(sock.fileno(), events)

    def remove(self, sock: socket.socket) -> None:
        del self._handlers[sock.fileno()]
        self._epoll.unregister(sock.fileno())

    def wait(self, seconds: float) -> bool:
        """Serve whatever is ready within ``seconds``; returns whether anything was."""
        ready = self._epoll.poll(seconds, 512)
        for fd, _ in ready:
            handler = self._handlers.get(fd)
            if handler:
                handler()
        return bool(ready)

    def close(self) -> None:
        self._epoll.close()
        self._handlers.clear()


def _filter6() -> bytes:
    """ICMP6_FILTER passing the errors 1..4 and echo reply 129 (RFC 3542: a set bit blocks)."""
    words = [0xFFFFFFFF] * 8
    for kind in (1, 2, 3, 4, 129):
        words[kind >> 5] &= ~(1 << (kind & 31)) & 0xFFFFFFFF
    return struct.pack("=8I", *words)


def _plain(code: int) -> str:
    """The kernel's words for an error number, as ping and curl print them: "Connection refused"."""
    return os.strerror(code).lower()


def _piggyback(sock: socket.socket) -> None:
    """Acknowledge with what is sent next, not by a packet that carries nothing else."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def datagrams(sock: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    found: list[tuple[bytes, tuple[str, int]]] = []
    while len(found) < 1024:
        try:
            found.append(sock.recvfrom(65535))
        except BlockingIOError:
            break
        except OSError:  # an ICMP error for an earlier datagram; the raw socket has it in full
            continue
    return found


def echo(server: socket.socket, answer: Callable[[bytes, str, int], bytes]) -> None:
    """Answer every datagram from the address at which it arrived (IP_PKTINFO): the port alone would not tell.

    ``answer`` makes it of the datagram, its sender's address and port; an empty one is not sent.
    """
    for _ in range(1024):
        try:
            data, control, _, sender = server.recvmsg(2048, 256)
        except BlockingIOError:
            return
        except OSError:
            continue
        back = [(level, kind, _as_source(level, value)) for level, kind, value in control]
        told = answer(data, sender[0], sender[1])
        with contextlib.suppress(OSError):  # nobody to answer to: the flow will be missed, and told
            if told:
                server.sendmsg([told], back, 0, sender)


def _as_source(level: int, packet_info: bytes) -> bytes:
    """in_pktinfo of a received datagram, as the source choice for its answer: ip(7), ipv6(7)."""
    if level == socket.IPPROTO_IP:  # ifindex, local address, header destination
        return struct.pack("=I", 0) + packet_info[8:12] + packet_info[8:12]
    return packet_info[:16] + struct.pack("=I", 0)
