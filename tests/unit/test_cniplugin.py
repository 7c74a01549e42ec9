"""What `emulab-cni` makes of variables and configurations, with a lab that only listens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tables import each_row

from emulab import cniplugin
from emulab.cni import versions
from emulab.cni.errors import CniError, Code
from emulab.errors import MachineError

CONF = {"cniVersion": "1.1.0", "name": "net", "type": "emulab", "lab": "demo", "node": "node-a"}
ENV = {"CNI_CONTAINERID": "box", "CNI_IFNAME": "eth0", "CNI_NETNS": "/proc/1/ns/net"}
TOLD = {
    "pod": "default/box",
    "mac": "0a:58:0a:01:01:02",
    "mtu": 1450,
    "addresses": [{"address": "10.1.1.2/24", "gateway": "10.1.1.1"}, {"address": "fd00::2/64", "gateway": None}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.1.1"}],
    "dns": {"nameserver": ["10.96.0.10"], "search": ["svc.cluster.local"], "options": ["ndots:5"]},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What a lab would be asked: (operation, arguments)."""
    heard: list[tuple[str, dict[str, Any]]] = []

    def ask(_: cniplugin.Request, do: str, *__: int, **arguments: Any) -> Any:
        heard.append((do, arguments))
        return TOLD

    monkeypatch.setattr(cniplugin.Request, "ask", ask)
    monkeypatch.setattr(cniplugin, "_namespace", lambda path: contextlib.nullcontext(-1))
    return heard


def call(command: str, conf: Mapping[str, Any] = CONF, **env: str) -> tuple[int, Any]:
    return cniplugin.answered({**ENV, **env, "CNI_COMMAND": command}, json.dumps(conf).encode())


@each_row(
    "conf, args, addresses",
    [
        ({}, "", []),
        ({"ips": ["10.1.1.9"]}, "", ["10.1.1.9"]),
        ({"ips": ["10.1.1.9"], "args": {"cni": {"ips": ["10.1.1.8/24"]}}}, "", ["10.1.1.8"]),
        ({"args": {"cni": {"ips": ["10.1.1.8/24"]}}}, "IP=10.1.1.7,fd00::7", ["10.1.1.7", "fd00::7"]),
        ({"runtimeConfig": {"ips": ["10.1.1.6/24"]}}, "IP=10.1.1.7", ["10.1.1.6"]),
    ],
)
def test_the_more_particular_address_wins(conf: dict[str, Any], args: str, addresses: list[str], asked: list[Any]) -> None:
    assert call("ADD", {**CONF, **conf}, CNI_ARGS=args)[0] == 0
    assert asked[-1][1]["addresses"] == addresses


@each_row(
    "container, args, name",
    [
        ("box", "", "default/box"),
        ("0123456789ab" + "d" * 52, "", "default/0123456789ab"),
        ("Odd_Name", "", "default/odd-name-9ab4df"),
        ("odd.name", "", "default/odd-name-919b02"),
        ("box", "K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;K8S_POD_UID=x", "shop/web"),
    ],
)
def test_how_the_pod_is_called(container: str, args: str, name: str, asked: list[Any]) -> None:
    call("ADD", CNI_CONTAINERID=container, CNI_ARGS=args)
    assert asked[-1][1]["name"] == name


def test_labels_and_rates(asked: list[Any]) -> None:
    more = {"labels": {"a": "1"}, "args": {"cni": {"labels": [{"key": "b", "value": "2"}]}}}
    call("ADD", {**CONF, **more, "runtimeConfig": {"bandwidth": {"ingressRate": 5, "ingressBurst": 5}}})
    assert (asked[0][1]["labels"], asked[0][1]["rates"]) == ({"a": "1", "b": "2"}, [5, 0])


@each_row("version", versions.ALL)
def test_each_version_is_answered_in_itself(version: str, asked: list[Any]) -> None:
    code, answer = call("ADD", {**CONF, "cniVersion": version})
    assert (code, answer["cniVersion"]) == (0, version)
    assert answer["dns"] == {"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"], "options": ["ndots:5"]}
    text = json.dumps(answer)
    assert "10.1.1.2/24" in text and ("0a:58:0a:01:01:02" in text) == versions.at_least(version, "0.3.0")


@each_row(
    "command, version, code",
    [
        ("CHECK", "0.3.1", 1),
        ("CHECK", "0.4.0", 0),
        ("GC", "1.0.0", 1),
        ("GC", "1.1.0", 0),
        ("STATUS", "1.0.0", 1),
        ("DEL", "0.1.0", 0),
    ],
)
def test_commands_are_as_old_as_they_are(command: str, version: str, code: int, asked: list[Any]) -> None:
    asked.clear()
    answer = call(command, {**CONF, "cniVersion": version})
    assert answer == (0, None) if not code else answer[1]["code"] == Code.INCOMPATIBLE_VERSION
    assert bool(asked) == (not code)


@each_row("error", [MachineError("it went away"), CniError(Code.NOT_AVAILABLE, "no lab")])
@pytest.mark.parametrize(("command", "code"), [("ADD", 50), ("DEL", 0), ("CHECK", 50), ("GC", 0), ("STATUS", 50)])
def test_a_lab_that_is_gone(command: str, code: int, error: Exception, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(cniplugin.Request, "ask", ask)
    exit_code, answer = call(command)
    assert (exit_code, answer and answer["code"]) == ((1, code) if code else (0, None))


@each_row(
    "path, words",
    [("/nowhere", "No such file"), ("/dev/null", "no network namespace"), ("/proc/self/ns/mnt", "no network namespace"),
     ("/proc/self/ns/net", "the host's own")],
)  # fmt: skip
def test_what_is_no_namespace(path: str, words: str) -> None:
    code, answer = call("ADD", CNI_NETNS=path)
    assert (code, answer["code"]) == (1, Code.INVALID_NETNS)
    assert words in answer["msg"]


def test_a_newer_runtime_may_ask_for_the_versions() -> None:
    code, answer = call("VERSION", {"cniVersion": "9.0.0"})
    assert (code, answer["supportedVersions"], answer["cniVersion"]) == (0, list(versions.ALL), "1.1.0")


def test_the_plugin_imports_nothing_slow() -> None:
    """A runtime waits for every start of it."""
    text = Path(cniplugin.__file__).read_text()
    assert not {"click", "scapy", "subprocess", "rich", "jinja2"}.intersection(text.split())
