"""How each fault is brought about: the command lines, worked out from what is planned.

Every function takes a scene and a place, and yields nothing where the fault does not apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

from emulab.dataplane import interface
from emulab.model import GATEWAY, SWITCHES, Endpoint, IPAddress, mac_from
from emulab.scene import Scene
from emulab.state import Address, FdbEntry, KernelObject, Neighbor, NftTable, Route, Sysctl, Up

IP = {4: "ip", 6: "ip -6"}
NFT = {4: "ip", 6: "ip6"}
FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
ENCAPSULATION = {4: 50, 6: 70}  # outer IP, UDP, VXLAN and the inner Ethernet header, in bytes


@dataclass(frozen=True)
class Step:
    """A command line as typed in a namespace: ip, bridge, nft or sysctl, split by shlex and run without a shell."""

    namespace: str
    line: str


Steps = Iterator[Step]


def _typed(namespace: str, *objects: KernelObject) -> Steps:
    return (Step(namespace, line) for thing in objects for line in thing.lines())


def _table(namespace: str, family: str, name: str, chain: str, rules: Iterable[str]) -> Steps:
    return _typed(namespace, NftTable.of(family, name, {chain: rules}))


def _rerouted(namespace: str, route: Route) -> Steps:
    """Another route to the same destination.  Not by `replace`, which in IPv6 takes its pick among kinds of routes."""
    yield Step(namespace, f"{IP[route.destination.version]} route del {route.destination}")
    yield from _typed(namespace, route)


def missing_route(scene: Scene, at: str) -> Steps:
    """On a node all routes to one other node, in a pod the default routes."""
    lost = [route for route in scene.all(at, Route) if not route.destination.prefixlen] if at in scene.endpoints else []
    remote = list(scene.remote(at))
    lost += [route for route, owner in remote if owner == remote[0][1]]
    for route in lost:
        destination = route.destination if route.destination.prefixlen else "default"
        yield Step(at, f"{IP[route.destination.version]} route del {destination}")


def missing_fdb(scene: Scene, at: str) -> Steps:
    """Per tunnel device the first VTEP's entry; on a bridge that of one pod."""
    entries = list(scene.all(at, FdbEntry))
    for device in scene.tunnels(at):
        entry = next((e for e in entries if e.device == device and e.remote), None)
        if entry:
            yield Step(at, f"bridge fdb del {entry.mac} dev {device} dst {entry.remote} self")
    macs = {endpoint.mac for endpoint in scene.cluster.endpoints}
    entry = next((e for e in entries if e.remote is None and e.mac in macs), None)
    if entry:
        yield Step(at, f"bridge fdb del {entry.mac} dev {entry.device} master")


def wrong_vtep_mac(scene: Scene, at: str) -> Steps:
    """Neighbour and forwarding entry agree on a MAC that the other end had once: frames arrive there and are not taken."""
    for device in scene.tunnels(at):
        known = next((n for n in scene.all(at, Neighbor) if n.device == device), None)
        entry = next((e for e in scene.all(at, FdbEntry) if known and (e.device, e.mac) == (device, known.mac)), None)
        if known and entry:
            old = mac_from("the node's life before", known.mac)
            yield from _typed(at, replace(known, mac=old))
            yield Step(at, f"bridge fdb del {entry.mac} dev {device} dst {entry.remote} self")
            yield from _typed(at, replace(entry, mac=old))


def stale_neighbor(scene: Scene, at: str) -> Steps:
    endpoint = scene.endpoints.get(at)
    if endpoint:
        for address in endpoint.addresses:
            for namespace, device in scene.neighbours(endpoint, address):
                yield from _typed(namespace, Neighbor(device, address, mac_from("the pod before", endpoint.key)))


def vxlan_port_blocked(scene: Scene, at: str) -> Steps:
    ports = sorted({device.port for device in scene.tunnels(at).values()})
    if ports:
        chain = "input { type filter hook input priority filter ; policy accept ; }"
        yield from _table(at, "inet", "filter", chain, (f"udp dport {port} counter drop" for port in ports))


def mtu_mismatch(scene: Scene, at: str) -> Steps:
    """The switch port takes fewer bytes than the largest packet of this node's pods needs, and a switch sends no ICMP."""
    pods = scene.afar(at)
    port = next((port for port, node in scene.ports.items() if node == at), None)
    if pods and port:
        family = scene.cluster.topology.families[0]
        wire = scene.plane.wire(scene.cluster, *pods, family)
        needed = wire.mtu + (ENCAPSULATION[wire.tunnels[0].source.version] if wire.tunnels else 0)
        yield Step(SWITCHES, f"ip link set dev {port} mtu {needed - 50}")


def rp_filter_strict(scene: Scene, at: str) -> Steps:
    """Answers to one node leave by another interface than its packets come in by: lawful, but not to the strict filter.

    IPv6 has no such sysctl.
    """
    topology = scene.cluster.topology
    for route, peer in scene.remote(at):
        for ours in topology.links:
            for theirs in topology.links:
                via = next((a.ip for a in theirs.addresses if a.version == route.destination.version == 4), None)
                joined = (ours.node, theirs.node, ours.segment) == (at, peer, theirs.segment) and topology.connected(at, peer)
                if joined and via and ours.interface != route.device:
                    yield Step(at, "sysctl -qw net.ipv4.conf.all.rp_filter=1")
                    yield from _rerouted(at, Route(route.destination, ours.interface, via))
                    return


def ip_forward_off(scene: Scene, at: str) -> Steps:
    if at not in scene.endpoints:
        yield from (Step(at, f"sysctl -qw {s.key}=0") for s in scene.all(at, Sysctl) if s.key in FORWARDING and s.value == "1")


def forward_drop(scene: Scene, at: str) -> Steps:
    if at not in scene.endpoints:
        for family in scene.cluster.topology.families:
            chain = "FORWARD { type filter hook forward priority filter ; policy drop ; }"
            yield from _table(at, NFT[family], "filter", chain, ())


def proxy_arp_off(scene: Scene, at: str) -> Steps:
    endpoint = scene.endpoints.get(at)
    key = f"net.ipv4.conf.{scene.host_end(endpoint)}.proxy_arp" if endpoint else ""
    if endpoint and any(s.key == key and s.value == "1" for s in scene.all(endpoint.node, Sysctl)):
        yield Step(endpoint.node, f"sysctl -qw {key}=0")
        yield Step(at, "ip -4 neigh flush dev eth0")  # or the pod would go on with the answer it once got


def masquerade_pods(scene: Scene, at: str) -> Steps:
    """Only where nodes route: what is bridged between pods meets no NAT."""
    pods = scene.afar(at)
    for family in scene.cluster.topology.families:
        leases = [lease.network for lease in scene.cluster.leases_of(at, family)]
        if pods and leases and scene.is_flat() and scene.plane.wire(scene.cluster, *pods, family).ttl_loss:
            chain = "POSTROUTING { type nat hook postrouting priority srcnat ; }"
            rules = (f"{NFT[family]} saddr {lease} counter masquerade" for lease in leases)
            yield from _table(at, NFT[family], "nat", chain, rules)


def duplicate_pod_ip(scene: Scene, at: str) -> Steps:
    """The other pod is the last one that could be taken for this: of the same node, or of the same link, or any."""
    victim = scene.endpoints.get(at)
    other = _double(scene, victim) if victim else None
    if not victim or not other:
        return
    for address in victim.addresses:
        length = next((a.address.network.prefixlen for a in scene.all(at, Address) if a.address.ip == address), None)
        route = scene.routed(other, other.address(address.version))
        if length and route:
            yield from _typed(other.key, Address("eth0", interface(address, length)))
            if other.node == victim.node:
                yield Step(victim.node, f"{IP[address.version]} route del {address}")
            yield from _typed(other.node, replace(route, destination=ip_network(address)))
        elif length:
            # A new pod announces its address (gratuitous ARP), so that all who knew the old one turn to it.
            yield Step(other.key, "sysctl -qw net.ipv4.conf.eth0.arp_notify=1")
            yield from _typed(other.key, Address("eth0", interface(address, length)))
            yield Step(other.key, f"ip link set dev eth0 address {other.mac}")
            yield Step(other.key, "sysctl -qw net.ipv4.conf.eth0.arp_notify=0")


def _double(scene: Scene, victim: Endpoint) -> Endpoint | None:
    others = [endpoint for endpoint in reversed(scene.cluster.endpoints) if endpoint is not victim]
    asking = {namespace for address in victim.addresses for namespace, _ in scene.neighbours(victim, address)}
    near = [e for e in others if e.node == victim.node] or [e for e in others if e.key in asking]
    return next(iter(near or [e for e in others if scene.routed(e, e.addresses[0])]), None)


def overlapping_pod_cidr(scene: Scene, at: str) -> Steps:
    """The lease of the first other node, claimed by this one: the claimant keeps it to itself, everybody else believes it."""
    claimed = list(scene.remote(at))
    owner = claimed[0][1] if claimed else ""
    for route, _ in (found for found in claimed if found[1] == owner):
        yield from _rerouted(at, _kept(scene, at, route))
    for node in scene.others(at):
        ways = list(scene.remote(node))
        for route, _ in (found for found in ways if owner == found[1]):
            family = route.destination.version
            like = next((way for way, peer in ways if peer == at and way.destination.version == family), None)
            if like:
                yield from _rerouted(node, replace(like, destination=route.destination))


def _kept(scene: Scene, node: str, route: Route) -> Route:
    """A route for what this node takes for its own: onto its bridge, or nowhere, as its own lease has it."""
    own = [lease.network for lease in scene.cluster.leases_of(node, route.destination.version)]
    bridge = next(
        (a.device for a in scene.all(node, Address) if a.address.network in own and a.address.network.num_addresses > 1), None
    )
    if bridge:
        return Route(route.destination, bridge, link_scope=route.destination.version == 4)
    like = next((r for r in scene.all(node, Route) if r.kind == "blackhole" and r.destination in own), None)
    return replace(like or Route(route.destination, kind="blackhole"), destination=route.destination)


def dnat_leftover(scene: Scene, at: str) -> Steps:
    """An address that was a service's once leads to a pod that is gone; on this pod's node, in the places kube-proxy uses."""
    endpoint = scene.endpoints.get(at)
    for address in endpoint.addresses if endpoint and scene.is_flat() else ():
        gone = _unused(scene, at, address)
        if endpoint and gone:
            rule = f"{NFT[address.version]} daddr {address} counter dnat to {gone}"
            hooks = {"PREROUTING": "prerouting", "OUTPUT": "output"}
            chains = {f"{chain} {{ type nat hook {hook} priority -100 ; }}": (rule,) for chain, hook in hooks.items()}
            yield from _typed(endpoint.node, NftTable.of(NFT[address.version], "nat", chains))


def _unused(scene: Scene, pod: str, address: IPAddress) -> IPAddress | None:
    """The last address of the pod's lease that nobody has."""
    taken = {*scene.holders, *(gateway for found in scene.cluster.gateways.values() for gateway in found)}
    for lease in scene.cluster.leases:
        if address in lease.network:
            last = int(lease.network.broadcast_address)
            numbers = range(last - 1, int(lease.network.network_address), -1)
            return next((a for a in (type(address)(number) for number in numbers) if a not in taken), None)
    return None


def one_way_loss(scene: Scene, at: str) -> Steps:
    """Three of four packets that the node sends: counted, so that even a few of them show it."""
    rules = [
        f'iifname "{port}" meta protocol {{ ip, ip6 }} numgen inc mod 4 != 0 counter drop'
        for port, node in scene.ports.items()
        if node == at
    ]
    if rules:
        yield from _table(SWITCHES, "bridge", "filter", "FORWARD { type filter hook forward priority 0 ; }", rules)


def node_partition(scene: Scene, at: str) -> Steps:
    """Nothing between the node and the others, neither on their switches nor over the router; the outside stays in reach."""
    if at not in scene.others(""):
        return
    ours = _named(port for port, node in scene.ports.items() if node == at)
    theirs = _named(port for port, node in scene.ports.items() if node != at)
    if not ours or not theirs:
        return
    rules = (f"iifname {ours} oifname {theirs} counter drop", f"iifname {theirs} oifname {ours} counter drop")
    yield from _table(SWITCHES, "bridge", "filter", "FORWARD { type filter hook forward priority 0 ; }", rules)
    routed = []
    for family in (4, 6):
        here, there = (_underlay(scene, family, at, mine) for mine in (True, False))
        if here and there:
            ip = NFT[family]
            routed += [f"{ip} saddr {one} {ip} daddr {other} counter drop" for one, other in ((here, there), (there, here))]
    if len(scene.cluster.topology.segments) > 1:
        yield from _table(GATEWAY, "inet", "filter", "FORWARD { type filter hook forward priority filter ; }", routed)


def _named(ports: Iterable[str]) -> str:
    """A set of interface names in nft's words, "" if it is empty."""
    names = ", ".join(f'"{port}"' for port in ports)
    return names and f"{{ {names} }}"


def _underlay(scene: Scene, family: int, node: str, mine: bool) -> str:
    links = (link for link in scene.cluster.topology.links if (link.node == node) == mine)
    found = ", ".join(str(a.ip) for link in links for a in link.addresses if a.version == family)
    return found and f"{{ {found} }}"


def tunnel_down(scene: Scene, at: str) -> Steps:
    """Where each peer has a device of its own the first one, else the node's only ones."""
    up = {thing.device for thing in scene.all(at, Up)}
    devices = [device for device in scene.tunnels(at).values() if device.name in up]
    for device in devices[:1] if any(device.remote for device in devices) else devices:
        yield Step(at, f"ip link set dev {device.name} down")


def conntrack_full(scene: Scene, at: str) -> Steps:
    """The limit itself, nf_conntrack_max, cannot be written in a namespace: a rule drops what exceeds a count of its own."""
    if at not in scene.endpoints:
        chain = "PREROUTING { type filter hook prerouting priority mangle ; }"
        yield from _table(at, "inet", "filter", chain, ("ct state new ct count over 4 counter drop",))
