"""The runtime with plugins that are functions: order, requests, roll-back, cache, turns.  No process is started."""

from __future__ import annotations

import base64
import json
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from emulab.cni import config, files
from emulab.cni.errors import CniError
from emulab.cni.invocation import Invocation, Outcome
from emulab.cni.runtime import Attachment, Runtime
from emulab.errors import InputError

C1 = Attachment("c1", "/proc/self/ns/net", "eth0", {"K8S_POD_NAME": "a1"})
ANSWER = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/16"}], "dns": {}}
TABLE = {"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}
Plugin = Callable[[str, dict[str, Any]], Any]


def well(command: str, request: dict[str, Any]) -> Any:
    if command == "VERSION":
        return TABLE
    return {**ANSWER, "cniVersion": request["cniVersion"]} if command == "ADD" else ""


class Plugins:
    """Plugins by name as functions of (command, request); what they return is printed, an `Outcome` is taken as it is."""

    def __init__(self, folder: Path, **plugins: Plugin) -> None:
        self.plugins = plugins
        self.log: list[Invocation] = []
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.containers: dict[int, str] = {}  # thread -> whom it attaches
        (folder / "bin").mkdir()
        for name in plugins:
            (folder / "bin" / name).touch(0o755)
        self.runtime = Runtime([folder / "none", folder / "bin"], folder / "cni", self.run, self.log.append)

    def run(self, path: str, env: Mapping[str, str], stdin: bytes, timeout: float) -> Outcome:
        name, command, request = Path(path).name, env["CNI_COMMAND"], json.loads(stdin)
        self.requests.append((command, name, request))
        answer = self.plugins[name](command, request)
        return answer if isinstance(answer, Outcome) else Outcome(0, (json.dumps(answer) if answer else "").encode(), b"")

    def calls(self) -> str:
        return " ".join(f"{command}:{name}" for command, name, _ in self.requests)


def network(*types: str, **more: Any) -> config.NetworkList:
    return config.read(json.dumps({"cniVersion": "1.0.0", "name": "mynet", "plugins": [{"type": one} for one in types], **more}))


def test_a_life(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well, b=well)
    runtime, chain = plugins.runtime, network("a", "b")
    result = runtime.add(chain, C1)
    assert str(result.ips[0].address) == "10.1.0.2/16"
    assert runtime.check(chain, C1)
    runtime.delete(chain, C1)
    runtime.delete(chain, C1)
    assert plugins.calls() == "ADD:a ADD:b CHECK:a CHECK:b DEL:b DEL:a DEL:b DEL:a"
    previous = [request.get("prevResult") for _, _, request in plugins.requests]
    assert previous == [None, ANSWER, ANSWER, ANSWER, ANSWER, ANSWER, None, None]
    assert not any((tmp_path / "cni" / "results").iterdir())
    assert plugins.log[0].env == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "K8S_POD_NAME=a1",
        "CNI_PATH": f"{tmp_path}/none:{tmp_path}/bin",
    }
    assert json.loads(json.dumps(plugins.log[0].show()))["stdout"] == json.dumps(ANSWER)


def test_the_cache_is_libcnis(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well)
    chain = network("a")
    wanted = {"mac": "00:00:00:00:00:01"}
    plugins.runtime.add(chain, C1, wanted)
    path = tmp_path / "cni" / "results" / "mynet-c1-eth0"
    cached = json.loads(path.read_text())
    assert json.loads(base64.b64decode(cached.pop("config"))) == chain.show()
    assert cached == {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "ifName": "eth0",
        "networkName": "mynet",
        "netns": "/proc/self/ns/net",
        "cniArgs": [["K8S_POD_NAME", "a1"]],
        "capabilityArgs": wanted,
        "result": ANSWER,
    }
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)] == [0o600, 0o700]
    with pytest.raises(InputError, match="attached to network mynet already"):
        plugins.runtime.add(chain, C1)


def test_another_with_the_same_file_name_is_not_taken_for_it(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well)
    plugins.runtime.add(network("a", name="n-x"), Attachment("c", "/n"))
    with pytest.raises(InputError, match="is that of network n-x, container c, interface eth0"):
        plugins.runtime.add(network("a", name="n"), Attachment("x-c", "/n"))
    assert plugins.calls() == "ADD:a"


def test_an_unreadable_cache_does_not_hinder_del(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well)
    plugins.runtime.add(network("a"), C1)
    path = tmp_path / "cni" / "results" / "mynet-c1-eth0"
    path.write_text('{"kind": "cniCach')
    with pytest.raises(InputError, match="mynet-c1-eth0:1: not JSON"):
        plugins.runtime.check(network("a"), C1)
    plugins.runtime.delete(network("a"), C1)
    assert not path.exists()


def failing(outcome: Any, on: str = "ADD") -> Plugin:
    return lambda command, request: outcome if command == on else well(command, request)


ERROR = json.dumps({"cniVersion": "1.0.0", "code": 11, "msg": "no address", "details": "d"}).encode()


@pytest.mark.parametrize(
    "outcome, code, told",
    [
        (Outcome(1, ERROR, b""), 11, "b ADD: no address (code 11, try again later); details: d"),
        (Outcome(1, ERROR, b"why"), 11, "b ADD: no address (code 11, try again later); details: d; stderr: why"),
        (Outcome(1, b"", b"oh\x1bno"), 999, r"b ADD: exited with 1, and printed no error; stderr: oh\x1bno"),
        (Outcome(2, b"panic: x", b""), 999, "b ADD: exited with 2, and printed no error, but it printed: panic: x"),
        (Outcome(1, b'{"code": 0, "msg": ""}', b""), 999, "printed no error, but it printed"),
        (Outcome(-11, b"", b"trace"), 999, "b ADD: was killed by signal 11; stderr: trace"),
        (Outcome(0, b"", b""), 999, "b ADD: exited with 0, but printed no result"),
        (Outcome(0, b" \n", b""), 999, "printed no result"),
        (Outcome(0, ERROR, b""), 999, "b ADD: exited with 0, but printed an error: no address (code 11)"),
        (Outcome(0, b"hello", b""), 999, "what it printed is no result: not JSON: Expecting value (column 1); it printed: hello"),
        (Outcome(0, b'{"cniVersion": "1.0', b""), 999, "what it printed is no result: not JSON"),
        (Outcome(0, b'{"cniVersion": "1.0.0"} x', b""), 999, "Extra data"),
        (Outcome(0, b'{"cniVersion": "9.0.0"}', b""), 999, "version 9.0.0 is not known"),
        (Outcome(0, b'{"cniVersion": "0.4.0"}', b""), 999, "b ADD: was asked in version 1.0.0, and answered in version 0.4.0"),
        (Outcome(0, b'{"ips": [{"address": "x/y"}]}', b""), 999, "result.ips[0].address: an address with its prefix"),
        (Outcome(-9, b"", b"", "did not end within 1 s, and was killed"), 999, "b ADD: did not end within 1 s, and was killed"),
        (Outcome(0, b"\xff\xfe", b"\xff"), 999, r"it printed: \xff\xfe; stderr: \xff"),
    ],
)
def test_a_failure_is_told_and_rolled_back(tmp_path: Path, outcome: Any, code: int, told: str) -> None:
    plugins = Plugins(tmp_path, a=well, b=failing(outcome), c=well)
    with pytest.raises(CniError) as raised:
        plugins.runtime.add(network("a", "b", "c"), C1)
    assert raised.value.code == code
    assert told in str(raised.value)
    assert plugins.calls() == "ADD:a ADD:b DEL:c DEL:b DEL:a"
    assert all("prevResult" not in request for command, _, request in plugins.requests if command == "DEL")
    assert not (tmp_path / "cni").exists()
    plugins.plugins["b"] = well
    plugins.runtime.add(network("a", "b", "c"), C1)


def test_a_roll_back_goes_on_when_it_fails(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well, b=failing(Outcome(1, ERROR, b""), "DEL"), c=failing(Outcome(1, ERROR, b"")))
    with pytest.raises(CniError, match=r"^c ADD"):
        plugins.runtime.add(network("a", "b", "c"), C1)
    assert plugins.calls() == "ADD:a ADD:b ADD:c DEL:c DEL:b DEL:a"


def test_del_stops_at_a_failure_and_can_be_tried_again(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well, b=failing(Outcome(1, ERROR, b""), "DEL"))
    plugins.runtime.add(network("a", "b"), C1)
    with pytest.raises(CniError, match=r"^b DEL: no address"):
        plugins.runtime.delete(network("a", "b"), C1)
    plugins.plugins["b"] = well
    plugins.runtime.delete(network("a", "b"), C1)
    assert plugins.calls() == "ADD:a ADD:b DEL:b DEL:b DEL:a"
    assert plugins.requests[-1][2]["prevResult"] == ANSWER


def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well, unfit=well)
    (tmp_path / "bin" / "unfit").chmod(0o644)
    (tmp_path / "bin" / "folder").mkdir()
    for name, told in (
        ("gone", f"gone ADD: there is no such plugin in {tmp_path}/none, {tmp_path}/bin"),
        ("unfit", f"unfit ADD: {tmp_path}/bin/unfit is not executable"),
        ("folder", f"folder ADD: {tmp_path}/bin/folder is not a file"),
    ):
        plugins.requests.clear()
        with pytest.raises(CniError) as raised:
            plugins.runtime.add(network("a", name), C1)
        assert str(raised.value) == told
        assert plugins.calls() == "ADD:a DEL:a"
        assert plugins.log[-2].exit_code is None


def test_what_a_runner_cannot_start(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well)

    def broken(*_: Any) -> Outcome:
        raise OSError(8, "Exec format error")

    runtime = Runtime([tmp_path / "bin"], tmp_path / "cni", broken, plugins.log.append)
    with pytest.raises(CniError, match=r"^a ADD: .*/bin/a cannot be run: Exec format error"):
        runtime.add(network("a"), C1)


def test_capabilities_go_to_who_declared_them_and_to_del_as_well(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well, b=well)
    chain = network("a", plugins=[{"type": "a"}, {"type": "b", "capabilities": {"mac": True}}])
    plugins.runtime.add(chain, C1, {"mac": "00:00:00:00:00:01", "ips": []})
    plugins.runtime.delete(chain, C1)
    assert [request.get("runtimeConfig") for _, name, request in plugins.requests if name == "b"] == 2 * [
        {"mac": "00:00:00:00:00:01"}
    ]
    assert all("runtimeConfig" not in request for _, name, request in plugins.requests if name == "a")
    with pytest.raises(InputError, match="a hardware address expected"):
        plugins.runtime.add(chain, C1, {"mac": "x"})


# versions


@pytest.mark.parametrize(
    "configured, spoken, chosen, calls",
    [
        (["1.0.0"], TABLE, "1.0.0", "ADD:a"),
        (["0.4.0", "1.0.0", "1.1.0"], TABLE, "1.1.0", "VERSION:a ADD:a"),
        (["1.0.0", "1.1.0"], {"supportedVersions": ["1.0.0"]}, "1.0.0", "VERSION:a ADD:a"),
        (["0.1.0", "1.1.0"], Outcome(1, b'{"code": 4, "msg": "unknown CNI_COMMAND: VERSION"}', b""), "0.1.0", "VERSION:a ADD:a"),
        (["1.0.0", "9.0.0"], TABLE, "1.0.0", "ADD:a"),
    ],
)
def test_the_version_is_negotiated(tmp_path: Path, configured: list[str], spoken: Any, chosen: str, calls: str) -> None:
    plugins = Plugins(tmp_path, a=failing(spoken, "VERSION"))
    chain = network("a", cniVersion=configured[0], cniVersions=configured)
    assert plugins.runtime.add(chain, C1).version == chosen
    assert plugins.calls() == calls
    plugins.runtime.delete(chain, C1)
    assert plugins.calls() == f"{calls} DEL:a", "a plugin is asked once"


@pytest.mark.parametrize(
    "spoken, told",
    [
        ({"supportedVersions": []}, "a VERSION: names no version"),
        ({"cniVersion": "1.0.0"}, "a VERSION: names no version"),
        ({"supportedVersions": ["one"]}, "not with a table of versions: CNI version 'one'"),
        ({"supportedVersions": "1.0.0"}, "supportedVersions: a list expected"),
        (Outcome(0, b"1.0.0", b""), "not with a table of versions: not JSON"),
        (Outcome(1, b"", b""), "a VERSION: exited with 1"),
    ],
)
def test_a_table_of_versions_that_is_none(tmp_path: Path, spoken: Any, told: str) -> None:
    plugins = Plugins(tmp_path, a=failing(spoken, "VERSION"))
    with pytest.raises(CniError) as raised:
        plugins.runtime.version("a")
    assert told in str(raised.value)


def test_a_list_is_validated_without_attaching(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=well)
    assert plugins.runtime.validate(network("a")) == "1.0.0"
    with pytest.raises(CniError, match="there is no such plugin"):
        plugins.runtime.validate(network("a", plugins=[{"type": "a", "ipam": {"type": "gone"}}]))
    with pytest.raises(InputError, match=r"its plugins do not all speak any of 0.1.0"):
        plugins.runtime.validate(network("a", cniVersion="0.1.0"))


@pytest.mark.parametrize(
    "change, checked, status",
    [
        ({}, True, False),
        ({"cniVersion": "1.1.0"}, True, True),
        ({"cniVersion": "0.4.0"}, True, False),
        ({"cniVersion": "0.3.1"}, False, False),
        ({"disableCheck": True}, False, False),
    ],
)
def test_operations_belong_to_versions(tmp_path: Path, change: dict[str, Any], checked: bool, status: bool) -> None:
    plugins = Plugins(tmp_path, a=well)
    chain = network("a", **change)
    plugins.runtime.add(chain, C1)
    assert (plugins.runtime.check(chain, C1), plugins.runtime.status(chain)) == (checked, status)
    assert plugins.calls() == "ADD:a" + " CHECK:a" * checked + " STATUS:a" * status
    plugins.runtime.delete(chain, C1)
    assert ("prevResult" in plugins.requests[-1][2]) is (change.get("cniVersion") != "0.3.1")


def test_check_needs_an_add_and_tells_what_is_wrong(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=failing(Outcome(1, ERROR, b""), "CHECK"))
    with pytest.raises(InputError, match="there is nothing to check"):
        plugins.runtime.check(network("a"), C1)
    plugins.runtime.add(network("a"), C1)
    with pytest.raises(CniError, match="a CHECK: no address"):
        plugins.runtime.check(network("a"), C1)


def test_status_tells_that_a_plugin_is_not_ready(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path, a=failing(Outcome(1, b'{"code": 50, "msg": "no lab"}', b""), "STATUS"))
    with pytest.raises(CniError, match="the plugin is not available"):
        plugins.runtime.status(network("a", cniVersion="1.1.0"))
    assert {key for key in plugins.log[0].env if key.startswith("CNI")} == {"CNI_COMMAND", "CNI_PATH"}


# garbage


@pytest.mark.parametrize(("version", "calls"), [("1.1.0", "DEL:b DEL:a GC:a GC:b"), ("1.0.0", "DEL:b DEL:a")])
def test_gc_deletes_what_is_stale_and_then_asks_the_plugins(tmp_path: Path, version: str, calls: str) -> None:
    plugins = Plugins(tmp_path, a=well, b=well)
    chain = network("a", "b", cniVersion=version)
    kept, stale = Attachment("kept", "/proc/self/ns/net"), Attachment("stale", "/no/such/netns", "eth0", {"A": "1"})
    for one in (kept, stale):
        plugins.runtime.add(chain, one)
    plugins.runtime.add(network("a", "b", name="mynet-2", cniVersion=version), stale)
    plugins.requests.clear()
    plugins.log.clear()
    plugins.runtime.gc(chain, [kept])
    assert plugins.calls() == calls
    assert (plugins.log[0].env["CNI_CONTAINERID"], plugins.log[0].env["CNI_NETNS"]) == ("stale", "")
    if version == "1.1.0":
        assert plugins.requests[-1][2]["cni.dev/valid-attachments"] == [{"containerID": "kept", "ifname": "eth0"}]
    left = {path.name for path in (tmp_path / "cni" / "results").iterdir()}
    assert left == {"mynet-kept-eth0", "mynet-2-stale-eth0"}


def test_gc_goes_on_after_failures_and_tells_all(tmp_path: Path) -> None:
    bad = Outcome(1, ERROR, b"")
    plugins = Plugins(tmp_path, a=failing(bad, "GC"), b=failing(bad, "GC"))
    with pytest.raises(CniError, match=r"a GC: no address.*also failed: b GC: no address"):
        plugins.runtime.gc(network("a", "b", cniVersion="1.1.0"), [])
    plugins.requests.clear()
    plugins.runtime.gc(network("a", "b", cniVersion="1.1.0", disableGC=True), [])
    assert plugins.calls() == ""


# turns


def test_one_operation_at_a_time_for_each_container(tmp_path: Path) -> None:
    """Two containers meet in their ADD; two interfaces of one container never do."""
    meeting = threading.Barrier(2)
    busy: set[str] = set()
    overlaps: list[str] = []

    def slow(command: str, request: dict[str, Any]) -> Any:
        container = plugins.containers[threading.get_ident()]
        overlaps.extend({container} & busy)
        busy.add(container)
        if container.startswith("m"):
            meeting.wait(5)
        busy.discard(container)
        return well(command, request)

    plugins = Plugins(tmp_path, a=slow)

    def add(container: str, ifname: str) -> None:
        plugins.containers[threading.get_ident()] = container
        plugins.runtime.add(network("a"), Attachment(container, "/n", ifname))

    wanted = [("m1", "eth0"), ("m2", "eth0"), *(("one", f"eth{n}") for n in range(5))]
    threads = [threading.Thread(target=add, args=one) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(list((tmp_path / "cni" / "results").iterdir())) == 7
    assert overlaps == []


def test_gc_waits_for_an_add_and_holds_up_the_next(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()
    order: list[str] = []

    def slow(command: str, request: dict[str, Any]) -> Any:
        if command == "ADD" and not begun.is_set():
            begun.set()
            go.wait(5)
        order.append(command)
        return well(command, request)

    plugins = Plugins(tmp_path, a=slow)
    chain = network("a", cniVersion="1.1.0")
    first = threading.Thread(target=plugins.runtime.add, args=(chain, C1))
    first.start()
    begun.wait(5)
    collecting = threading.Thread(target=plugins.runtime.gc, args=(chain, [C1]))
    collecting.start()
    while not plugins.runtime._turns._collected:
        assert collecting.is_alive()
    second = threading.Thread(target=plugins.runtime.add, args=(chain, Attachment("c2", "/n")))
    second.start()
    assert order == []
    go.set()
    for thread in (first, collecting, second):
        thread.join(5)
    assert order == ["ADD", "GC", "ADD"]


# files


def test_networks_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "20-b.conf").write_text('{"name": "b", "type": "ptp"}')
    (tmp_path / "10-a.conflist").write_text('{"name": "a", "plugins": [{"type": "bridge"}]}')
    (tmp_path / "README").write_text("no")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.conf").write_text('{"type": "tuning"}')
    assert [one.types() for one in files.networks(tmp_path)] == [("bridge", "tuning"), ("ptp",)]
    with pytest.raises(InputError, match="No such file"):
        files.load(tmp_path / "gone.conflist")
    with pytest.raises(InputError, match="No such file"):
        list(files.networks(tmp_path / "gone"))


@pytest.mark.parametrize("folder", ["relative", "/a:b"])
def test_folders_of_plugins_are_absolute(tmp_path: Path, folder: str) -> None:
    with pytest.raises(InputError, match="an absolute path without ':' expected"):
        Runtime([Path(folder)], tmp_path)
