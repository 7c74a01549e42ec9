"""A host for CNI plugins, inside a sandbox: folders of its own, an uplink, network namespaces, and a look into them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emulab.cni import config
from emulab.cni.invocation import Invocation
from emulab.cni.runtime import Attachment, Runtime
from emulab.kernel import syscalls

DEBIAN = Path(
    "/usr/lib/cni"
)  # containernetworking-plugins; bootstrap.sh installs it for the tests, nothing is skipped without it
OWN = Path("/run/plugins")


class Host:
    """The sandbox's own namespace is the host; `up0` leads to another machine."""

    def __init__(self, scripts: Mapping[str, str] | None = None, timeout: float = 20) -> None:
        syscalls.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
        for folder in ("netns", "plugins"):
            os.mkdir(f"/run/{folder}")
        for name, text in (scripts or {}).items():
            (OWN / name).write_text(text)
            (OWN / name).chmod(0o755)
        ip("link set lo up")
        ip("link add up0 type veth peer name far0")
        ip("link set up0 up")
        ip("link set far0 up")
        self.log: list[Invocation] = []
        self.runtime = Runtime([OWN, DEBIAN], Path("/run/cni"), on_invocation=self.log.append, timeout=timeout)

    def container(self, name: str, ifname: str = "eth0") -> Attachment:
        ip(f"netns add {name}")
        return Attachment(name, f"/run/netns/{name}", ifname)

    def calls(self) -> str:
        return " ".join(f"{one.command}:{one.plugin}" for one in self.log)


def ip(line: str) -> Any:
    """`ip LINE`, which has to succeed; with -j, what it prints."""
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {line}: {done.stderr}"
    return json.loads(done.stdout or "[]") if "-j" in line.split() else done.stdout


def inside_of(container: str, ifname: str = "eth0") -> dict[str, Any]:
    """The interface there: its addresses, MAC, MTU, and the destinations of routes; nothing when it is not there."""
    found = [one for one in ip(f"-n {container} -j addr") if one["ifname"] == ifname]
    if not found:
        return {}
    addresses = {f"{one['local']}/{one['prefixlen']}" for one in found[0]["addr_info"] if one["scope"] != "link"}
    routes = {one["dst"] for family in (4, 6) for one in ip(f"-n {container} -{family} -j route") if one["dev"] == ifname}
    return {"addresses": addresses, "mac": found[0]["address"], "mtu": found[0]["mtu"], "routes": routes}


def network(*plugins: Mapping[str, Any], version: str = "1.0.0", **more: Any) -> config.NetworkList:
    return config.read(json.dumps({"cniVersion": version, "name": "mynet", "plugins": plugins, **more}))
