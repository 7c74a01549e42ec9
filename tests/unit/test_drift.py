"""Two states compared: what counts as the same, what as missing, altered or extra, and how it is said."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from tables import each_row

from emulab import mending
from emulab.drift import Foreign, Found, Listing, compare
from emulab.kernel.listing import statements
from emulab.state import (
    Address,
    Bridge,
    BridgePort,
    FdbEntry,
    KernelObject,
    Neighbor,
    NftTable,
    RateLimit,
    Route,
    State,
    Sysctl,
    Up,
    Veth,
    Vxlan,
)

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
BRIDGE = Bridge("br0", 1450, MAC)
VXLAN = Vxlan("vx0", 1, ip_address("192.0.2.1"), "eth0", 8472)
LOCAL = Veth("left", "right")
PORT = BridgePort("left", "br0", hairpin=True)
SYSCTL = Sysctl("net.ipv4.ip_forward", "1")
ADDRESS = Address("br0", ip_interface("10.1.1.1/24"))
CONNECTED = Route(ip_network("10.1.1.0/24"), "br0", link_scope=True, protocol=2, source=ip_address("10.1.1.1"))
ROUTE = Route(ip_network("10.1.2.0/24"), "br0", ip_address("10.1.1.2"))
SIX = Route(ip_network("fd00:2::/64"), "br0", ip_address("fe80::2"))
NEIGHBOUR = Neighbor("vx0", ip_address("10.1.1.2"), MAC)
ENTRY = FdbEntry("vx0", MAC, ip_address("192.0.2.2"))
TABLE = NftTable("ip", "t", ("add chain ip t c", "add rule ip t c meta mark 0x1 return", "add rule ip t c drop"))
SHAPED = RateLimit("br0", 10**6, 0.01, 0.05)


def seen(*objects: Found, planned: tuple[KernelObject, ...] = ()) -> list[str]:
    return [str(one) for one in compare({"n": planned}, {"n": objects})]


ALTERED: list[tuple[KernelObject, Found, str]] = [
    (BRIDGE, replace(BRIDGE, mtu=1500), "mtu 1500"),
    (BRIDGE, replace(BRIDGE, mac=OTHER), f"mac {OTHER}"),
    (BRIDGE, Foreign(BRIDGE.identity, "ip link add name br0 mtu 1500 type dummy"), "ip link add name br0 mtu 1500 type dummy"),
    (VXLAN, replace(VXLAN, mac=MAC, port=4789, learning=True), "port 4789, learning on"),
    (VXLAN, replace(VXLAN, remote=ip_address("192.0.2.9")), "remote 192.0.2.9"),
    (PORT, replace(PORT, hairpin=False, isolated=True), "hairpin off, isolated on"),
    (PORT, replace(PORT, bridge="br1"), "bridge br1"),
    (SYSCTL, replace(SYSCTL, value="0"), "value 0"),
    (ADDRESS, replace(ADDRESS, scope="link"), "scope link"),
    (ROUTE, replace(ROUTE, via=ip_address("10.1.1.9"), onlink=True), "via 10.1.1.9, onlink on"),
    (ROUTE, replace(ROUTE, via=None, device=None, kind="blackhole"), "no device, no via, kind blackhole"),
    (replace(ROUTE, mtu=1400), ROUTE, "no mtu"),
    (NEIGHBOUR, replace(NEIGHBOUR, mac=OTHER), f"mac {OTHER}"),
    (ENTRY, replace(ENTRY, remote=ip_address("192.0.2.9")), "remote 192.0.2.9"),
    (SHAPED, replace(SHAPED, rate=2 * 10**6), "rate 2000000"),
    (SHAPED, Foreign(SHAPED.identity, "tc qdisc add dev br0 root htb"), "tc qdisc add dev br0 root htb"),
]
PLANNED: list[KernelObject] = [BRIDGE, VXLAN, PORT, Up("br0"), SYSCTL, ADDRESS, ROUTE, SIX, NEIGHBOUR, ENTRY, SHAPED, TABLE]


@each_row("thing", PLANNED, ids=lambda thing: type(thing).__name__)
def test_as_planned_missing_or_extra(thing: KernelObject) -> None:
    line = "nft table ip t" if thing is TABLE else "; ".join(thing.lines())
    contents = " (chain c: meta mark 0x1 return; chain c: drop)" if thing is TABLE else ""
    assert seen(thing, planned=(thing,)) == []
    assert seen(planned=(thing,)) == [f"n: missing: {line}"]
    assert seen(thing) == [f"n: extra: {line}{contents}"]


@each_row("planned, found, said", ALTERED, ids=lambda value: str(getattr(value, "identity", value)))
def test_altered(planned: KernelObject, found: Found, said: str) -> None:
    assert seen(found, planned=(planned,)) == [f"n: altered: {'; '.join(planned.lines())}  (found: {said})"]


SAME: list[tuple[KernelObject, Found]] = [
    (replace(BRIDGE, mac=None), BRIDGE),
    (VXLAN, replace(VXLAN, mac=MAC)),
    (Sysctl("net.ipv4.ping_group_range", "1 0"), Sysctl("net.ipv4.ping_group_range", "1 0")),
    (Sysctl("net.ipv4.ping_group_range", "1\t0"), Sysctl("net.ipv4.ping_group_range", "1 0")),
    (replace(SIX, metric=1024), SIX),
    (replace(ROUTE, metric=0), ROUTE),
    (replace(ROUTE, via=None), replace(ROUTE, via=None, link_scope=True)),
    (SHAPED, replace(SHAPED, delay=0.0100000001, loss=0.04999999998)),
    (TABLE, Listing("ip", "t", ("add chain ip t c", "x"), ("add chain ip t c", "x"))),
]


@each_row("planned, found", SAME, ids=str)
def test_what_only_looks_different(planned: KernelObject, found: Found) -> None:
    assert seen(found, planned=(planned,)) == []


def test_what_the_kernel_adds_is_no_deviation() -> None:
    pair = (replace(LOCAL, mtu=1400), Veth("right", "left", mtu=1400))
    ends = (LOCAL, Veth("right", "left"))
    assert seen(CONNECTED) == []
    assert seen(replace(BRIDGE, mtu=1400), *pair, PORT, planned=(BRIDGE, replace(LOCAL, mtu=1400), PORT)) == []
    assert seen(replace(BRIDGE, mtu=1400), *ends, PORT, planned=(BRIDGE, LOCAL, PORT)) == [
        "n: altered: ip link add name br0 address 02:00:00:00:00:01 mtu 1450 type bridge  (found: mtu 1400)"
    ]


def test_the_route_of_an_address_that_is_there() -> None:
    planned = (Up("br0"), ADDRESS)
    gone = "n: missing: ip route add 10.1.1.0/24 dev br0 proto 2 scope link src 10.1.1.1"
    assert seen(*planned, CONNECTED, planned=planned) == []
    assert seen(*planned, planned=planned) == [gone]
    assert seen(ADDRESS, planned=planned) == ["n: missing: ip link set dev br0 up"]
    single = Address("br0", ip_interface("10.1.1.1/32"))
    assert seen(Up("br0"), single, planned=(Up("br0"), single)) == []


def test_the_route_of_an_address_is_put_back_before_routes_that_need_it() -> None:
    planned = {"n": (BRIDGE, Up("br0"), ADDRESS, ROUTE)}
    deviations = compare(planned, {"n": planned["n"][:-1]})
    assert mending.mend(planned, reversed(list(deviations))).add == {"n": (CONNECTED, ROUTE)}


def test_of_two_with_one_identity_the_planned_one_is_matched() -> None:
    second = replace(ROUTE, via=ip_address("10.1.1.9"))
    assert seen(second, ROUTE, planned=(ROUTE,)) == ["n: extra: ip route add 10.1.2.0/24 via 10.1.1.9 dev br0"]
    assert seen(SYSCTL, planned=(replace(SYSCTL, value="0"), SYSCTL)) == [], "the kernel holds what was set last"


HOST = Veth("host", "eth0", "pods/a", "a", 1450, peer_mac=MAC)
DESIRED: State = {"n": (HOST, Up("host")), "pods/a": (Up("eth0"),)}
NEAR = Veth("host", "eth0", "pods/a", "a", 1450, OTHER, MAC)
FAR = Veth("eth0", "host", "n", "n", 1450, MAC, OTHER)
AS_PLANNED = "ip link add name host mtu 1450 type veth peer name eth0 address 02:00:00:00:00:01 mtu 1450 netns a"
FROM_FAR = "ip link add name eth0 address 02:00:00:00:00:01 mtu 1450 type veth peer name host mtu 1450 netns n"


@each_row(
    "near, far, said",
    [
        ((NEAR,), (FAR,), []),
        ((replace(NEAR, mtu=9),), (FAR,), [f"n: altered: {AS_PLANNED}  (found: mtu 9)"]),
        ((NEAR,), (replace(FAR, mtu=9),), [f"pods/a: altered: {FROM_FAR}  (found: mtu 9)"]),
        ((replace(NEAR, peer_mac=OTHER),), (replace(FAR, mac=OTHER),), [f"pods/a: altered: {FROM_FAR}  (found: mac {OTHER})"]),
        ((), (), [f"n: missing: {AS_PLANNED}"]),
        ((replace(NEAR, peer="?", peer_namespace="?"),), (), [f"n: missing: {AS_PLANNED}"]),
        (
            (),
            (Foreign(FAR.identity, "ip link add name eth0 mtu 1500 type dummy"),),
            [
                f"n: missing: {AS_PLANNED}",
                f"pods/a: altered: {FROM_FAR}  (found: ip link add name eth0 mtu 1500 type dummy)",
            ],
        ),
    ],
    ids=["as planned", "near mtu", "far mtu", "far mac", "gone", "far end elsewhere", "far end replaced"],
)
def test_pairs_between_namespaces(near: tuple[Found, ...], far: tuple[Found, ...], said: list[str]) -> None:
    observed = {"n": (*near, Up("host")), "pods/a": (*far, Up("eth0"))}
    assert [str(one) for one in compare(DESIRED, observed)] == said


def test_an_extra_pair_is_one_deviation() -> None:
    assert len(seen(Veth("x", "y"), Veth("y", "x"))) == 1


def test_the_device_comes_before_what_hangs_on_it_and_namespaces_in_order() -> None:
    found = compare({"n": (Up("br0"), BRIDGE, ADDRESS), "m": (SYSCTL,)}, {"n": (ENTRY,)})
    assert [(one.namespace, one.kind, one.planned or one.found) for one in found] == [
        ("n", "missing", BRIDGE),
        ("n", "missing", Up("br0")),
        ("n", "missing", ADDRESS),
        ("n", "extra", ENTRY),
        ("m", "missing", SYSCTL),
    ]


WANTED = ("add chain ip t c { type filter hook forward priority filter; policy accept; }", "add rule ip t c accept")


@each_row(
    "rules, said",
    [
        ((*WANTED, "add rule ip t c udp dport 53 drop"), "chain c: extra: udp dport 53 drop"),
        (WANTED[:1], "chain c: missing: accept"),
        ((*WANTED, "add chain ip t d"), "chain d: extra:"),
        ((*WANTED, "add element ip t s { 10.0.0.1 }"), "set s: extra: { 10.0.0.1 }"),
        ((*WANTED, *(f"add rule ip t c tcp dport {n} drop" for n in range(6))), "and 2 more"),
    ],
)
def test_the_detail_of_a_table(rules: tuple[str, ...], said: str) -> None:
    (found,) = compare({"n": (TABLE,)}, {"n": (Listing("ip", "t", rules, WANTED),)})
    assert found.kind == "altered"
    assert said in found.detail
    assert str(found) == f"n: altered: nft table ip t ({found.detail})"


def test_a_listing_as_commands() -> None:
    listing = (
        "\tset s {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.0.0.2,\n\t\t\t     10.0.0.1 }\n\t}\n\n"
        "\tset d {\n\t\ttype ipv4_addr\n\t\tflags dynamic,timeout\n\t\telements = { 10.0.0.3 }\n\t}\n\n"
        "\tchain c {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tip saddr @s drop\n\t}\n\n"
        "\tchain e {\n\t}\n}\n"
    )
    assert statements("ip", "t", listing) == (
        "add set ip t s { type ipv4_addr; flags interval; }",
        "add element ip t s { 10.0.0.1 }",
        "add element ip t s { 10.0.0.2 }",
        "add set ip t d { type ipv4_addr; flags dynamic,timeout; }",
        "add chain ip t c { type filter hook forward priority filter; policy accept; }",
        "add rule ip t c ip saddr @s drop",
        "add chain ip t e",
    )
