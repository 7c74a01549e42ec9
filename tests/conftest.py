"""What is collected stays: the garbage collector need not go through test modules and libraries again and again, and a
process that a test forks shares their memory instead of copying it, page by page, as the collector marks it.
"""

from __future__ import annotations

import gc


def pytest_configure() -> None:
    gc.disable()  # while everything is imported


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
