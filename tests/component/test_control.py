"""The socket's language and the folders of labs, without a lab."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest
from designed import catalogued
from tables import each_row

from emulab import etc_files, registry
from emulab.cli.lab import table
from emulab.control import places
from emulab.control.live import OPERATIONS
from emulab.control.operations import _checked
from emulab.control.protocol import Channel, ProtocolError
from emulab.errors import InputError
from emulab.planning import design


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "home", lambda: tmp_path / "emulab")
    monkeypatch.delenv("EMULAB_LAB", raising=False)
    return tmp_path / "emulab"


def conversation(limit: int | None = None) -> tuple[socket.socket, Channel]:
    one, other = socket.socketpair()
    return one, Channel(other, limit)


def test_messages_and_descriptors_arrive() -> None:
    one, other = socket.socketpair()
    here, there = Channel(one), Channel(other)
    null = os.open(os.devnull, os.O_RDONLY)
    here.send({"ok": True}, [null])
    here.send({"ok": False})
    assert there.receive() == {"ok": True}
    assert there.receive() == {"ok": False}
    assert len(there.descriptors) == 1
    os.close(null)
    there.close()
    with pytest.raises(InputError, match="more than 1 MiB in one request"):
        here.send({"x": "y" * (1 << 20)}, most=1 << 20)
    with pytest.raises(OSError):
        here.send({"x": "y" * 100_000})
    here.close()


@each_row("line", [b"nonsense\n", b"[]\n", b"1\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"a": 1', b"{" * 5000])
def test_what_is_no_message(line: bytes) -> None:
    one, channel = conversation(1000)
    one.setblocking(False)
    one.send(line)
    one.close()
    with pytest.raises(ProtocolError):
        channel.receive()
    channel.close()


def test_the_end() -> None:
    one, channel = conversation()
    one.close()
    assert channel.receive() is None
    channel.close()


def test_a_name_is_held_as_long_as_its_lock(home: Path) -> None:
    place, lock = places.claim("lab")
    assert places.alive(place) and [one.name for one in places.labs()] == ["lab"]
    with pytest.raises(InputError, match="lab 'lab' is up already"):
        places.claim("lab")
    os.close(lock)
    assert places.labs() == [] and not place.folder.exists(), "swept away"


def test_burying_takes_nobody_elses_folder(home: Path) -> None:
    place, lock = places.claim("lab")
    place.lock.unlink()
    other = os.open(place.lock, os.O_CREAT | os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    place.bury(lock)
    assert place.folder.exists()
    os.close(lock)
    os.close(other)


def test_which_lab_is_meant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no lab is up"):
        places.find(None)
    locks = [places.claim(name)[1] for name in ("one", "two")]
    with pytest.raises(InputError, match=r"several labs are up: choose one by -l \(one, two\)"):
        places.find(None)
    assert places.find("two").name == "two"
    with pytest.raises(InputError, match=r"no lab 'too' \(did you mean 'two'\?\)"):
        places.find("too")
    monkeypatch.setenv("EMULAB_LAB", "one")
    assert places.find(None).name == "one"
    for lock in locks:
        os.close(lock)


@each_row("name", ["", "Lab", "a_b", "../x", "a/b", "x" * 64])
def test_names_that_are_none(name: str, home: Path) -> None:
    with pytest.raises(InputError, match="is no name for a lab"):
        places.claim(name)


@each_row(
    "given, told",
    [
        ({"name": 7, "node": "n"}, "name: str expected"),
        ({"name": "x"}, "argument 'node' is missing"),
        ({"name": "x", "node": "n", "addresses": ["1", 2]}, "addresses: "),
        ({"name": "x", "node": "n", "labels": {"a": 1}}, "labels: "),
        ({"name": "x", "node": "n", "dry_run": 1}, "dry_run: bool expected"),
        ({"name": "x", "node": "n", "nodes": 1}, r"no argument 'nodes' \(did you mean 'node'\?\)"),
    ],
)
def test_arguments_are_checked(given: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        _checked("pod_add", OPERATIONS["pod_add"], given)


def test_every_operation_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "control.md").read_text()
    assert [name for name in OPERATIONS if f"`{name}`" not in text] == []


def test_what_a_pod_finds_in_its_etc() -> None:
    cluster = design(catalogued("flat"), registry.plugin("flannel")()).cluster
    files = etc_files.of(cluster, "default/a1")
    assert files["hostname"] == "a1\n"
    assert "10.1.1.1\ta1\n" in files["hosts"] and "fd00:10:1::2\ta1\n" in files["hosts"] and "b1" not in files["hosts"]
    assert files["resolv.conf"].startswith("search default.svc.cluster.local svc.cluster.local cluster.local\n")
    assert "192.168.50.3\tnode-c\n" in etc_files.of(cluster, "node-a")["hosts"]


@each_row("name, key", [("a1", "default/a1"), ("default/a1", "default/a1"), ("node-a", "node-a")])
def test_names_are_resolved(name: str, key: str) -> None:
    cluster = design(catalogued("flat"), registry.plugin("flannel")()).cluster
    assert etc_files.resolve(cluster, name) == key
    with pytest.raises(InputError, match=r"no pod or node 'a3' \(did you mean 'a"):
        etc_files.resolve(cluster, "a3")


def test_columns_are_as_wide_as_need_be(capsys: pytest.CaptureFixture[str]) -> None:
    table(["NAME", "IP"], [["a1", "10.1.1.1"], ["longer", "x"]])
    assert capsys.readouterr().out == "NAME     IP\na1       10.1.1.1\nlonger   x\n"
