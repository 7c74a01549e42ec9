"""Meanwhile, a kernel answers everybody: Linux tells one peer of some six closed UDP ports and then of one a second.

Its limits (net.ipv4.icmp_ratelimit, icmp_msgs_per_sec, net.ipv6.icmp.ratelimit: Documentation/networking/ip-sysctl.rst) would
make a refusal look like a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from emulab.kernel.namespaces import Namespaces, entered

# Milliseconds between errors, 0: no limit; errors per second (a namespace's own since Linux 6.11).
_LIMITS = {"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0", "ipv4/icmp_msgs_per_sec": "1000000"}
_LIMITS["ipv4/icmp_msgs_burst"] = "1000000"


@contextmanager
def unlimited_errors(namespaces: Namespaces, names: Iterable[str]) -> Iterator[None]:
    """The namespaces ``names`` limit their ICMP errors no more, until the end; then as before."""
    before: list[tuple[int, str, str]] = []
    for name in names:
        net = namespaces[name].net
        with entered(net):
            before += [(net, path, value) for path, limit in _LIMITS.items() if (value := _swap(path, limit))]
    try:
        yield
    finally:
        for net, path, value in before:
            with suppress(OSError), entered(net):
                _swap(path, value)


def _swap(path: str, value: str) -> str:
    """Write a sysctl of the namespace that the thread is in; returns what it was, "" where there is none."""
    with suppress(OSError), open(f"/proc/sys/net/{path}", "r+") as file:
        before = file.read()
        file.seek(0)
        file.write(value)
        return before
    return ""
