"""Who may talk to whom beside who does: states, the table, JSON and HTML."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser

from policed import cluster, ingress, pods, policy
from tables import each_row

from emulab import access
from emulab.access import Access, Cell, Column
from emulab.objects import Policy
from emulab.oracle import Oracle
from emulab.packet import Verdict
from emulab.report import access as page

ONLY_WEB = policy(ingress({"from": [pods(app="web")]}))
DB = Column("default/db", "tcp", 5432)
LATE, LOST, REFUSED, OTHER = Verdict.DELIVERED, Verdict.DROPPED, Verdict.REFUSED, Verdict.REWRITTEN


def cell(source: str, verdict: Verdict, family: int = 4, *policies: Policy) -> Cell:
    decision = Oracle(cluster(*(policies or (ONLY_WEB,)))).decide(source, DB.pod, DB.protocol, DB.port, family)
    return Cell(source, DB, family, decision, verdict)


@each_row(
    "source, verdict, state",
    [
        ("default/web", LATE, access.ALLOWED),
        ("default/web", REFUSED, access.SILENT),
        ("default/web", LOST, access.LOST),
        ("default/web", OTHER, access.REWRITTEN),
        ("default/bare", LOST, access.DENIED),
        ("default/bare", LATE, access.LET_THROUGH),
        ("default/bare", REFUSED, access.LET_THROUGH),
        ("default/bare", OTHER, access.LET_THROUGH),
    ],
)
def test_states(source: str, verdict: Verdict, state: str) -> None:
    one = cell(source, verdict)
    assert one.state == state
    assert one.show()["agree"] is (state not in access.MISMATCHES)


def test_what_is_asked() -> None:
    made = cluster(ONLY_WEB)
    columns = access.columns(made, None, None, None, 8080)
    assert [(c.pod, c.protocol, c.port) for c in columns] == [
        ("default/web", "tcp", 8080),
        ("default/db", "tcp", 5432),
        ("default/db", "udp", 53),
        ("default/bare", "tcp", 8080),
        ("shop/web", "tcp", 8080),
        ("shop/api", "tcp", 8000),
    ]
    assert access.columns(made, ["default/db"], "udp", None, 8080) == [Column("default/db", "udp", 53)]
    assert access.columns(made, ["default/db"], None, 80, 8080) == [Column("default/db", "tcp", 80)]
    asked = list(access.questions(made, [DB], None, (4, 6)))
    assert len(asked) == 2 * 4 and all(source != "default/db" for source, *_ in asked)
    assert len(list(access.questions(made, [DB], ["shop/api"], (6,)))) == 1


def made(*cells: Cell, unenforced: dict[str, str] | None = None) -> Access:
    return Access("weave", "pair", ("default/one",), cells, unenforced or {})


GOOD = made(*(cell(source, verdict, f) for source, verdict in (("default/web", LATE), ("default/bare", LOST)) for f in (4, 6)))
BAD = made(
    cell("default/web", LOST), cell("default/bare", LOST), cell("default/bare", LATE, 6), unenforced={"default/one": "only half"}
)


def text(found: Access, columns: int | None = None) -> str:
    out = io.StringIO()
    page.write_text(found, out, columns)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_a_table_of_what_holds() -> None:
    assert (
        text(GOOD)
        == """\
weave on pair  1 policy

tcp/5432
from \\ to  db
web        ✓
bare       ⊘

✓ allowed 2  ⊘ denied 2
PASS  all 4 checks are as policies say"""
    )


def test_a_table_of_what_does_not() -> None:
    assert (
        text(BAD)
        == """\
weave on pair  1 policy

tcp/5432
from \\ to  db
web        ✗
bare       4⊘ 6‼

⊘ denied 1  ✗ lost although allowed 1  ‼ let through although denied 1
policy default/one: only half
  web -> db tcp/5432 IPv4: dropped, but allowed: egress of default/web is not isolated; \
ingress of default/db: policy default/one, ingress[0].from[0]
  bare -> db tcp/5432 IPv6: delivered, but denied: ingress of default/db: no rule of policy default/one allows it
FAIL  2 of 3 checks are not as policies say"""
    )


def test_no_room_for_a_table() -> None:
    columns = [Column(f"default/a-rather-long-name-{number}", "tcp", 80) for number in range(40)]
    wide = made(*(cell("default/web", LATE)._replace(column=column) for column in columns))
    assert "no room for a table" in text(wide)
    few = made(*(cell("default/web", LATE)._replace(column=column) for column in columns[:8]))
    assert "8 a-rather-long-name-7" in text(few)


def test_ports_that_look_alike_share_a_table() -> None:
    ports = [Column("default/db", "tcp", port) for port in (80, 443)]
    assert "tcp/80, tcp/443\nfrom" in text(made(*(cell("default/web", LATE)._replace(column=column) for column in ports)))
    verdicts = zip(ports, (LATE, LOST), strict=True)
    assert "tcp/80\nfrom" in text(made(*(cell("default/web", how)._replace(column=column) for column, how in verdicts)))


def test_json() -> None:
    out = io.StringIO()
    page.write_json(BAD, out)
    found = json.loads(out.getvalue())
    assert found["summary"] == {"checks": 3, "allowed": 1, "denied": 2, "mismatches": 2}
    assert found["policies"] == [{"name": "default/one", "unenforced": "only half"}]
    assert [one["agree"] for one in found["checks"]] == [False, True, False]
    assert found["checks"][0]["expected"] == "allowed"


class Page(HTMLParser):
    """Which cells there are, and whether every tag that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if tag == "td":
            self.cells.append(str(dict(attrs)["class"]))
        assert not any(name in ("src", "href") for name, _ in attrs), "the page needs nothing else"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_of_html() -> None:
    out = io.StringIO()
    page.write_html(BAD, out)
    read = Page(out.getvalue())
    assert read.open == []
    assert read.cells == ["wrong", "wrong"]
    assert "2 of 3 checks are not as policies say" in out.getvalue()
    assert "no rule of policy default/one allows it" in out.getvalue()


def test_names_are_no_markup() -> None:
    out = io.StringIO()
    page.write_html(made(unenforced={"<b>": "<script>"}), out)
    assert "<script>" not in out.getvalue() and "&lt;script&gt;" in out.getvalue()
