"""What a red build looks like: `pytest -m red`.  Each of these fails, and says why in the packet's own words."""

import pytest

from emulab.pytest_plugin import Lab, expect

pytestmark = pytest.mark.red


def test_a_masquerading_rule_too_many(lab: Lab) -> None:
    with lab.fault("masquerade-pods", at="node-a"):
        expect(lab.pod("a1")).reaches("c2").without_nat()


@pytest.mark.emulab(topology="non-flat", plugin="nat")
def test_docker_without_kubernetes(lab: Lab) -> None:
    expect(lab.pod("a1")).reaches("b1", tcp=80).without_nat()


@pytest.mark.emulab(plugin="flannel", manifests="../manifests")
def test_flannel_enforces_no_policy(lab: Lab) -> None:
    expect(lab.select("shop/app=web")).cannot_reach("shop/db", tcp=5432)


def test_said_nothing(lab: Lab) -> None:
    expect(lab.pod("a1"))
