"""Calls of CNI plugins as text, in the order in which a kubelet and its runtime cause them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import groupby
from typing import Any, TextIO

_TOLD = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")


def write(log: Mapping[str, Any], out: TextIO) -> None:
    """What `cni_log` answers."""
    if log["equivalent"]:
        known = "these calls are what its plugins would get" if log["calls"] else "no equivalent calls are known"
        out.write(f"equivalent: {log['plugin']} is built in here, no plugin was run; {known}\n\n")
    elif not log["calls"]:
        out.write("no plugin has been run\n")
    runs = [(key, list(calls)) for key, calls in groupby(log["calls"], key=lambda one: (one["pod"], one["node"], one["command"]))]
    for number, ((pod, node, command), calls) in enumerate(runs):
        out.write("\n" if number else "")
        out.write(f"pod {pod} on {node}\n")
        netns = calls[0]["env"].get("CNI_NETNS", "")
        if command == "ADD":
            out.write(f"  kubelet -> container runtime: RunPodSandbox (CRI)\n  runtime: ip netns add, as {netns}; lo up\n")
        elif command == "DEL":
            out.write("  kubelet -> container runtime: StopPodSandbox (CRI)\n")
        for call in calls:
            _write_call(call, out)
        if command == "DEL":
            out.write("  runtime: ip netns del\n")


def _write_call(call: Mapping[str, Any], out: TextIO) -> None:
    by = f"{call['by']} -> " if call["by"] else ""
    if call["seconds"] is None:
        how = "equivalent"
    else:
        clock = time.strftime("%H:%M:%S", time.localtime(call["started"]))
        code = "not started" if call["exit_code"] is None else f"exit {call['exit_code']}"
        how = f"{clock}  {call['seconds'] * 1e3:.0f} ms  {code}"
    out.write(f"  {by}{call['path'] or call['plugin']}  {call['command']}  {how}\n")
    for name in _TOLD:
        if call["env"].get(name):
            out.write(f"    {name}={call['env'][name]}\n")
    for name in ("stdin", "stdout", "stderr", "problem"):
        if call[name].strip():
            lines = _readable(call[name]).splitlines()
            out.write(f"    {name}: {lines[0]}\n" + "".join(f"      {line}\n" for line in lines[1:]))


def _readable(text: str) -> str:
    """JSON indented; control characters are shown, not sent."""
    try:
        return json.dumps(json.loads(text), indent=2)
    except ValueError:
        return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text.strip())
