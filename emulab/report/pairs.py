"""Who reaches whom as letters: for each family and protocol a string per source pod, a letter per destination.  Pure.

A thousand pods are a megabyte this way, and a program reads a cell by its index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emulab.packet import BROKEN_PROMISE, LET_THROUGH, Kind
from emulab.report.verdict import STATES
from emulab.result import Block, RunResult

NOT_PROBED = "-"
LETTERS = {"delivered": "+", "denied": "o", "rewritten": "R", "dropped": "x", "refused": "!", "duplicated": "D"}
LETTERS |= {LET_THROUGH: "#", BROKEN_PROMISE: "~"}
_RANK = {ord(LETTERS[state]): rank for rank, state in enumerate(STATES)} | {ord(NOT_PROBED): len(STATES)}


def pairs(result: RunResult) -> list[dict[str, Any]]:
    """``family``, ``protocol`` and ``rows``, for the pods in the cluster's order; of several flows of a pair the worst counts."""
    number = {endpoint.key: index for index, endpoint in enumerate(result.cluster.endpoints)}
    tables: dict[tuple[str, int], list[bytearray]] = {}

    def table(protocol: str, family: int) -> list[bytearray]:
        return tables.setdefault((protocol, family), [bytearray(NOT_PROBED.encode()) * len(number) for _ in number])

    for block in result.flows.blocks:
        for source, letters in zip(_positions(block, number), _letters(block), strict=True):
            table(block.protocol, block.family)[source][:] = letters
    for judged in result.flows.recorded:
        flow = judged.flow
        if flow.kind is Kind.POD:
            row = table(flow.protocol, flow.family)[number[flow.source]]
            there, letter = number[flow.destination], ord(LETTERS[judged.state])
            if _RANK[letter] < _RANK[row[there]]:
                row[there] = letter
    return [
        {"family": family, "protocol": protocol, "rows": [row.decode() for row in rows]}
        for (protocol, family), rows in sorted(tables.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def _positions(block: Block, number: dict[str, int]) -> Sequence[int]:
    found = [number[endpoint.key] for endpoint in block.endpoints]
    assert found == list(range(len(number))), "a mesh is one of all pods, in the cluster's order"
    return found


def _letters(block: Block) -> Iterator[bytes]:
    """A row for each source; the block has one for each destination."""
    arrived = bytes.maketrans(bytes(range(4)), "".join([NOT_PROBED, LETTERS["delivered"], NOT_PROBED, NOT_PROBED]).encode())
    columns = []
    for destination, row in enumerate(block.delivered):
        letters = bytearray(bytes(row).translate(arrived))
        if block.denied:
            for source, no in enumerate(block.denied[destination]):
                if no and row[source] < 2:
                    letters[source] = ord(LETTERS[LET_THROUGH if row[source] else "denied"])
        letters[destination] = ord(NOT_PROBED)
        columns.append(bytes(letters))
    flat, size = b"".join(columns), len(columns)
    for source in range(size):
        yield flat[source::size]
