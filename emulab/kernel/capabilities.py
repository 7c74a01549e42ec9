"""What a lab needs of a machine: each thing tried for real, in a scratch sandbox, with how to get it if it is missing."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from emulab.errors import EmulabError
from emulab.kernel import applier, conntrack
from emulab.kernel.namespaces import Namespaces, entered
from emulab.state import Bridge, KernelObject, NftTable, RateLimit, Sysctl, Up, Veth, Vxlan


@dataclass(frozen=True)
class Capability:
    """One thing, what it is for, and how to get it.  Without a ``required`` one no lab starts."""

    name: str
    purpose: str
    advice: str
    required: bool = True


@dataclass(frozen=True)
class Check:
    """A capability and, if it is missing, the kernel's or system's reason."""

    capability: Capability
    missing: str | None


def tool_checks() -> Iterator[Check]:
    """Programs that a lab session starts."""
    for tool, package, purpose, required in (
        ("nsenter", "util-linux", "shells in nodes and pods", True),
        ("mnexec", "mininet", "Mininet's popen()", False),
        ("ip", "iproute2", "commands typed in nodes and pods", False),
        ("nft", "nftables", "commands typed in nodes", False),
        ("ping", "iputils-ping", "commands typed in pods", False),
        ("ethtool", "ethtool", "lines of `emulab plan`", False),
    ):
        missing = None if shutil.which(tool) else f"no {tool} on PATH"
        yield Check(Capability(tool, purpose, f"apt-get install {package}", required), missing)


def kernel_checks(scratch: Namespaces) -> Iterator[Check]:
    """Create each kernel object in a namespace of its own; the calling process is in a sandbox."""
    up = Up("a")
    pair = Veth("a", "b")
    kernel = "a kernel with it; on Debian and Ubuntu: apt-get install linux-image-$(dpkg --print-architecture)"
    vxlan = Vxlan("v", 1, ip_address("192.0.2.1"), "a", 8472)
    nat = NftTable(
        "ip",
        "t",
        (
            "add chain ip t c { type nat hook postrouting priority 100 ; }",
            "add set ip t s { type ipv4_addr ; flags interval ; }",
            "add rule ip t c ip saddr @s masquerade",
        ),
    )
    fib = NftTable(
        "ip",
        "f",
        (
            "add chain ip f c { type filter hook prerouting priority -300 ; }",
            "add rule ip f c fib saddr . iif oif 0 drop",
        ),
    )
    filtering = NftTable("bridge", "t", ("add chain bridge t c { type filter hook forward priority 0 ; }",))
    tried: tuple[tuple[Capability, tuple[KernelObject, ...]], ...] = (
        (Capability("veth", "every pod's and node's link", f"modprobe veth, or {kernel}"), (pair, up)),
        (Capability("bridge", "segments, cni0, weave", f"modprobe bridge, or {kernel}"), (Bridge("br"), Up("br"))),
        (Capability("vxlan", "flannel, calico with encap, weave", f"modprobe vxlan, or {kernel}"), (pair, vxlan)),
        (Capability("sysctl", "routing in nodes", "a writable /proc/sys"), (Sysctl("net.ipv4.ip_forward", "1"),)),
        (
            Capability("nftables nat", "masquerading", "modprobe nf_tables nft_masq nf_nat, and apt-get install nftables"),
            (nat,),
        ),
        (Capability("nftables fib", "calico's source check", "modprobe nft_fib nft_fib_inet nft_fib_ipv4"), (fib,)),
        (Capability("nftables bridge", "topologies with cut pairs", "modprobe nf_tables_bridge", False), (filtering,)),
        (
            Capability("bridge netfilter", "weave with NetworkPolicies", "modprobe br_netfilter", False),
            (Sysctl("net.bridge.bridge-nf-call-iptables", "1"),),
        ),
        (Capability("tbf", "links with a rate", "modprobe sch_tbf", False), (pair, RateLimit("a", 10**6))),
        (
            Capability("netem", "links with delay or loss", "modprobe sch_netem (Ubuntu: linux-modules-extra)", False),
            (pair, RateLimit("a", 0, 0.01)),
        ),
    )
    for index, (capability, objects) in enumerate(tried):
        name = f"scratch-{index}"
        scratch.create([name])
        yield Check(capability, _missing(lambda n=name, o=objects: applier.add(scratch, {n: o})))  # type: ignore[misc]
    scratch.create(["scratch"])
    capability = Capability("packet sockets", "taps", "modprobe af_packet; CAP_NET_RAW in containers")
    yield Check(capability, _missing(lambda: _packet_socket(scratch)))
    capability = Capability("conntrack", "evidence of translation", "modprobe nf_conntrack_netlink")
    yield Check(capability, _missing(lambda: conntrack.Watch(scratch, ["scratch"]).close()))


def _packet_socket(scratch: Namespaces) -> None:
    with entered(scratch["scratch"].net):
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def _missing(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except (EmulabError, OSError) as error:
        return str(error)
    return None
