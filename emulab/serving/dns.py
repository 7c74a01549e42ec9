"""The cluster's name server: DNS messages in, DNS messages out (RFC 1035, 6891, 7766; dnspython reads and writes them)."""

from __future__ import annotations

import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from emulab.model import Cluster
from emulab.zone import TTL, Record, Zone

_PLAIN, _EDNS = 512, 1232  # bytes of an answer by UDP: without EDNS, and at most (what fits into any path, DNS flag day 2020)
_REMEMBERED = 4096  # answers
_HEADER = struct.Struct("!HHHHHH")
_ZONE_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)


class NameServer:
    """Answers for a cluster, which may become another one at any time."""

    def __init__(self) -> None:
        self._zone: Zone | None = None
        self._serial = 0
        self._same: dict[tuple[bool, bytes], bytes] = {}  # messages without their numbers

    def know(self, cluster: Cluster) -> None:
        """From now on answer for this cluster."""
        self._serial += 1
        self._zone = Zone(cluster, self._serial)
        self._same = {}

    def respond(self, data: bytes, stream: bool = False) -> bytes:
        """The answer to a message; b"" for what must not be answered: an answer, or too little to be a message.

        By UDP (not ``stream``) an answer that is too long for who asks is cut and says so.
        """
        if len(data) < _HEADER.size or data[2] & 0x80:
            return b""
        key, same = (stream, data[2:]), self._same
        if key in same:
            return data[:2] + same[key]
        made, varies = self._made(data, stream)
        if not varies:
            if len(same) >= _REMEMBERED:
                same.clear()
            same[key] = made[2:]
        return made

    def _made(self, data: bytes, stream: bool) -> tuple[bytes, bool]:
        """The answer, and whether the next one to the same question is different: dnspython shuffles what is several, as CoreDNS'
        loadbalance does."""
        try:
            query = dns.message.from_wire(data)
        except Exception:  # dnspython has many words for it, and garbage may find others
            return _refusal(data, dns.rcode.FORMERR if (data[2] >> 3 & 15) == dns.opcode.QUERY else dns.rcode.NOTIMP), False
        if query.opcode() != dns.opcode.QUERY:
            return _refusal(data, dns.rcode.NOTIMP), False
        if len(query.question) != 1:
            return _refusal(data, dns.rcode.FORMERR), False
        answer = dns.message.make_response(query, our_payload=_EDNS)
        self._fill(query, answer)
        longest = 65535 if stream else max(_PLAIN, min(query.payload, _EDNS)) if query.edns >= 0 else _PLAIN
        try:
            return answer.to_wire(max_size=longest), any(len(found) > 1 for found in answer.answer)
        except dns.exception.TooBig:
            answer.answer, answer.authority, answer.additional = [], [], []
            answer.flags |= dns.flags.TC
            return answer.to_wire(), False

    def _fill(self, query: dns.message.Message, answer: dns.message.Message) -> None:
        (asked,) = query.question
        if query.edns > 0:
            answer.use_edns(0)
            answer.set_rcode(dns.rcode.BADVERS)
            return
        if self._zone is None or asked.rdclass != dns.rdataclass.IN or asked.rdtype in _ZONE_TRANSFERS:
            answer.set_rcode(dns.rcode.REFUSED)
            return
        name = asked.name.to_text(omit_final_dot=True)
        found = self._zone.answer(name, dns.rdatatype.to_text(asked.rdtype))
        answer.set_rcode(dns.rcode.from_text(found.code))
        if found.code != "REFUSED":
            answer.flags |= dns.flags.AA
        answer.answer = _sets(found.records, asked.name)
        answer.authority = _sets(found.authority, asked.name)
        answer.additional = _sets(found.additional, asked.name)


def _sets(records: tuple[Record, ...], asked: dns.name.Name) -> list[dns.rrset.RRset]:
    """Records as sets of one name and type; the name that was asked for is spelled as in the question."""
    texts: dict[tuple[str, str], list[str]] = {}
    for record in records:
        texts.setdefault((record.name, record.type), []).append(record.text)
    spelled = asked.to_text(omit_final_dot=True)
    found = []
    for (name, kind), several in texts.items():
        owner = asked if name == spelled.lower() else dns.name.from_text(name)
        found.append(dns.rrset.from_text_list(owner, TTL, "IN", kind, several))
    return found


def _refusal(data: bytes, code: dns.rcode.Rcode) -> bytes:
    """A header only: an answer to what cannot be read."""
    number, flags = struct.unpack_from("!HH", data)
    return _HEADER.pack(number, 0x8000 | flags & 0x7900 | int(code), 0, 0, 0, 0)  # QR; opcode and RD as they came
