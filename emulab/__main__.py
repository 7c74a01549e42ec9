"""The ``emulab`` command, and ``python -m emulab``.

Nothing is imported before Ctrl-C is taken care of: imports are where it is most likely to come, and to be lost.
"""

from __future__ import annotations

import signal
import sys

_SOON = 0.001  # seconds
_INTERRUPTED = 130  # as `emulab.cli` has it


def main() -> None:
    sys.unraisablehook = _raised_again
    try:
        from emulab import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _raised_again(lost: sys.UnraisableHookArgs) -> None:
    """A hook for what Python would print and forget: an interruption in a weak reference's callback, as imports have them, comes
    once more, a moment later.
    """
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, _SOON)
    else:
        sys.__unraisablehook__(lost)


if __name__ == "__main__":
    main()
