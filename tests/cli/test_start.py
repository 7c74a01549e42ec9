"""What a command does not import, since whoever types it would wait for it."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_heavy_is_imported_for_a_name() -> None:
    """A data plane is found without YAML, Scapy, Mininet or Rich."""
    code = "import sys; from emulab import registry; registry.plugin('flannel'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"yaml", "scapy", "mininet", "rich", "click"} & set(modules)


def test_a_manifest_is_read_without_lightkubes_client_which_is_there_for_others_all_the_same() -> None:
    code = (
        "import sys; from emulab import kube; kube.read('{apiVersion: v1, kind: Namespace, metadata: {name: n}}', 'n.yaml');"
        "print(*sys.modules); import lightkube; from lightkube.models import core_v1;"
        "print(lightkube.Client.__name__, lightkube.models.core_v1 is core_v1)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules, rest = done.stdout.splitlines()
    assert not {"lightkube.core.client", "asyncio"} & set(modules.split())
    assert rest == "Client True"


def test_ctrl_c_is_heard_while_python_would_forget_it() -> None:
    """In the callback of a weak reference, as there are some in every import, before any command has begun."""
    code = (
        "import os, signal, sys, time, types, weakref\n"
        "from emulab.__main__ import main\n"
        "class Thing: pass\n"
        "def work():\n"
        "    thing = Thing()\n"
        "    seen = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))\n"
        "    del thing\n"
        "    time.sleep(10)\n"
        "sys.modules['emulab.cli'] = __import__('emulab').cli = types.SimpleNamespace(main=work)\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
