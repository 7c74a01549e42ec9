"""The CNI runtime with Debian's plugins, and with plugins that do all that plugins must not do."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from attaching import Host, inside_of, ip, network
from sandboxed import inside

from emulab.cni import config, runner
from emulab.cni.errors import CniError
from emulab.cni.runtime import Attachment

IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.88.0.0/24"}]],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dataDir": "/run/leases",
}
DUAL = {
    **IPAM,
    "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True}
MASQUERADED = {**BRIDGE, "ipMasq": True}
STATIC = {
    "type": "static",
    "addresses": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}],
    "routes": [{"dst": "10.7.0.0/16", "gw": "10.9.0.1"}],
}
META = (
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    {"type": "firewall"},
    {"type": "tuning", "mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}, "capabilities": {"mac": True}},
)
WANTED = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 1_000_000, "egressRate": 1_000_000, "egressBurst": 1_000_000},
    "mac": "c2:11:22:33:44:55",
}
NETWORKS: dict[str, tuple[config.NetworkList, str, set[str], set[str]]] = {  # the interface, its addresses, its routes
    "bridge": (network({**MASQUERADED, "ipam": DUAL}), "eth0", {"10.88.0.2/24", "fd00:88::2/64"}, {"default"}),
    "bridge 0.3.1": (network({**BRIDGE, "ipam": IPAM}, version="0.3.1"), "eth0", {"10.88.0.2/24"}, {"default"}),
    "bridge 0.2.0": (network({**BRIDGE, "ipam": IPAM}, version="0.2.0"), "eth0", {"10.88.0.2/24"}, {"default"}),
    "the best of many": (
        network({**BRIDGE, "ipam": IPAM}, cniVersions=["0.4.0", "1.0.0", "1.1.0"]),
        "eth0",
        {"10.88.0.2/24"},
        {"default"},
    ),
    "static": (network({**BRIDGE, "ipam": STATIC}), "eth0", {"10.9.0.7/24"}, {"10.7.0.0/16"}),
    "ptp": (network({"type": "ptp", "ipam": IPAM}), "eth0", {"10.88.0.2/24"}, {"default"}),
    "macvlan": (network({"type": "macvlan", "master": "up0", "ipam": IPAM}), "net1", {"10.88.0.2/24"}, {"default"}),
    "vlan": (network({"type": "vlan", "master": "up0", "vlanId": 7, "ipam": IPAM}), "eth0", {"10.88.0.2/24"}, {"default"}),
    "loopback": (network({"type": "loopback"}), "lo", {"127.0.0.1/8", "::1/128"}, set()),
}


@pytest.mark.parametrize(("name", "user"), [*zip(NETWORKS, itertools.cycle(("user", "root")))])
def test_a_container_lives_and_dies_by_debians_plugins(user: str, name: str) -> None:
    chain, ifname, addresses, routes = NETWORKS[name]

    def work() -> None:
        host = Host()
        container = host.container("c1", ifname)
        if name == "vlan" and not kernel_has_vlan():
            with pytest.raises(CniError, match="vlan ADD: failed to create vlan: operation not supported"):
                host.runtime.add(chain, container)
            assert leases() == set()
            return
        result = host.runtime.add(chain, container)
        met = inside_of("c1", ifname)
        assert met["addresses"] == addresses
        assert routes <= met["routes"]
        assert {str(one.address) for one in result.ips} <= addresses
        spoken = result.version
        assert spoken == ("1.0.0" if len(chain.versions) > 1 else chain.cni_version)
        if spoken >= "0.3.0":
            assert [one.mac for one in result.interfaces if one.sandbox] == [met["mac"]]
        assert host.runtime.check(chain, container) is (spoken >= "0.4.0")
        with pytest.raises(Exception, match="DEL comes first"):
            host.runtime.add(chain, container)
        for _ in range(2):
            host.runtime.delete(chain, container)
        if ifname != "lo":
            assert inside_of("c1", ifname) == {}
        ip("netns del c1")
        host.runtime.delete(chain, Attachment("c1", "", ifname))
        assert host.runtime.status(chain) is False
        host.runtime.gc(chain, [])
        assert leases() == set()

    inside(work, user)


def kernel_has_vlan() -> bool:
    line = "link add link up0 name probe type vlan id 9"
    return subprocess.run(["ip", *line.split()], capture_output=True).returncode == 0


def leases() -> set[str]:
    return {path.name for path in Path("/run/leases").rglob("*.*.*.*")} if os.path.exists("/run/leases") else set()


def rules() -> str:
    return subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def test_a_chain_of_five(user: str) -> None:
    """portmap and firewall use iptables, which is nftables' here; after DEL only their empty chains are left."""

    def work() -> None:
        host = Host()
        container = host.container("c1")
        chain = network({**MASQUERADED, "ipam": IPAM}, *META)
        result = host.runtime.add(chain, container, WANTED)
        assert {key: inside_of("c1")[key] for key in ("mac", "mtu")} == {"mac": WANTED["mac"], "mtu": 1400}
        shaper = next(one.name for one in result.interfaces if one.name.startswith("bwp"))
        assert "rate 1Mbit burst 125000b" in subprocess.run(["tc", "qdisc"], capture_output=True, text=True).stdout
        for rule in ("dnat to 10.88.0.2:80", "ip saddr 10.88.0.2 counter accept", "masquerade"):
            assert rule in rules()
        checked = network({**MASQUERADED, "ipam": IPAM}, *META[1:])  # all but portmap, see below
        assert host.runtime.check(checked, container)
        ip("-n c1 link set eth0 mtu 1300")
        with pytest.raises(CniError, match=r"^tuning CHECK: Error: Tuning configured MTU of eth0 is 1400, current value is 1300"):
            host.runtime.check(checked, container)
        host.runtime.delete(chain, container)
        assert inside_of("c1") == {}
        assert shaper not in {one["ifname"] for one in ip("-j link")}
        assert "10.88.0.2" not in rules()
        assert leases() == set()
        order = ["bridge", "portmap", "bandwidth", "firewall", "tuning"]
        calls = [one for one in host.calls().split() if not one.startswith("CHECK")]
        assert calls == [*(f"ADD:{one}" for one in order), *(f"DEL:{one}" for one in reversed(order))]

    inside(work, user)


@pytest.mark.parametrize("user", ["user"])
def test_a_failure_in_the_middle_takes_back_what_came_before(user: str) -> None:
    """portmap is refused the second container's port mapping; its bridge, lease and masquerading go again."""

    def work() -> None:
        host = Host()
        chain = network({**MASQUERADED, "ipam": IPAM}, *META)
        host.runtime.add(chain, host.container("c1"), WANTED)
        before = rules(), leases(), len(ip("-j link"))
        wrong = {"portMappings": [{"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "10.88.0.300"}]}
        with pytest.raises(Exception, match="hostIP: an address expected"):
            host.runtime.add(chain, host.container("c2"), wrong)
        bad = network({**BRIDGE, "ipam": IPAM}, {"type": "portmap", "capabilities": {"portMappings": True}, "markMasqBit": 77})
        with pytest.raises(CniError, match=r"^portmap ADD: .*MasqMarkBit must be between 0 and 31") as raised:
            host.runtime.add(bad, Attachment("c2", "/run/netns/c2"), {"portMappings": WANTED["portMappings"]})
        assert raised.value.command == "ADD"
        assert (rules(), leases(), len(ip("-j link"))) == before
        assert inside_of("c2") == {}

    inside(work, user)


@pytest.mark.parametrize("user", ["user"])
def test_fifty_containers_at_once(user: str) -> None:
    def work() -> None:
        host = Host()
        chain = network({**BRIDGE, "ipam": IPAM})
        containers = [host.container(f"c{number}") for number in range(50)]
        given: list[Any] = []

        def live(container: Attachment) -> None:
            given.append(host.runtime.add(chain, container).ips[0].address)

        for turn in (live, lambda container: host.runtime.delete(chain, container)):
            threads = [threading.Thread(target=turn, args=(one,)) for one in containers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(set(given)) == 50
        assert leases() == set()

    inside(work, user)


# What plugins must not do.  Each is the second of a chain; its DEL is well-behaved.

SHELL = '#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exit 0\n'
BAD: dict[str, tuple[str, str]] = {
    "hangs": ("trap '' TERM INT HUP; sleep 1000 & wait; sleep 1000", "did not end within 2 s, and was killed"),
    "crashes": ("echo trace >&2; kill -SEGV $$", "was killed by signal 11; stderr: trace"),
    "killed": ("kill -9 $$", "was killed by signal 9"),
    "garbage": (r"printf 'a\0b\033[31m'", r"is no result: not JSON: Expecting value (column 1); it printed: a\x00b\x1b[31m"),
    "bytes": (r"printf '\377'", r"is no result: not JSON: not UTF-8 at byte 0; it printed: \xff"),
    "half": ("""echo '{"cniVersion": "1.0.0", "ips": ['""", "what it printed is no result: not JSON"),
    "huge": ("yes 123456789 | head -c 30000000", "printed more than 4 MiB, and was killed"),
    "talks": ("""yes log | head -c 9000000 >&2; echo '{"code": 100, "msg": "own"}'; exit 3""", "own (code 100); stderr: log log"),
    "old": ("""echo '{"cniVersion": "0.4.0"}'""", "was asked in version 1.0.0, and answered in version 0.4.0"),
    "silent": ("exit 0", "exited with 0, but printed no result"),
    "content": ("""echo '{"code": 7, "msg": "no"}'; exit 0""", "exited with 0, but printed an error: no (code 7)"),
    "mute": ("echo why >&2; exit 1", "exited with 1, and printed no error; stderr: why"),
    "deaf": ("""exec <&-; echo '{"code": 7, "msg": "no"}'; exit 1""", "no (code 7, invalid network configuration)"),
    "parent": ("""sleep 1000 & echo '{"code": 7, "msg": "no"}'; exit 1""", "no (code 7, invalid network configuration)"),
}  # fmt: skip
UNFIT = {
    "missing": "there is no such plugin in /run/plugins, /usr/lib/cni",
    "unexecutable": "/run/plugins/unexecutable is not executable",
    "no-program": "/run/plugins/no-program cannot be run: Exec format error",
    "no-interpreter": "/run/plugins/no-interpreter cannot be run: No such file or directory",
}


@pytest.mark.parametrize("user", ["user"])
def test_what_plugins_must_not_do(user: str) -> None:
    """A clear error, DEL for all, no process, descriptor or file left; then the host goes on."""

    def work() -> None:
        scripts = {name: f"{SHELL}{body}\n" for name, (body, _) in BAD.items()}
        host = Host({**scripts, "unexecutable": SHELL, "no-program": "\0", "no-interpreter": "#!/no/such/shell\n"}, timeout=2)
        (Path("/run/plugins") / "unexecutable").chmod(0o644)
        container = host.container("c1")
        big = network({**BRIDGE, "ipam": IPAM}, {"type": "x", "ballast": "x" * 300_000})
        before = len(os.listdir("/proc/self/fd"))
        for name, told in {**{name: told for name, (_, told) in BAD.items()}, **UNFIT}.items():
            raw = {**big.raw, "plugins": [big.raw["plugins"][0], {**big.raw["plugins"][1], "type": name}]}
            host.log.clear()
            with pytest.raises(CniError) as raised:
                host.runtime.add(network(*raw["plugins"]), container)
            assert told in str(raised.value), name
            assert str(raised.value).isprintable() and len(str(raised.value)) < 2500
            assert host.calls() == f"ADD:bridge ADD:{name} DEL:{name} DEL:bridge"
            assert inside_of("c1") == {}
            assert leases() == set()
            assert not os.path.exists("/run/cni")
            assert len(os.listdir("/proc/self/fd")) == before, name
            assert [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != "1"] == [], name
        host.runtime.add(network({**BRIDGE, "ipam": IPAM}), container)

    inside(work, user)


def alive(pid: str, group: str = "") -> bool:
    """Nobody has killed it, whether or not somebody has buried it; of a ``group`` only."""
    try:
        state, _, met, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX" and group in ("", met)


def test_a_plugin_gets_nothing_but_what_it_shall(user: str) -> None:
    """No variable of this process, no descriptor, no terminal, no working folder."""

    def work() -> None:
        os.environ["SECRET"] = "x"
        spare = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(spare, True)
        script = (
            '#!/bin/sh\n{ env; ls -l /proc/self/fd; pwd; ps -o sid= -p $$; } >&2; cat >&2; echo "{\\"cniVersion\\": \\"1.0.0\\"}"'
        )
        host = Host({"spy": script})
        host.runtime.add(network({"type": "spy"}), Attachment("c1", "/proc/self/ns/net", args={"A": "1"}))
        told = host.log[0].stderr
        assert "SECRET" not in told
        assert "CNI_ARGS=A=1\n" in told
        assert "null" not in told
        assert "\n/\n" in told
        assert '{"type": "spy", "cniVersion": "1.0.0", "name": "mynet"}' in told

    inside(work, user)


@pytest.mark.parametrize("stdin", [b"", b"x" * 3_000_000])
def test_a_runner_feeds_and_reads_at_the_same_time(stdin: bytes) -> None:
    done = runner.run("/bin/cat", {}, stdin, 20)
    assert (done.exit_code, done.stdout, done.stderr, done.problem) == (0, stdin, b"", "")


@pytest.mark.parametrize(
    "body",
    [
        "exec sleep 1000",
        "trap '' TERM INT HUP; sleep 1000",
        "exec >&- 2>&- <&-; sleep 1000",
        "kill -STOP $$",
        "sleep 1000 & sleep 1000 & wait",
    ],
)
def test_what_hangs_is_ended(body: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\n{body}\n")
    script.chmod(0o755)
    done = runner.run(str(script), {"PATH": "/usr/bin:/bin"}, b"x" * 300_000, 0.5)
    assert (done.exit_code, done.problem) == (-9, "did not end within 0.5 s, and was killed")
    group = (tmp_path / "pids").read_text().strip()
    deadline = time.monotonic() + 5  # this process is not PID 1: its grandchildren are killed, but not buried by it
    while (left := [pid for pid in os.listdir("/proc") if pid.isdigit() and alive(pid, group)]) and time.monotonic() < deadline:
        pass
    assert left == []


@pytest.mark.parametrize("user", ["user"])
def test_known_mistakes_of_debians_plugins(user: str) -> None:
    """Version 1.1.1: portmap's CHECK looks for the same rules in both families' tables, whatever families there are; the
    bridge's does not find routes without a gateway of their own.  Who says disableCheck is spared both.
    """

    def work() -> None:
        host = Host()
        static = {**STATIC, "routes": [{"dst": "10.7.0.0/16"}]}
        for container, told, plugins in (
            ("c1", "portmap CHECK: could not check ipv6 dnat: chain .* not found", ({**BRIDGE, "ipam": IPAM}, META[0])),
            ("c2", "portmap CHECK: could not check ipv6 dnat: rule .* not found", ({**BRIDGE, "ipam": DUAL}, META[0])),
            ("c3", "bridge CHECK: Expected Route .* not found", ({"type": "bridge", "bridge": "cni1", "ipam": static},)),
        ):
            chain, attachment = network(*plugins), host.container(container)
            host.runtime.add(chain, attachment, {"portMappings": WANTED["portMappings"]})
            with pytest.raises(CniError, match=told):
                host.runtime.check(chain, attachment)
            assert host.runtime.check(network(*plugins, disableCheck=True), attachment) is False
            host.runtime.delete(chain, attachment)

    inside(work, user)
