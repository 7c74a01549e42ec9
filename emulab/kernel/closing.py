"""Sockets that the kernel lets go of slowly."""

from __future__ import annotations

import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor


def close_all(sockets: Collection[socket.socket]) -> None:
    """All at once: packet and netlink sockets wait for a grace period each (packet_release and netlink_release in the kernel's
    net/), and these then overlap.
    """
    if sockets:
        with ThreadPoolExecutor(min(64, len(sockets))) as pool:
            list(pool.map(socket.socket.close, sockets))
