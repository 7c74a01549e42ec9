"""``python -m emulab``: the same as the ``emulab`` command."""

from __future__ import annotations

from emulab.cli import main

if __name__ == "__main__":
    main()
