"""Whatever a topology file says, it is a topology, or a mistake of one line."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulab import topology_file
from emulab.errors import InputError

WORDS = [
    "nodes",
    "pod-cidrs",
    "segments",
    "pods",
    "links",
    "subnets",
    "cut",
    "a",
    "10.1.0.0/16",
    "fd00::/64",
    "3",
    "-1",
    "~",
]
VALUES = st.recursive(
    st.sampled_from(WORDS) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nodes=VALUES, rest=VALUES)
def test_nothing_but_input_errors(tmp_path: Path, nodes: str, rest: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"pod-cidrs: [10.1.0.0/16]\nnodes: {nodes}\nsegments: {rest}\n", encoding="utf-8")
    try:
        topology_file.read(path)
    except InputError as error:
        assert "\n" not in str(error)
