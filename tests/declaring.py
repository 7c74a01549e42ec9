"""Labs whose pods declare ports, and whoever asks from within a namespace."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from designed import catalogued

from emulab import registry
from emulab.kernel.namespaces import entered
from emulab.lab import Lab
from emulab.model import Pod
from emulab.objects import ContainerPort, Objects
from emulab.planning import design

for _module in ("scapy.layers.inet", "scapy.layers.inet6", "emulab.report.ports", "emulab.report.probe"):
    importlib.import_module(_module)  # an ordinary user may not be able to read this interpreter's folders

PORTS = tuple(ContainerPort(number, protocol) for protocol in ("tcp", "udp", "sctp") for number in (80, 8080))


def lab_with(
    plugin: str = "flannel",
    ports: Iterable[ContainerPort] = PORTS,
    topology: str = "flat",
    change: Callable[[Pod], Pod] = lambda pod: pod,
    objects: Objects | None = None,
) -> Lab:
    """A lab, not built yet, in which every pod declares ``ports``."""
    plain = catalogued(topology)
    pods = tuple(change(replace(pod, ports=tuple(ports))) for pod in plain.pods)
    wanted = replace(plain, pods=pods, objects=objects or Objects())
    return Lab(design(wanted, registry.options(registry.plugin(plugin), ())))


def ask(lab: Lab, source: str, target: tuple[str, int], data: bytes | None, kind: int = socket.SOCK_STREAM) -> bytes:
    """What is answered to ``data``; None: nothing is sent but the end."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with entered(lab.namespaces[source].net):
        client = socket.socket(family, kind)
    with client:
        client.settimeout(5)
        client.connect(target)
        if data is not None:
            client.send(data)
        if kind == socket.SOCK_DGRAM:
            return client.recv(4096)
        if data is None:
            client.shutdown(socket.SHUT_WR)
        answer = b""
        while more := client.recv(4096):
            answer += more
        return answer


def sockets_in(lab: Lab, name: str) -> int:
    """How many of this process' sockets are in a namespace: linux/sockios.h SIOCGSKNS."""
    import fcntl
    import os

    wanted = os.fstat(lab.namespaces[name].net).st_ino
    return sum(_namespace_of(int(fd), fcntl.ioctl) == wanted for fd in os.listdir("/proc/self/fd"))


def _namespace_of(fd: int, ioctl: Callable[[int, int], Any]) -> int:
    import os

    try:
        net = ioctl(fd, 0x894C)
    except OSError:
        return 0
    try:
        return os.fstat(net).st_ino
    finally:
        os.close(net)
