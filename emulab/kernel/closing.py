"""Sockets that the kernel lets go of slowly."""

from __future__ import annotations

import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor


def close_all(sockets: Collection[socket.socket]) -> None:
    """All at once: each packet socket waits for a grace period (`synchronize_net` in packet_release, net/packet/af_packet.c), one
    that hears netfilter's groups takes as long, and these then overlap.
    """
    if sockets:
        with ThreadPoolExecutor(min(64, len(sockets))) as pool:
            list(pool.map(socket.socket.close, sockets))
