"""What a pod's ADD would be with the real thing: built-in data planes make by themselves what CNI plugins make elsewhere.

The calls follow from the configuration that the real data plane installs, their results from what the pod has here.  Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from emulab.cni import config
from emulab.cni.result import Interface, Ip, Result, Route
from emulab.dataplane import DataPlane, cni_arguments, sandbox_id
from emulab.model import Cluster, Endpoint
from emulab.state import Address, Bridge, BridgePort, State, Veth
from emulab.state import Route as Planned

PATH = "/opt/cni/bin"


def equivalent(plane: DataPlane, cluster: Cluster, plan: State, endpoint: Endpoint) -> list[dict[str, Any]]:
    """The calls in the order in which they begin, each as an invocation shows itself, with ``by``: who made it ("" for the
    runtime).  None is known of a data plane that installs nothing."""
    installed = plane.installed(cluster, endpoint.node)
    if installed is None:
        return []
    network = config.read(json.dumps(installed.conflist))
    version = network.cni_version
    whole = _result(plan, endpoint)
    calls, previous = [], None
    for plugin in network.plugins:
        request = config.request(network, plugin, prev_result=previous)
        calls.append(_call("", plugin.type, request, endpoint, whole.show(version)))
        delegate = installed.delegates.get(plugin.type)
        if delegate:
            request = {"cniVersion": version, "name": network.name, **delegate}
            calls.append(_call(plugin.type, str(delegate["type"]), request, endpoint, whole.show(version)))
        if request.get("ipam"):
            ipam = Result((), tuple(Ip(one.address, one.gateway) for one in whole.ips), whole.routes)
            calls.append(_call(calls[-1]["plugin"], request["ipam"]["type"], request, endpoint, ipam.show(version)))
        previous = whole
    return calls


def _call(by: str, kind: str, request: Mapping[str, Any], endpoint: Endpoint, result: Mapping[str, Any]) -> dict[str, Any]:
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": sandbox_id(endpoint.pod),
        "CNI_NETNS": f"/run/netns/{endpoint.pod.netns}",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in cni_arguments(endpoint.pod).items()),
        "CNI_PATH": PATH,
    }
    stdin, stdout = json.dumps(request), json.dumps(result)
    known = {"command": "ADD", "plugin": kind, "path": f"{PATH}/{kind}", "env": env, "stdin": stdin, "stdout": stdout}
    return {"by": by, **known, "stderr": "", "exit_code": 0, "seconds": None, "started": None, "problem": ""}


def _result(plan: State, endpoint: Endpoint) -> Result:
    node, pod = plan.get(endpoint.node, ()), plan.get(endpoint.key, ())
    sandbox = f"/run/netns/{endpoint.pod.netns}"
    pair = next((thing for thing in node if isinstance(thing, Veth) and thing.peer_namespace == endpoint.key), None)
    port = next((thing for thing in node if isinstance(thing, BridgePort) and pair and thing.device == pair.name), None)
    bridge = next((thing for thing in node if isinstance(thing, Bridge) and port and thing.name == port.bridge), None)
    interfaces = [Interface(bridge.name, bridge.mac or "")] if bridge else []
    interfaces += [Interface(pair.name, pair.mac or "")] if pair else []
    interfaces.append(Interface("eth0", endpoint.mac, sandbox))
    routes = list(_routes(pod))
    gateways = {route.gw.version: route.gw for route in routes if route.gw is not None}
    here = {thing.address.ip: thing.address for thing in pod if isinstance(thing, Address)}
    ips = [
        Ip(here[address], gateways.get(address.version), len(interfaces) - 1)
        for address in endpoint.addresses
        if address in here
    ]  # fmt: skip
    return Result(tuple(interfaces), tuple(ips), tuple(routes))


def _routes(pod: tuple[Any, ...]) -> Iterator[Route]:
    for thing in pod:
        if isinstance(thing, Planned):
            yield Route(thing.destination, thing.via)
