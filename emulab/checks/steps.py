"""The steps of a check by name: what a lab is asked for each, in the words of the command that does the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulab.checks.origin import Origin
from emulab.errors import InputError
from emulab.faults import fault
from emulab.quantity import RATES, SHARES, TIMES, quantity
from emulab.text import Path

Asked = tuple[str, str, dict[str, Any]]  # the step in words, the operation, its arguments
_MANIFEST = (".yaml", ".yml", ".json")


def _apply(origin: Origin, path: Path, given: Any) -> Asked:
    texts = [list(one) for one in origin.texts(path, given)]
    return f"apply {_objects(given)}", "apply", {"texts": texts}


def _objects(given: Any) -> str:
    """Manifests in words: the files' names, the objects' kinds and names."""
    several = given if isinstance(given, list) else [given]
    return ", ".join(one if isinstance(one, str) else f"{one['kind'].lower()}/{one['metadata']['name']}" for one in several)


def _delete(origin: Origin, path: Path, given: Any) -> Asked:
    names = _listed(given)
    title = f"delete {', '.join(names)}"
    if any(one.endswith(_MANIFEST) for one in names):
        if not all(one.endswith(_MANIFEST) for one in names):
            origin.fail(path, "either manifests or names expected: make two steps of it")
        return title, "delete", {"texts": [list(one) for one in origin.texts(path, given)]}
    kinds = {one.partition("/")[0] for one in names}
    if len(kinds) != 1 or not all("/" in one for one in names):
        origin.fail(path, "KIND/NAME, or several of one kind, expected, e.g. netpol/deny-all")
    return title, "delete", {"kind": kinds.pop(), "names": [one.partition("/")[2] for one in names]}


def _pod_add(_: Origin, __: Path, given: Any) -> Asked:
    wanted = {"name": given["name"], "node": given["node"], "labels": given.get("labels", {})}
    return f"pod add {given['name']} on {given['node']}", "pod_add", {**wanted, "addresses": _listed(given.get("ip", []))}


def _node_add(_: Origin, __: Path, given: Any) -> Asked:
    given = _named(given)
    wanted = {"name": given["name"], "addresses": _listed(given.get("ip", []))}
    return f"node add {given['name']}", "node_add", {**wanted, **_given(given, "segment")}


def _link_set(origin: Origin, path: Path, given: Any) -> Asked:
    shape: dict[str, float] = {}
    for key, units in (("rate", RATES), ("delay", TIMES), ("loss", SHARES)):
        if key in given:
            try:
                amount = quantity(key, str(given[key]), units)
            except InputError as error:
                origin.fail(path, str(error), key)
            shape[key] = int(amount) if key == "rate" else amount
    if not shape:
        origin.fail(path, "nothing to set: rate, delay or loss expected")
    said = " ".join(f"{key} {given[key]}" for key in shape)
    return f"link set {given['node']} {said}", "link_set", {"node": given["node"], **shape}


def _partition(_: Origin, __: Path, given: Any) -> Asked:
    sides = given.split("|") if isinstance(given, str) else given
    named = [side if isinstance(side, list) else [name.strip() for name in side.split(",")] for side in sides]
    groups = [[name for name in side if name] for side in named]
    return f"partition {' | '.join(','.join(side) for side in groups)}", "partition", {"groups": groups}


def _inject(origin: Origin, path: Path, given: Any) -> Asked:
    given = _named(given)
    try:
        fault(given["name"])
    except InputError as error:
        origin.fail(path, str(error))
    at = f" at {given['at']}" if "at" in given else ""
    return f"fault inject {given['name']}{at}", "fault_inject", {"name": given["name"], **_given(given, "at")}


def _repair(_: Origin, __: Path, given: Any) -> Asked:
    names = _listed(given or [])
    return " ".join(["repair", *names]), "repair", {"names": names} if names else {}


Asking = Callable[[Origin, Path, Any], Asked]


def _pods(title: str, do: str, **more: Any) -> Asking:
    return lambda _, __, given: (f"{title} {', '.join(_listed(given))}", do, {"names": _listed(given), **more})


def _node(title: str, do: str, key: str = "name", **more: Any) -> Asking:
    return lambda _, __, given: (f"{title} {given}", do, {key: given, **more})


def _bare(title: str, do: str) -> Asking:
    return lambda _, __, ___: (title, do, {})


STEPS: dict[str, Asking] = {
    "apply": _apply,
    "delete": _delete,
    "pod add": _pod_add,
    "pod rm": _pods("pod rm", "pod_rm"),
    "pod ready": _pods("pod ready", "pod_ready", ready=True),
    "pod unready": _pods("pod unready", "pod_ready", ready=False),
    "node add": _node_add,
    "node rm": _node("node rm", "node_rm"),
    "node stop": _node("node stop", "node_stop"),
    "node start": _node("node start", "node_start"),
    "link down": _node("link down", "link_set", "node", up=False),
    "link up": _node("link up", "link_set", "node", up=True),
    "link set": _link_set,
    "partition": _partition,
    "heal": _bare("heal", "heal"),
    "fault inject": _inject,
    "fault clear": _bare("fault clear", "fault_clear"),
    "repair": _repair,
}


def _listed(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _named(given: Any) -> dict[str, Any]:
    return {"name": given} if isinstance(given, str) else given


def _given(given: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: given[key] for key in keys if key in given}
