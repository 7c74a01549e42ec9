"""CNI configurations, requests, results and errors as values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tables import each_row

from emulab.cni import config, conventions, versions
from emulab.cni.attachment import Attachment
from emulab.cni.errors import CniError, Code, printable
from emulab.cni.result import Result
from emulab.errors import InputError

CHAIN: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
    "name": "mynet",
    "plugins": [
        {"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local"}},
        {"type": "portmap", "capabilities": {"portMappings": True, "mac": False}, "args": {"labels": {}}},
    ],
}
RESULT: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "cni0", "mac": "00:11:22:33:44:55"},
        {"name": "eth0", "mac": "00:11:22:33:44:66", "sandbox": "/run/netns/c", "mtu": 1450, "socketPath": "/s", "pciID": "0:1"},
    ],
    "ips": [
        {"interface": 1, "address": "10.1.0.2/16", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "fd00::2/64"},
    ],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1, "priority": 0, "table": 7, "scope": 253},
        {"dst": "::/0"},
    ],
    "dns": {"nameservers": ["10.1.0.1"], "domain": "d", "search": ["a", "b"], "options": ["ndots:5"]},
}


def network(**changes: Any) -> config.NetworkList:
    return config.read(json.dumps({**CHAIN, **changes}), "x.conflist")


# configurations


def test_a_list_is_read() -> None:
    read = network(disableCheck="true", disableGC=True)
    assert (read.name, read.cni_version, read.versions) == ("mynet", "1.0.0", ("1.0.0", "0.4.0", "1.1.0"))
    assert (read.disable_check, read.disable_gc) == (True, True)
    assert [(one.type, one.capabilities) for one in read.plugins] == [("bridge", frozenset()), ("portmap", {"portMappings"})]
    assert read.types() == ("bridge", "host-local", "portmap")


def test_a_single_plugin_is_a_list_of_one() -> None:
    read = config.read('{"name": "n", "type": "ptp", "capabilities": {"mac": true}}')
    assert (read.versions, read.plugins[0].capabilities) == (("0.1.0",), {"mac"})
    assert config.request(read, read.plugins[0]) == {"cniVersion": "0.1.0", "name": "n", "type": "ptp"}


def test_plugins_of_the_folder_come_last_unless_the_list_has_all() -> None:
    more = [("mynet/1.conf", '{"type": "tuning"}')]
    assert config.read(json.dumps(CHAIN), "x", more).types()[-1] == "tuning"
    assert config.read(json.dumps({**CHAIN, "loadOnlyInlinedPlugins": True}), "x", more).types()[-1] == "portmap"
    assert config.read(json.dumps({**CHAIN, "plugins": []}), "x", more).types() == ("tuning",)
    read = config.read(json.dumps(CHAIN), "x", more)
    assert config.read(json.dumps(read.show()), "x", more).plugins == read.plugins


@each_row(
    "change, problem",
    [
        ({"name": "../etc"}, "network '../etc': letters, digits"),
        ({"name": ""}, "name: the network's name expected"),
        ({"name": 7}, "name: text expected, got a number"),
        ({"name": "x" * 300}, "300 characters are too many"),
        ({"cniVersion": "1.0"}, "CNI version '1.0': three numbers"),
        ({"cniVersion": "1.0.0\n"}, "three numbers"),
        ({"cniVersions": "1.0.0"}, "cniVersions: a list expected, got text"),
        ({"cniVersions": [1]}, "cniVersions[0]: text expected, got a number"),
        ({"plugins": []}, "plugins: at least one plugin expected"),
        ({"plugins": {}}, "plugins: a list expected, got an object"),
        ({"plugins": [7]}, "plugins[0]: an object expected, got a number"),
        ({"plugins": [{}]}, "plugins[0].type: the name of a plugin's executable expected"),
        ({"plugins": [{"type": "../sh"}]}, "plugins[0].type: the name of an executable expected, without a path"),
        ({"plugins": [{"type": ".."}]}, "without a path"),
        ({"plugins": [{"type": "a\0b"}]}, "without a path"),
        ({"plugins": [{"type": "a", "runtimeConfig": {}}]}, "plugins[0].runtimeConfig: the runtime writes this"),
        ({"plugins": [{"type": "a", "cni.dev/x": 1}]}, "the runtime writes this"),
        ({"plugins": [{"type": "a", "capabilities": {"mac": 1}}]}, "plugins[0].capabilities.mac: true or false expected"),
        ({"plugins": [{"type": "a", "capabilities": ["mac"]}]}, "plugins[0].capabilities: an object expected, got a list"),
        ({"plugins": [{"type": "a", "ipam": []}]}, "plugins[0].ipam: an object expected"),
        ({"disableCheck": 1}, "disableCheck: true or false expected, got a number"),
    ],
)
def test_mistakes_are_told_with_file_and_key(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as raised:
        network(**change)
    assert problem in str(raised.value)
    assert str(raised.value).startswith("x.conflist: ")


@each_row(
    "text, problem",
    [
        ('{"name": "n",\n "plugins": [}', "x:2: not JSON: Expecting value"),
        ("[1]", "x: an object expected, got a list"),
        ("", "x:1: not JSON"),
        (b"\xff", "x: not JSON: not UTF-8 at byte 0"),
        ("[" * 100_000, "x: not JSON that anybody reads: nested too deeply"),
        ('{"a": NaN}', "x: not JSON: NaN is no value of JSON"),
        ("9" * 5000, "x: not JSON: Exceeds"),
    ],
)
def test_what_is_no_json_is_told_with_its_line(text: str | bytes, problem: str) -> None:
    with pytest.raises(InputError, match=r"^x") as raised:
        config.read(text, "x")
    assert problem in str(raised.value)


@each_row(
    "spoken, chosen",
    [
        ([], "1.1.0"),
        ([("1.0.0", "1.1.0"), ("0.4.0", "1.0.0")], "1.0.0"),
        ([("0.4.0",)], "0.4.0"),
        ([("9.9.9", "1.0.0")], "1.0.0"),
    ],
)
def test_the_highest_version_that_all_speak(spoken: list[tuple[str, ...]], chosen: str) -> None:
    assert config.negotiated(network(), *spoken) == chosen


def test_no_common_version_is_told() -> None:
    with pytest.raises(InputError, match=r"its plugins do not all speak any of 1.0.0, 0.4.0, 1.1.0"):
        config.negotiated(network(), ("0.3.0",))
    with pytest.raises(InputError, match=r"it is of version 2.0.0, and this runtime speaks 0.1.0 to 1.1.0"):
        config.negotiated(network(cniVersion="2.0.0", cniVersions=[]))
    assert versions.highest(["0.9.9", "0.10.0"], ["0.9.9", "0.10.0"]) == "0.10.0"


# requests


def test_a_request_is_derived() -> None:
    read = network()
    wanted = {"portMappings": [{"hostPort": 1}], "mac": "00:00:00:00:00:01", "ips": []}
    first, second = (config.request(read, one, version="1.0.0", runtime_config=wanted) for one in read.plugins)
    assert first == {"cniVersion": "1.0.0", "name": "mynet", **CHAIN["plugins"][0]}
    assert second == {
        "cniVersion": "1.0.0",
        "name": "mynet",
        "type": "portmap",
        "args": {"labels": {}},
        "runtimeConfig": {"portMappings": [{"hostPort": 1}]},
    }


def test_a_request_carries_the_result_in_its_version_and_what_gc_spares() -> None:
    read = network()
    previous = Result.read(RESULT)
    request = config.request(
        read, read.plugins[1], version="0.4.0", prev_result=previous, attachments=[Attachment("c", "/n", "eth1")]
    )
    assert request["prevResult"]["ips"][0] == {"version": "4", "interface": 1, "address": "10.1.0.2/16", "gateway": "10.1.0.1"}
    assert request["cni.dev/valid-attachments"] == [{"containerID": "c", "ifname": "eth1"}]


@each_row(
    "arguments, problem",
    [
        ({"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "::1"}]}, ""),
        ({"portMappings": [{"hostPort": 0, "containerPort": 1}]}, "portMappings[0].hostPort: a number from 1 to 65535"),
        ({"portMappings": [{"hostPort": 1}]}, "portMappings[0].containerPort: a port expected"),
        ({"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}, "protocol: tcp, udp, sctp expected"),
        ({"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "here"}]}, "hostIP: an address expected"),
        ({"bandwidth": {"ingressRate": 1000, "ingressBurst": 1000}}, ""),
        ({"bandwidth": {"ingressRate": 1000}}, "ingressRate (bit/s) and ingressBurst (bits) go together"),
        ({"ips": ["10.0.0.1/8", "fd00::1/64"]}, ""),
        ({"ips": ["10.0.0.999"]}, "capabilities.ips: '10.0.0.999' does not appear"),
        ({"mac": "c2:11:22:33:44:55"}, ""),
        ({"mac": "c2:11"}, "capabilities.mac: a hardware address expected"),
        ({"dns": {"searches": ["a"], "servers": ["10.0.0.1"], "options": []}}, ""),
        ({"dns": {"servers": "10.0.0.1"}}, "dns.servers: a list expected"),
        ({"ipRanges": [[{"subnet": "10.0.0.0/8", "rangeStart": "10.0.0.5"}]]}, ""),
        ({"ipRanges": [{"subnet": "10.0.0.0/8"}]}, "ipRanges[0]: a list of ranges expected"),
        ({"ipRanges": [[{"subnet": "x"}]]}, "ipRanges[0][0].subnet: a network expected"),
        ({"unknown": object()}, ""),
    ],
)
def test_arguments_of_capabilities_have_the_shape_of_their_conventions(arguments: dict[str, Any], problem: str) -> None:
    if not problem:
        assert conventions.checked(arguments) == arguments
        return
    with pytest.raises(InputError) as raised:
        conventions.checked(arguments)
    assert problem in str(raised.value)


@each_row(
    "change, problem",
    [
        ({"container_id": "../../etc/x"}, "container id"),
        ({"container_id": ""}, "container id"),
        ({"container_id": "-a"}, "container id"),
        ({"container_id": "a\n"}, "container id"),
        ({"ifname": "a/b"}, "interface name"),
        ({"ifname": ".."}, "interface name"),
        ({"ifname": "a b"}, "interface name"),
        ({"ifname": "a:b"}, "interface name"),
        ({"ifname": "ü" * 8}, "1 to 15 bytes"),
        ({"ifname": ""}, "interface name"),
        ({"netns": "run/netns/c"}, "an absolute path expected"),
        ({"netns": "/run/\0"}, "an absolute path expected"),
        ({"args": {"A;B": "1"}}, "CNI_ARGS"),
        ({"args": {"A": "1;B=2"}}, "CNI_ARGS"),
        ({"args": {"": "1"}}, "CNI_ARGS"),
    ],
)
def test_who_is_attached_is_held_to_the_specification(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Attachment(**{"container_id": "c", "netns": "/n", **change})


# results


@each_row("version", versions.ALL)
def test_a_result_is_the_same_in_its_own_version_and_through_any_other(version: str) -> None:
    whole = Result.read(RESULT)
    shown = whole.show(version)
    again = Result.read(shown)
    assert shown["cniVersion"] == again.version == version
    assert again.show(version) == shown
    assert again.dns == whole.dns
    assert [one.address for one in again.ips] == [one.address for one in whole.ips]
    assert [one.dst for one in again.routes] == [one.dst for one in whole.routes]
    if version == "1.1.0":
        assert shown == RESULT
    json.dumps(shown)


def test_what_versions_can_and_cannot_say() -> None:
    whole = Result.read(RESULT)
    assert whole.show("1.0.0")["interfaces"][1] == {"name": "eth0", "mac": "00:11:22:33:44:66", "sandbox": "/run/netns/c"}
    assert whole.show("1.0.0")["routes"][0] == {"dst": "0.0.0.0/0", "gw": "10.1.0.1"}
    assert whole.show("0.4.0")["ips"][1] == {"version": "6", "interface": 1, "address": "fd00::2/64"}
    assert whole.show("0.2.0")["ip4"] == {
        "ip": "10.1.0.2/16",
        "gateway": "10.1.0.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
    }
    assert "interfaces" not in whole.show("0.1.0")
    assert Result.read({}).version == "0.1.0"
    assert Result.read({}, "1.0.0").version == "1.0.0"
    with pytest.raises(InputError, match="are not known"):
        whole.show("0.9.0")


@each_row(
    "document, problem",
    [
        ([], "result: an object expected, got a list"),
        ({"cniVersion": "7.0.0"}, "result.cniVersion: version 7.0.0 is not known, 0.1.0 to 1.1.0 are"),
        ({"cniVersion": "x"}, "three numbers"),
        ({"cniVersion": 1}, "result.cniVersion: text expected"),
        ({"cniVersion": "1.0.0", "ips": [{}]}, "result.ips[0].address: an address with its prefix expected"),
        ({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1"}]}, "result.ips[0].address: an address with its prefix"),
        ({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8", "interface": 0}]}, "of which there are 0, got 0"),
        ({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8", "interface": True}]}, "a number expected"),
        ({"cniVersion": "0.4.0", "ips": [{"address": "10.0.0.1/8", "version": "6"}]}, "'4' expected beside 10.0.0.1/8, got '6'"),
        ({"cniVersion": "1.0.0", "interfaces": [{}]}, "result.interfaces[0].name: an interface's name expected"),
        ({"cniVersion": "1.0.0", "interfaces": [{"name": "e", "mac": "zz"}]}, "interfaces[0].mac: a hardware address"),
        ({"cniVersion": "1.0.0", "routes": [{}]}, "result.routes[0].dst: a network expected"),
        ({"cniVersion": "1.0.0", "routes": [{"dst": "0/0"}]}, "result.routes[0].dst: a network expected, got '0/0'"),
        ({"cniVersion": "1.0.0", "dns": []}, "result.dns: an object expected"),
        ({"cniVersion": "1.0.0", "dns": {"search": [1]}}, "result.dns.search[0]: text expected"),
        ({"cniVersion": "1.1.0", "interfaces": [{"name": "e", "mtu": -1}]}, "mtu: a number from 0 to"),
        ({"ip4": {}}, "result.ip4.ip: an IPv4 address with its prefix expected"),
        ({"ip6": {"ip": "10.0.0.1/8"}}, "result.ip6.ip: an IPv6 address with its prefix expected"),
    ],
)
def test_what_is_no_result_is_told_with_its_key(document: Any, problem: str) -> None:
    with pytest.raises(InputError) as raised:
        Result.read(document)
    assert problem in str(raised.value)


# errors


def test_an_error_is_one_line_with_what_its_code_means() -> None:
    error = CniError(11, "no address", "pool is\nempty", plugin="host-local", command="ADD", stderr="\x1b[31mred\x07\n")
    assert str(error) == (
        r"host-local ADD: no address (code 11, try again later); details: pool is empty; stderr: \x1b[31mred\x07"
    )
    assert error.exit_code == 1
    assert error.show("1.0.0") == {"cniVersion": "1.0.0", "code": 11, "msg": "no address", "details": "pool is\nempty"}
    assert str(CniError(117, "own")) == "own (code 117)"
    assert str(CniError(Code.INTERNAL, "broke")) == "broke"
    assert all(Code(code).words for code in Code)


def test_errors_are_told_from_results() -> None:
    assert CniError.read({"code": 7, "msg": "m"}, plugin="p").code == 7  # type: ignore[union-attr]
    for other in ({"code": 0, "msg": "m"}, {"code": "7", "msg": "m"}, {"code": True, "msg": "m"}, {"code": 7}, [], None, RESULT):
        assert CniError.read(other) is None


def test_what_a_plugin_wrote_is_cut_and_escaped() -> None:
    assert printable("a\tb\x00\u202ec\x9b") == "a\tb\\x00\\u202ec\\x9b"
    assert len(printable("x" * 100_000)) < 2100
    assert printable("é ✓ 漢 😀") == "é ✓ 漢 😀"
    assert printable("\ud800") == "\\ud800"
