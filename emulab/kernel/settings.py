"""Sysctls and offloads as they are, of those that a plan names.

The sysctls of an interface come with its link, since opening their files gets slower with every namespace: all of them have
files of the same names, in one chain of the kernel's name cache (130 µs each with a thousand pods).
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping

from emulab.drift import Found
from emulab.kernel.decode import Interface
from emulab.kernel.encode import _FAMILY, _NEIGHBOUR_PARAMETERS, is_neighbour_parameter
from emulab.kernel.namespaces import Namespace, entered
from emulab.kernel.netlink import attributes
from emulab.state import KernelObject, Offload, Sysctl

RTM_GETNEIGHTBL, NDTA_NAME, NDTA_PARMS, NDTPA_IFINDEX = 66, 1, 6, 1  # linux/rtnetlink.h, neighbour.h
ETHTOOL_GTXCSUM, SIOCETHTOOL = 0x16, 0x8946  # linux/ethtool.h, sockios.h
_ON_LINK = {  # (family, attribute, position): IFLA_INET_CONF by IPV4_DEVCONF_* - 1, IFLA_INET6_CONF by DEVCONF_*
    ("ipv4", "forwarding"): (2, 1, 0),
    ("ipv4", "proxy_arp"): (2, 1, 2),
    ("ipv4", "rp_filter"): (2, 1, 7),
    ("ipv4", "route_localnet"): (2, 1, 25),
    ("ipv6", "forwarding"): (10, 2, 0),
    ("ipv6", "accept_ra"): (10, 2, 3),
    ("ipv6", "proxy_ndp"): (10, 2, 22),
    ("ipv6", "disable_ipv6"): (10, 2, 26),
    ("ipv6", "accept_dad"): (10, 2, 27),
}


def settings(namespace: Namespace, wanted: Iterable[KernelObject], links: Iterable[Interface]) -> Iterator[Found]:
    """What has gone with its device is left out."""
    by_name = {link.name: link for link in links}
    neighbour: list[str] = []
    files: list[str] = []
    for thing in wanted:
        if isinstance(thing, Offload):
            yield from _offload(namespace, thing.device)
        elif isinstance(thing, Sysctl):
            _, family, kind, device, name = (*thing.key.split("."), "", "", "")[:5]
            place = _ON_LINK.get((family, name)) if kind == "conf" and device not in ("all", "default") else None
            if is_neighbour_parameter(thing.key):
                neighbour.append(thing.key)
            elif place is None:
                files.append(thing.key)
            elif link := by_name.get(device.replace("/", ".")):
                yield from _of_link(thing.key, link, *place)
    if neighbour:
        yield from _neighbour_parameters(namespace, neighbour, {link.index: link.name for link in by_name.values()})
    if files:
        with entered(namespace.net):
            found = [_of_file(key) for key in files]
        yield from (thing for thing in found if thing)


def _of_link(key: str, link: Interface, family: int, number: int, position: int) -> Iterator[Sysctl]:
    values = dict(attributes(dict(attributes(link.families)).get(family, b""))).get(number)
    if values:  # not for a family that the device has not, as IPv6 below 1280 bytes
        yield Sysctl(key, str(struct.unpack_from("=i", values, 4 * position)[0]))


def _of_file(key: str) -> Sysctl | None:
    try:
        with open("/proc/sys/" + key.translate({ord("."): "/", ord("/"): "."})) as file:
            return Sysctl(key, " ".join(file.read().split()))
    except FileNotFoundError:
        return None


def _neighbour_parameters(namespace: Namespace, keys: Iterable[str], names: Mapping[int, str]) -> Iterator[Sysctl]:
    """net.<family>.neigh.<device>.<parameter>: an ordinary user's namespaces have no files for them."""
    tables: dict[tuple[bytes, str], dict[int, bytes]] = {}
    for family in sorted({key.split(".")[1] for key in keys}):
        body = struct.pack("=Bxxx", _FAMILY[4 if family == "ipv4" else 6])
        for _, payload in namespace.socket().dump(RTM_GETNEIGHTBL, body):
            values = dict(attributes(payload[4:]))
            parameters = dict(attributes(values.get(NDTA_PARMS, b"")))
            if NDTPA_IFINDEX in parameters:
                device = names.get(int(struct.unpack("=I", parameters[NDTPA_IFINDEX])[0]), "")
                tables[values[NDTA_NAME], device] = parameters
    for key in keys:
        _, family, _, device, name = key.split(".")
        number, unit = _NEIGHBOUR_PARAMETERS[name]
        table = b"arp_cache\0" if family == "ipv4" else b"ndisc_cache\0"
        value = tables.get((table, device.replace("/", ".")), {}).get(number)
        if value is not None:
            yield Sysctl(key, str(struct.unpack("=Q" if unit else "=I", value)[0] // (unit or 1)))


def _offload(namespace: Namespace, device: str) -> Iterator[Offload]:
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_GTXCSUM, 0), 8)
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with entered(namespace.net), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, SIOCETHTOOL, request)
        except OSError:  # there is no such device any more
            return
    yield Offload(device, bool(struct.unpack("=II", value.raw)[1]))
