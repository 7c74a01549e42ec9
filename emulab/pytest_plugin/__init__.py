"""Packets between pods, asserted by pytest; docs/pytest.md shows how.

    import pytest
    from emulab.pytest_plugin import expect

    pytestmark = pytest.mark.emulab(topology="flat", plugin=["flannel", "calico"])

    def test_pods_see_each_other(lab):
        expect(lab.pod("a1")).reaches("c2", tcp=80).without_nat()

pytest loads `emulab.pytest_plugin.hooks` wherever emulab is installed, so what that imports has to be little.
"""

from __future__ import annotations

from emulab.pytest_plugin.lab import Lab, LabError, Node, Pod, Selected
from emulab.pytest_plugin.packets import Capture
from emulab.pytest_plugin.vocabulary import ExpectationFailed, expect

__all__ = ["Capture", "ExpectationFailed", "Lab", "LabError", "Node", "Pod", "Selected", "expect"]
