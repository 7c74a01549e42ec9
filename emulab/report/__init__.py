"""What a run or a plan looks like to people and programs: one module per format, each a function of the same value."""

from __future__ import annotations

from collections.abc import Mapping


def settings(options: Mapping[str, object]) -> str:
    """A plugin's options as ``--set`` takes them, in parentheses: " (vni=1, direct_routing=false)"; None is left out."""
    shown = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in options.items() if value is not None]
    return f" ({', '.join(shown)})" if shown else ""
