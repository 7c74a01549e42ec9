"""The oracle's judgement of a thousand pods."""

from __future__ import annotations

import time

from policed import cluster, many, pods, policy

from emulab.oracle import Oracle


def test_a_million_pairs_take_a_moment() -> None:
    policies = [
        policy({"podSelector": {"matchLabels": {"app": f"a{i}"}}, "ingress": [{"from": [pods(app=f"a{i + 1}")]}]}, f"default/{i}")
        for i in range(7)
    ]
    made = cluster(*policies, pods=many(1000))
    start = time.process_time()
    rows = Oracle(made).denied("udp", 8080, 4)
    assert time.process_time() - start < 2
    assert len(rows) == 1000 and sum(map(sum, rows)) > 800_000
