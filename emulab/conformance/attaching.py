"""Checks of one container's life: ADD, CHECK, DEL."""

from __future__ import annotations

from collections.abc import Callable

from emulab.cni import answer
from emulab.cni.errors import CniError
from emulab.cni.result import Result
from emulab.conformance.bench import Bench, Box
from emulab.conformance.check import CHAINED, INTERFACE, IPAM, Check, check
from emulab.conformance.verdict import Blocked, Failed, NotApplicable
from emulab.errors import MachineError

_ADD, _CHECK, _DEL = "2, ADD", "2, CHECK", "2, DEL"


@check("add-result", "2, ADD; 5, success", "prints a result of the version asked, and exits with 0")
def add_result(bench: Bench) -> str:
    with bench.box() as box:
        outcome = bench.call("ADD", box)
        try:
            result = answer.result(outcome, "", bench.version)
        except CniError as error:
            raise Failed(str(error)) from None
        if b'"cniVersion"' not in outcome.stdout:
            raise Failed("the result has no cniVersion")
        if bench.kind == IPAM:
            if result.interfaces or any(one.interface is not None for one in result.ips):
                raise Failed("the result of address management names interfaces")
            if not result.ips:
                raise Failed("the result of address management has no address")
        elif bench.version >= "0.3.0" and not any(one.sandbox == box.netns for one in result.interfaces):
            raise Failed(f"the result names no interface in {box.netns}")
        return f"{len(result.interfaces)} interfaces, {', '.join(str(one.address) for one in result.ips) or 'no address'}"


@check("add-true", _ADD, "what the result names is there: interfaces, MAC, MTU, addresses, routes", (INTERFACE, CHAINED))
def add_true(bench: Bench) -> str:
    with bench.box() as box:
        result = bench.add(box)
        if bench.host.interface(box.ifname, box.name) is None:
            raise Failed(f"there is no interface {box.ifname} in the container")
        for one in result.interfaces:
            where = "container" if one.sandbox else "host"
            seen = bench.host.interface(one.name, box.name if one.sandbox else None)
            if seen is None:
                raise Failed(f"there is no interface {one.name} in the {where}")
            if one.mac and one.mac != seen.mac:
                raise Failed(f"{one.name} in the {where} has the MAC {seen.mac}, not {one.mac}")
            if one.mtu is not None and one.mtu != seen.mtu:
                raise Failed(f"{one.name} in the {where} has the MTU {seen.mtu}, not {one.mtu}")
        for ip in result.ips:
            name = result.interfaces[ip.interface].name if ip.interface is not None else box.ifname
            seen = bench.host.interface(name, box.name)
            if seen is None or ip.address not in seen.addresses | seen.link_local:
                raise Failed(f"{name} in the container does not have the address {ip.address}")
        routes = bench.host.routes(box.name)
        for route in result.routes:
            met = {gateway for destination, gateway in routes if destination == route.dst}
            if not met or (route.gw is not None and str(route.gw) not in met):
                raise Failed(f"there is no route to {route.dst}" + (f" via {route.gw}" if route.gw else "") + " in the container")
    return "all of it"


@check("prev-result", _ADD, "what came before in the chain is in its result", (CHAINED,), "0.3.0")
def prev_result(bench: Bench) -> str:
    with bench.box() as box:
        result = bench.add(box)
        assert box.previous is not None
        for before in box.previous.interfaces:
            if before.name not in {one.name for one in result.interfaces}:
                raise Failed(f"the interface {before.name} of prevResult is not in the result")
        for ip in box.previous.ips:
            if ip.address not in {one.address for one in result.ips}:
                raise Failed(f"the address {ip.address} of prevResult is not in the result")
        for route in box.previous.routes:
            if route.dst not in {one.dst for one in result.routes}:
                raise Failed(f"the route to {route.dst} of prevResult is not in the result")
    return "interfaces, addresses, routes"


@check("add-existing", _ADD, "an interface of that name in the container is an error, and stays as it is", (INTERFACE,))
def add_existing(bench: Bench) -> str:
    with bench.box() as box:
        bench.host.ip(f"-n {box.name} link add {box.ifname} type veth peer name other0")
        before = bench.host.interface(box.ifname, box.name)
        told = bench.refused(bench.call("ADD", box), (), f"{box.ifname} is there already")
        after = bench.host.interface(box.ifname, box.name)
        if after != before:
            raise Failed("it was refused, but the interface that was there is another one, or none")
        return f"refused: {told}"


@check("add-twice", _ADD, "a second ADD without a DEL between is an error, and the first stays", (INTERFACE,))
def add_twice(bench: Bench) -> str:
    with bench.box() as box:
        bench.add(box)
        before = bench.host.interface(box.ifname, box.name)
        told = bench.refused(bench.call("ADD", box), (), "a second ADD")
        if bench.host.interface(box.ifname, box.name) != before:
            raise Failed("it was refused, but the interface of the first ADD is another one, or none")
        return f"refused: {told}"


@check("add-no-netns", _ADD, "a network namespace that is not there is an error", (INTERFACE,))
def add_no_netns(bench: Bench) -> str:
    with bench.box(watched=True) as box:
        told = bench.refused(bench.call("ADD", box, env={"CNI_NETNS": "/run/netns/no-such"}), (), "a netns that is not there")
        bench.call("DEL", box, env={"CNI_NETNS": ""})
        bench.left(box)
        return f"refused: {told}"


@check("second-interface", _DEL, "DEL of one of two interfaces of a container takes away that one only", (INTERFACE,))
def second_interface(bench: Bench) -> str:
    with bench.box() as box:
        bench.add(box)
        second = Box(box.name, box.netns, box.number, "eth1", box.previous, box.before)
        outcome = bench.call("ADD", second)
        if outcome.exit_code:
            raise NotApplicable(f"it refuses a second interface: {bench.refused(outcome, (), 'a second interface')}")
        bench.delete(second)
        if bench.host.interface("eth1", box.name):
            raise Failed("eth1 is still there after its DEL")
        if not bench.host.interface("eth0", box.name):
            raise Failed("eth0 is gone after the DEL of eth1")
    return "eth0 and eth1"


@check("check-passes", _CHECK, "succeeds right after ADD", since="0.4.0")
def check_passes(bench: Bench) -> str:
    with bench.box() as box:
        error = bench.check(box, bench.add(box))
        if error is not None:
            raise Failed(f"CHECK fails: {error}")
    return "it does"


def _tampered(name: str, demand: str, tamper: Callable[[Bench, Box, Result], str]) -> Check:
    @check(name, _CHECK, demand, (INTERFACE,), "0.4.0")
    def work(bench: Bench) -> str:
        with bench.box() as box:
            result = bench.add(box)
            if bench.check(box, result) is not None:
                raise Blocked("check-passes", "CHECK fails right after ADD")
            line = tamper(bench, box, result)
            try:
                bench.host.ip(line)
            except MachineError as error:
                raise Blocked("add-true", f"what the result names is not there: {error}") from None
            told = bench.check(box, result)
            if told is None:
                raise Failed(f"CHECK succeeds after `ip {line}`")
            return f"code {told.code} after `ip {line}`"

    return work


def _without_address(bench: Bench, box: Box, result: Result) -> str:
    if not result.ips:
        raise NotApplicable("the result has no address")
    return f"-n {box.name} addr del {result.ips[0].address} dev {box.ifname}"


def _without_route(bench: Bench, box: Box, result: Result) -> str:
    if not result.routes:
        raise NotApplicable("the result has no route")
    route = result.routes[0]
    return f"-n {box.name} -{route.dst.version} route del {route.dst}"


check_address = _tampered("check-address", "fails when an address is gone", _without_address)
check_route = _tampered("check-route", "fails when a route is gone", _without_route)
check_link_gone = _tampered(
    "check-link-gone", "fails when the interface is gone", lambda _, box, __: f"-n {box.name} link del {box.ifname}"
)
check_link_down = _tampered(
    "check-link-down", "fails when the interface is down", lambda _, box, __: f"-n {box.name} link set {box.ifname} down"
)


@check("del-removes", _DEL, "takes away what ADD made")
def del_removes(bench: Bench) -> str:
    with bench.box(watched=True) as box:
        bench.delete(box, bench.add(box))
        bench.left(box)
    return "nothing is left"


@check("del-twice", _DEL, "succeeds again when all is gone already")
def del_twice(bench: Bench) -> str:
    with bench.box() as box:
        result = bench.add(box)
        bench.call("DEL", box, request=bench.request(box, previous=result))
        bench.succeeds(bench.call("DEL", box, request=bench.request(box, previous=result)), "a second DEL")
        bench.succeeds(bench.call("DEL", box), "a third DEL, without prevResult,")
    return "three times"


@check("del-unknown", _DEL, "succeeds for a container that was never added")
def del_unknown(bench: Bench) -> str:
    with bench.box(watched=True) as box:
        bench.delete(box)
        bench.left(box)
    return "it does"


@check("del-no-netns", _DEL, "succeeds without CNI_NETNS when the namespace is gone, and leaves nothing")
def del_no_netns(bench: Bench) -> str:
    with bench.box(watched=True) as box:
        result = bench.add(box)
        bench.host.remove(box.name)
        bench.delete(box, result, {"CNI_NETNS": ""})
        bench.left(box)
    return "nothing is left"


@check("del-netns-gone", _DEL, "succeeds when CNI_NETNS names a namespace that is gone, and leaves nothing")
def del_netns_gone(bench: Bench) -> str:
    with bench.box(watched=True) as box:
        result = bench.add(box)
        bench.host.remove(box.name)
        bench.delete(box, result)
        bench.left(box)
    return "nothing is left"


@check("del-others", _DEL, "takes away nothing of another container")
def del_others(bench: Bench) -> str:
    with bench.box() as first, bench.box() as second:
        bench.add(first)
        alone = bench.host.look()
        seen = bench.host.interface(first.ifname, first.name)
        result = bench.add(second)
        bench.call("DEL", second, request=bench.request(second, previous=result))
        if gone := sorted(alone - bench.host.look()):
            raise Failed(f"DEL of one container took away: {', '.join(gone[:4])}")
        if bench.host.interface(first.ifname, first.name) != seen:
            raise Failed(f"DEL of one container changed {first.ifname} of another")
    return "the other stays"


CHECKS = (
    *(add_result, add_true, prev_result, add_existing, add_twice, add_no_netns, second_interface),
    *(check_passes, check_address, check_route, check_link_gone, check_link_down),
    *(del_removes, del_twice, del_unknown, del_no_netns, del_netns_gone, del_others),
)
