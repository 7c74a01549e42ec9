"""Serves a lab's page at an address of this machine until somebody stops it or the lab goes."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from emulab.errors import InputError, MachineError
from emulab.web.asking import Connect
from emulab.web.guard import Guard
from emulab.web.site import Site

_PATIENCE = 10.0  # seconds for a whole request head
_STALLED = 30_000  # milliseconds, after which the kernel gives a reader up that takes nothing
_BACKLOG = 64


def listen(address: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one.  Raises `InputError` when it cannot be had."""
    try:
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    except ValueError:
        raise InputError(f"--listen '{address}': an IP address of this machine expected") from None
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED)  # tcp(7); connections inherit it
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        made.bind((address, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} of {address} is in use: choose another --port, or none for any that is free") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--listen {address}: no address of this machine") from None
        raise MachineError(f"cannot listen at {address} port {port}: {error.strerror}") from None
    return made


def address_of(listener: socket.socket, token: str) -> str:
    """What to type into a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "127.0.0.1" if listener.family == socket.AF_INET else "::1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={token}"


def serve(name: str, connect: Connect, listener: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve until the lab is gone; ``announce`` is given the address.  Signals end it as they do everywhere, after cleaning up.

    Raises what the lab answers when it cannot even be looked at.
    """
    asyncio.run(_serve(name, connect, listener, announce))


async def _serve(name: str, connect: Connect, listener: socket.socket, announce: Callable[[str], None]) -> None:
    site = Site(name, connect)
    guard = Guard(site.app, listener.getsockname()[0])
    server = _Server(
        uvicorn.Config(
            guard,
            http=_Impatient,
            ws="none",
            lifespan="off",
            loop="asyncio",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="critical",
            timeout_graceful_shutdown=1,
        ),
        site,
    )
    await site.start(lambda: announce(address_of(listener, guard.token)), server.leave)
    await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Lets the event streams end first."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site, self._loop = site, asyncio.get_running_loop()

    def leave(self) -> None:
        self._site.events.close()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._site.events.close)
        super().handle_exit(sig, frame)


class _Impatient(H11Protocol):
    """Gives up on who connects and then does not ask."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(_PATIENCE, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
