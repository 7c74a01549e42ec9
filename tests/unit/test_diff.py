"""From one state to another: what is done in which order, and what would be typed for it."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from tables import each_row

from emulab.diff import alteration, diff, lines, removal
from emulab.nft_delta import delta, transactions
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

NETWORK, ONE, OTHER = ip_network("10.1.2.0/24"), ip_address("192.168.50.2"), ip_address("192.168.50.3")
VXLAN = Vxlan("vx", 1, ONE, "eth0", 8472)
ADDRESS = Address("vx", ip_interface("10.1.1.0/32"))
ROUTE = Route(NETWORK, "vx", ONE, onlink=True)


def state(*things: KernelObject) -> State:
    return {"n": things}


def test_nothing_differs() -> None:
    assert not diff(state(VXLAN, ROUTE), state(VXLAN, ROUTE))


def test_what_hangs_on_a_device_goes_with_it() -> None:
    found = diff(state(VXLAN, ADDRESS, Up("vx"), ROUTE, Sysctl("a.b", "1")), state(Sysctl("a.b", "1")))
    assert (found.first, found.remove, found.add) == ({"n": (VXLAN,)}, {}, {})


def test_a_device_that_is_made_anew_gets_everything_back() -> None:
    other = Vxlan("vx", 2, ONE, "eth0", 8472)
    found = diff(state(VXLAN, ADDRESS, Up("vx"), ROUTE), state(other, ADDRESS, Up("vx"), ROUTE))
    assert found.first == {"n": (VXLAN,)}
    assert found.add == {"n": (other, ADDRESS, Up("vx"), ROUTE)}


CHANGED = {
    "mtu of a tunnel": (VXLAN, Vxlan("vx", 1, ONE, "eth0", 8472, mtu=1400), ["ip link set dev vx mtu 1400"]),
    "learning": (VXLAN, Vxlan("vx", 1, ONE, "eth0", 8472, learning=True), ["ip link set dev vx type vxlan learning"]),
    "mac of a bridge": (Bridge("b"), Bridge("b", mac="02:00:00:00:00:01"), ["ip link set dev b address 02:00:00:00:00:01"]),
    "route": (ROUTE, Route(NETWORK, "eth0", OTHER), ["ip route replace 10.1.2.0/24 via 192.168.50.3 dev eth0"]),
    "neighbour": (
        Neighbor("vx", ONE, "02:00:00:00:00:01"),
        Neighbor("vx", ONE, "02:00:00:00:00:02"),
        ["ip neigh replace 192.168.50.2 dev vx lladdr 02:00:00:00:00:02 nud permanent"],
    ),
    "sysctl": (Sysctl("a.b", "0"), Sysctl("a.b", "1"), ["sysctl -qw a.b=1"]),
    "rate": (
        RateLimit("e", 10**6),
        RateLimit("e", 10**7),
        ["tc qdisc replace dev e root tbf rate 10000000bit burst 131072 latency 50ms"],
    ),
}


@each_row("before, after, typed", CHANGED.values(), ids=CHANGED)
def test_what_changes_in_place(before: KernelObject, after: KernelObject, typed: list[str]) -> None:
    found = diff(state(before), state(after))
    assert (found.change, found.add, found.remove, found.first) == ({"n": ((before, after),)}, {}, {}, {})
    assert list(alteration(before, after)) == typed
    assert lines(found, {}) == {"n": typed}


REMOVED = {
    "bridge": (Bridge("b"), "ip link del dev b"),
    "pair": (Veth("a", "b", "x", "x"), "ip link del dev a"),
    "port": (BridgePort("a", "b"), "ip link set dev a nomaster"),
    "up": (Up("a"), "ip link set dev a down"),
    "address": (ADDRESS, "ip addr del 10.1.1.0/32 dev vx"),
    "route": (ROUTE, "ip route del 10.1.2.0/24 via 192.168.50.2 dev vx onlink"),
    "fdb": (FdbEntry("vx", "02:00:00:00:00:01", ONE), "bridge fdb del 02:00:00:00:00:01 dev vx dst 192.168.50.2 self"),
    "fdb of a bridge": (FdbEntry("p", "02:00:00:00:00:01"), "bridge fdb del 02:00:00:00:00:01 dev p master"),
    "neighbour": (Neighbor("vx", ONE, "02:00:00:00:00:01"), "ip neigh del 192.168.50.2 dev vx"),
    "shape": (RateLimit("e", 1), "tc qdisc del dev e root"),
    "table": (NftTable("ip", "t", ()), "nft delete table ip t"),
}


@each_row("thing, line", REMOVED.values(), ids=REMOVED)
def test_what_goes(thing: KernelObject, line: str) -> None:
    assert list(removal(thing)) == [line]


def test_a_setting_has_no_absence() -> None:
    assert list(removal(Sysctl("a.b", "1"))) == []


def test_namespaces_come_and_go() -> None:
    found = diff({"n": ()}, {"n": (), "default/p": (Up("lo"),)})
    assert (found.new, lines(found, {"default/p": ("n", "p")})) == (
        ("default/p",),
        {"n": ["ip netns add p"], "default/p": ["ip link set dev lo up"]},
    )
    assert lines(diff({"n": (), "default/p": (Up("lo"),)}, {"n": ()}), {"default/p": ("n", "p")}) == {"n": ["ip netns del p"]}


def table(**chains: list[str]) -> NftTable:
    return NftTable.of("ip", "t", chains)


SETS = ("add set ip t s { type ipv4_addr ; }", "add chain ip t c", "add rule ip t c ip saddr @s drop")
DELTAS = {
    "a rule more": (
        table(c=["accept"]),
        table(c=["accept", "drop"]),
        ["flush chain ip t c", "add rule ip t c accept", "add rule ip t c drop"],
    ),
    "a chain more": (table(c=[]), table(c=[], d=["drop"]), ["add chain ip t d", "add rule ip t d drop"]),
    "a chain less": (
        table(c=["jump d"], d=["drop"]),
        table(c=[]),
        ["flush chain ip t c", "flush chain ip t d", "delete chain ip t d"],
    ),
    "another hook": (
        table(**{"c { type filter hook input priority 0 ; }": []}),
        table(**{"c { type filter hook forward priority 0 ; }": []}),
        ["delete table ip t", "add table ip t", "add chain ip t c { type filter hook forward priority 0 ; }"],
    ),
    "elements": (
        NftTable("ip", "t", (*SETS, "add element ip t s { 1.1.1.1, 2.2.2.2 }")),
        NftTable("ip", "t", (*SETS, "add element ip t s { 2.2.2.2, 3.3.3.3 }")),
        ["delete element ip t s { 1.1.1.1 }", "add element ip t s { 3.3.3.3 }"],
    ),
    "a set less": (
        NftTable("ip", "t", (*SETS, "add element ip t s { 1.1.1.1 }")),
        NftTable("ip", "t", ("add chain ip t c",)),
        ["flush chain ip t c", "delete set ip t s"],
    ),
    "a chain that leads to a new one": (
        table(c=["accept"], d=["drop"]),
        table(c=["jump e", "ip saddr @s accept"], d=["drop"], e=["drop"]),
        [
            "add chain ip t e",
            "add rule ip t e drop",
            "flush chain ip t c",
            "add rule ip t c jump e",
            "add rule ip t c ip saddr @s accept",
        ],
    ),
    "a set more": (
        NftTable("ip", "t", ("add chain ip t c", "add rule ip t c accept")),
        NftTable("ip", "t", (*SETS, "add element ip t s { 1.1.1.1 }")),
        [
            "add set ip t s { type ipv4_addr ; }",
            "add element ip t s { 1.1.1.1 }",
            "flush chain ip t c",
            "add rule ip t c ip saddr @s drop",
        ],
    ),
    "a map less": (
        NftTable("ip", "t", ("add map ip t m { type ifname : verdict ; }", "add chain ip t d", "add rule ip t d drop")),
        NftTable("ip", "t", ()),
        ["flush chain ip t d", "delete map ip t m", "delete chain ip t d"],
    ),
    "a map less, and the rule that asked it": (
        NftTable(
            "ip",
            "t",
            (
                "add map ip t m { type ifname : verdict ; }",
                "add chain ip t d",
                "add chain ip t c",
                "add rule ip t c oifname vmap @m",
                'add element ip t m { "eth0" : goto d }',
            ),
        ),
        NftTable("ip", "t", ()),
        ["flush chain ip t c", "delete map ip t m", "delete chain ip t d", "delete chain ip t c"],
    ),
}


FLUSHED = ["flush chain ip t c", "add rule ip t c accept", "add rule ip t c drop"]


@each_row(
    "commands, room, pieces",
    [
        (["add chain ip t a", *FLUSHED], None, [["add chain ip t a", *FLUSHED]]),
        (["add chain ip t a", *FLUSHED], 4, [["add chain ip t a", *FLUSHED]]),
        (["add chain ip t a", *FLUSHED], 3, [["add chain ip t a"], FLUSHED]),
        (["add chain ip t a", *FLUSHED], 1, [["add chain ip t a"], FLUSHED]),
        ([*FLUSHED, "add element ip t s { 1.1.1.1 }"], 3, [FLUSHED, ["add element ip t s { 1.1.1.1 }"]]),
        ([*FLUSHED, *FLUSHED], 3, [FLUSHED, FLUSHED]),
        (
            ["add chain ip t a", "add rule ip t a drop", "add chain ip t b"],
            2,
            [["add chain ip t a", "add rule ip t a drop"], ["add chain ip t b"]],
        ),
        (
            ["delete table ip t", "add table ip t", "add chain ip t a"],
            1,
            [["delete table ip t", "add table ip t", "add chain ip t a"]],
        ),
        (
            [f"add element ip t s {{ {', '.join(['1.1.1.1'] * 50)} }}", "add chain ip t a"],
            2,
            [[f"add element ip t s {{ {', '.join(['1.1.1.1'] * 50)} }}"], ["add chain ip t a"]],
        ),
        ([], 3, []),
    ],
)
def test_commands_are_cut_where_nothing_is_half_done(commands: list[str], room: int | None, pieces: list[list[str]]) -> None:
    assert list(transactions(commands, room)) == pieces


@each_row("before, after, commands", DELTAS.values(), ids=DELTAS)
def test_a_table_changes_only_where_it_differs(before: NftTable, after: NftTable, commands: list[str]) -> None:
    assert delta(before, after) == commands
    assert diff(state(before), state(after)).change == {"n": ((before, after),)}
