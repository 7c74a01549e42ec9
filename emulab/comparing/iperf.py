"""Throughput of one TCP stream between two pods, by iperf3 when it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from emulab.comparison import Throughput
from emulab.kernel.namespaces import Namespaces, entered
from emulab.model import Endpoint

MISSING = "iperf3 is not installed"
_PATIENCE = 10.0  # seconds more than the stream is to last


def throughput(namespaces: Namespaces, source: Endpoint, destination: Endpoint, family: int, seconds: int = 1) -> Throughput:
    """What the destination received, in bit/s of TCP payload, from a stream of some seconds."""
    iperf = shutil.which("iperf3")
    if iperf is None:
        return Throughput(reason=MISSING)
    there = str(destination.address(family))
    with entered(namespaces[destination.key].net):  # a process starts where the thread is that starts it
        server = subprocess.Popen(
            [iperf, "--server", "--one-off", "--bind", there, "--forceflush"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if "listening" in line:
                break
        else:
            return Throughput(reason=f"iperf3: {' '.join(said).strip() or 'no server'}")
        with entered(namespaces[source.key].net):
            client = subprocess.Popen(
                [iperf, "--client", there, "--time", str(seconds), "--json", "--connect-timeout", "2000"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        try:
            return _read(client.communicate(timeout=seconds + _PATIENCE)[0])
        except subprocess.TimeoutExpired:
            client.kill()
            client.communicate()
            return Throughput(reason="iperf3 did not come to an end")
    finally:
        server.kill()
        server.communicate()


def _read(output: str) -> Throughput:
    try:
        told: dict[str, Any] = json.loads(output)
    except ValueError:
        return Throughput(reason="iperf3 said nothing")
    if "error" in told:
        return Throughput(reason=f"iperf3: {told['error']}")
    return Throughput(float(told["end"]["sum_received"]["bits_per_second"]))
