"""Packets by Scapy: one template per flow shape, patched per probe.

Scapy takes half a millisecond to build a packet; filling in addresses, ports, payload and checksum takes two microseconds.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import NamedTuple

from emulab.packet import INITIAL_TTL, Flow
from emulab.probe import payload


class Template(NamedTuple):
    """A crafted packet with zeroes where each probe differs; offsets in bytes from the IP header."""

    data: bytes
    addresses: int
    transport: int
    checksum: int
    pseudo: int  # what the checksum covers besides: 0 for ICMPv4, else protocol number


@cache
def template(family: int, protocol: str, size: int) -> Template:
    """An echo request or UDP datagram with ``size`` bytes of payload, DF set, TTL 64."""
    from scapy.config import conf

    conf.route_autoload = conf.route6_autoload = False  # nothing is sent by Scapy: a third of its import for nothing
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
    from scapy.packet import Raw

    body = Raw(bytes(size))
    if family == 4:
        inner = ICMP(type="echo-request") if protocol == "icmp" else UDP(sport=0, dport=0)
        packet = bytes(IP(src="0.0.0.0", dst="0.0.0.0", ttl=INITIAL_TTL, flags="DF") / inner / body)
        transport = 20
    else:
        inner6 = ICMPv6EchoRequest() if protocol == "icmp" else UDP(sport=0, dport=0)
        packet = bytes(IPv6(src="::", dst="::", hlim=INITIAL_TTL) / inner6 / body)
        transport = 40
    checksum = transport + (2 if protocol == "icmp" else 6)
    number = 17 if protocol == "udp" else 58
    blank = packet[:checksum] + b"\0\0" + packet[checksum + 2 :]
    return Template(blank, 12 if family == 4 else 8, transport, checksum, 0 if (family, protocol) == (4, "icmp") else number)


def request(flow: Flow, round_: int, size: int = payload.SIZE) -> bytes:
    """The whole IP packet that opens an ICMP or UDP ``flow``, with ``size`` bytes of payload."""
    shape = template(flow.family, flow.protocol, size)
    packet = bytearray(shape.data)
    addresses = flow.source_address + flow.destination_address
    packet[shape.addresses : shape.addresses + len(addresses)] = addresses
    ports = shape.transport + (4 if flow.protocol == "icmp" else 0)
    struct.pack_into("!HH", packet, ports, flow.sport, flow.dport)
    start = len(packet) - size
    packet[start : start + payload.SIZE] = payload.build(round_, flow.number)
    segment = bytes(packet[shape.transport :])
    pseudo = addresses + struct.pack("!II", len(segment), shape.pseudo) if shape.pseudo else b""
    struct.pack_into("!H", packet, shape.checksum, checksum(pseudo + segment))
    return bytes(packet)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); never 0, which UDP takes for none."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF
