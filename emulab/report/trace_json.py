"""A trace as JSON, schema ``emulab/trace/1``."""

from __future__ import annotations

import json
from typing import TextIO

from emulab.trace import Trace


def write(trace: Trace, out: TextIO) -> None:
    out.write(json.dumps(trace.show(), indent=1) + "\n")
