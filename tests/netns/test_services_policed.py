"""Policies and Services together: what decides is the pod behind a Service, and a denied Service is no broken one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from designed import catalogued
from sandboxed import inside

import emulab.kube.applying
import emulab.kube.reading  # noqa: F401  (an ordinary user may not be able to read this interpreter's folders)
from emulab import kube, registry
from emulab.lab import Lab, Probing
from emulab.model import OUTSIDE_HOST, Topology
from emulab.packet import Kind
from emulab.planning import design

EXAMPLES = Path(__file__).parents[2] / "examples" / "services"
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web}
spec:
  podSelector: {matchLabels: {app: cart}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
"""


def shop() -> Topology:
    flat = catalogued("flat")
    documents = [document for path in sorted(EXAMPLES.glob("*.yaml")) for document in kube.read(path.read_text(), path.name)]
    made = kube.applied(replace(flat, pods=()), [*documents, *kube.read(POLICY, "policy.yaml")])
    return replace(flat, pods=made.pods, objects=made.objects)


def outcomes(plugin: str, user: str) -> Any:
    topology = shop()
    wanted = design(topology, registry.plugin(plugin)())

    def work() -> Any:
        with Lab(wanted) as lab:
            lab.build()
            result = lab.verify(Probing(protocols=("tcp",), nodes=False, outside=False, mtu=False, timeout=0.6))
        told: Counter[tuple[str, str, str]] = Counter()
        for one in result.flows.recorded:
            if one.flow.kind is Kind.SERVICE:
                told[one.flow.source.removeprefix("default/"), one.flow.destination.removeprefix("svc/default/"), one.state] += 1
        return told, [str(finding) for one in result.bad() for finding in one.findings]

    return inside(work, user)


@pytest.mark.parametrize(("user", "plugin"), [("root", "calico"), ("user", "weave")])
def test_a_denied_service_is_denied_and_all_others_work(plugin: str, user: str) -> None:
    told, findings = outcomes(plugin, user)
    assert findings == []
    assert {state for (source, to, state) in told if (source, to) == ("client", "cart")} == {"denied"}
    assert {state for (source, to, state) in told if to == "cart" and source.startswith("web")} == {"delivered"}
    assert {state for (_, to, state) in told if to in ("web", "front")} == {"delivered"}
    outside = {state for (source, to, state) in told if (source, to) == (OUTSIDE_HOST, "front-local")}
    assert outside == {"denied", "dropped"}, "dropped where no endpoint is"


@pytest.mark.parametrize("user", ["user"])
def test_a_data_plane_without_policies_lets_it_through_and_that_is_found(user: str) -> None:
    told, findings = outcomes("flannel", user)
    assert {state for (source, to, state) in told if (source, to) == ("client", "cart")} == {"let through"}
    assert any("although denied" in words for words in findings)
