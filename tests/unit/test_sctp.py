"""SCTP by hand: what is built is what RFC 9260 says, and is read back."""

from __future__ import annotations

import struct

from emulab.probe import sctp


def test_checksum_is_crc32c_in_network_order() -> None:
    assert sctp._crc(b"123456789") == int.from_bytes((0xE3069283).to_bytes(4, "little"), "big")


def test_opening_and_its_answers() -> None:
    asked = sctp.read(sctp.init(40000, 5000, 77))
    assert asked == sctp.Opening("init", 40000, 5000, 0, 77, b"")
    for cookie in (b"", b"a", b"abcd", b"whom I saw"):
        answer = sctp.read(sctp.init_ack(asked, cookie))
        assert answer is not None
        assert (answer.kind, answer.sport, answer.dport, answer.verification, answer.cookie) == (
            "init ack",
            5000,
            40000,
            77,
            cookie,
        )
    assert sctp.read(sctp.abort(asked)) == sctp.Opening("abort", 5000, 40000, 77, 0, b"")


def test_lengths_are_those_of_the_standard() -> None:
    """An INIT is 20 bytes of chunk; padding of the last parameter is not counted, and is there."""
    packet = sctp.init(1, 2, 3)
    assert (len(packet), packet[12], struct.unpack_from("!H", packet, 14)[0]) == (32, 1, 20)
    asked = sctp.read(packet)
    assert asked is not None
    answer = sctp.init_ack(asked, b"12345")
    assert (len(answer), struct.unpack_from("!H", answer, 14)[0], struct.unpack_from("!HH", answer, 32)) == (44, 29, (7, 9))


def test_what_is_none_is_not_taken_for_one() -> None:
    packet = sctp.init(1, 2, 3)
    damaged = packet[:20] + bytes([packet[20] ^ 1]) + packet[21:]
    for data in (b"", packet[:11], packet[:15], packet[:20], damaged, bytes(32)):
        assert sctp.read(data) is None
