"""What was attached, remembered in files as libcni remembers it, so that DEL and CHECK know what ADD answered.

`results/<network>-<container id>-<interface>`, JSON of kind `cniCacheV1`.  The folder is its owner's alone, and each file is
written beside its place and moved there: a crash leaves the old one, or the new one.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emulab.cni import documents
from emulab.cni.attachment import Attachment, cached_name
from emulab.cni.result import Result
from emulab.errors import InputError, MachineError

KIND = "cniCacheV1"


@dataclass(frozen=True)
class Cached:
    """``config`` is the text of the network's list, ``capabilities`` what the runtime asked for."""

    network: str
    attachment: Attachment
    config: bytes
    result: Result
    capabilities: Mapping[str, Any] = field(default_factory=dict)


class Cache:
    """The attachments of a host (or an emulated node), below ``folder``: /var/lib/cni on real ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "results"

    def write(self, entry: Cached) -> None:
        """Remember; raises `MachineError` when the file cannot be written."""
        path = self.folder / cached_name(entry.network, entry.attachment)
        one = entry.attachment
        document = {
            "kind": KIND,
            "containerId": one.container_id,
            "config": base64.b64encode(entry.config).decode(),
            "ifName": one.ifname,
            "networkName": entry.network,
            **({"netns": one.netns} if one.netns else {}),
            **({"cniArgs": [[key, value] for key, value in one.args.items()]} if one.args else {}),
            **({"capabilityArgs": entry.capabilities} if entry.capabilities else {}),
            "result": entry.result.show(),
        }
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            number, temporary = tempfile.mkstemp(prefix=".", dir=self.folder)  # 0600
            try:
                with open(number, "w") as file:
                    json.dump(document, file)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise MachineError(f"cannot write the cache of results: {path}: {error.strerror}") from None

    def read(self, network: str, attachment: Attachment) -> Cached | None:
        """What is remembered; None when there is nothing.  Raises `InputError` for a file that nobody can read, or that is
        another attachment's: names with hyphens can meet."""
        path = self.folder / cached_name(network, attachment)
        entry = self._load(path)
        if entry is None:
            return None
        met = entry.attachment
        if (entry.network, met.container_id, met.ifname) != (network, attachment.container_id, attachment.ifname):
            raise InputError(f"{path} is that of network {entry.network}, container {met.container_id}, interface {met.ifname}")
        return entry

    def forget(self, network: str, attachment: Attachment) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.folder / cached_name(network, attachment))

    def all(self, network: str) -> Iterator[Cached]:
        """Everything remembered of a network; what cannot be read is passed over."""
        for path in sorted(self.folder.glob(f"{network}-*")):
            with suppress(InputError):
                entry = self._load(path)
                if entry is not None and entry.network == network:
                    yield entry

    def _load(self, path: Path) -> Cached | None:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", str(path)) from None
        top = documents.At(documents.parse(text, str(path)), "", str(path))
        if top.text("kind") != KIND:
            top.fail("kind", f"'{KIND}' expected")
        args = {}
        for number, pair in enumerate(top.items("cniArgs")):
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
                top.fail(f"cniArgs[{number}]", "a key and a value expected")
            args[pair[0]] = pair[1]
        capabilities = top.into("capabilityArgs", top.value.get("capabilityArgs") or {}).value
        config = top.made("config", lambda text: base64.b64decode(text, validate=True), "base64") or b""
        attachment = Attachment(top.text("containerId"), top.text("netns"), top.text("ifName"), args)
        result = Result.read(top.value.get("result") or {"cniVersion": "1.0.0"})
        return Cached(top.text("networkName"), attachment, config, result, capabilities)
