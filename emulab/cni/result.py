"""What ADD answers (section 5), in all versions of the specification.

One value holds what version 1.1.0 can say; earlier forms are read into it, and it is shown in any form.  0.1.0 and 0.2.0 have one
address of each family and no interfaces; 0.3.0 to 0.4.0 say the family of each address; 1.0.0 does not; 1.1.0 adds what is
optional here.  Whoever reads an abbreviated result (of address management) gets one without interfaces.

The values are named tuples, as whatever `emulab-cni` imports: `dataclasses` alone takes a sixth of the time that it runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, NamedTuple, Union

from emulab.cni import versions
from emulab.cni.documents import At
from emulab.errors import InputError

IPAddress = Union[IPv4Address, IPv6Address]
IPInterface = Union[IPv4Interface, IPv6Interface]
IPNetwork = Union[IPv4Network, IPv6Network]
MAC = re.compile(r"([0-9a-fA-F]{2}:){5}(([0-9a-fA-F]{2}:){14})?[0-9a-fA-F]{2}\Z")  # 20 bytes: InfiniBand
_ROUTE_NUMBERS = (("mtu", "mtu"), ("advmss", "advmss"), ("priority", "priority"), ("table", "table"), ("scope", "scope"))


class Interface(NamedTuple):
    """``sandbox`` is the path of the network namespace that it is in; empty for one of the host's."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int | None = None
    socket_path: str = ""
    pci_id: str = ""


class Ip(NamedTuple):
    """``interface`` is an index into the result's interfaces."""

    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None


class Route(NamedTuple):
    """``gw`` None: whatever the plugin's gateway is, or the link itself."""

    dst: IPNetwork
    gw: IPAddress | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


class Dns(NamedTuple):
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(NamedTuple):
    """``version`` is the one in which it was said."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    version: str = versions.ALL[-1]

    @classmethod
    def read(cls, document: Any, version: str | None = None) -> Result:
        """The result that ``document`` is; ``version`` is taken where it does not name its own, as libcni does.

        Raises `InputError` for what is not a result, with the key.
        """
        top = At(document, "result")
        said = top.text("cniVersion") or version or versions.OLDEST
        versions.key(said)
        if said not in versions.ALL:
            top.fail("cniVersion", f"version {said} is not known, {versions.ALL[0]} to {versions.ALL[-1]} are")
        dns = _dns(top)
        if not versions.at_least(said, "0.3.0"):
            return _old(top, said, dns)
        interfaces = tuple(map(_interface, top.objects("interfaces")))
        ips = tuple(_ip(one, len(interfaces), said) for one in top.objects("ips"))
        return cls(interfaces, ips, tuple(map(_route, top.objects("routes"))), dns, said)

    def show(self, version: str | None = None) -> dict[str, Any]:
        """As ``version`` has it, its own by default; what that cannot say is left out."""
        said = version or self.version
        if said not in versions.ALL:
            raise InputError(f"results of version {said!r} are not known")
        if not versions.at_least(said, "0.3.0"):
            return self._show_old(said)
        new = versions.at_least(said, "1.1.0")
        shown: dict[str, Any] = {"cniVersion": said}
        if self.interfaces:
            shown["interfaces"] = [_shown_interface(one, new) for one in self.interfaces]
        if self.ips:
            shown["ips"] = [_shown_ip(one, not versions.at_least(said, "1.0.0")) for one in self.ips]
        if self.routes:
            shown["routes"] = [_shown_route(one, new) for one in self.routes]
        return {**shown, "dns": _shown_dns(self.dns)}

    def _show_old(self, version: str) -> dict[str, Any]:
        """The first address of each family, with its family's routes."""
        shown: dict[str, Any] = {"cniVersion": version}
        for family in (4, 6):
            first = next((one for one in self.ips if one.address.version == family), None)
            if first is not None:
                gateway = {"gateway": str(first.gateway)} if first.gateway else {}
                routes = [_shown_route(one, False) for one in self.routes if one.dst.version == family]
                shown[f"ip{family}"] = {"ip": str(first.address), **gateway, **({"routes": routes} if routes else {})}
        return {**shown, "dns": _shown_dns(self.dns)}


def _old(top: At, version: str, dns: Dns) -> Result:
    ips: list[Ip] = []
    routes: list[Route] = []
    for family in (4, 6):
        if top.value.get(f"ip{family}") is None:
            continue
        inner = top.into(f"ip{family}", top.value[f"ip{family}"])
        address = inner.made("ip", _with_prefix, "an address with its prefix")
        if address is None or address.version != family:
            inner.fail("ip", f"an IPv{family} address with its prefix expected")
        ips.append(Ip(address, inner.made("gateway", ip_address, "an address")))
        routes += map(_route, inner.objects("routes"))
    return Result((), tuple(ips), tuple(routes), dns, version)


def _with_prefix(text: str) -> IPInterface:
    if "/" not in text:
        raise ValueError(text)
    return ip_interface(text)


def _network(text: str) -> IPNetwork:
    if "/" not in text:
        raise ValueError(text)
    return ip_network(text, strict=False)


def _interface(one: At) -> Interface:
    name, mac = one.text("name"), one.text("mac")
    if not name:
        one.fail("name", "an interface's name expected")
    if mac and not MAC.match(mac):
        one.fail("mac", f"a hardware address expected, got {mac[:60]!r}")
    return Interface(name, mac.lower(), one.text("sandbox"), one.number("mtu"), one.text("socketPath"), one.text("pciID"))


def _ip(one: At, interfaces: int, version: str) -> Ip:
    address = one.made("address", _with_prefix, "an address with its prefix")
    if address is None:
        one.fail("address", "an address with its prefix expected")
    family = one.text("version")
    if not versions.at_least(version, "1.0.0") and family and family != str(address.version):
        one.fail("version", f"'{address.version}' expected beside {address}, got {family[:20]!r}")
    index = one.number("interface", least=-1)
    if index is not None and index >= interfaces:
        one.fail("interface", f"an index into interfaces expected, of which there are {interfaces}, got {index}")
    return Ip(address, one.made("gateway", ip_address, "an address"), None if index is None or index < 0 else index)


def _route(one: At) -> Route:
    dst = one.made("dst", _network, "a network")
    if dst is None:
        one.fail("dst", "a network expected")
    return Route(dst, one.made("gw", ip_address, "an address"), **{ours: one.number(name) for name, ours in _ROUTE_NUMBERS})


def _dns(top: At) -> Dns:
    if top.value.get("dns") is None:
        return Dns()
    dns = top.into("dns", top.value["dns"])
    return Dns(dns.texts("nameservers"), dns.text("domain"), dns.texts("search"), dns.texts("options"))


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, "", ())}


def _shown_interface(one: Interface, new: bool) -> dict[str, Any]:
    more = _given(mtu=one.mtu, socketPath=one.socket_path, pciID=one.pci_id) if new else {}
    return {"name": one.name, **_given(mac=one.mac, sandbox=one.sandbox), **more}


def _shown_ip(one: Ip, with_family: bool) -> dict[str, Any]:
    family = {"version": str(one.address.version)} if with_family else {}
    index = {} if one.interface is None else {"interface": one.interface}
    gateway = {"gateway": str(one.gateway)} if one.gateway is not None else {}
    return {**family, **index, "address": str(one.address), **gateway}


def _shown_route(one: Route, new: bool) -> dict[str, Any]:
    gateway = {"gw": str(one.gw)} if one.gw is not None else {}
    return {
        "dst": str(one.dst),
        **gateway,
        **(_given(**{name: getattr(one, ours) for name, ours in _ROUTE_NUMBERS}) if new else {}),
    }


def _shown_dns(dns: Dns) -> Mapping[str, Any]:
    return _given(
        nameservers=list(dns.nameservers) or None,
        domain=dns.domain,
        search=list(dns.search) or None,
        options=list(dns.options) or None,
    )
