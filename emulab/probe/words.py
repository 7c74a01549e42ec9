"""A frame in words, by Scapy."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def summary(frame: bytes) -> str:
    """One line: ``Ether / IP / ICMP 10.1.1.1 > 10.1.2.1 echo-request 0``."""
    from scapy.layers import inet6, vxlan  # noqa: F401  (teach Ether what it may carry)
    from scapy.layers.l2 import Ether

    return str(Ether(frame).summary())


def read(path: Path) -> list[Any]:
    """The packets of a capture file as Scapy's, what tunnels carry included."""
    from scapy.layers import inet6, l2, vxlan  # noqa: F401
    from scapy.utils import rdpcap

    return list(rdpcap(str(path)))
