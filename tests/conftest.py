"""What is collected stays, and hundreds of tests fork the process that holds it: that must be cheap.

The garbage collector need not go through test modules and libraries again and again; nor mark them, or each fork would copy
their pages.  And a page of 2 MiB has one entry to copy where small ones have 512.
"""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import pytest

_HUGE = 2 << 20
_MADV_COLLAPSE = 25  # Linux 6.1 and later; others refuse it, and are slower
_ANONYMOUS = re.compile(r"^(\w+)-(\w+) rw-p 00000000 00:00 0 *(?:\[heap\])?$", re.MULTILINE)  # proc_pid_maps(5)


def pytest_configure() -> None:
    gc.disable()  # while everything is imported


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()
    if hasattr(session.config, "workerinput"):  # pytest-xdist: this process will run all kinds of tests
        _use_huge_pages()


def _use_huge_pages() -> None:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for found in _ANONYMOUS.finditer(Path("/proc/self/maps").read_text()):
        first, last = (int(end, 16) for end in found.groups())
        first, last = -(-first // _HUGE) * _HUGE, last // _HUGE * _HUGE
        if first < last:
            madvise(first, last - first, _MADV_COLLAPSE)
