"""Network namespaces of the host, as container runtimes make them, and the plugin `emulab-cni`, called as runtimes call it."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emulab import cniplugin
from emulab.kernel import syscalls
from emulab.kernel.namespaces import returning

PLUGIN = Path(sysconfig.get_path("scripts"), "emulab-cni")
CONF = {"cniVersion": "1.1.0", "name": "emulated", "type": "emulab", "node": "node-a"}
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@contextmanager
def container(path: Path) -> Iterator[Path]:
    """A new network namespace with this name in the file system, until the end.  The mounts have to be the test's own."""
    path.touch()
    with returning():
        syscalls.unshare(syscalls.CLONE_NEWNET)
        syscalls.mount("/proc/thread-self/ns/net", str(path), None, syscalls.MS_BIND)
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """As `ip netns del` does it."""
    if path.exists():
        syscalls.unmount(str(path))
        path.unlink()


@contextmanager
def covered(*folders: str) -> Iterator[None]:
    """What is written into these folders meanwhile is nowhere afterwards.  The mounts have to be the test's own."""
    made = [folder for folder in folders if not Path(folder).exists()]
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        syscalls.mount("tmpfs", folder, "tmpfs", 0, "mode=755")
    try:
        yield
    finally:
        for folder in folders:
            syscalls.unmount(folder)
        for folder in made:
            Path(folder).rmdir()


def variables(command: str, netns: Path | str = "", **more: str) -> dict[str, str]:
    name = Path(netns).name or "gone"  # as good an id as any
    shown = {"CNI_COMMAND": command, "CNI_CONTAINERID": name, "CNI_NETNS": str(netns), "CNI_IFNAME": "eth0", "PATH": PATH}
    return {**shown, **more}


def called(command: str, netns: Path | str, conf: Mapping[str, Any], **more: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what would be printed: the plugin without its process, most of which is Python's start."""
    code, answer = cniplugin.answered(variables(command, netns, **more), json.dumps(conf).encode())
    return code, json.loads(json.dumps(answer or {}))


def run(
    command: str, netns: Path | str, conf: Mapping[str, Any], as_user: Mapping[str, Any] | None = None, **more: str
) -> tuple[int, dict[str, Any]]:
    """The same by the executable: exit code and what it printed."""
    env, said = variables(command, netns, **more), json.dumps(conf)
    done = subprocess.run([PLUGIN], env=env, input=said, capture_output=True, text=True, timeout=60, **(as_user or {}))
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout or "{}")


def ip(netns: Path, line: str) -> Any:
    """`ip -j` in a namespace; what it prints, if anything."""
    words = ["nsenter", f"--net={netns}", "ip", "-j", *line.split()]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return json.loads(out) if out.strip() else []


def devices(netns: Path) -> set[str]:
    return {one["ifname"] for one in ip(netns, "link")}
