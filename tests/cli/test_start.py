"""What a command does not import, since whoever types it would wait for it."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_heavy_is_imported_for_a_name() -> None:
    """A data plane is found without YAML, Scapy, Mininet or Rich."""
    code = "import sys; from emulab import registry; registry.plugin('flannel'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"yaml", "scapy", "mininet", "rich", "click"} & set(modules)
