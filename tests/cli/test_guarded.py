"""What ends a command, and the code that it ends with."""

from __future__ import annotations

import pytest
from tables import each_row

from emulab.cli import guarded
from emulab.errors import InputError, MachineError
from emulab.kernel.sandbox import Interrupted


class Made:
    """What raises while the class is made that has it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __set_name__(self, owner: type, name: str) -> None:
        raise self.error


def raised(error: BaseException) -> int:
    raise error


def raised_within(error: BaseException) -> int:
    type("Class", (), {"field": Made(error)})
    return 0


@each_row(
    "error, code, told",
    [
        (InputError("no such thing"), 2, "error: no such thing\n"),
        (MachineError("it cannot"), 3, "error: it cannot\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (ValueError("oh"), 70, "error: this is a mistake in emulab: ValueError: oh (EMULAB_DEBUG=1 shows where)\n"),
    ],
)
def test_codes(error: BaseException, code: int, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: raised(error)) == code
    assert capfd.readouterr().err == told


def test_an_interruption_while_a_class_is_made_is_one(capfd: pytest.CaptureFixture[str]) -> None:
    """Python 3.11 and older say RuntimeError."""
    assert guarded(lambda: raised_within(KeyboardInterrupt())) == 130
    with pytest.raises(Interrupted):
        guarded(lambda: raised_within(Interrupted(15)))
    assert capfd.readouterr().err == ""
