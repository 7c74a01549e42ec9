"""Whatever a runtime says to `emulab-cni`, it answers with a code, and never with a traceback."""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from emulab import cniplugin
from emulab.cni.errors import CniError, Code

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    (
        *("cniVersion", "name", "type", "lab", "node", "namespace", "labels", "ips", "args", "runtimeConfig", "prevResult"),
        *("cni.dev/valid-attachments", "dns", "ipam"),
    )
)
SOUND = {"cniVersion": "1.1.0", "name": "net", "type": "emulab", "lab": "nowhere", "node": "node-a"}
NESTED = st.dictionaries(st.sampled_from(["cni", "ips", "labels", "bandwidth", "dns", "mac"]), VALUES, max_size=2)
CONFS = st.dictionaries(KEYS, VALUES | NESTED, max_size=4).map(lambda change: json.dumps({**SOUND, **change}).encode())
COMMANDS = st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "ADDED", ""])
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
ENVIRONMENTS = st.fixed_dictionaries(
    {"CNI_COMMAND": COMMANDS},
    optional={
        "CNI_CONTAINERID": TEXT | st.just("box"),
        "CNI_IFNAME": TEXT | st.just("eth0"),
        "CNI_NETNS": TEXT | st.just("/proc/self/ns/mnt"),
        "CNI_ARGS": TEXT | st.just("IP=10.1.1.1;K8S_POD_NAME=x"),
    },
)


@settings(max_examples=10_000 if os.environ.get("WHOLE") else 300)
@given(ENVIRONMENTS, CONFS | st.binary(max_size=40))
@example({"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "box", "CNI_IFNAME": "eth0", "CNI_NETNS": "/"}, b"[" * 100_000)
def test_every_answer_is_one(environment: dict[str, str], data: bytes) -> None:
    code, answer = cniplugin.answered(environment, data)
    printed: Any = json.loads(json.dumps(answer)) if answer is not None else None
    if code == 0:
        assert printed is None or "supportedVersions" in printed
        return
    error = CniError.read(printed)
    assert error is not None, printed
    assert error.code != Code.INTERNAL, printed
    assert printed["cniVersion"] and error.msg
