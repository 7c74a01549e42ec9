"""The network is flat: pods see each other's own addresses, whichever data plane it is."""

import pytest

from emulab.pytest_plugin import Lab, expect

pytestmark = pytest.mark.emulab(plugin=["flannel", "calico", "weave"])


def test_nobody_is_rewritten(lab: Lab) -> None:
    expect(lab.select("*")).reaches("*", tcp=80).without_nat()


def test_what_is_underneath(lab: Lab) -> None:
    there = expect(lab.pod("a1")).reaches("c2", family=4)
    if lab.plugin == "flannel":
        there.encapsulated("vxlan", vni=1).in_hops(2).with_mtu(1450)
    elif lab.plugin == "weave":
        there.encapsulated("vxlan").in_hops(0)
    else:
        there.without_encapsulation().in_hops(2).with_mtu(1500)


def test_a_link_is_cut_and_mended(lab: Lab) -> None:
    with lab.link_down("node-c"):
        expect(lab.pod("a1")).cannot_reach("c2")
    expect(lab.pod("a1")).eventually(10).reaches("c2")
