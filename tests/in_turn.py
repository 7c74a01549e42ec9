"""Several checks in one lab: to build one for each would cost more than what they check."""

from __future__ import annotations

from collections.abc import Iterable

from sandboxed import Check

from emulab.lab import Lab


def in_turn(lab: Lab, checks: Iterable[Check]) -> None:
    """All of them, in a lab that is built; changes of the design are taken back after each.

    What a check has planted by hand, it takes away itself: else the lab is not as planned for the next one, and that is said.
    """
    design = lab.design
    for check in checks:
        check(lab)
        if lab.design is not design:
            lab.change(design)
        left = [str(one) for one in lab.drift()]
        assert left == [], f"{check} leaves {left}"
