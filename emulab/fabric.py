"""The underlay as desired state: switches, uplinks, the router that joins them, and an outside world.

Every segment is a bridge in the namespace ``underlay``.  ``gateway`` has a leg in each segment and one towards
``internet``; it is every node's default route, routes between segments, and knows no pod network: a pod's address that
leaves its cluster untranslated finds no way back.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator

from emulab.endpoints import Backends
from emulab.model import (
    GATEWAY,
    OUTSIDE_ADDRESSES,
    OUTSIDE_HOST,
    SWITCHES,
    Cluster,
    IPAddress,
    IPInterface,
    Link,
    Segment,
    Topology,
    mac_of,
)
from emulab.state import (
    Address,
    Bridge,
    BridgePort,
    KernelObject,
    NftTable,
    RateLimit,
    Route,
    State,
    Sysctl,
    Up,
    Veth,
)
from emulab.topology import gateway_addresses

_EVERYWHERE = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
_OUTSIDE_PORT = "out0"


def interface_name(name: str) -> str:
    """``name`` if the kernel can take it (15 bytes, IFNAMSIZ), else its beginning and a digest."""
    return name if len(name) <= 15 else f"{name[:10]}-{hashlib.sha1(name.encode()).hexdigest()[:4]}"


def switch_port(topology: Topology, link: Link) -> str:
    """The switch's end of a node's link: named after the node, and the segment if it has several links."""
    first = topology.uplink(link.node) == link
    return interface_name(link.node if first else f"{link.node}-{link.segment}")


def legs(topology: Topology) -> list[tuple[str, Segment, str]]:
    """The gateway's interfaces: (its name, the segment, the switch's port)."""
    return [
        (f"eth{index}", segment, interface_name(f"{GATEWAY}-{segment.name}")) for index, segment in enumerate(topology.segments)
    ]


def live_links(topology: Topology) -> list[Link]:
    """The links of nodes that are running."""
    return [link for link in topology.links if topology.running(link.node)]


def uplink(topology: Topology, link: Link) -> Veth:
    """A node's link as the pair that makes it; the object belongs to the switches' namespace."""
    return Veth(
        switch_port(topology, link),
        link.interface,
        link.node,
        link.node,
        link.mtu,
        peer_mac=mac_of(link.addresses[0].ip, "02:00"),
    )


def gateway_leg(topology: Topology, interface: str, segment: Segment, port: str) -> Veth:
    mac = mac_of(gateway_addresses(segment)[0].ip, "02:00")
    return Veth(port, interface, GATEWAY, GATEWAY, segment.mtu, peer_mac=mac)


def outside_link() -> Veth:
    """The gateway's link to the outside host; the object belongs to the gateway's namespace."""
    return Veth(_OUTSIDE_PORT, "eth0", OUTSIDE_HOST, OUTSIDE_HOST)


def switch(topology: Topology, segment: Segment) -> list[KernelObject]:
    """One segment: its bridge and ports, without the pairs themselves."""
    name = interface_name(segment.name)
    objects: list[KernelObject] = [
        Bridge(name, segment.mtu),
        Sysctl(f"net.ipv6.conf.{name}.disable_ipv6", "1"),
        Up(name),
    ]
    ports = [(switch_port(topology, link), link) for link in live_links(topology) if link.segment == segment.name]
    ports += [(port, None) for _, leg, port in legs(topology) if leg == segment]  # type: ignore[misc]
    for port, link in ports:
        objects += [Sysctl(f"net.ipv6.conf.{port}.disable_ipv6", "1"), BridgePort(port, name)]
        objects += [Up(port)] if link is None or link.up else []
        if link:
            objects += _shaping(port, link)
    return objects


def cuts(topology: Topology) -> list[KernelObject]:
    """What keeps node pairs without a direct path apart on the switch they share."""
    elements = []
    for pair in sorted(map(sorted, topology.apart)):
        for link in topology.links:
            for other in topology.links:
                if {link.node, other.node} == set(pair) and link.segment == other.segment:
                    elements.append(f'"{switch_port(topology, link)}" . "{switch_port(topology, other)}"')
    if not elements:
        return []
    rules = (
        "add chain bridge cuts forward { type filter hook forward priority 0 ; }",
        "add set bridge cuts pairs { type ifname . ifname ; }",
        f"add element bridge cuts pairs {{ {', '.join(elements)} }}",
        "add rule bridge cuts forward iifname . oifname @pairs drop",
    )
    return [NftTable("bridge", "cuts", rules)]


def node(topology: Topology, name: str) -> list[KernelObject]:
    """A node's side of the underlay: addresses on its links, the default route."""
    objects = _at_once()
    for link in topology.links:
        if link.node == name:
            objects += _interface(link.interface, link.addresses)
            objects += _shaping(link.interface, link)
    main = topology.uplink(name)
    families = {address.version for address in main.addresses}
    for address in gateway_addresses(topology.segment(main.segment)):
        if address.version in families:
            objects.append(Route(_EVERYWHERE[address.version], main.interface, address.ip))
    return objects


def gateway(topology: Topology) -> list[KernelObject]:
    """The router: a leg in each segment and one outside.  Where a pair of nodes is cut, it does not route around the cut."""
    objects = [*_at_once(), Sysctl("net.ipv4.ip_forward", "1"), Sysctl("net.ipv6.conf.all.forwarding", "1")]
    for interface, segment, _ in legs(topology):
        objects += _interface(interface, gateway_addresses(segment))
    outside = [ipaddress.ip_interface(f"{a.network.network_address + 1}/{a.network.prefixlen}") for a in OUTSIDE_ADDRESSES]
    objects += _interface(_OUTSIDE_PORT, tuple(outside))
    objects += _router_cuts(topology)
    return objects


def _router_cuts(topology: Topology) -> Iterator[NftTable]:
    for ip, kind, family in (("ip", "ipv4_addr", 4), ("ip6", "ipv6_addr", 6)):
        pairs = [
            f"{one.ip} . {two.ip}"
            for pair in sorted(map(sorted, topology.apart))
            for a, b in (pair, pair[::-1])
            for one in topology.uplink(a).addresses
            for two in topology.uplink(b).addresses
            if one.version == two.version == family
        ]
        if pairs:
            rules = (
                f"add chain {ip} cuts forward {{ type filter hook forward priority 0 ; }}",
                f"add set {ip} cuts pairs {{ type {kind} . {kind} ; }}",
                f"add element {ip} cuts pairs {{ {', '.join(pairs)} }}",
                f"add rule {ip} cuts forward {ip} saddr . {ip} daddr @pairs drop",
            )
            yield NftTable(ip, "cuts", rules)


def outside() -> list[KernelObject]:
    """The host beyond the gateway."""
    objects = [*_at_once(), *_interface("eth0", OUTSIDE_ADDRESSES)]
    for address in OUTSIDE_ADDRESSES:
        objects.append(Route(_EVERYWHERE[address.version], "eth0", address.network.network_address + 1))
    return objects


def plan(topology: Topology) -> State:
    """The whole underlay in one state, less the nodes that are switched off."""
    switches: list[KernelObject] = [uplink(topology, link) for link in live_links(topology)]
    switches += [gateway_leg(topology, *leg) for leg in legs(topology)]
    for segment in topology.segments:
        switches += switch(topology, segment)
    switches += cuts(topology)
    state: dict[str, tuple[KernelObject, ...]] = {SWITCHES: tuple(switches)}
    state[GATEWAY] = (outside_link(), *gateway(topology))
    state[OUTSIDE_HOST] = tuple(outside())
    state.update({n.name: tuple(node(topology, n.name)) for n in topology.nodes if n.running})
    return state


def announced(cluster: Cluster) -> State:
    """The gateway's routes to load balancers' addresses: each leads to the node that answers for it."""
    topology, nodes = cluster.topology, announcers(cluster)
    leg = {segment.name: interface for interface, segment, _ in legs(topology)}
    routes = [
        Route(ipaddress.ip_network(address), leg[topology.uplink(node).segment], topology.underlay_address(node, address.version))
        for address, node in nodes.items()
    ]
    return {GATEWAY: tuple(routes)} if routes else {}


def announcers(cluster: Cluster) -> dict[IPAddress, str]:
    """The node that answers for each load balancer's address, as MetalLB chooses it in layer-2 mode.

    Of the nodes that are up, or with policy Local of those with a ready endpoint, the one with the least digest; none where
    the Service has no ready endpoint at all (speaker/layer2_controller.go, ShouldAnnounce).
    """
    topology, backends = cluster.topology, Backends(cluster)
    chosen: dict[IPAddress, str] = {}
    for service in topology.objects.services:
        for address in service.balancer:
            ready = [one for port in service.ports for one in backends.of(service, port) if one.ready]
            near = {one.node for one in ready if one.address.version == address.version}
            able = [
                node.name
                for node in topology.nodes
                if node.name not in topology.off
                and topology.underlay_address(node.name, address.version).version == address.version
                and (node.name in near or (near and not service.external_local))
            ]
            if able:
                chosen[address] = min(able, key=lambda node: hashlib.sha256(f"{node}#{address}".encode()).digest())
    return chosen


def _at_once() -> list[KernelObject]:
    """Addresses are usable at once, and the lab does not depend on what the machine's own namespace has set."""
    return [
        Up("lo"),
        Sysctl("net.ipv6.conf.default.accept_dad", "0"),
        Sysctl("net.ipv4.conf.all.rp_filter", "0"),
        Sysctl("net.ipv4.conf.default.rp_filter", "0"),
    ]


def _interface(name: str, addresses: tuple[IPInterface, ...]) -> Iterator[KernelObject]:
    yield Sysctl(f"net.ipv6.conf.{name}.accept_dad", "0")
    yield Sysctl(f"net.ipv4.conf.{name}.rp_filter", "0")
    yield Up(name)
    for address in addresses:
        yield Address(name, address)


def _shaping(device: str, link: Link) -> Iterator[KernelObject]:
    if link.rate or link.delay or link.loss:
        yield RateLimit(device, link.rate, link.delay, link.loss)
