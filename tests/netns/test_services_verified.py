"""What a run says of Services: a healthy lab passes, whatever is refused; every planted fault is found, and named."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from designed import catalogued
from in_turn import in_turn
from sandboxed import inside
from served import HTTP, service, with_services

from emulab import change, registry
from emulab.kernel import nftables
from emulab.kubeproxy import named
from emulab.lab import Lab, Probing
from emulab.model import OUTSIDE_HOST
from emulab.objects import Service, ServicePort
from emulab.packet import Kind, Verdict
from emulab.planning import design

ONLY = Probing(nodes=False, outside=False, mtu=False, protocols=("tcp", "udp"), timeout=0.5)
SOME = replace(ONLY, timeout=0.3, sources=("default/a1", "default/b1"))
FEW = (service("web", "10.96.1.1", "web", HTTP, ServicePort("dns", "udp", 53, 5353)), service("none", "10.96.1.2", "nobody"))


def told(lab: Lab, probing: Probing = ONLY) -> dict[str, Any]:
    result = lab.verify(probing)
    flows = [one for one in result.flows.recorded if one.flow.kind is Kind.SERVICE]
    return {
        "ok": result.ok,
        "verdicts": {verdict.value: sum(one.verdict is verdict for one in flows) for verdict in Verdict},
        "sources": {one.flow.source for one in flows},
        "findings": [(one.flow.destination, f.field, f.leg, str(f)) for one in flows for f in one.findings],
        "rules": {t.rule for one in flows for t in one.translations if t.field == "destination"},
        "back": {(t.before, t.after) for one in flows for t in one.translations if t.leg == "reply"},
        "elsewhere": [str(f) for one in result.flows.recorded if one.flow.kind is not Kind.SERVICE for f in one.findings],
    }


def services_of_every_kind_are_as_they_should_be(lab: Lab, taps: str) -> None:
    found = told(lab, replace(ONLY, timeout=1.0, taps=taps))
    assert found["findings"] == []
    assert found["ok"], found["elsewhere"][:3]
    assert {"default/a1", "default/c2", OUTSIDE_HOST} <= found["sources"]
    assert found["verdicts"]["delivered"] > 100
    assert found["verdicts"]["refused"] >= 18, "Services without endpoints"
    assert found["verdicts"]["dropped"] >= 5, "policy Local without a local endpoint, and closed source ranges"


def become(lab: Lab, *services: Service) -> None:
    wanted = with_services(catalogued("flat"), services)
    lab.change(change.reshape(lab.design, wanted.pods, wanted.objects))


CHAIN = "type nat hook postrouting priority 90 ;"
WEB = "service-{}-default/web/tcp/http"
# What is planted on node-a, and what is then said: (field, leg) and some of its words.
FAULTS = {
    "a map that leads to a wrong address": (
        "flush chain ip kube-proxy {web}\n"
        "add rule ip kube-proxy {web} meta l4proto tcp dnat ip to numgen random mod 1 map {{ 0 : 10.1.2.2 . 8080 }}",
        ("endpoint", "request"),
        "10.1.2.2 port 8080 instead of a ready endpoint of svc/web",
    ),
    "a map that leads to nobody": (
        "flush chain ip kube-proxy {web}\n"
        "add rule ip kube-proxy {web} meta l4proto tcp dnat ip to numgen random mod 1 map {{ 0 : 10.1.2.77 . 8000 }}",
        ("delivery", "request"),
        "instead of an answer",
    ),
    "a map that leads to a wrong port": (
        "flush chain ip kube-proxy {web}\n"
        "add rule ip kube-proxy {web} meta l4proto tcp dnat ip to numgen random mod 1 map {{ 0 : 10.1.2.1 . 8080 }}",
        ("endpoint", "request"),
        "10.1.2.1 port 8080 instead of a ready endpoint of svc/web",
    ),
    "no rule at all": ("flush chain ip kube-proxy services", ("delivery", "request"), "instead of an answer"),
    "a masquerade that nobody is owed": (
        "add table ip p\nadd chain ip p c {{ " + CHAIN + " }}\nadd rule ip p c ct status dnat tcp dport 8000 masquerade",
        ("source", "request"),
        "source of the request 10.1.1.1 -> ",
    ),
    "an answer where there is no endpoint": (
        "delete element ip kube-proxy no-endpoint-services {{ 10.96.1.2 . tcp . 80 }}\n"
        "add element ip kube-proxy service-ips {{ 10.96.1.2 . tcp . 80 : goto {web} }}",
        ("delivery", "request"),
        "instead of a refusal: there is no endpoint",
    ),
    "silence where a refusal is due": (
        "flush chain ip kube-proxy reject-chain\nadd rule ip kube-proxy reject-chain drop",
        ("delivery", "request"),
        "instead of a refusal: there is no endpoint",
    ),
    "a reply from another address": (
        "add table ip p\nadd chain ip p c {{ type filter hook postrouting priority 200 ; }}\n"
        "add rule ip p c ip saddr 10.96.1.1 udp sport 53 ip saddr set 10.96.1.99",
        ("source", "reply"),
        "source of the reply 10.96.1.1 port 53 -> 10.96.1.99 port 53",
    ),
}


def planted_faults_are_found(lab: Lab, names: Sequence[str]) -> None:
    """One after another in one lab, which is repaired in between; healthy in the end, it names the rules that translate."""
    become(lab, *FEW)
    for name in names:
        commands, expected, words = FAULTS[name]
        nftables.run(lab.namespaces["node-a"], commands.format(web=f"service-{named('default/web/tcp/http')}"))
        found = told(lab, SOME)
        lab.repair()
        assert not found["ok"], name
        assert expected in {(field, leg) for _, field, leg, _ in found["findings"]}, name
        assert any(words in said for *_, said in found["findings"]), name
        assert found["elsewhere"] == [], name
    afterwards = told(lab)
    assert afterwards["ok"] and afterwards["findings"] == []
    assert {rule.split(":")[0].rpartition("default/")[2] for rule in afterwards["rules"]} == {"web/tcp/http", "web/udp/dns"}
    assert all(rule.startswith("ip kube-proxy service-") and " dnat " in rule for rule in afterwards["rules"])
    assert afterwards["back"] == {("10.1.2.1", "10.96.1.1"), ("10.1.3.1", "10.96.1.1")}


def without_services_there_are_no_such_flows_and_no_such_table(lab: Lab) -> None:
    become(lab)
    assert told(lab)["sources"] == set()
    assert [n for n in ("node-a", "gateway") if "kube-proxy" in nftables.text(lab.namespaces[n])] == []


LABS = [("root", "flannel", ("every", "ends")), ("user", "calico", ("every",)), ("user", "weave", ("every",))]


@pytest.mark.parametrize(("user", "plugin", "taps"), LABS)
def test_what_a_run_says_of_services(user: str, plugin: str, taps: Sequence[str]) -> None:
    """kube-proxy's rules are the same with every plugin, so each fault is planted beside one."""
    turn = [plane for _, plane, _ in LABS].index(plugin)

    def work() -> None:
        with Lab(design(with_services(catalogued("flat")), registry.plugin(plugin)())) as lab:
            lab.build()
            planting = functools.partial(planted_faults_are_found, names=list(FAULTS)[turn :: len(LABS)])
            healthy = [functools.partial(services_of_every_kind_are_as_they_should_be, taps=one) for one in taps]
            in_turn(lab, [planting, without_services_there_are_no_such_flows_and_no_such_table, *healthy])

    inside(work, user)
