"""nftables through libnftables, in process: the same language as `nft`, without 15 ms of process and RCU wait each."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import socket
import stat
import subprocess
import threading
from contextlib import closing, suppress
from functools import lru_cache
from typing import Any

from emulab.errors import MachineError
from emulab.kernel import netlink as nl
from emulab.kernel.namespaces import Namespace, entered
from emulab.kernel.netlink import NetlinkSocket

_NETFILTER = 12
_LARGE = 1 << 26  # bytes: the kernel gives as much as net.core.wmem_max allows
_JSON, _HANDLE, STATELESS = 1 << 4, 1 << 3, 1 << 2  # NFT_CTX_OUTPUT_* in nftables/libnftables.h
_NFT_MSG_GETTABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES in linux/netfilter/nfnetlink.h, the message in nf_tables.h
_NFTA_TABLE_NAME = 1
_IPTABLES = {"filter", "nat", "mangle", "raw", "security"}  # the tables of iptables-nft


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise MachineError(f"libnftables is missing ({error}): apt-get install nftables") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


_low: list[int] = []


def prepare() -> None:
    """Load the library, and keep a low descriptor free for it: it waits by select(2), which ends at 1024.

    Raises `MachineError` when it is missing.
    """
    _library()
    if not _low:
        _low.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


class Nftables:
    """One handle on the ruleset of the namespace that the calling thread is in."""

    def __init__(self) -> None:
        prepare()
        self._socket = _low.pop()
        os.close(self._socket)  # the library's socket takes its place
        self._context = ctypes.c_void_p(_library().nft_ctx_new(0))
        self._changed, self._flags = False, 0
        if _in_user_namespace():  # the library only tries what the machine's root may
            with suppress(OSError), socket.socket(fileno=os.dup(self._socket)) as own:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGE)
        _library().nft_ctx_buffer_error(self._context)
        _library().nft_ctx_buffer_output(self._context)

    def __enter__(self) -> Nftables:
        return self

    def __exit__(self, *_: object) -> None:
        last = self._duplicate() if self._changed else None
        _library().nft_ctx_free(self._context)
        prepare()
        if last is not None:
            threading.Thread(target=os.close, args=(last,), daemon=True).start()

    def _duplicate(self) -> int | None:
        """Another descriptor of the library's socket.

        What a transaction took away is freed after an RCU grace period, and whoever closes a socket meanwhile waits for that
        (nft_rcv_nl_event in net/netfilter/nf_tables_api.c), though the transaction has been in force for long.
        """
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(self._socket).st_mode):
                return os.dup(self._socket)
        return None

    def run(self, commands: str) -> str:
        """Run nft commands as one transaction and return what they print; raises ValueError with nft's own words."""
        if commands == "list ruleset" and tables() & _IPTABLES:
            return self._listed()
        self._changed = self._changed or not commands.startswith("list ")
        failed = _library().nft_run_cmd_from_buffer(self._context, commands.encode())
        error = (_library().nft_ctx_get_error_buffer(self._context) or b"").decode(errors="replace")
        if failed:
            raise ValueError(error.strip())
        output = _library().nft_ctx_get_output_buffer(self._context) or b""
        return bytes(output).decode(errors="replace")

    def listing(self) -> str:
        """The ruleset as ``nft -a list ruleset`` prints it: each rule with its handle."""
        self._show(_HANDLE)
        try:
            return self.run("list ruleset")
        finally:
            self._show(0)

    def ruleset(self) -> list[dict[str, Any]]:
        """All objects, as libnftables-json(5) describes them, with handles."""
        self._show(_JSON | _HANDLE)
        try:
            listing: list[dict[str, Any]] = json.loads(self.run("list ruleset") or '{"nftables": []}')["nftables"]
        finally:
            self._show(0)
        return listing

    def _show(self, flags: int) -> None:
        self._flags = flags
        _library().nft_ctx_output_set_flags(self._context, flags)

    def _listed(self) -> str:
        """By a process of its own: within one, libxtables forgets its extensions when the library is opened a second time, and
        rules of iptables are listed without their targets."""
        options = [option for flag, option in ((_HANDLE, "-a"), (STATELESS, "-s"), (_JSON, "-j")) if self._flags & flag]
        try:
            done = subprocess.run(["nft", *options, "list", "ruleset"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"nft does not list the rules of iptables: {error}") from None
        return done.stdout


@lru_cache(maxsize=1)
def _in_user_namespace() -> bool:
    """Whether this is an ordinary user's sandbox, whose root is not the machine's."""
    with open("/proc/self/uid_map") as mapping:
        return mapping.read().split()[1:] != ["0", "4294967295"]


@lru_cache(maxsize=1)
def room() -> int | None:
    """Kilobytes of messages that surely fit into the library's socket; None: as many as there are, for the machine's root.

    Commands come in as few transactions as possible: before each the library reads back all that is there.
    """
    if not _in_user_namespace():
        return None
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGE)
        return asked.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2048  # half of it: the estimate is a rough one


def tables() -> set[str]:
    """The names of all tables of the namespace that the calling thread is in: in most there are none, and the library takes
    twenty times as long to say so."""
    with closing(NetlinkSocket(_NETFILTER)) as netfilter:
        found = [dict(nl.attributes(payload[4:])) for _, payload in netfilter.dump(_NFT_MSG_GETTABLE, bytes(4))]
    return {bytes(one[_NFTA_TABLE_NAME]).rstrip(b"\0").decode() for one in found}


def run(namespace: Namespace, commands: str) -> str:
    """`Nftables.run` inside ``namespace``."""
    with entered(namespace.net), Nftables() as nft:
        return nft.run(commands)


def text(namespace: Namespace) -> str:
    """The ruleset as ``nft list ruleset`` prints it."""
    return run(namespace, "list ruleset")
