"""Packets between pods, asserted by pytest; docs/pytest.md shows how.

    import pytest
    from emulab.pytest_plugin import expect

    pytestmark = pytest.mark.emulab(topology="flat", plugin=["flannel", "calico"])

    def test_pods_see_each_other(lab):
        expect(lab.pod("a1")).reaches("c2", tcp=80).without_nat()

pytest loads `emulab.pytest_plugin.hooks`, and with it this, wherever emulab is installed: so names are imported on demand.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulab.pytest_plugin.lab import Lab
    from emulab.pytest_plugin.members import LabError, Node, Pod, Selected
    from emulab.pytest_plugin.packets import Capture
    from emulab.pytest_plugin.vocabulary import ExpectationFailed, expect

__all__ = ["Capture", "ExpectationFailed", "Lab", "LabError", "Node", "Pod", "Selected", "expect"]
_PLACES = {"Capture": "packets", "ExpectationFailed": "vocabulary", "expect": "vocabulary", "Lab": "lab"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES.get(name, 'members')}"), name)
