"""Desired kernel state as data.

A `State` maps a namespace to the objects that it shall hold, in the order in which a person would create them.  A node's
namespace has the node's name, a pod's has its key ``namespace/name``, and ``underlay`` holds the segments' bridges.  The
same objects are applied by `emulab.kernel` and printed by `shell_lines`; neither knows what they are for.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Union

from emulab.model import IPAddress, IPInterface, IPNetwork

ALL_ZERO_MAC = "00:00:00:00:00:00"


@dataclass(frozen=True)
class Sysctl:
    """``key`` with dots as typed; a dot inside an interface name is written as ``/`` (sysctl(8))."""

    key: str
    value: str

    @property
    def identity(self) -> tuple[str, ...]:
        return ("sysctl", self.key)

    def lines(self) -> Iterator[str]:
        yield f"sysctl -qw {self.key}={self.value}"


@dataclass(frozen=True)
class Bridge:
    """A Linux bridge without STP (so its ports forward at once).  ``mac`` pins its address, else it follows its ports."""

    name: str
    mtu: int = 1500
    mac: str | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        return ("link", self.name)

    def lines(self) -> Iterator[str]:
        mac = f" address {self.mac}" if self.mac else ""
        yield f"ip link add name {self.name}{mac} mtu {self.mtu} type bridge"


@dataclass(frozen=True)
class Veth:
    """A pair: ``name`` here, ``peer`` in ``peer_namespace`` (reached as ``peer_netns`` by `ip`); None: both ends here."""

    name: str
    peer: str
    peer_namespace: str | None = None
    peer_netns: str | None = None
    mtu: int = 1500
    mac: str | None = None
    peer_mac: str | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        return ("link", self.name)

    def lines(self) -> Iterator[str]:
        mac = f" address {self.mac}" if self.mac else ""
        peer_mac = f" address {self.peer_mac}" if self.peer_mac else ""
        netns = f" netns {self.peer_netns}" if self.peer_netns else ""
        yield (
            f"ip link add name {self.name}{mac} mtu {self.mtu} type veth peer name {self.peer}{peer_mac} mtu {self.mtu}{netns}"
        )


@dataclass(frozen=True)
class Vxlan:
    """A VXLAN device (RFC 7348).  With ``remote`` it is one end of a point-to-point tunnel."""

    name: str
    vni: int
    local: IPAddress
    device: str
    port: int
    remote: IPAddress | None = None
    mtu: int = 1450
    mac: str | None = None
    learning: bool = False
    dont_fragment: bool = False

    @property
    def identity(self) -> tuple[str, ...]:
        return ("link", self.name)

    def lines(self) -> Iterator[str]:
        mac = f" address {self.mac}" if self.mac else ""
        remote = f" remote {self.remote}" if self.remote else ""
        learning = "learning" if self.learning else "nolearning"
        df = " df set" if self.dont_fragment else ""
        yield (
            f"ip link add name {self.name}{mac} mtu {self.mtu} type vxlan id {self.vni} local {self.local}{remote} "
            f"dev {self.device} dstport {self.port} {learning}{df}"
        )


@dataclass(frozen=True)
class BridgePort:
    """``device`` is a port of ``bridge``."""

    device: str
    bridge: str
    hairpin: bool = False
    isolated: bool = False
    learning: bool = True
    flood: bool = True

    @property
    def identity(self) -> tuple[str, ...]:
        return ("port", self.device)

    def lines(self) -> Iterator[str]:
        yield f"ip link set dev {self.device} master {self.bridge}"
        options = [
            word
            for word, value, default in (
                ("hairpin", self.hairpin, False),
                ("isolated", self.isolated, False),
                ("learning", self.learning, True),
                ("flood", self.flood, True),
            )
            if value != default
            for word in (word, "on" if value else "off")
        ]
        if options:
            yield f"bridge link set dev {self.device} {' '.join(options)}"


@dataclass(frozen=True)
class Offload:
    """An ethtool feature of ``device``: transmit checksum offload (``tx``) on or off."""

    device: str
    enabled: bool = False

    @property
    def identity(self) -> tuple[str, ...]:
        return ("offload", self.device)

    def lines(self) -> Iterator[str]:
        yield f"ethtool -K {self.device} tx {'on' if self.enabled else 'off'}"


@dataclass(frozen=True)
class Up:
    """``device`` is administratively up."""

    device: str

    @property
    def identity(self) -> tuple[str, ...]:
        return ("up", self.device)

    def lines(self) -> Iterator[str]:
        yield f"ip link set dev {self.device} up"


@dataclass(frozen=True)
class RateLimit:
    """A token bucket on what ``device`` sends, ``rate`` in bit/s (tc-tbf(8))."""

    device: str
    rate: int
    delay: float = 0.0
    loss: float = 0.0

    @property
    def identity(self) -> tuple[str, ...]:
        return ("qdisc", self.device)

    def lines(self) -> Iterator[str]:
        if self.delay or self.loss:
            rate = f" rate {self.rate}bit" if self.rate else ""
            loss = f" loss {self.loss * 100:g}%" if self.loss else ""
            delay = f" delay {self.delay * 1e3:g}ms" if self.delay else ""
            yield f"tc qdisc add dev {self.device} root netem{delay}{loss}{rate}"
        else:
            yield f"tc qdisc add dev {self.device} root tbf rate {self.rate}bit burst {self.burst} latency 50ms"

    @property
    def burst(self) -> int:
        """Bytes: at least two full frames with offload (64 KiB each), else 10 ms of the rate."""
        return max(2 * 65536, self.rate // 800)


@dataclass(frozen=True)
class Address:
    """``nodad``: usable at once, without duplicate address detection (IPv6)."""

    device: str
    address: IPInterface
    scope: str = "global"

    @cached_property
    def identity(self) -> tuple[str, ...]:
        return ("address", self.device, str(self.address))

    @property
    def nodad(self) -> bool:
        return self.address.version == 6

    def lines(self) -> Iterator[str]:
        nodad = " nodad" if self.nodad else ""
        scope = f" scope {self.scope}" if self.scope != "global" else ""
        yield f"ip addr add {self.address} dev {self.device}{scope}{nodad}"


@dataclass(frozen=True)
class Route:
    """One route of the main table.  ``protocol`` is the number that `ip` shows as ``proto`` (3 is boot, unprinted)."""

    destination: IPNetwork
    device: str | None = None
    via: IPAddress | None = None
    onlink: bool = False
    link_scope: bool = False
    kind: str = "unicast"
    protocol: int = 3
    mtu: int | None = None
    source: IPAddress | None = None
    metric: int | None = None

    @cached_property
    def identity(self) -> tuple[str, ...]:
        return ("route", str(self.destination), str(self.metric or ""))

    def lines(self) -> Iterator[str]:
        words = ["ip -6" if self.destination.version == 6 else "ip", "route", "add"]
        if self.kind != "unicast":
            words.append(self.kind)
        words.append("default" if self.destination.prefixlen == 0 else str(self.destination))
        words += ["via", str(self.via)] if self.via else []
        words += ["dev", self.device] if self.device else []
        words += ["proto", str(self.protocol)] if self.protocol != 3 else []
        words += ["scope", "link"] if self.link_scope else []
        words += ["src", str(self.source)] if self.source else []
        words += ["metric", str(self.metric)] if self.metric else []
        words += ["onlink"] if self.onlink else []
        words += ["mtu", str(self.mtu)] if self.mtu else []
        yield " ".join(words)


@dataclass(frozen=True)
class Neighbor:
    """A permanent neighbour: ``address`` is at ``mac`` on ``device``."""

    device: str
    address: IPAddress
    mac: str

    @cached_property
    def identity(self) -> tuple[str, ...]:
        return ("neighbor", self.device, str(self.address))

    def lines(self) -> Iterator[str]:
        yield f"ip neigh replace {self.address} dev {self.device} lladdr {self.mac} nud permanent"


@dataclass(frozen=True)
class FdbEntry:
    """A static forwarding entry.

    With ``remote`` it belongs to a VXLAN device (``self``): frames to ``mac`` go to that VTEP, and the all-zero MAC adds a
    destination for everything unknown.  Without it, the device's bridge sends ``mac`` out of that port (``master``).
    """

    device: str
    mac: str
    remote: IPAddress | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        return ("fdb", self.device, self.mac, str(self.remote) if self.mac == ALL_ZERO_MAC else "")

    def lines(self) -> Iterator[str]:
        if self.remote is None:
            yield f"bridge fdb replace {self.mac} dev {self.device} master static"
        else:
            verb = "append" if self.mac == ALL_ZERO_MAC else "replace"
            yield f"bridge fdb {verb} {self.mac} dev {self.device} dst {self.remote} self permanent"


@dataclass(frozen=True)
class NftTable:
    """One nftables table; ``rules`` are nft commands of line syntax, in order, each starting ``add``."""

    family: str
    name: str
    rules: tuple[str, ...]

    @classmethod
    def of(cls, family: str, name: str, chains: Mapping[str, Iterable[str]]) -> NftTable:
        """A table from its chains in order: what declares each (its name, and its hook if it has one) and its rules."""
        commands = []
        for chain, rules in chains.items():
            commands.append(f"add chain {family} {name} {chain}")
            commands += [f"add rule {family} {name} {chain.split()[0]} {rule}" for rule in rules]
        return cls(family, name, tuple(commands))

    @property
    def identity(self) -> tuple[str, ...]:
        return ("nft", self.family, self.name)

    def lines(self) -> Iterator[str]:
        yield f"nft add table {self.family} {self.name}"
        for rule in self.rules:
            yield f"nft {shlex.quote(rule)}"


@dataclass(frozen=True)
class CniNetwork:
    """A node's network configuration: the file ``/etc/cni/net.d/10-NAME.conflist`` with ``text``.

    ``binaries`` is the machine's folder that the node sees as /opt/cni/bin; "": where distributions put the plugins.
    """

    name: str
    text: str
    binaries: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        return ("cni network", self.name)

    @property
    def path(self) -> str:
        return f"/etc/cni/net.d/10-{self.name}.conflist"

    def lines(self) -> Iterator[str]:
        yield f"cat > {self.path} <<'EOF'\n{self.text}\nEOF"


@dataclass(frozen=True)
class CniAttachment:
    """A pod's attachment to the ``network`` of its node, which plugins carry out: ADD when it comes, DEL when it goes.

    ``pod`` is the pod's key and ``netns`` its name in the node; ``args`` are CNI_ARGS, ``capabilities`` the arguments for
    plugins that declare them, as JSON text.
    """

    network: str
    pod: str
    netns: str
    container: str
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capabilities: str = "{}"

    @property
    def identity(self) -> tuple[str, ...]:
        return ("cni attachment", self.network, self.container, self.ifname)

    def lines(self) -> Iterator[str]:
        yield self._typed("add")

    def removal(self) -> Iterator[str]:
        yield self._typed("del")

    def _typed(self, verb: str) -> str:
        """By cnitool, the reference client, which makes up a container id of its own."""
        words = [f"CNI_IFNAME={self.ifname}"] if self.ifname != "eth0" else []
        words += [f"CAP_ARGS={shlex.quote(self.capabilities)}"] if self.capabilities != "{}" else []
        return " ".join([*words, f"CNI_PATH=/opt/cni/bin cnitool {verb} {self.network} /run/netns/{self.netns}"])


KernelObject = Union[
    Sysctl,
    Bridge,
    Veth,
    Vxlan,
    BridgePort,
    Offload,
    Up,
    RateLimit,
    Address,
    Route,
    Neighbor,
    FdbEntry,
    NftTable,
    CniNetwork,
    CniAttachment,
]
Cni = (CniNetwork, CniAttachment)  # carried out by plugins, not by the kernel
Device = (Bridge, Veth, Vxlan)
State = Mapping[str, tuple[KernelObject, ...]]


def merge(*states: State) -> State:
    """One state with the objects of all, per namespace in the order given."""
    merged: dict[str, tuple[KernelObject, ...]] = {}
    for state in states:
        for namespace, objects in state.items():
            merged[namespace] = merged.get(namespace, ()) + objects
    return merged


def shell_lines(objects: Iterable[KernelObject]) -> list[str]:
    """The `ip`, `bridge`, `nft`, `sysctl` lines that a person would type inside the namespace."""
    return [line for o in objects for line in o.lines()]
