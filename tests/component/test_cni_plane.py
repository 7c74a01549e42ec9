"""The data plane cni on paper: configurations filled in, attachments, equivalents of built-in planes, published ports."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from designed import catalogued, planned
from tables import each_row

from emulab import birth, hostports, registry
from emulab.dataplane import File
from emulab.diff import diff
from emulab.errors import InputError
from emulab.model import Pod
from emulab.objects import ContainerPort
from emulab.planning import Design, corrected, design
from emulab.state import CniAttachment, CniNetwork, NftTable, shell_lines

HEAD = '"cniVersion": "1.0.0", "name": "n", "type": "t"'


def made(text: str, topology: str = "flat", pods: tuple[Pod, ...] = ()) -> Design:
    plane = replace(registry.options(registry.plugin("cni"), ()), conflist=File("net.conf", text))  # type: ignore[call-arg]
    wanted = catalogued(topology)
    return design(replace(wanted, pods=(*wanted.pods, *pods)), plane)


def network(wanted: Design, node: str) -> dict[str, object]:
    (found,) = [thing for thing in wanted.plan[node] if isinstance(thing, CniNetwork)]
    filled: dict[str, object] = json.loads(found.text)
    return filled


@each_row(
    "given, filled",
    [
        ('"a": "{{ subnet4 }}"', {"a": "10.1.1.0/24"}),
        ('"a": "{{subnet4}} of {{ node }}"', {"a": "10.1.1.0/24 of node-a"}),
        ('"mtu": "{{ mtu }}", "b": "{{ mtu }} bytes"', {"mtu": 1450, "b": "1450 bytes"}),
        ('"a": [["{{ subnet6 }}"], ["{{ default6 }}"]]', {"a": [["fd00:10:1::/64"], ["::/0"]]}),
        ('"a": [], "b": {}, "c": null, "d": 1.5, "e": true', {"a": [], "b": {}, "c": None, "d": 1.5, "e": True}),
        ('"{{ node }}": "keys stay"', {"{{ node }}": "keys stay"}),
        ('"a": "{{ gateway4 }} {{ first4 }} {{ last4 }} {{ cluster4 }}"', {"a": "10.1.1.254 10.1.1.1 10.1.1.254 10.1.0.0/16"}),
    ],
)
def test_a_configuration_is_filled_in_for_each_node(given: str, filled: dict[str, object]) -> None:
    found = network(made(f"{{{HEAD}, {given}}}"), "node-a")
    assert {key: found[key] for key in filled} == filled


def test_what_a_family_lacks_is_left_out_of_its_list() -> None:
    text = f'{{{HEAD}, "ranges": [[{{"subnet": "{{{{ subnet4 }}}}"}}], [{{"subnet": "{{{{ subnet6 }}}}"}}]]}}'
    wanted = catalogued("flat")
    plane = replace(registry.options(registry.plugin("cni"), ()), conflist=File("net.conf", text))  # type: ignore[call-arg]
    one = replace(wanted, pod_cidrs=tuple(cidr for cidr in wanted.pod_cidrs if cidr.version == 4))
    assert network(design(one, plane), "node-b")["ranges"] == [[{"subnet": "10.1.2.0/24"}]]


@each_row(
    "text, said",
    [
        ("{", "net.conf:1: not JSON"),
        ('{"name": "n"}', "net.conf: plugins: at least one plugin expected"),
        (f'{{{HEAD}, "a": "{{{{ subnet }}}}"}}', "net.conf: no value 'subnet' to put in (did you mean 'subnet6'?)"),
    ],
)
def test_a_wrong_configuration_is_told(text: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        made(text)
    assert said in str(raised.value)


def test_options_that_are_files_and_folders_are_read_for_the_plugin(tmp_path: Path) -> None:
    plugin = registry.plugin("cni")
    path = tmp_path / "x.conflist"
    path.write_text("{}")
    plane = registry.options(plugin, [f"conflist={path}", f"bin={tmp_path}"])
    assert plane.options()["conflist"] == str(path)
    assert plane.options()["bin"] == str(tmp_path)
    for setting, said in ((f"conflist={path}x", "No such file"), (f"bin={path}", "a folder expected")):
        with pytest.raises(InputError, match=said):
            registry.options(plugin, [setting])


def test_an_attachment_says_what_the_pod_asks_for_as_far_as_the_network_can() -> None:
    web = Pod(
        "web", "node-a", "shop", ports=(ContainerPort(80, "tcp", "", 8080, "10.0.0.1"), ContainerPort(81)), rates=(0, 10**6)
    )
    capable = made(f'{{{HEAD}, "capabilities": {{"portMappings": true, "bandwidth": true}}}}', pods=(web,))
    plain = made(f"{{{HEAD}}}", pods=(web,))
    found = [t for one in (capable, plain) for t in one.plan["node-a"] if isinstance(t, CniAttachment) and t.pod == "shop/web"]
    assert json.loads(found[0].capabilities) == {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "10.0.0.1"}],
        "bandwidth": {"ingressRate": 0, "ingressBurst": 0, "egressRate": 10**6, "egressBurst": 2 * 65536 * 8},
    }
    assert found[1].capabilities == "{}"
    assert dict(found[1].args)["K8S_POD_NAMESPACE"] == "shop"
    assert shell_lines(found[1:]) == ["CNI_PATH=/opt/cni/bin cnitool add n /run/netns/shop.web"]
    changes = diff({"node-a": (found[0],)}, {"node-a": (found[1],)})
    assert (changes.first, changes.add) == ({"node-a": (found[0],)}, {"node-a": (found[1],)}), "DEL, then ADD"


def test_addresses_are_those_that_plugins_gave() -> None:
    wanted = made(f"{{{HEAD}}}")
    real = corrected(wanted, {"default/a1": ((ip_address("10.1.1.9"), ip_address("fd00:10:1::9")), "02:00:00:00:00:09")})
    (a1,) = [endpoint for endpoint in real.cluster.endpoints if endpoint.key == "default/a1"]
    assert [str(address) for address in a1.addresses] == ["10.1.1.9", "fd00:10:1::9"]
    assert (a1.mac, a1.pod.addresses) == ("02:00:00:00:00:09", ())
    with pytest.raises(InputError, match="has no IPv6 address"):
        corrected(wanted, {"default/a1": ((ip_address("10.1.1.9"),), "")})
    with pytest.raises(InputError, match=r"would both have 10\.1\.1\.2"):
        corrected(wanted, {"default/a1": ((ip_address("10.1.1.2"), ip_address("fd00:10:1::9")), "")})


@each_row(
    "plane, calls",
    [
        ("flannel", [("", "flannel"), ("flannel", "bridge"), ("bridge", "host-local"), ("", "portmap")]),
        ("calico", [("", "calico"), ("calico", "calico-ipam"), ("", "bandwidth"), ("", "portmap")]),
        ("weave", [("", "weave-net"), ("weave-net", "weave-ipam"), ("", "portmap")]),
        ("nat", []),
    ],
)
def test_built_in_planes_know_their_equivalent_calls(plane: str, calls: list[tuple[str, str]]) -> None:
    cluster, data_plane, state = planned("non-flat" if plane == "nat" else "flat", plane)
    endpoint = cluster.endpoints[0]
    found = birth.equivalent(data_plane, cluster, state, endpoint)
    assert [(call["by"], call["plugin"]) for call in found] == calls
    for call in found:
        told = {ip["address"].split("/")[0] for ip in json.loads(call["stdout"])["ips"]}
        assert told == {str(address) for address in endpoint.addresses}
        assert ("prevResult" in json.loads(call["stdin"])) == (call["by"] == "" and call is not found[0])


def test_published_ports_are_rules_of_their_node_alone() -> None:
    ports = (ContainerPort(80, "tcp", "", 8080), ContainerPort(53, "udp", "", 53, "192.168.50.1"), ContainerPort(443))
    flat = catalogued("flat")
    web = Pod("web", "node-a", addresses=(ip_address("10.1.1.7"),), ports=ports)
    wanted = design(replace(flat, pods=(*flat.pods, web)), registry.options(registry.plugin("flannel"), ()))
    tables = {
        name: [t for t in things if isinstance(t, NftTable) and t.name == hostports.TABLE] for name, things in wanted.plan.items()
    }
    assert [name for name, found in tables.items() if found] == ["node-a"]
    four, six = tables["node-a"]
    assert [rule.split(" hostports ")[1] for rule in four.rules if "dnat to" in rule] == [
        "tcp dport 8080 dnat to 10.1.1.7:80",
        "ip daddr 192.168.50.1 udp dport 53 dnat to 10.1.1.7:53",
    ]
    assert len([rule for rule in six.rules if "dnat to" in rule]) == 1
    own = ip_address("192.168.50.1")
    assert hostports.published(wanted.cluster, "node-a", "udp", 53, own) is not None
    assert hostports.published(wanted.cluster, "node-a", "udp", 53, ip_address("192.168.50.9")) is None
    assert hostports.published(wanted.cluster, "node-b", "tcp", 8080, own) is None
