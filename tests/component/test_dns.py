"""The name server's messages: what is asked well is answered, what is not is refused in the protocol's words."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from named import WEB, asked, cluster, knowing
from tables import each_row

import emulab.serving.dns
from emulab.serving.dns import NameServer


@pytest.fixture
def server() -> NameServer:
    return knowing()


def test_an_answer_is_authoritative_and_spelled_as_asked(server: NameServer) -> None:
    query = dns.message.make_query("WeB.Default.svc.cluster.local", "A")
    answer = asked(server, query)
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.flags & dns.flags.AA and not answer.flags & dns.flags.RA
    assert answer.flags & dns.flags.RD, "as it was asked"
    (found,) = answer.answer
    assert found.to_text() == "WeB.Default.svc.cluster.local. 30 IN A 10.96.1.1"


@each_row(
    "name, type_, code",
    [(f"x.{WEB}", "A", "NXDOMAIN"), (WEB, "AAAA", "NOERROR"), ("example.com", "A", "REFUSED"), (WEB, "TYPE65280", "NOERROR")],
)
def test_nothing_to_tell(name: str, type_: str, code: str, server: NameServer) -> None:
    answer = asked(server, dns.message.make_query(name, type_))
    assert (dns.rcode.to_text(answer.rcode()), answer.answer) == (code, [])
    assert [one.rdtype for one in answer.authority] == ([] if code == "REFUSED" else [dns.rdatatype.SOA])
    assert bool(answer.flags & dns.flags.AA) == (code != "REFUSED")


def test_several_addresses_take_turns(server: NameServer) -> None:
    firsts = set()
    query = dns.message.make_query("many.default.svc.cluster.local", "A")
    for _ in range(40):
        (found,) = asked(server, query).answer
        assert len(found) == 3
        firsts.add(str(next(iter(found))))
    assert firsts == {"198.18.0.0", "198.18.0.1", "198.18.0.2"}


def test_it_answers_for_the_cluster_that_is(server: NameServer) -> None:
    query = dns.message.make_query("many.default.svc.cluster.local", "A")
    before = asked(server, query)
    server.know(cluster(5))
    after = asked(server, query)
    assert (len(before.answer[0]), len(after.answer[0])) == (3, 5)
    serials = []
    for _ in range(2):
        serials.append(next(iter(asked(server, dns.message.make_query("cluster.local", "SOA")).answer[0])).serial)
        server.know(cluster())
    assert serials[1] > serials[0]


def test_what_is_too_long_is_cut_by_udp_and_whole_by_tcp(server: NameServer) -> None:
    server.know(cluster(200))
    plain = dns.message.make_query("many.default.svc.cluster.local", "A")
    for query, longest in ((plain, 512), (dns.message.make_query("many.default.svc.cluster.local", "A", payload=4096), 1232)):
        wire = server.respond(query.to_wire())
        answer = dns.message.from_wire(wire)
        assert len(wire) <= longest
        assert answer.flags & dns.flags.TC and not answer.answer
    server.know(cluster(60))
    whole = asked(server, dns.message.make_query("many.default.svc.cluster.local", "A", payload=4096))
    assert not whole.flags & dns.flags.TC and len(whole.answer[0]) == 60, "as long as it may be, it is not cut"
    server.know(cluster(200))
    answer = asked(server, plain, stream=True)
    assert not answer.flags & dns.flags.TC and len(answer.answer[0]) == 200


def test_edns_is_answered_with_edns_and_only_then(server: NameServer) -> None:
    assert asked(server, dns.message.make_query(WEB, "A")).edns == -1
    answer = asked(server, dns.message.make_query(WEB, "A", use_edns=0, payload=4096))
    assert (answer.edns, answer.payload) == (0, 1232)
    newer = asked(server, dns.message.make_query(WEB, "A", use_edns=1))
    assert (newer.edns, newer.rcode()) == (0, dns.rcode.BADVERS)


def test_what_is_not_done_here(server: NameServer) -> None:
    transfer = dns.message.make_query("cluster.local", "AXFR")
    chaos = dns.message.make_query("version.bind", "TXT", rdclass="CH")
    assert {asked(server, query).rcode() for query in (transfer, chaos)} == {dns.rcode.REFUSED}
    for opcode in (dns.opcode.UPDATE, dns.opcode.NOTIFY, dns.opcode.STATUS):
        query = dns.message.make_query(WEB, "A")
        query.set_opcode(opcode)
        answer = server.respond(query.to_wire())
        assert (answer[3] & 15, answer[:2], answer[2] >> 3 & 15) == (dns.rcode.NOTIMP, query.to_wire()[:2], opcode)


def test_malformed_messages_are_told_so(server: NameServer) -> None:
    wire = dns.message.make_query(WEB, "A").to_wire()
    two = wire[:4] + b"\0\2" + wire[6:] + wire[12:]
    none = wire[:4] + b"\0\0" + wire[6:12]
    for data in (wire[:-1], wire + b"\0", two, none, wire[:12] + b"\xc0\x0c\0\1\0\1"):
        answer = server.respond(data)
        assert answer[:2] == wire[:2]
        assert (answer[2] & 0x80, answer[3] & 15) == (0x80, dns.rcode.FORMERR)


def test_answers_are_not_answered(server: NameServer) -> None:
    wire = dns.message.make_query(WEB, "A").to_wire()
    answer = server.respond(wire)
    assert [server.respond(data) for data in (answer, b"", wire[:11])] == [b"", b"", b""]


def test_what_is_remembered_is_the_same_answer(server: NameServer) -> None:
    for name in (WEB, "none.cluster.local", "example.com"):
        first, second = dns.message.make_query(name, "A", id=1), dns.message.make_query(name, "A", id=2)
        answers = [server.respond(query.to_wire()) for query in (first, second)]
        assert [answer[:2] for answer in answers] == [b"\0\1", b"\0\2"]
        assert answers[0][2:] == answers[1][2:]
    assert 0 < len(server._same) <= 3


def test_what_is_remembered_is_bounded(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulab.serving.dns, "_REMEMBERED", 8)
    for number in range(20):
        server.respond(dns.message.make_query(f"x{number}.cluster.local", "A").to_wire())
        assert 0 < len(server._same) <= 8
    assert asked(server, dns.message.make_query(WEB, "A"), stream=True).answer
