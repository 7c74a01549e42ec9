"""The kernel's netlink: what it refuses is told in its own words."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from emulab.kernel import netlink as nl

RTA_TABLE = 15  # linux/rtnetlink.h


def test_a_dump_that_ends_in_an_error_is_none() -> None:
    """It comes with the message that ends the dump."""
    with closing(nl.RouteSocket()) as route:
        route._socket.setsockopt(nl.SOL_NETLINK, nl.NETLINK_GET_STRICT_CHK, 1)
        request = nl.rtmsg.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0) + nl.u32(RTA_TABLE, 12345)
        with pytest.raises(OSError, match="FIB table does not exist"):
            list(route.dump(nl.RTM_GETROUTE, request))
