"""A comparison as values: slopes, rows, advice, charts and the four reports, from figures that are written here."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any

from comparisons import NODES, comparison, growth, measured, tunnelled
from tables import each_row

from emulab.comparison import (
    FAR,
    Comparison,
    Cut,
    Death,
    RoundTrips,
    Throughput,
    Tried,
    Way,
)
from emulab.comparison.advice import advice
from emulab.comparison.charts import charts
from emulab.comparison.growth import extrapolated
from emulab.comparison.rows import Cell, Row, lines, rows
from emulab.report import comparison_csv, comparison_html, comparison_json, comparison_text


def by_key(told: Comparison) -> dict[tuple[str, int | None], Row]:
    return {(row.key, row.family): row for row in rows(told)}


@each_row(
    "steps, here, elsewhere",
    [
        ([(10, 10), (11, 10)], 1, 0),
        ([(10, 10), (12, 13), (14, 16)], 2, 3),
        ([(10, 10), (10, 10), (13, 10)], 1.5, 0),  # a new block: least squares
        ([(10, 9), (9, 8)], -1, -1),
    ],
)
def test_slopes(steps: list[tuple[int, int]], here: float, elsewhere: float) -> None:
    found = growth("pod", *steps)
    assert (found.slope("routes", False), found.slope("routes", True)) == (here, elsewhere)


def test_where_something_was_not_counted_there_is_no_slope_and_no_zero() -> None:
    one = growth("pod", (10, 10), (11, 11))
    less = replace(one, counts=tuple({n: {"routes": 1} for n in counts} for counts in one.counts))
    assert less.slope("routes", False) == 0 and less.slope("fdb", False) is None
    found = by_key(comparison(measured(), measured(busy={n: {"routes": 1} for n in NODES}, growth=(less,))))
    assert found["held/fdb", None].cells == (Cell(0, "0"), Cell(None, "not counted"))
    assert found["growth/pod/fdb", None].cells[1] == Cell(None, "not counted")
    assert "fdb" not in comparison(measured(), measured(growth=(less,))).kinds


@each_row(
    "key, family, value, text",
    [
        ("reached", None, True, "60 of 60"),
        ("encapsulation/other node", 4, "none", "none"),
        ("overhead/other node", 6, 0, "0"),
        ("mtu/other node", 4, 1500, "1,500"),
        ("hops/other node", 4, 2, "2"),
        ("ttl/same node", 4, 64, "64"),
        ("held/routes", None, 10, "10"),
        ("pods/neighbours_learned", None, 2.5, "2.5"),
        ("growth/pod/routes", None, 1, "+1"),
        ("growth/pod-elsewhere/routes", None, 0, "0"),
        ("growth/node/routes", None, 2, "+2"),
        ("setup/lab", None, 200, "200"),
        ("setup/data-plane", None, 50, "50"),
        ("rtt/other node/median", 4, 50, "50"),
        ("rtt/other node/p99", 4, 90, "90"),
        ("throughput/other node", None, None, "iperf3 is not installed"),
        ("policy/NetworkPolicy ingress", None, False, "not enforced"),
        ("death/others", None, True, "all go on"),
        ("death/left", None, 2, "2 routes"),
        ("death/told", None, "no answer", "no answer"),
        ("cut", 4, False, "no more"),
        ("cut/gap", 4, None, "no end"),
    ],
)
def test_cells(key: str, family: int | None, value: object, text: str) -> None:
    assert by_key(comparison(measured(), measured()))[key, family].cells[0] == Cell(value, text)  # type: ignore[arg-type]


@each_row(
    "values, key, family, cell",
    [
        (
            {"ways": {(FAR, 4): Way("a", "b", lost="host unreachable, by 1.2.3.4")}},
            "mtu/other node",
            4,
            Cell(None, "host unreachable"),
        ),
        ({"round_trips": {(FAR, 4): RoundTrips(0, 0, 0, 500)}}, "rtt/other node/median", 4, Cell(None, "no answer")),
        ({"throughput": {(FAR, 4): Throughput(2.5e9)}}, "throughput/other node", None, Cell(2.5, "2.5")),
        ({"policies": (Tried("P", 0, 4),)}, "policy/P", None, Cell(True, "enforced")),
        ({"policies": (Tried("P", 4, 4),)}, "policy/P", None, Cell(False, "not enforced, though it should be")),
        ({"policies": (Tried("P", 1, 4, "w"),)}, "policy/P", None, Cell(False, "let 1 of 4 pass")),
        ({"policies": (Tried("P", 0, 0),)}, "policy/P", None, Cell(None, "nothing passed without it")),
        ({"death": Death("n", 20, 24, {})}, "death/others", None, Cell(False, "20 of 24")),
        ({"death": Death("n", 20, 24, {})}, "death/left", None, Cell(0, "nothing")),
        ({"cuts": {4: Cut(("a", "b"), 0.0423, 0.5, ("c",))}}, "cut", 4, Cell(True, "over c")),
        ({"cuts": {4: Cut(("a", "b"), 0.0423, 0.5, ("c",))}}, "cut/gap", 4, Cell(42, "42")),
        ({"growth": (), "no_growth": "no room"}, "growth/pod/routes", None, Cell(None, "no room")),
    ],
)
def test_cells_of_what_is_otherwise(values: dict[str, Any], key: str, family: int | None, cell: Cell) -> None:
    assert by_key(comparison(measured(**values), measured()))[key, family].cells[0] == cell


@each_row(
    "medians, best",
    [((50, 60), []), ((50, 63), [0]), ((50, 51, 90), [0, 1]), ((90, 50), [1])],
)
def test_times_within_a_quarter_are_alike(medians: tuple[int, ...], best: list[int]) -> None:
    found = (measured(round_trips={(FAR, 4): RoundTrips(us / 1e6, us / 1e6, 9, 9)}) for us in medians)
    assert by_key(comparison(*found))["rtt/other node/median", 4].best == best


def test_families_share_a_line_and_show_both_where_they_differ() -> None:
    told = {line.key: line for line in lines(comparison(measured(ways=tunnelled(50, 70)), measured()))}
    line = told["overhead/other node"]
    assert (line.label, line.texts, line.best) == ("overhead, other node, IPv4 / IPv6", ("50 / 70", "0"), (1,))
    assert told["mtu/other node"].label == "MTU, other node"
    assert "growth/node/devices" not in told and "growth/node/routes" in told


def test_nothing_is_advised_where_all_are_alike() -> None:
    assert advice(comparison(measured(), measured())) == [
        "A round trip to another node is alike with all of them, within a quarter, on this machine."
    ]
    assert advice(comparison(measured())) == advice(comparison(measured(), "broken")) == []


@each_row(
    "values, sentence",
    [
        ({"reached": (59, 60)}, "b does not bring all packets between pods to their destination unchanged: 59 of 60 flows."),
        (
            {"policies": (Tried("NetworkPolicy ingress", 0, 4),)},
            "Policies: b enforces all policies that were tried; a enforces none of them.",
        ),
        (
            {"ways": tunnelled(50, 70)},
            "Bytes on the way to another node: a adds nothing to a packet and carries 1,500 bytes; "
            "b adds 50 bytes (IPv4) and 70 bytes (IPv6) to a packet and carries 1,450 bytes.",
        ),
        (
            {"cuts": {4: Cut(("node-a", "node-b"), 0.04, 0.5, ("node-c",))}},
            "When two nodes lose sight of each other, b goes around over a third one; "
            "with a their pods are parted until the link is back.",
        ),
        (
            {"death": Death("node-x", 24, 24, {"routes": 1})},
            "Of a node that died each other one keeps 1 entry with b and 2 entries with a, "
            "until the cluster is told that it is gone.",
        ),
        (
            {"growth": (growth("pod", (10, 10), (11, 13)), growth("node", (12, 10), (14, 12)))},
            "With each pod anywhere else in the cluster every node holds more objects: 0 with a and 3 with b.",
        ),
        (
            {"round_trips": {(FAR, 4): RoundTrips(20e-6, 90e-6, 500, 500)}},
            "A round trip to another node, on this machine: 20 µs with b, against 50 µs with a.",
        ),
    ],
)
def test_advice_follows_from_the_figures(values: dict[str, Any], sentence: str) -> None:
    assert sentence in advice(comparison(measured(), measured(**values)))


def test_extrapolation_is_linear_in_pods_here_pods_there_and_nodes() -> None:
    """10 routes with 3 nodes of 2 pods; 2 more with a pod here, 1 with a pod there, 3 with a node and its pod, 2 without."""
    grown = measured(growth=(growth("pod", (10, 10), (12, 11), (14, 12)), growth("node", (14, 12), (17, 15))))
    found = extrapolated(comparison(grown, grown), grown, 10, 5)
    assert found["routes"] == 10 + (5 - 2) * 2 + (45 - 4) * 1 + (10 - 3) * 2
    assert extrapolated(comparison(grown, grown), replace(grown, growth=()), 10, 5) == {}


def test_charts_are_bars_from_zero_with_their_words() -> None:
    told = {chart.title: chart for chart in charts(comparison(measured(ways=tunnelled(50, 70)), measured(), "broken"))}
    overhead = told["Overhead, other node"]
    assert [(bar.label, bar.text, [part.share for part in bar.parts], bar.best) for bar in overhead.bars] == [
        ("a, IPv4", "50 bytes", [50 / 70], False),
        ("a, IPv6", "70 bytes", [1.0], False),
        ("b, IPv4", "0 bytes", [0.0], True),
        ("b, IPv6", "0 bytes", [0.0], True),
        ("c, IPv4", "not measured", [], False),
        ("c, IPv6", "not measured", [], False),
    ]
    assert overhead.words.startswith("Overhead, other node. a, IPv4: 50 bytes; a, IPv6: 70 bytes;")
    assert "TCP throughput, other node" not in told  # nothing to draw
    objects = told["Objects held by each node: 3 nodes, 6 pods"].bars[0]
    assert [(part.text, part.start, part.share) for part in objects.parts] == [
        ("3 devices", 0, 3 / 13),
        ("10 routes", 3 / 13, 10 / 13),
    ]


def test_the_json_has_every_figure_and_says_what_failed() -> None:
    page = io.StringIO()
    comparison_json.write(comparison(measured(), measured(), "no vxlan"), page)
    document = json.loads(page.getvalue())
    assert document["schema"] == "emulab/compare/1" and document["families"] == [4, 6]
    assert [column["failed"] for column in document["columns"]] == [None, None, "no vxlan"]
    assert document["columns"][0]["nodes"]["node-a"]["busy"]["routes"] == 10 and document["columns"][2]["nodes"] is None
    row = next(row for row in document["rows"] if row["key"] == "mtu/other node" and row["family"] == 6)
    assert row["values"] == [1500, 1500, None] and row["texts"][2] == "not measured"
    assert (row["unit"], row["better"]) == ("bytes", "higher")
    assert all(len(row["values"]) == len(row["texts"]) == 3 for row in document["rows"])


def test_the_csv_has_numbers_where_there_are_and_words_where_not() -> None:
    page = io.StringIO(newline="")
    comparison_csv.write(comparison(measured(), "no vxlan"), page)
    told = {(line[1], line[2]): line for line in csv.reader(io.StringIO(page.getvalue()))}
    assert told["figure", "family"] == ["group", "figure", "family", "unit", "better", "a", "b"]
    assert told["MTU, other node", "4"] == ["packets", "MTU, other node", "4", "bytes", "higher", "1500", "not measured"]
    assert told["TCP throughput, other node", ""][5] == "iperf3 is not installed"


def test_the_text_has_a_table_reasons_and_advice() -> None:
    page = io.StringIO()
    comparison_text.write(comparison(measured(ways=tunnelled(50, 70)), measured(no_growth="no room"), "no vxlan"), page)
    told = page.getvalue()
    assert "3 data planes on flat: 3 nodes, 6 pods, IPv4 and IPv6" in told
    assert re.search(r"overhead, other node, IPv4 / IPv6 +bytes +50 / 70 +0\n", told)
    assert "c was not measured: no vxlan\n" in told and "b: not all growth was measured: no room\n" in told
    assert "a, b: nothing is blocked\n" in told
    assert "\nHow to choose\n- Bytes on the way" in told
    quiet = io.StringIO()
    comparison_text.write(comparison(measured(ways=tunnelled(50, 70)), measured()), quiet, quiet=True)
    assert "overhead, other" not in quiet.getvalue() and "How to choose" in quiet.getvalue()


def test_many_columns_are_several_tables_and_nothing_is_cut_off() -> None:
    page = io.StringIO()
    comparison_text.write(comparison(*[measured()] * 8), page)
    assert page.getvalue().count("MTU, other node") == 3
    assert "…" not in page.getvalue()


def test_nothing_of_a_user_is_html() -> None:
    evil = "<script>alert(1)</script>"
    told = comparison(
        measured(policies=(Tried(evil, 4, 4, evil),), no_growth=evil), measured(ways=tunnelled(50, 70)), evil, topology=evil
    )
    page = io.StringIO()
    comparison_html.write(told, page)
    html = page.getvalue()
    assert "<script" not in html and html.count("&lt;script&gt;") > 5
    assert "http://" not in html.replace("http://www.w3.org", "") and "https://" not in html
    assert html.count("<figure>") == html.count('role="img"') == len(charts(told))
