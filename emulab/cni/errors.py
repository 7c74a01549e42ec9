"""What goes wrong in CNI: a code, a message, details; the codes of section 5, and two that only libraries use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from emulab.errors import EmulabError

_SHOWN = 2000  # characters of what a plugin wrote that an error quotes
# Compiled at first use: that takes longer than much else that a plugin does.
_CONTROL = (
    "[^\n\t\u0020-\u007e\u00a0-\u200d\u2010-\u2027\u202f-\u2065\u2070-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


class Code(IntEnum):
    """0 to 99 belong to the specification; a plugin's own begin at 100.

    INVALID_NETNS and INTERNAL are of the reference library's, not of the specification.
    """

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    INVALID_NETNS = 8
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    INTERNAL = 999

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Code.INCOMPATIBLE_VERSION: "incompatible CNI version",
    Code.UNSUPPORTED_FIELD: "unsupported field in the network configuration",
    Code.UNKNOWN_CONTAINER: "container unknown or gone",
    Code.INVALID_ENVIRONMENT: "invalid environment variables",
    Code.IO_FAILURE: "I/O failure",
    Code.DECODING_FAILURE: "failed to decode content",
    Code.INVALID_CONFIG: "invalid network configuration",
    Code.INVALID_NETNS: "invalid network namespace",
    Code.TRY_AGAIN_LATER: "try again later",
    Code.NOT_AVAILABLE: "the plugin is not available",
    Code.LIMITED_CONNECTIVITY: "the plugin is not available, and containers may have limited connectivity",
    Code.INTERNAL: "internal error",
}


class CniError(EmulabError):
    """An operation failed.  ``plugin`` and ``command`` say whose and which; ``stderr`` is what it wrote there.

    What a plugin did not say itself (it hung, crashed, printed no JSON, is missing) has the code `Code.INTERNAL`.
    """

    exit_code = 1

    def __init__(self, code: int, msg: str, details: str = "", *, plugin: str = "", command: str = "", stderr: str = "") -> None:
        self.code, self.msg, self.details = code, msg, details
        self.plugin, self.command, self.stderr = plugin, command, stderr
        super().__init__(code, msg, details)

    def __str__(self) -> str:
        where = " ".join(part for part in (self.plugin, self.command) if part)
        known = f", {Code(self.code).words}" if self.code in _WORDS and self.code != Code.INTERNAL else ""
        code = f" (code {self.code}{known})" if self.code != Code.INTERNAL else ""
        said = "".join(f"; {what}: {text}" for what, text in (("details", self.details), ("stderr", self.stderr)) if text.strip())
        return _line(f"{where}: " if where else "") + " " * bool(where) + _line(self.msg) + code + _line(said)

    def show(self, version: str) -> dict[str, Any]:
        """The error as a plugin prints it on stdout, in the protocol's ``version``."""
        shown: dict[str, Any] = {"cniVersion": version, "code": int(self.code), "msg": self.msg}
        return {**shown, "details": self.details} if self.details else shown

    @classmethod
    def read(cls, document: Any, *, plugin: str = "", command: str = "", stderr: str = "") -> CniError | None:
        """The error that ``document`` is, or None when it is not one: an object with a `code` other than 0 and a `msg`."""
        if not isinstance(document, Mapping):
            return None
        code, msg, details = document.get("code"), document.get("msg"), document.get("details")
        if isinstance(code, bool) or not isinstance(code, int) or code == 0 or not isinstance(msg, str):
            return None
        return cls(code, msg, details if isinstance(details, str) else "", plugin=plugin, command=command, stderr=stderr)


def printable(text: str, limit: int = _SHOWN) -> str:
    """``text`` with control and other invisible characters escaped, cut in the middle to about ``limit`` characters."""
    if len(text) > limit:
        text = f"{text[: limit // 2]} […{len(text) - limit} more…] {text[-(limit // 2) :]}"
    return re.sub(_CONTROL, lambda found: ascii(found.group())[1:-1], text.strip())


def _line(text: str) -> str:
    return " ".join(printable(text).split())
