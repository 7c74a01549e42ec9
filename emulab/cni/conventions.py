"""Arguments of capabilities, as CONVENTIONS.md of containernetworking/cni has them: what a runtime says about one container."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from emulab.cni.documents import At
from emulab.cni.result import MAC

_PROTOCOLS = ("tcp", "udp", "sctp")


def checked(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """``arguments`` (capability -> what its convention says).  `InputError` for a wrong shape; an unknown capability is not
    ours to judge."""
    top = At(arguments, "capabilities")
    for name in arguments:
        if name in _CHECKS:
            try:
                _CHECKS[name](top)
            except ValueError as error:
                top.fail(name, str(error))
    return arguments


def _port_mappings(top: At) -> None:
    for one in top.objects("portMappings"):
        for name in ("hostPort", "containerPort"):
            if one.number(name, 1, 65535) is None:
                one.fail(name, "a port expected")
        if one.text("protocol", "tcp").lower() not in _PROTOCOLS:
            one.fail("protocol", f"{', '.join(_PROTOCOLS)} expected, got {one.text('protocol')[:20]!r}")
        one.made("hostIP", ip_address, "an address")


def _bandwidth(top: At) -> None:
    one = top.into("bandwidth", top.value["bandwidth"])
    for name in ("ingressRate", "ingressBurst", "egressRate", "egressBurst"):
        one.number(name, 0, 2**63 - 1)
    for way in ("ingress", "egress"):
        if bool(one.number(f"{way}Rate", 0, 2**63 - 1)) != bool(one.number(f"{way}Burst", 0, 2**63 - 1)):
            one.fail(f"{way}Burst", f"{way}Rate (bit/s) and {way}Burst (bits) go together")


def _ip_ranges(top: At) -> None:
    for number, ranges in enumerate(top.items("ipRanges")):
        if not isinstance(ranges, list):
            top.fail(f"ipRanges[{number}]", "a list of ranges expected")
        for inner, one in enumerate(ranges):
            at = top.into(f"ipRanges[{number}][{inner}]", one)
            if at.made("subnet", ip_network, "a network") is None:
                at.fail("subnet", "a network expected")
            for name in ("rangeStart", "rangeEnd", "gateway"):
                at.made(name, ip_address, "an address")


def _ips(top: At) -> None:
    for text in top.texts("ips"):
        ip_interface(text)


def _mac(top: At) -> None:
    if not MAC.match(top.text("mac")):
        top.fail("mac", f"a hardware address expected, got {top.text('mac')[:60]!r}")


def _dns(top: At) -> None:
    one = top.into("dns", top.value["dns"])
    for name in ("searches", "servers", "options"):
        one.texts(name)


_CHECKS: dict[str, Callable[[At], None]] = {
    "portMappings": _port_mappings,
    "bandwidth": _bandwidth,
    "ipRanges": _ip_ranges,
    "ips": _ips,
    "mac": _mac,
    "dns": _dns,
}
