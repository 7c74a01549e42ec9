"""Whatever a configuration or a plugin says, emulab says what is wrong with it, in one line: 10,000 random damages."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from emulab.cni import config, conventions, versions
from emulab.cni.errors import CniError
from emulab.cni.invocation import Outcome
from emulab.cni.result import Result
from emulab.cni.runtime import Attachment, Runtime
from emulab.errors import InputError

CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "cniVersions": ["0.4.0", "1.1.0"],
    "name": "mynet",
    "disableCheck": False,
    "plugins": [
        {"type": "a", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/8"}]]}, "capabilities": {"ips": True}},
        {"type": "b", "args": {"cni": {"ips": ["10.0.0.1"]}}, "capabilities": {"portMappings": True}},
    ],
}
RESULTS: tuple[Any, ...] = (
    {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "00:11:22:33:44:55", "sandbox": "/n"}],
        "ips": [{"interface": 0, "address": "10.0.0.2/8", "gateway": "10.0.0.1"}, {"address": "fd00::1/64"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400}],
        "dns": {"nameservers": ["10.0.0.1"], "domain": "d", "search": ["s"], "options": ["o"]},
    },
    {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/8", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]}, "dns": {}},
    {"cniVersion": "1.0.0", "code": 7, "msg": "no", "details": "d"},
    {"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]},
)
ARGUMENTS: dict[str, Any] = {
    "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "::1"}],
    "bandwidth": {"ingressRate": 1, "ingressBurst": 1},
    "ips": ["10.0.0.1/8"],
    "mac": "00:11:22:33:44:55",
    "dns": {"servers": ["::1"]},
    "ipRanges": [[{"subnet": "10.0.0.0/8", "gateway": "10.0.0.1"}]],
}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 10**400, 1.5, 1e308, [], {}, [[]], {"": {}}, [None], {"type": "a"}, ["1.0.0"]),
    *("", " ", "../../etc/passwd", "\0", "\ud800", "\u202e", "a" * 300, "10.0.0.1", "::/0", "1.1.0", "0.1.0", "99.0.0", "1.0"),
    *("999999999999/999", "fe80::1%e/64"),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside ``value``."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def damaged(document: Any, dice: random.Random) -> Any:
    """Up to three things in it are others, gone, doubled or renamed."""
    document = copy.deepcopy(document)
    for _ in range(dice.randint(1, 3)):
        found = list(places(document))
        if not found:
            return dice.choice(ODD)
        inside, key = dice.choice(found)
        match dice.randrange(4):
            case 0 | 1:
                inside[key] = copy.deepcopy(dice.choice(ODD))
            case 2:
                del inside[key]
            case _:
                value = copy.deepcopy(inside[key])
                if isinstance(inside, list):
                    inside.append(value)
                else:
                    inside[str(dice.choice(ODD))[:20]] = value
    return document


def torn(text: bytes, dice: random.Random) -> bytes:
    """As text: cut, with bytes changed, followed by something, or whole."""
    match dice.randrange(5):
        case 0:
            return text[: dice.randrange(len(text) + 1)]
        case 1:
            raw = bytearray(text)
            for _ in range(dice.randint(1, 4)):
                if raw:
                    raw[dice.randrange(len(raw))] = dice.randrange(256)
            return bytes(raw)
        case 2:
            return text + dice.choice((b"\n", b"{}", b"\0", b"]", text))
    return text


def one_line(error: Exception) -> None:
    told = str(error)
    assert told and len(told) < 20_000
    assert told.isprintable(), told


def test_3000_configurations() -> None:
    dice = random.Random(6)
    refused = 0
    for _ in range(3000):
        text = torn(json.dumps(damaged(CONFIG, dice)).encode(), dice)
        try:
            network = config.read(text, "x.conflist")
            version = config.negotiated(network)
            assert "/" not in network.name and network.name not in ("", ".", "..")
            for plugin in network.plugins:
                assert "/" not in plugin.type
                json.dumps(config.request(network, plugin, version=version, runtime_config=ARGUMENTS)).encode()
        except InputError as error:
            refused += 1
            one_line(error)
    assert 1000 < refused < 2900


def test_2000_results() -> None:
    dice = random.Random(7)
    read = 0
    for _ in range(2000):
        document = damaged(dice.choice(RESULTS), dice)
        try:
            result = Result.read(document)
            version = dice.choice(versions.ALL)
            again = Result.read(json.loads(json.dumps(result.show(version))))
            assert again.show(version) == result.show(version)
            read += 1
        except InputError as error:
            one_line(error)
    assert 300 < read < 1900


def test_1000_arguments_of_capabilities() -> None:
    dice = random.Random(8)
    for _ in range(1000):
        try:
            conventions.checked(damaged(ARGUMENTS, dice))
        except InputError as error:
            one_line(error)


def test_4000_answers_of_plugins(tmp_path: Path) -> None:
    """Chains of two, whose plugins say anything: a result, or one clear error, after which nothing is remembered."""
    dice = random.Random(9)
    for name in ("a", "b"):
        (tmp_path / name).touch(0o755)
    commands: list[str] = []

    def run(path: str, env: Mapping[str, str], stdin: bytes, timeout: float) -> Outcome:
        commands.append(env["CNI_COMMAND"])
        json.loads(stdin)
        document = dice.choice(RESULTS)
        out = json.dumps(document if dice.random() < 0.4 else damaged(document, dice)).encode()
        out = b"" if dice.random() < 0.05 else torn(out, dice) if dice.random() < 0.5 else out
        return Outcome(dice.choice((0, 0, 0, 0, 1, 2, -9)), out, dice.choice((b"", b"log\n", b"\x1b[0m\xff" * 500)))

    runtime = Runtime([tmp_path], tmp_path / "cni", run)
    chain = config.read(json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a"}, {"type": "b"}]}))
    attachment = Attachment("c", "/n")
    before, added = len(os.listdir("/proc/self/fd")), 0
    answers = 0
    while answers < 4000:
        answers += len(commands)
        commands.clear()
        try:
            runtime.add(chain, attachment)
            added += 1
            assert commands == ["ADD", "ADD"]
            assert runtime.cache.read("n", attachment) is not None
            runtime.cache.forget("n", attachment)
        except CniError as error:
            one_line(error)
            assert commands[-2:] == ["DEL", "DEL"]
            assert runtime.cache.read("n", attachment) is None
        with suppress(CniError):
            runtime.delete(chain, attachment)
        try:
            runtime.version("a")
        except CniError as error:
            one_line(error)
    assert added > 10
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (tmp_path / "cni").exists() or not os.listdir(tmp_path / "cni" / "results")
