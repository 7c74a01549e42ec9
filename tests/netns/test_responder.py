"""Something answers at every declared port, says whom it saw, follows changes, and survives whoever asks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import time
from dataclasses import replace
from typing import Any

import pytest
from declaring import ask, lab_with, sockets_in
from in_turn import in_turn
from sandboxed import inside, measured

from emulab import change
from emulab.errors import InputError
from emulab.kernel.namespaces import entered
from emulab.lab import Lab, Probing
from emulab.objects import ContainerPort, HostPod, Objects
from emulab.probe.ports import Check, probe
from emulab.serving.responder import OFF

UDP = socket.SOCK_DGRAM


def whatever_the_client_speaks_it_is_told_whom_the_pod_saw(lab: Lab) -> None:
    a1, b1 = (next(e for e in lab.cluster.endpoints if e.pod.name == name) for name in ("a1", "b1"))
    for family in (4, 6):
        target = (str(b1.address(family)), 8080)
        get = ask(lab, a1.key, target, b"GET / HTTP/1.1\r\nHost: b1\r\n\r\n")
        head = ask(lab, a1.key, target, b"HEAD / HTTP/1.0\r\n\r\n")
        headers, _, body = get.partition(b"\r\n\r\n")
        assert headers.startswith(b"HTTP/1.0 200 OK\r\n") and f"Content-Length: {len(body)}".encode() in headers
        assert head.endswith(b"\r\n\r\n") and head.startswith(b"HTTP/1.0 200 OK\r\n")
        for protocol, told in (
            ("tcp", ask(lab, a1.key, target, b"hello\n")),
            ("tcp", ask(lab, a1.key, target, b"hello")),
            ("tcp", ask(lab, a1.key, target, b"GET lost\r\n\r\n")),
            ("tcp", ask(lab, a1.key, target, b"\xff\x00" * 1000)),
            ("tcp", ask(lab, a1.key, target, None)),
            ("udp", ask(lab, a1.key, target, b"", UDP)),
            ("udp", ask(lab, a1.key, target, b"\x80 anything", UDP)),
            ("tcp", body),
        ):
            line = json.loads(told)
            assert line.pop("peer_port") > 0
            own = str(a1.address(family))
            assert line == {"pod": "default/b1", "node": "node-b", "protocol": protocol, "port": 8080, "peer": own}


def it_follows_pods_ports_and_labels(lab: Lab) -> None:
    assert lab.responder._thread is not None
    checks = [Check("default/a1", "default/b1", 4, "tcp", port) for port in (80, 81)]

    def verdicts() -> list[str]:
        return [outcome.verdict.value for outcome in probe(lab.namespaces, lab.cluster, checks)]

    def reshape(**b1: Any) -> None:
        pods = [replace(p, **b1) if p.name == "b1" else p for p in lab.design.topology.pods]
        lab.change(change.reshape(lab.design, pods, lab.design.topology.objects))

    told = [verdicts()]
    reshape(ports=(ContainerPort(81),))
    told.append(verdicts())
    reshape(ports=(ContainerPort(80), ContainerPort(81)), labels=(OFF,))
    told.append(verdicts())
    reshape(labels=())
    told.append(verdicts())
    lab.change(change.remove_pod(lab.design, "default/b1"))
    lab.change(change.add_pod(lab.design, "b1", "node-a"))
    told.append(verdicts())
    reshape(ports=(ContainerPort(80),))
    told.append(verdicts())
    lab.change(change.switch_node(lab.design, "node-a", False))
    lab.change(change.switch_node(lab.design, "node-a", True))
    told.append(verdicts())
    lab.change(change.remove_pod(lab.design, "default/b1"))  # no change takes a pod from one node to another
    yes, no = "delivered", "refused"
    assert told == [[yes, no], [no, yes], [no, no], [yes, yes], [no, no], [yes, no], [yes, no]]


def nothing_holds_a_removed_pods_namespace(lab: Lab) -> None:
    target = (str(next(e for e in lab.cluster.endpoints if e.pod.name == "b1").address(4)), 80)
    with entered(lab.namespaces["default/a1"].net):
        client = socket.create_connection(target)
    deadline = time.monotonic() + 5
    while not lab.responder._connections and time.monotonic() < deadline:
        time.sleep(0.001)
    copy = os.dup(lab.namespaces["default/b1"].net)
    lab.namespaces._all["gone"] = replace(lab.namespaces["default/b1"], net=copy, route=None, mounts=None)
    before = sockets_in(lab, "gone")
    lab.change(change.remove_pod(lab.design, "default/b1"))
    after = sockets_in(lab, "gone")
    client.close()
    del lab.namespaces._all["gone"]
    os.close(copy)
    assert before > 2 * 5, "what is counted is there at first: TCP and UDP, SCTP by hand, and a connection"
    assert after == 0


def hostnetwork_pods_are_served_on_their_node(lab: Lab) -> None:
    host_pods = tuple(
        HostPod("kube-system", name, "node-b", ports=(ContainerPort(port), ContainerPort(port, "udp"), ContainerPort(9, "sctp")))
        for name, port in (("proxy", 10256), ("agent", 9100))
    )
    lab.change(change.reshape(lab.design, lab.design.topology.pods, Objects(host_pods=host_pods)))
    address = str(lab.cluster.topology.underlay_address("node-b", 4))
    told = [
        json.loads(ask(lab, "default/b1", (address, port), b"?\n", kind))["pod"]
        for port in (10256, 9100)
        for kind in (socket.SOCK_STREAM, UDP)
    ]
    assert told == ["kube-system/proxy"] * 2 + ["kube-system/agent"] * 2


def a_port_that_is_taken_is_told_once_and_the_others_are_served(lab: Lab) -> None:
    words = io.StringIO()

    def declare(*numbers: int) -> None:
        pods = [replace(pod, ports=tuple(map(ContainerPort, numbers))) for pod in lab.design.topology.pods]
        lab.change(change.reshape(lab.design, pods, Objects()))

    declare()
    with entered(lab.namespaces["default/b1"].net), socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the check before may still end
        own.bind(("", 80))
        own.listen()
        with contextlib.redirect_stderr(words):
            for number in (81, 82):
                declare(80, number)
    check = Check("default/a1", "default/b1", 4, "tcp", 82)
    assert words.getvalue() == "default/b1: tcp/80 on IPv4 is not served: Address already in use\n"
    assert probe(lab.namespaces, lab.cluster, [check])[0].verdict.value == "delivered"


def garbage_does_not_kill_it(lab: Lab) -> None:
    target = (str(next(e for e in lab.cluster.endpoints if e.pod.name == "b1").address(4)), 80)
    with entered(lab.namespaces["default/a1"].net):
        client = socket.socket(socket.AF_INET, UDP)
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
    client.connect(target)
    with client, raw:
        for number in range(10_000):
            data = os.urandom(number % 300)
            client.send(data if number % 3 else b"emulab\x1a" + data)
            if number % 10 == 0:
                raw.sendto(data, (target[0], 0))
    for _ in range(300):
        with entered(lab.namespaces["default/a1"].net):
            stream = socket.create_connection(target)
        stream.send(os.urandom(100))
        stream.close()
    ports = [("tcp", 80), ("udp", 80), ("sctp", 80)]
    outcomes = probe(lab.namespaces, lab.cluster, [Check("default/a1", "default/b1", 4, *port) for port in ports])
    assert [outcome.verdict.value for outcome in outcomes] == ["delivered"] * 3
    assert lab.responder._thread.is_alive()  # type: ignore[union-attr]


def two_of_them_do_not_talk_to_each_other_for_ever(lab: Lab) -> None:
    """A datagram that seems to come from a served port."""
    a1, b1 = (next(e for e in lab.cluster.endpoints if e.pod.name == name) for name in ("a1", "b1"))
    with entered(lab.namespaces[a1.key].net):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 17)
    header = bytes([0, 80, 0, 80, 0, 13, 0, 0]) + b"hello"  # ports 80 and 80, 13 bytes, no checksum (RFC 768)
    before = _received(lab, a1.key), _received(lab, b1.key)
    raw.sendto(header, (str(b1.address(4)), 0))
    raw.close()
    deadline = time.monotonic() + 5
    while _received(lab, a1.key) == before[0] and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.1)  # time for thousands of answers
    assert (_received(lab, a1.key) - before[0], _received(lab, b1.key) - before[1]) == (1, 1)


def _received(lab: Lab, name: str) -> int:
    with entered(lab.namespaces[name].net), open("/proc/thread-self/net/snmp") as file:
        udp = [line.split() for line in file if line.startswith("Udp:")]
    return int(udp[1][udp[0].index("InDatagrams")])


def a_pod_that_was_just_added_answers(lab: Lab) -> None:
    """Its end of the pair has been looked at by the kernel when the change is over; before, it drops what it sends."""
    states = {lab.namespaces[e.key].socket().links()["eth0"].state for e in lab.cluster.endpoints}
    told = []
    for number in range(8):
        lab.change(change.add_pod(lab.design, f"new-{number}", "node-a"))
        states.add(lab.namespaces[f"default/new-{number}"].socket().links()["eth0"].state)
        check = Check("default/a1", f"default/new-{number}", 4, "tcp", 80)
        told.append(probe(lab.namespaces, lab.cluster, [check])[0].verdict.value)
    assert (states, told) == ({6}, ["refused"] * 8)


def the_engine_probes_ports_that_are_declared(lab: Lab) -> None:
    assert all(("tcp", 8080, 4) in lab.namespaces[e.key].served for e in lab.cluster.endpoints)
    for probing in (Probing(), Probing(taps="ends"), Probing(protocols=("tcp", "udp"), port=80)):
        result = measured(lab, probing)
        assert result["ok"], result["findings"][:3]
        assert set(result["verdicts"].values()) == {"delivered"}


@pytest.mark.parametrize(("user", "plugin"), [("root", "calico"), ("user", "flannel")])
def test_what_is_declared_is_served(user: str, plugin: str) -> None:
    def work() -> None:
        with lab_with(plugin) as lab:
            lab.build()
            in_turn(
                lab,
                (
                    a_pod_that_was_just_added_answers,
                    two_of_them_do_not_talk_to_each_other_for_ever,
                    whatever_the_client_speaks_it_is_told_whom_the_pod_saw,
                    nothing_holds_a_removed_pods_namespace,
                    hostnetwork_pods_are_served_on_their_node,
                    a_port_that_is_taken_is_told_once_and_the_others_are_served,
                    it_follows_pods_ports_and_labels,
                    garbage_does_not_kill_it,
                    the_engine_probes_ports_that_are_declared,
                ),
            )

    inside(work, user)


def test_where_nothing_is_declared_nothing_is_served() -> None:
    """There is no thread, and whoever has a server of their own at the probed port is named."""

    def work() -> Any:
        with lab_with(ports=()) as lab:
            lab.build()
            assert (lab.responder._thread, lab.responder._epoll) == (None, None)
            with entered(lab.namespaces["default/a1"].net), socket.socket() as own:
                own.bind(("", 8080))
                own.listen()
                with pytest.raises(InputError, match=r"^a1: tcp port 8080 is taken by somebody's own server.*--port"):
                    lab.verify(Probing(protocols=("tcp",)))

    inside(work, "root")
