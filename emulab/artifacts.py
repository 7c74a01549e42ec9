"""The evidence of a run as a folder of files, all of them made from one document (schema ``emulab/report/1``)."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emulab.errors import InputError, MachineError
from emulab.report.document import Document

RESULT, PAGE, JUNIT, PLAN, VERSIONS = "result.json", "report.html", "junit.xml", "plan.sh", "versions.txt"


def prepare(folder: str | Path) -> Path:
    """The folder, made if it is not there.  Raises `InputError` when nothing can be written into it."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        trial = path / f".{RESULT}"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(f"--artifacts {folder}: cannot write there: {error.strerror}") from None
    return path


def write(folder: str | Path, document: Document) -> list[Path]:
    """Write result.json, report.html, junit.xml, plan.sh, versions.txt and a pcapng for each story; returns what was written.

    Files of these names are replaced, all others stay.  Raises `InputError` when the folder cannot be written, `MachineError`
    when the disk is full.
    """
    from emulab.report import page

    path = prepare(folder)
    written = []
    files: Iterable[tuple[str, bytes]] = (
        (RESULT, dump(document).encode()),
        (PAGE, page.render(document).encode()),
        (JUNIT, junit_xml(document).encode()),
        (PLAN, plan_lines(document).encode()),
        (VERSIONS, "".join(f"{name}: {value}\n" for name, value in document["environment"].items()).encode()),
        *captures(document),
    )
    for name, data in files:
        try:
            (path / name).write_bytes(data)
        except OSError as error:
            raise MachineError(f"{path / name}: cannot be written: {error.strerror}") from None
        written.append(path / name)
    return written


def dump(document: Document) -> str:
    """The document as JSON: a flow, a story, a row of the matrix on a line of its own."""
    lines = []
    for key, value in document.items():
        if key in ("flows", "stories", "findings", "expectations", "pods", "nodes", "mtu") and value:
            shown = "[\n  " + ",\n  ".join(json.dumps(one) for one in value) + "\n ]"
        elif key in ("plan", "timings", "environment") and value:
            shown = "{\n  " + ",\n  ".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in value.items()) + "\n }"
        else:
            shown = json.dumps(value)
        lines.append(f" {json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def plan_lines(document: Document) -> str:
    """As `emulab plan` shows it: each block is typed inside its namespace."""
    homes = {pod["name"]: pod["node"] for pod in document["pods"]}
    lines = [f"# {document['plugin']} on {document['topology']}"]
    lines.append("# Each node has its uplink and addresses already; each pod is an empty namespace in the node's /run/netns.")
    for name, found in document["plan"].items():
        if name in homes:
            namespace, _, pod = name.partition("/")
            netns = pod if namespace == "default" else f"{namespace}.{pod}"
            lines += ["", f"# pod {name}, on {homes[name]}: ip netns exec {netns} …", *found]
        else:
            lines += ["", f"# node {name}", *found]
    return "\n".join(lines) + "\n"


def captures(document: Document) -> Iterator[tuple[str, bytes]]:
    """(file name, pcapng) of each story that has packets."""
    used: set[str] = set()
    stories: list[tuple[str, dict[str, Any]]] = [(_file_name(story), story) for story in document["stories"]]
    for number, outcome in enumerate(document["expectations"], 1):
        stories.append((f"expectation-{number}", outcome))
    for stem, story in stories:
        if not story.get("packets"):
            continue
        name, again = stem, 2
        while name in used:
            name, again = f"{stem}-{again}", again + 1
        used.add(name)
        yield f"{name}.pcapng", base64.b64decode(story["packets"])


def _file_name(story: dict[str, Any]) -> str:
    """``a1-to-shop.web-tcp4-8080``: no slash and no leading dot, whatever the names are."""
    ends = [story[key].removeprefix("default/").replace("/", ".") for key in ("from", "to")]
    port = f"-{story['dport']}" if story["protocol"] != "icmp" else ""
    size = f"-{story['size']}-bytes" if story.get("size") else ""
    name = f"{ends[0]}-to-{ends[1]}-{story['protocol']}{story['family']}{port}{size}"
    return re.sub(r"[^A-Za-z0-9.-]", "_", name).lstrip(".-")[:120]


def junit_xml(document: Document) -> str:
    """What was probed and expected as test cases, for CI servers."""
    from emulab.report import junit
    from emulab.report.suites import suites

    out = io.StringIO()
    junit.write(suites(document), out)
    return out.getvalue()
