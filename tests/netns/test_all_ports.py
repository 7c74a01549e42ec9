"""The operation behind `emulab probe --all-ports`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from declaring import PORTS, lab_with
from in_turn import in_turn
from sandboxed import inside

from emulab import change
from emulab.control.live import LiveLab
from emulab.control.operations import perform
from emulab.errors import InputError
from emulab.kernel import nftables
from emulab.lab import Lab
from emulab.model import Pod
from emulab.objects import Objects, Policy
from emulab.selector import In

WEB = (("app", "web"),)
WRITTEN = {"spec": {"podSelector": {"matchLabels": dict(WEB)}}}
POLICY = Policy("networking.k8s.io/v1", "NetworkPolicy", "default", "web", In("app", ("web",)), manifest=WRITTEN)


def labelled(pod: Pod) -> Pod:
    return replace(pod, labels=WEB if pod.name == "b1" else (), ports=() if pod.name == "c2" else pod.ports)


def asked(live: LiveLab, **arguments: Any) -> Any:
    return perform(live, {"do": "ports", **arguments}, lambda _: None).result


def ended(report: Any, verdict: str) -> set[tuple[str, str, int, str, int]]:
    found = (one for one in report["probes"] if one["verdict"] == verdict)
    return {(one["from"], one["to"], one["family"], one["protocol"], one["port"]) for one in found}


def every_pair_and_every_declared_port_in_the_light_of_policies(lab: Lab) -> None:
    live = LiveLab("x", lab)
    healthy = json.loads(asked(live, report="probe")["report"])
    commands = "add table ip planted\nadd chain ip planted c { type filter hook forward priority 0 ; }\n"
    nftables.run(lab.namespaces["node-c"], commands + "add rule ip planted c tcp dport 80 drop")
    planted = json.loads(asked(live, report="probe")["report"])
    text = asked(live)["report"]
    nftables.run(lab.namespaces["node-c"], "delete table ip planted")
    assert healthy["schema"] == "emulab/probe/1"
    assert healthy["summary"]["flows"] == 5 * 5 * 2 * len(PORTS), "five others to each of the five that declare ports"
    keys = {key for verdict in ("delivered", "denied") for key in ended(healthy, verdict)}
    assert len(keys) == healthy["summary"]["flows"], "nothing ended otherwise"
    assert {to for _, to, *_ in keys} == {f"default/{name}" for name in ("a1", "a2", "b1", "b2", "c1")}
    assert ended(healthy, "denied") == {key for key in keys if key[1] == "default/b1"}
    through_c = {key for key in keys if {"c1", "c2"} & {name.removeprefix("default/") for name in key[:2]}}
    assert ended(planted, "dropped") == {key for key in through_c - ended(healthy, "denied") if key[2:] == (4, "tcp", 80)}
    dropped = next(one for one in planted["probes"] if one["verdict"] == "dropped")
    assert "although policy allows it" in dropped["findings"][0]["before"]
    assert text.startswith("sctp/80, udp/80, ")
    assert asked(live, sources=["internet", "node-a"], protocols=["tcp"])["summary"]["delivered"], "nodes reach their pods"


def bad_wishes_are_one_line(lab: Lab) -> None:
    told = {}
    wishes: tuple[dict[str, Any], ...] = (
        {"sources": ["zz"]},
        {"destinations": ["node-a"]},
        {"destinations": ["c2"]},
        {"protocols": ["icmp"]},
        {"families": [5]},
        {"timeout": 0.0},
    )
    for wish in wishes:
        with pytest.raises(InputError) as raised:
            asked(LiveLab("x", lab), **wish)
        told[str(*wish.values())] = str(raised.value)
    assert told["['node-a']"] == "node-a: only pods declare ports"
    assert told["['c2']"] == "c2 declares no ports"
    assert told["['icmp']"] == "icmp has no ports that a pod could declare: tcp, udp or sctp expected"


def without_declared_ports_it_says_so(lab: Lab) -> None:
    pods = [replace(pod, ports=()) for pod in lab.design.topology.pods]
    lab.change(change.reshape(lab.design, pods, lab.design.topology.objects))
    assert asked(LiveLab("x", lab))["report"] == "no pod declares a port (spec.containers[].ports)\n"


def test_all_ports_are_probed(user: str) -> None:
    def work() -> None:
        with lab_with("calico", change=labelled, objects=Objects(policies=(POLICY,))) as lab:
            lab.build()
            in_turn(
                lab,
                (
                    without_declared_ports_it_says_so,
                    bad_wishes_are_one_line,
                    every_pair_and_every_declared_port_in_the_light_of_policies,
                ),
            )

    inside(work, user)
