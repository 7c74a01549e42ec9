"""A name server that has too much to say, and what is no question at all."""

from __future__ import annotations

import random

import dns.flags
import dns.message
import pytest
from named import WEB, asked, cluster, knowing

from emulab.serving.dns import NameServer


@pytest.fixture
def server() -> NameServer:
    return knowing()


def test_more_than_a_message_can_hold_is_cut_by_tcp_too(server: NameServer) -> None:
    server.know(cluster(5000))
    answer = asked(server, dns.message.make_query("many.default.svc.cluster.local", "A"), stream=True)
    assert answer.flags & dns.flags.TC


def test_garbage_leaves_it_alive(server: NameServer) -> None:
    chance = random.Random(6)
    wire = dns.message.make_query(WEB, "SRV", use_edns=0).to_wire()
    for _ in range(5_000):
        data = bytearray(wire) if chance.random() < 0.6 else bytearray(chance.randbytes(chance.randrange(80)))
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        answer = server.respond(bytes(data), stream=chance.random() < 0.5)
        assert not answer or (answer[:2] == data[:2] and answer[2] & 0x80)
    assert asked(server, dns.message.make_query(WEB, "A")).answer
