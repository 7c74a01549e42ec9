"""The JSON contract of docs/json.md: the keys, and that each is told there."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

from tables import each_row

from emulab.packet import FlowResult, Verdict
from emulab.report import json_report
from emulab.result import RunResult

from .test_report_text import CHECK, REWRITE, TUNNEL, bad, block, flow, good, seen

DOCUMENT = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


def report(result: RunResult) -> Any:
    out = io.StringIO()
    json_report.write(result, out)
    return json.loads(out.getvalue())


FULL = bad()
HOP = seen(1.5, "node-a:eth0", "out", 63, outer=TUNNEL)
FULL.flows.recorded.append(FlowResult(flow(9), Verdict.REWRITTEN, (HOP,), (REWRITE,)))
FULL.mtu.append(CHECK)
FULL.findings.append(REWRITE)
FINDING = ["field", "before", "after", "place", "leg", "rule"]


@each_row(
    "path, keys",
    [
        (
            [],
            [
                "schema",
                "plugin",
                "options",
                "topology",
                "taps",
                "nodes",
                "pods",
                "flows",
                "mtu",
                "findings",
                "summary",
                "timings",
            ],
        ),
        (["nodes", 0], ["name", "addresses"]),
        (["pods", 0], ["name", "node", "addresses"]),
        (
            ["flows", 0],
            ["from", "to", "kind", "family", "protocol", "sport", "dport", "verdict", "hops", "findings", "translations"],
        ),
        (["flows", -1, "hops", 0], ["place", "direction", "leg", "outer", "inner", "time"]),
        (["flows", -1, "hops", 0, "outer"], ["kind", "source", "destination", "sport", "dport", "vni", "ttl"]),
        (["flows", -1, "hops", 0, "inner"], ["source", "destination", "protocol", "sport", "dport", "ttl", "length"]),
        (["flows", -1, "findings", 0], FINDING),
        (["flows", 5, "translations", 0], FINDING),
        (["findings", 0], FINDING),
        (["mtu", 0], ["from", "to", "family", "mtu", "full", "over", "reported_by", "findings"]),
        (["summary"], ["flows", "delivered", "rewritten", "dropped", "refused", "duplicated", "denied"]),
    ],
)
def test_keys_in_order_and_documented(path: list[str | int], keys: list[str]) -> None:
    found = report(FULL)
    for step in path:
        found = found[step]
    assert list(found) == keys
    assert not [key for key in keys if not re.search(rf"`{key}(\[\])?`", DOCUMENT)]


def test_a_flow() -> None:
    found = report(FULL)["flows"][-1]
    assert (found["from"], found["to"], found["verdict"]) == ("default/a1", "default/b1", "rewritten")
    assert (found["hops"][0]["place"], found["hops"][0]["time"]) == ("node-a:eth0", 1.5)
    assert found["findings"][0]["rule"] == REWRITE.rule


def test_nothing_found_is_empty_lists() -> None:
    found = report(RunResult("p", {}, good().cluster))
    assert (found["flows"], found["mtu"], found["findings"], found["summary"]["flows"]) == ([], [], [], 0)


def test_flows_are_written_one_by_one() -> None:
    """Memory stays flat: no piece holds more than one flow."""

    class Pieces(io.StringIO):
        longest = 0

        def write(self, piece: str) -> int:
            self.longest = max(self.longest, len(piece))
            return super().write(piece)

    out = Pieces()
    json_report.write(block([bytes(i != j for i in range(12)) for j in range(12)]), out)
    assert len(json.loads(out.getvalue())["flows"]) == 12 * 11
    assert out.longest < 5000
