"""Why a flow passes or does not, for people and as JSON (schema ``emulab/why/1``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TextIO

from rich.markup import escape

from emulab.evidence import Proof
from emulab.packet import short
from emulab.report.text import console_for


def write_json(proof: Proof, out: TextIO) -> None:
    out.write(json.dumps(proof.show(), indent=1) + "\n")


def write_text(proof: Proof, out: TextIO, columns: int | None = None) -> None:
    """The words, below each the rules that the packet met, and whether they agree."""
    console = console_for(out, columns)
    for line in lines(proof):
        console.print(line)


def lines(proof: Proof) -> Iterator[str]:
    """Line by line, with Rich's markup."""
    decision = proof.decision
    port = f" port {decision.port}" if decision.port else ""
    flow = f"{short(decision.source)} -> {short(decision.destination)}  {decision.protocol}/IPv{decision.family}{port}"
    style = "green" if decision.allowed else "blue"
    yield f"[bold]{escape(flow)}[/]  [{style}]{'allowed' if decision.allowed else 'denied'} by policy[/]"
    if decision.exception or not decision.sides:
        yield f"  {decision.exception or 'no pod has a say'}"
    for side in decision.sides:
        yield f"  {escape(str(side))}"
        for one in proof.of(side):
            if one.policy or (one.dropped and not side.allowed):
                counted = f"  [cyan]+{one.packets} packet{'' if one.packets == 1 else 's'}[/]" if one.packets is not None else ""
                yield f"    [dim]{escape(short(one.node))}: {escape(one.rule)}[/]{counted}"
        if not side.allowed:
            break
    came = "it was delivered" if proof.delivered else "it was not delivered"
    if proof.agree:
        yield f"[bold green]words and evidence agree: {came}[/]"
    for problem in proof.disagreements:
        yield f"[bold red]words and evidence do not agree: {escape(problem)}[/]"
