"""Conformance: a plugin that conforms passes all checks, each that does not fails its own; and what Debian's plugins do."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import toy_plugin
from attaching import DEBIAN
from sandboxed import inside

from emulab.cni import config
from emulab.conformance import bench, host, running
from emulab.conformance.verdict import FAILED, PASSED, Report
from emulab.kernel import syscalls

TOY = {"cniVersion": "1.1.0", "name": "mynet", "type": "toy"}
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": IPAM}
SLOW = {"add-many", "add-killed"}


def asked(path: Path, network: Mapping[str, Any], checks: set[str], adds: int) -> Report:
    wanted = running.subject(path, config.read(json.dumps(network)))
    return running.run(wanted, "x.conflist", running.folders(path, []), running.chosen(checks), adds)


def written(script: str) -> Path:
    """A plugin `toy`, where only the sandbox sees it; text without an interpreter's name is Python for `toy_plugin.START`."""
    toy = Path("/opt/toy")
    syscalls.mount("tmpfs", str(toy.parent), "tmpfs", 0, "mode=755")
    if not script.startswith("#!"):
        (toy.parent / "made.py").write_text(script)
        script = toy_plugin.START
    toy.write_text(script)
    toy.chmod(0o755)
    return toy


def tried(user: str, network: Mapping[str, Any], binary: str, checks: set[str], adds: int, script: str = "") -> Report:
    """A plugin of Debian's, or a script, in a sandbox."""
    answer = inside(lambda: asked(written(script) if script else DEBIAN / binary, network, checks, adds), user)
    assert isinstance(answer, Report)
    return answer


def failures(report: Report) -> dict[str, str]:
    return {one.name: one.found for one in report.verdicts if one.state == FAILED}


def test_a_plugin_that_conforms_passes_every_check() -> None:
    report = tried("user", TOY, "toy", set(), 6, toy_plugin.GOOD)
    assert failures(report) == {}
    assert report.ok
    assert [one.name for one in report.verdicts if one.state != PASSED] == ["prev-result"]
    assert Report.read(json.loads(json.dumps(report.show()))) == report


# WHOLE=1 asks each by itself all checks, which takes a minute and more; else those that have to fail, and their relatives.
WHOLE = bool(os.environ.get("WHOLE"))
TOGETHER = () if WHOLE else toy_plugin.TOGETHER
ALONE = tuple((name,) for name in toy_plugin.BAD if not any(name in names for names in TOGETHER))


@pytest.mark.parametrize("names", [*TOGETHER, *ALONE], ids=" and ".join)
def test_what_is_wrong_is_found_and_nothing_else(names: tuple[str, ...]) -> None:
    found = Counter(check for name in names for check in toy_plugin.BAD[name][1])
    expected = set(found)
    assert set(found.values()) == {1}, "one of them would do"
    families = {one.split("-")[0] for one in expected}
    relatives = {check.name for check in running.CHECKS if check.name.split("-")[0] in families} - SLOW
    everything = {check.name for check in running.CHECKS} - SLOW
    checks = (everything if WHOLE else relatives) | expected | {"add-result"}
    if expected == {"error-form"}:
        checks |= {"config-invalid"}  # whoever is never refused makes no errors
    report = tried("root" if os.geteuid() == 0 else "user", TOY, "toy", checks, 6, toy_plugin.bad(*names))
    assert set(failures(report)) == expected, failures(report)
    assert not report.ok


def test_what_should_have_been_refused_is_taken_away_before_the_next_check(user: str) -> None:
    """By the id by which it was made, which is not the container's."""

    def work() -> tuple[Report, list[str], str]:
        report = asked(written(toy_plugin.bad("any id")), TOY, {"env-invalid"}, 1)
        return report, [path.name for path in Path("/run/toy").rglob("*,*")], Path("/proc/net/dev").read_text()

    report, leases, devices = inside(work, user)
    assert failures(report) == {"env-invalid": "CNI_CONTAINERID='../escape': exits with 0"}
    assert leases == []
    assert "toy" not in devices


def test_every_check_has_somebody_who_fails_it() -> None:
    found = set().union(*(expected for _, expected in toy_plugin.BAD.values()))
    assert {check.name for check in running.CHECKS} - found == {"prev-result"}  # that one is about chains, see below


def test_whatever_a_plugin_can_leave_behind_is_seen(user: str) -> None:
    def work() -> list[str]:
        bare = host.Host([])
        before = bare.look()
        for line in (
            "ip link add left0 type veth peer name left1",
            "ip addr add 10.7.0.1/24 dev left0",
            "ip addr add fd07::1/64 dev left0",
            "ip link set left0 up",
            "ip route add 10.8.0.0/16 via 10.7.0.2",
            "ip -6 route add fd08::/64 dev left0",
            "tc qdisc add dev left1 root tbf rate 1mbit burst 10k latency 50ms",
            "nft add table inet left",
            "touch /run/left",
        ):
            subprocess.run(line.split(), check=True)
        return sorted(host.difference(before, bare.look()))

    assert inside(work, user) == [
        "address 10.7.0.1/24 dev left0",
        "address fd07::1/64 dev left0",
        "file /run/left",
        "interface left0",
        "interface left1",
        "queue dev left1 root tbf rate 1000000bit burst 10240",
        "route 10.7.0.0/24 dev left0 proto 2 scope link src 10.7.0.1",
        "route 10.8.0.0/16 via 10.7.0.2 dev left0",
        "route fd07::/64 dev left0 proto 2 metric 256",
        "route fd08::/64 dev left0",
        "rule of table inet left",
    ]


FORGETS = """#!/usr/bin/python3 -ISE
import json, os, sys
conf = json.load(sys.stdin)
if os.environ["CNI_COMMAND"] == "VERSION":
    print(json.dumps({"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}))
elif os.environ["CNI_COMMAND"] == "ADD":
    if "prevResult" not in conf:
        print(json.dumps({"cniVersion": "1.0.0", "code": 7, "msg": "prevResult expected"}))
        sys.exit(1)
    FORGOTTEN
    print(json.dumps(conf["prevResult"]))
"""


@pytest.mark.parametrize(
    ("forgotten", "told"),
    [
        ("pass", ""),
        ("del conf['prevResult']['routes']", "the route to 0.0.0.0/0 of prevResult is not in the result"),
        ("conf['prevResult']['ips'].pop()", "the address 10.213.0."),
        ("conf['prevResult']['interfaces'][0]['name'] = 'other'", "the interface host"),
    ],
)
def test_a_chained_plugin_hands_on_what_came_before(forgotten: str, told: str) -> None:
    network = {"cniVersion": "1.0.0", "name": "mynet", "type": "toy"}
    report = tried("user", network, "toy", {"prev-result"}, 1, FORGETS.replace("FORGOTTEN", forgotten))
    assert report.kind == "a chained plugin"
    assert told in failures(report).get("prev-result", "nothing") if told else report.ok


def test_a_plugin_that_does_not_work_is_blamed_once() -> None:
    """What cannot be asked without an ADD that works is neither passed nor failed."""
    report = tried("user", TOY, "toy", {"add-result", "check-passes", "del-removes"}, 1, "#!/bin/sh\nexit 1\n")
    assert failures(report) == {"add-result": "ADD: exited with 1, and printed no error"}
    assert {one.found for one in report.verdicts if one.state not in (FAILED, PASSED)} == {
        "ADD does not work: toy ADD: exited with 1, and printed no error (see add-result)"
    }
    alone = tried("user", TOY, "toy", {"del-removes"}, 1, "#!/bin/sh\nexit 1\n")
    assert failures(alone) == {"del-removes": "ADD does not work: toy ADD: exited with 1, and printed no error"}


def test_a_plugin_that_hangs_is_not_waited_for_again_and_again() -> None:
    """And it is killed with its child each time; what it wrote is in the JSON as text."""

    def work() -> tuple[Report, list[str]]:
        bench.TIMEOUT, running.HASTE = 0.5, 0.2
        toy = written("#!/bin/sh\nsleep 1000 & wait\n")
        report = asked(toy, TOY, {"version-table", "add-result", "del-unknown", "error-form"}, 1)
        return report, [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != "1"]

    report, left = inside(work, "user")
    assert failures(report) == {
        "version-table": "VERSION: did not end within 0.2 s, and was killed",
        "add-result": "ADD: did not end within 0.2 s, and was killed",
        "del-unknown": "DEL fails: did not end within 0.2 s, and was killed",
    }
    assert left == []


# Debian's plugins, version 1.1.1.  All three of ALL are the library's, which all of them use.
ALL = {
    "version-echo": "asked in 0.1.0, it answers in 1.0.0",
    "env-command": "no CNI_COMMAND: exits with 0",
    "error-form": "no cniVersion",
}
# host-local, which most of them call, makes a lease's file, and then writes whose it is: no DEL finds what was killed between.
# Nor does tuning's DEL take away what was to be restored, once the namespace or half of that is not there.
HALF = ("left behind: file /var/lib/cni/networks/mynet/10.", "left behind: file /run/cni/tuning/box")
FOUND: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "bridge": ({"plugins": [BRIDGE]}, "an interface plugin", ALL),
    "ptp": ({"type": "ptp", "ipam": IPAM}, "an interface plugin", ALL),
    "host-local": ({"plugins": [BRIDGE]}, "a plugin for address management", ALL),
    "portmap": (
        {"plugins": [BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}}]},
        "a chained plugin",
        {**ALL, "check-passes": "could not check ipv6 dnat"},
    ),
    "tuning": (
        {"plugins": [BRIDGE, {"type": "tuning", "mtu": 1400}]},
        "a chained plugin",
        {
            **ALL,
            "del-no-netns": "left behind: file /run/cni/tuning/box",
            "del-netns-gone": "left behind: file /run/cni/tuning/box",
        },
    ),
}


# One of each kind is asked everything, of interfaces `bridge` in docs/cni.md, with 50 containers at once; the others whether
# their ADD and DEL do what they shall.
FAMILIES = ("version-unsupported", "add-result", "add-true", "check-passes", "del-", "gc", "status", *ALL)
SECOND = {check.name for check in running.CHECKS if check.name.startswith(FAMILIES)}


@pytest.mark.parametrize("binary", FOUND)
def test_what_debians_plugins_do(binary: str) -> None:
    network, kind, expected = FOUND[binary]
    checks = set() if binary in ("host-local", "tuning") else SECOND
    user = "root" if binary == "bridge" else "user"
    report = tried(user, {"cniVersion": "1.0.0", "name": "mynet", **network}, binary, checks, 4)
    found = failures(report)
    if any(half in found.get("add-killed", "") for half in HALF):
        del found["add-killed"]
    assert set(found) == set(expected), found
    assert all(told in found[name] for name, told in expected.items())
    assert report.kind == kind
    states = {one.name: one.found for one in report.verdicts}
    assert states["gc"] == states["status"] == "speaks up to 1.0.0"


def test_a_chained_plugin_alone_gets_something_before_it() -> None:
    network = {"cniVersion": "1.0.0", "name": "mynet", "type": "portmap", "capabilities": {"portMappings": True}}
    report = tried("user", network, "portmap", {"add-true", "prev-result", "del-removes", "check-passes"}, 1)
    assert set(failures(report)) == {"check-passes"}
    assert report.kind == "a chained plugin"


def test_masquerading_shows_what_the_bridge_forgets() -> None:
    """Version 1.1.1: it does not find its nftables rules again without the namespace."""
    network = {"cniVersion": "1.0.0", "name": "mynet", "plugins": [{**BRIDGE, "ipMasq": True}]}
    report = tried("user", network, "bridge", {"del-removes", "del-no-netns", "del-netns-gone"}, 1)
    assert set(failures(report)) == {"del-no-netns", "del-netns-gone"}
    assert all("left behind: rule of table ip nat / chain CNI-" in found for found in failures(report).values())
