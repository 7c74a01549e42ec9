"""`emulab serve` as it is typed: for one's own lab, until Ctrl-C or the lab's end, and what it says to mistakes."""

from __future__ import annotations

import os
import re
import signal
import socket
from http.client import HTTPConnection

import pytest
from terminal import Running, Terminal


def address(running: Running) -> tuple[int, str]:
    """Port and token of the printed address."""
    line = running.out.readline().decode()
    found = re.fullmatch(r"lab 'flat-flannel': http://127\.0\.0\.1:(\d+)/\?token=(\S+)  \(Ctrl-C ends\)\n", line)
    assert found, line or running.err.read()
    return int(found[1]), found[2]


def get(port: int, target: str, **headers: str) -> tuple[int, str, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", target, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers.get("set-cookie", ""), answer.read()
    connection.close()
    return found


def mistakes_are_a_line(terminal: Terminal) -> None:
    for words, said in (
        (("flat-flanel",), "no lab 'flat-flanel' (did you mean 'flat-flannel'?)"),
        (("--listen", "here"), "--listen 'here': an IP address of this machine expected"),
        (("--listen", "192.0.2.1"), "--listen 192.0.2.1: no address of this machine"),
    ):
        done = terminal.emulab("serve", *words)
        assert (done.code, done.out, done.err) == (2, "", f"error: {said}\n")
    running = terminal.start("serve", "--listen", "0.0.0.0")
    address(running)
    done = running.stop(signal.SIGTERM)
    assert done.code != 0
    assert done.err.startswith("warning: ") and len(done.err.splitlines()) == 1


def test_served_until_somebody_stops_it_or_the_lab_goes(terminal: Terminal) -> None:
    assert terminal.emulab("serve").err == "error: no lab is up (emulab up starts one)\n"
    terminal.emulab("up")
    if terminal.user == "user":
        mistakes_are_a_line(terminal)
    first, second = terminal.start("serve"), terminal.start("serve", "flat-flannel")
    (port, token), (other, _) = address(first), address(second)
    status, cookie, _ = get(port, f"/?token={token}")
    path = cookie.partition("Path=")[2].partition(";")[0]
    assert status == 200 and port != other
    assert b'"name":"flat-flannel"' in get(port, f"{path}state", Cookie=cookie.partition(";")[0])[2]
    assert get(other, f"/?token={token}")[0] == 403
    if terminal.user == "user":  # what listens is the user's, and no root's
        assert os.stat(f"/proc/{first.pid}").st_uid == os.stat(terminal.home).st_uid

    taken = terminal.emulab("serve", "--port", str(port))
    assert (taken.code, taken.out) == (2, "")
    assert taken.err == f"error: port {port} of 127.0.0.1 is in use: choose another --port, or none for any that is free\n"

    done = first.stop(signal.SIGINT)
    assert (done.code, done.out, done.err.strip()) == (130, "", "")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    terminal.emulab("down")
    done = second.wait()
    assert (done.code, done.out, done.err) == (0, "lab 'flat-flannel' is down\n", "")
