"""The random cases that the kernel is tried with: legal, the same for the same seed, and with every feature among them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from policy_cases import Case, case
from tables import each_row

from emulab import kube, registry
from emulab.objects import Objects

ADDRESSES = ("10.1.1.1", "10.1.2.1", "10.1.2.2", "192.168.50.1", "fd00:10:1::1", "fd00:50::1")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case(seed, ADDRESSES) for seed in range(300)]


@pytest.fixture(scope="module")
def text(cases: list[Case]) -> str:
    return "".join(json.dumps(one.manifests) for one in cases)


@each_row(
    "feature",
    [
        *(f'"operator": "{name}"' for name in ("In", "NotIn", "Exists", "DoesNotExist")),
        *('"except"', '"endPort"', '"port": "http"', '"namespaceSelector": {}', '"podSelector": {}', '"matchLabels": {}'),
        *('"from": []', '"from": null', '"to": []', '"to": null', '"ports": []', '"ports": null', '"ingress": []'),
        *('"egress": []', '"ingress": null', '"egress": null', '"policyTypes": []', '"policyTypes": ["Ingress"]'),
        *('"policyTypes": ["Egress"]', '"policyTypes": ["Ingress", "Egress"]', '"protocol": "SCTP"', '"protocol": "UDP"}'),
        *("kubernetes.io/metadata.name", '"cidr": "fd00:', '"cidr": "10.'),
    ],
)
def test_every_feature_occurs(feature: str, text: str) -> None:
    assert text.count(feature) > 3


def test_both_selectors_in_one_item_and_absent_sections_occur(cases: list[Case], text: str) -> None:
    assert re.search(r'\{"podSelector": \{[^[]*?\}, "namespaceSelector"', text)
    specs = [one["spec"] for found in cases for one in found.manifests if one["kind"] == "NetworkPolicy"]
    assert any("ingress" not in spec and "policyTypes" not in spec for spec in specs)
    assert any(len({key.partition("/")[0] for key in spec}) for spec in specs)


def test_the_same_seed_is_the_same_case(cases: list[Case]) -> None:
    assert case(7, ADDRESSES) == cases[7] != cases[8]


def test_without_names_there_are_none_in_policies() -> None:
    found = [case(seed, ADDRESSES, names=False) for seed in range(100)]
    assert not re.search(r'"port": "', json.dumps([one.manifests for one in found]))


@each_row("seed", range(40))
def test_cases_are_legal(seed: int, cases: list[Case]) -> None:
    topology = replace(registry.topology("flat"), pods=(), objects=Objects())
    found = kube.applied(topology, kube.read(cases[seed].text, "case"))
    assert len(found.pods) == 8
    assert found.objects.policies
