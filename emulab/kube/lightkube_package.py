"""The package lightkube without its HTTP client: we need its models only, and the client takes three times as long to import.

To import a submodule is to import its package first (docs.python.org/3/reference/import.html), and that of lightkube imports
the client.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any


def postpone_client() -> None:
    """Have `lightkube` there as an empty package, which is filled when somebody asks for more than its submodules."""
    spec = importlib.util.find_spec("lightkube") if "lightkube" not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    package, loader = importlib.util.module_from_spec(spec), spec.loader

    def filled(name: str) -> Any:  # what a module is asked for and has not: PEP 562
        package.__dict__.pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, name)

    package.__dict__["__getattr__"] = filled
    sys.modules["lightkube"] = package
