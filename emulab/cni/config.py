"""Network configurations (section 1), and the request that each plugin gets on its stdin (section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from emulab.cni import versions
from emulab.cni.attachment import Attachment, checked_name
from emulab.cni.documents import At, parse
from emulab.cni.result import Result
from emulab.errors import InputError

_RESERVED = ("runtimeConfig", "prevResult")  # the runtime writes them, and every key that begins as this:
_RESERVED_PREFIX = "cni.dev/"


@dataclass(frozen=True)
class PluginConf:
    """One plugin of a list.  ``raw`` is its object as it was written."""

    type: str
    capabilities: frozenset[str]
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class NetworkList:
    """A network.  ``versions`` are `cniVersion` and `cniVersions` together; ``raw`` is the list as it was written."""

    name: str
    cni_version: str
    versions: tuple[str, ...]
    disable_check: bool
    disable_gc: bool
    plugins: tuple[PluginConf, ...]
    raw: Mapping[str, Any]

    def show(self) -> dict[str, Any]:
        """A list that says all of it, plugins from elsewhere included."""
        if "plugins" not in self.raw:
            return dict(self.raw)
        return {**self.raw, "loadOnlyInlinedPlugins": True, "plugins": [dict(plugin.raw) for plugin in self.plugins]}

    def types(self) -> tuple[str, ...]:
        """The plugins that are named, delegates of address management included, each once."""
        named = []
        for plugin in self.plugins:
            ipam = plugin.raw.get("ipam")
            named += [plugin.type, ipam.get("type", "") if isinstance(ipam, Mapping) else ""]
        return tuple(dict.fromkeys(filter(None, named)))


def read(text: str | bytes, file: str | None = None, more: Iterable[tuple[str, str | bytes]] = ()) -> NetworkList:
    """A `.conflist`, or a `.conf`/`.json` of a single plugin, which becomes a list of one.

    ``more`` are (file, text) of plugins that stand beside a list in a folder named as the network; they come last, unless the
    list says `loadOnlyInlinedPlugins`.  Raises `InputError` with file, and line or key.
    """
    document = At(parse(text, file), "", file)
    if "plugins" not in document.value and "type" in document.value:
        return _network(document, [document])
    plugins = document.objects("plugins")
    if not document.flag("loadOnlyInlinedPlugins"):
        plugins += [At(parse(inner, name), "", name) for name, inner in more]
    return _network(document, plugins)


def _network(document: At, plugins: Sequence[At]) -> NetworkList:
    if not document.text("name"):
        document.fail("name", "the network's name expected")
    try:
        name = checked_name("network", document.text("name"))
        first = document.text("cniVersion") or versions.OLDEST
        spoken = tuple(dict.fromkeys((first, *document.texts("cniVersions"))))
        for version in spoken:
            versions.key(version)
    except InputError as error:
        document.fail("", str(error).removeprefix(f"{document.file}: "))
    if "cniVersion" not in document.value and len(spoken) > 1:
        spoken = spoken[1:]
        first = max(spoken, key=versions.key)
    if not plugins:
        document.fail("plugins", "at least one plugin expected")
    return NetworkList(
        name,
        first,
        spoken,
        document.flag("disableCheck"),
        document.flag("disableGC"),
        tuple(map(_plugin, plugins)),
        MappingProxyType(dict(document.value)),
    )


def _plugin(document: At) -> PluginConf:
    kind = document.text("type")
    if not kind:
        document.fail("type", "the name of a plugin's executable expected")
    if kind in (".", "..") or "/" in kind or not kind.isprintable() or len(kind.encode(errors="replace")) > 255:
        document.fail("type", f"the name of an executable expected, without a path, got {kind[:60]!r}")
    for key in document.value:
        if key in _RESERVED or key.startswith(_RESERVED_PREFIX):
            document.fail(key, "the runtime writes this, a configuration must not")
    declared = At(document.value.get("capabilities") or {}, f"{document.where}.capabilities".lstrip("."), document.file)
    wanted = frozenset(name for name in declared.value if declared.flag(name))
    if document.value.get("ipam") is not None:
        document.into("ipam", document.value["ipam"]).text("type")
    return PluginConf(kind, wanted, MappingProxyType(dict(document.value)))


def negotiated(network: NetworkList, *speakers: Iterable[str]) -> str:
    """The version to speak: the highest of the configuration's that this runtime and all ``speakers`` know.

    Raises `InputError` when there is none.
    """
    chosen = versions.highest(network.versions, versions.ALL, *speakers)
    if chosen is None:
        known = versions.highest(network.versions, versions.ALL)
        side = f"its plugins do not all speak any of {', '.join(network.versions)}" if known else (
            f"it is of version {', '.join(network.versions)}, and this runtime speaks {versions.ALL[0]} to {versions.ALL[-1]}"
        )  # fmt: skip
        raise InputError(f"network {network.name}: {side}")
    return chosen


def request(
    network: NetworkList,
    plugin: PluginConf,
    *,
    version: str | None = None,
    runtime_config: Mapping[str, Any] | None = None,
    prev_result: Result | None = None,
    attachments: Iterable[Attachment] | None = None,
) -> dict[str, Any]:
    """What a plugin gets on its stdin.

    ``runtime_config`` are the arguments of all capabilities: a plugin gets those that it declared.  ``attachments`` are those
    that GC shall spare.  ``version``: what was negotiated, the highest that the list allows by default.
    """
    spoken = version or negotiated(network)
    derived = {key: value for key, value in plugin.raw.items() if key not in ("capabilities", "cniVersions")}
    derived |= {"cniVersion": spoken, "name": network.name}
    wanted = {key: value for key, value in (runtime_config or {}).items() if key in plugin.capabilities}
    if wanted:
        derived["runtimeConfig"] = wanted
    if prev_result is not None:
        derived["prevResult"] = prev_result.show(spoken)
    if attachments is not None:
        derived["cni.dev/valid-attachments"] = [
            {"containerID": one.container_id, "ifname": one.ifname} for one in attachments
        ]  # fmt: skip
    return derived
