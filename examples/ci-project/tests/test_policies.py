"""Who may talk to whom, as the policies in manifests/ have it, by each data plane that enforces them."""

import pytest

from emulab.pytest_plugin import Lab, expect

pytestmark = pytest.mark.emulab(plugin=["calico", "weave"], manifests="../manifests")


def test_each_tier_talks_to_the_next_one(lab: Lab) -> None:
    expect(lab.select("shop/app=web")).reaches("shop/api", tcp=8080).without_nat()
    expect(lab.pod("shop/api")).reaches("shop/db", tcp=5432).without_nat()


def test_no_tier_is_skipped(lab: Lab) -> None:
    expect(lab.select("shop/app=web")).cannot_reach("shop/db", tcp=5432)
    expect(lab.pod("shop/db")).cannot_reach("shop/api", tcp=8080)


def test_an_open_port_is_not_all_ports(lab: Lab) -> None:
    expect(lab.pod("shop/api")).cannot_reach("shop/db", tcp=22)


def test_a_service_leads_to_its_pods(lab: Lab) -> None:
    expect(lab.select("shop/app=web")).reaches("svc/shop/api", tcp=80).with_nat()
