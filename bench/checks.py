"""How long a folder of 20 check files takes with three plugins each: `emulab check`, as a CI job runs it.

sudo python bench/checks.py [JOBS]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGINS = "plugin: [flannel, calico, weave]\n"
POLICY = """\
      apiVersion: networking.k8s.io/v1
      kind: NetworkPolicy
      metadata: {name: deny-all}
      spec: {podSelector: {}, policyTypes: [Ingress]}
"""
KINDS = (
    "expect:\n- '* reaches * without NAT'\n- '* reaches * tcp/80 without NAT'\n- a1 reaches internet over IPv4\n",
    "steps:\n- pod add: {name: a3, node: node-a}\n- expect: a3 reaches * by udp\n- pod rm: a3\n- expect: a1 reaches c2\n",
    "steps:\n- node add: node-d\n- pod add: {name: d1, node: node-d}\n- expect: [a1 reaches d1, d1 reaches * without NAT]\n",
    "steps:\n- link down: node-b\n- expect: a1 cannot reach b1\n- link up: node-b\n- expect: a1 reaches b1 within 5s\n",
    "topology: flat\nsteps:\n- apply:\n" + POLICY + "- delete: netpol/deny-all\n- expect: a1 reaches c2\n",
)


def main() -> None:
    jobs = sys.argv[1:2] or [str(len(os.sched_getaffinity(0)))]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(20):
            Path(folder, f"check-{number:02}.yaml").write_text(PLUGINS + KINDS[number % len(KINDS)])
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "emulab", "check", folder, "-q", "-j", *jobs], check=False)
        wall = time.monotonic() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime
        print(f"20 checks x 3 plugins, {jobs[0]} at once: {wall:.1f} s, {cpu:.1f} s of CPU; exit code {done.returncode}")


main()
