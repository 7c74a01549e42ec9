"""nftables' events: what came before a listener's buffer was full is not lost with the rest."""

from __future__ import annotations

import errno
import socket
from typing import cast

from tables import each_row

from emulab.kernel.nftrace import _counts, _received, _rules


class Listener:
    """A socket that gives what it was told to: bytes, or an error."""

    def __init__(self, *given: bytes | int) -> None:
        self._given = list(given)

    def recv(self, _: int) -> bytes:
        if not self._given:
            raise BlockingIOError
        one = self._given.pop(0)
        if isinstance(one, int):
            raise OSError(one, "")
        return one


@each_row(
    "given, read",
    [
        ((b"a", b"b"), [b"a", b"b"]),
        ((errno.ENOBUFS, b"a", b"b"), [b"a", b"b"]),
        ((b"a", errno.ENOBUFS, b"b"), [b"a", b"b"]),
        ((b"a", errno.EBADF, b"b"), [b"a"]),
        ((), []),
    ],
)
def test_a_full_buffer(given: tuple[bytes | int, ...], read: list[bytes]) -> None:
    assert list(_received(cast(socket.socket, Listener(*given)))) == read


LISTING = """\
table ip t { # handle 3
	chain c { # handle 1
		type filter hook forward priority filter; policy accept;
		ip saddr 10.0.0.1 counter packets 7 bytes 420 accept comment "x" # handle 2
		ip saddr 10.0.0.2 drop # handle 4
	}
}
table ip6 t { # handle 4
	chain c { # handle 1
		counter packets 0 bytes 0 drop # handle 2
	}
}
"""


def test_rules_and_counters_by_handle() -> None:
    assert dict(_counts(LISTING)) == {("ip", "t", 2): 7, ("ip6", "t", 2): 0}
    assert dict(_rules(LISTING))["ip", "t", 2] == 'ip saddr 10.0.0.1 counter accept comment "x"'
