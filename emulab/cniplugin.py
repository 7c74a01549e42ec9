"""`emulab-cni`: a CNI plugin that attaches containers, or any network namespace, to a node of a running lab.

A real runtime calls it as it calls `bridge` or `ptp`; its configuration names the lab and the node::

    {"cniVersion": "1.1.0", "name": "emulated", "type": "emulab", "lab": "flat-calico", "node": "node-a"}

The work is the lab's (`emulab.control.operations.attaching`): this end reads the configuration, opens the namespace and hands it
over.  Little is imported here, since a runtime waits for every ADD.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from emulab.cni import documents, versions
from emulab.cni.attachment import Attachment, checked_name
from emulab.cni.documents import At
from emulab.cni.errors import CniError, Code
from emulab.cni.result import Dns, Interface, Ip, Result, Route
from emulab.control import places
from emulab.control.client import Client
from emulab.control.places import Place
from emulab.errors import EmulabError, InputError, MachineError, nearest

KEYS = ("lab", "node", "namespace", "labels", "ips")  # of the configuration: ours
_LONGEST = 1 << 20  # bytes of a configuration
_NS_GET_NSTYPE, _CLONE_NEWNET = 0xB703, 0x40000000  # ioctl_ns(2)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")  # RFC 1123
_LONG_ID = re.compile(r"[0-9a-f]{64}\Z")  # of Docker, Podman, containerd, which show its first 12 digits


class Request(NamedTuple):
    """What a runtime asks.  ``attachment`` is None for GC and STATUS."""

    conf: At
    version: str
    network: str
    node: str
    place: Callable[[], Place]
    attachment: Attachment | None

    def ask(self, do: str, *descriptors: int, **arguments: Any) -> Any:
        """Have the lab do something, with ``descriptors`` beside."""
        with Client(self.place()) as client:
            client.hand(*descriptors)
            return client.ask(do, **arguments)

    def who(self) -> dict[str, str]:
        assert self.attachment is not None
        return {"network": self.network, "container": self.attachment.container_id, "interface": self.attachment.ifname}


def main() -> int:
    """The executable: parameters in CNI_* variables, the configuration on stdin; a result, or an error, on stdout."""
    try:
        code, answer = answered(os.environ, sys.stdin.buffer.read(_LONGEST + 1))
    except KeyboardInterrupt:
        return 130
    if answer is not None:
        json.dump(answer, sys.stdout, indent=2)
        print()
    return code


def answered(environment: Mapping[str, str], data: bytes) -> tuple[int, Mapping[str, Any] | None]:
    """Exit code and answer to one call."""
    version = versions.ALL[-1]
    try:
        command = _command(environment)
        conf = _configuration(data)
        version = _version(conf, command)
        if command == "VERSION":
            return 0, {"cniVersion": version, "supportedVersions": list(versions.ALL)}
        return 0, _COMMANDS[command][0](_request(conf, version, command, environment))
    except CniError as error:
        found = error
    except EmulabError as error:
        found = CniError(_code(error), str(error))
    except OSError as error:
        found = CniError(Code.IO_FAILURE, f"{error.filename or ''} {error.strerror or error}".strip())
    except Exception as error:
        found = CniError(Code.INTERNAL, f"this is a mistake in emulab: {type(error).__name__}: {error}")
    return 1, found.show(version)


def _code(error: EmulabError) -> Code:
    """The lab's own errors, by the exit codes of the command line."""
    if isinstance(error, MachineError):
        return Code.NOT_AVAILABLE  # it is the connection that failed: the lab is gone
    return Code.INVALID_CONFIG if error.exit_code == InputError.exit_code else Code.INTERNAL


# what is asked


def _command(environment: Mapping[str, str]) -> str:
    command = environment.get("CNI_COMMAND", "")
    if command != "VERSION" and command not in _COMMANDS:
        what = f"CNI_COMMAND={command[:40]!r} is unknown" if command else "CNI_COMMAND is missing"
        raise CniError(Code.INVALID_ENVIRONMENT, f"{what}: VERSION, {', '.join(_COMMANDS)} expected")
    return command


def _configuration(data: bytes) -> At:
    if len(data) > _LONGEST:
        raise CniError(Code.DECODING_FAILURE, f"a configuration on stdin has at most {_LONGEST >> 20} MiB")
    try:
        return At(documents.parse(data))
    except InputError as error:
        raise CniError(Code.DECODING_FAILURE, f"the configuration on stdin: {error}") from None


def _version(conf: At, command: str) -> str:
    version = conf.text("cniVersion") or (versions.ALL[-1] if command == "VERSION" else versions.OLDEST)
    if command == "VERSION":  # whoever asks may be newer than we are
        return version if version in versions.ALL else versions.ALL[-1]
    since = _COMMANDS[command][1]
    if version not in versions.ALL:
        told = f"{versions.ALL[0]} to {versions.ALL[-1]} are spoken here, not {version[:40]}"
        raise CniError(Code.INCOMPATIBLE_VERSION, told)
    if not versions.at_least(version, since):
        raise CniError(Code.INCOMPATIBLE_VERSION, f"{command} is of version {since}, the configuration of {version}")
    return version


def _request(conf: At, version: str, command: str, environment: Mapping[str, str]) -> Request:
    attachment = _attachment(command, environment) if command in ("ADD", "DEL", "CHECK") else None
    if not conf.text("name"):
        conf.fail("name", "the network's name expected")
    network = checked_name("network", conf.text("name"))
    for key in ("lab", "node"):
        if not conf.text(key):
            close = nearest(key, [other for other in conf.value if other not in ("name", "type", *KEYS)])
            conf.fail(key, f"the name of a running {key} expected" + (close if "mean" in close else ""))
    return Request(conf, version, network, conf.text("node"), lambda: _place(conf.text("lab")), attachment)


def _attachment(command: str, environment: Mapping[str, str]) -> Attachment:
    for name in ("CNI_CONTAINERID", "CNI_IFNAME", *(() if command == "DEL" else ("CNI_NETNS",))):
        if not environment.get(name):
            raise CniError(Code.INVALID_ENVIRONMENT, f"{name} is missing")
    args = {}
    for pair in filter(None, environment.get("CNI_ARGS", "").split(";")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS: KEY=VALUE expected, got {pair[:60]!r}")
        args[key] = value
    try:
        return Attachment(environment["CNI_CONTAINERID"], environment.get("CNI_NETNS", ""), environment["CNI_IFNAME"], args)
    except InputError as error:
        raise CniError(Code.INVALID_ENVIRONMENT, str(error)) from None


def _place(lab: str) -> Place:
    """A lab of this user by its name, or by its folder."""
    if lab.startswith("/"):
        place = Place(Path(lab))
        if not place.socket.exists():
            raise CniError(Code.NOT_AVAILABLE, f"no lab is up in {lab}")
        if place.folder.stat().st_uid != os.geteuid():
            raise CniError(Code.INVALID_CONFIG, f"{lab} is the lab of another user")
        return place
    if "/" in lab:
        raise CniError(Code.INVALID_CONFIG, f"lab {lab}: the name of a lab of one's own expected, or the path of its folder")
    try:
        return places.find(lab)
    except InputError as error:
        raise CniError(Code.NOT_AVAILABLE, str(error)) from None


# what is done


def _add(request: Request) -> Mapping[str, Any]:
    one, conf = request.attachment, request.conf
    assert one is not None
    if "prevResult" in conf.value:
        conf.fail("prevResult", "emulab makes a container's interface: it is the first plugin of a list")
    extra = conf.into("runtimeConfig", conf.value.get("runtimeConfig") or {})
    for name in extra.value:
        if name not in ("ips", "bandwidth", "dns"):
            message = f"runtimeConfig.{name}: the capability '{name}' is none of ours: ips, bandwidth and dns are"
            raise CniError(Code.UNSUPPORTED_FIELD, message)
    with _namespace(one.netns) as net:
        told = request.ask(
            "cni_add",
            net,
            **request.who(),
            sandbox=one.netns,
            node=request.node,
            name=_pod_name(one, conf),
            addresses=_addresses(one, conf, extra),
            labels=_labels(conf),
            rates=_rates(extra),
        )
    return _shown(told, one, extra).show(request.version)


def _delete(request: Request) -> None:
    try:
        request.ask("cni_del", **request.who())
    except (MachineError, CniError) as error:
        if isinstance(error, CniError) and error.code != Code.NOT_AVAILABLE:
            raise
        # The lab is gone, and with it whatever it had in the container.


def _check(request: Request) -> None:
    one = request.attachment
    assert one is not None
    previous = request.conf.value.get("prevResult")
    ips = Result.read(previous, request.version).ips if previous is not None else ()
    with _namespace(one.netns) as net:
        request.ask("cni_check", net, **request.who(), addresses=[str(ip.address.ip) for ip in ips])


def _collect(request: Request) -> None:
    valid = [
        {"containerID": at.text("containerID"), "ifname": at.text("ifname")}
        for at in request.conf.objects("cni.dev/valid-attachments")
    ]
    try:
        request.ask("cni_gc", network=request.network, node=request.node, valid=valid)
    except (MachineError, CniError) as error:
        if isinstance(error, CniError) and error.code != Code.NOT_AVAILABLE:
            raise


def _status(request: Request) -> None:
    request.ask("cni_status", node=request.node)


_COMMANDS: dict[str, tuple[Callable[[Request], Mapping[str, Any] | None], str]] = {  # and since which version there is each
    "ADD": (_add, "0.1.0"),
    "DEL": (_delete, "0.1.0"),
    "CHECK": (_check, "0.4.0"),
    "GC": (_collect, "1.1.0"),
    "STATUS": (_status, "1.1.0"),
}


@contextmanager
def _namespace(path: str) -> Iterator[int]:
    """A descriptor of the network namespace at ``path``."""
    try:
        net = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CniError(Code.INVALID_NETNS, f"CNI_NETNS={path}: {error.strerror}") from None
    try:
        try:
            kind = fcntl.ioctl(net, _NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != _CLONE_NEWNET:
            raise CniError(Code.INVALID_NETNS, f"CNI_NETNS={path}: no network namespace")
        if os.path.samestat(os.fstat(net), os.stat("/proc/self/ns/net")):
            raise CniError(Code.INVALID_NETNS, f"CNI_NETNS={path}: this is the host's own network namespace")
        yield net
    finally:
        os.close(net)


# what the pod is


def _pod_name(one: Attachment, conf: At) -> str:
    """As Kubernetes calls it, else after the container's id."""
    namespace = one.args.get("K8S_POD_NAMESPACE") or conf.text("namespace") or "default"
    return f"{namespace}/{one.args.get('K8S_POD_NAME') or _short(one.container_id)}"


def _short(container: str) -> str:
    if _LONG_ID.match(container):
        return container[:12]
    if _LABEL.match(container):
        return container
    import hashlib

    plain = re.sub(r"[^a-z0-9]+", "-", container.lower()).strip("-")[:50].rstrip("-")
    return f"{plain or 'container'}-{hashlib.sha256(container.encode()).hexdigest()[:6]}"


def _addresses(one: Attachment, conf: At, extra: At) -> list[str]:
    """The fixed ones: the first of the places that say any, the more particular ones first."""
    if one.args.get("MAC") and one.args.get("IgnoreUnknown", "").lower() not in ("1", "true"):
        raise CniError(Code.INVALID_ENVIRONMENT, "CNI_ARGS: MAC: the data plane decides on it")
    ours = conf.into("args", conf.value.get("args") or {})
    told = ours.into("cni", ours.value.get("cni") or {})
    by_args = tuple(filter(None, one.args.get("IP", "").split(",")))
    for where, found in (("runtimeConfig", extra.texts("ips")), ("CNI_ARGS: IP", by_args), ("args.cni", told.texts("ips")),
                         ("the configuration", conf.texts("ips"))):  # fmt: skip
        if found:
            try:
                return [str(ip_interface(text).ip) for text in found]
            except ValueError as error:
                raise CniError(Code.INVALID_CONFIG, f"{where}: {error}") from None
    return []


def _labels(conf: At) -> dict[str, str]:
    """Those of the configuration, and those of `args.cni.labels`, a list of key and value (CONVENTIONS.md)."""
    fixed = conf.into("labels", conf.value.get("labels") or {})
    ours = conf.into("args", conf.value.get("args") or {})
    told = ours.into("cni", ours.value.get("cni") or {}).objects("labels")
    return {**{key: fixed.text(key) for key in fixed.value}, **{one.text("key"): one.text("value") for one in told}}


def _rates(extra: At) -> list[int]:
    limits = extra.into("bandwidth", extra.value.get("bandwidth") or {})
    return [limits.number(key, most=2**63 - 1) or 0 for key in ("ingressRate", "egressRate")]


def _shown(told: Mapping[str, Any], one: Attachment, extra: At) -> Result:
    """The node's end of the pair is no interface of this host, so the result does not name it."""
    interface = Interface(one.ifname, told["mac"], one.netns, told["mtu"])
    ips = [Ip(ip_interface(a["address"]), ip_address(a["gateway"]) if a["gateway"] else None, 0) for a in told["addresses"]]
    routes = [Route(ip_network(r["dst"]), ip_address(r["gw"]) if r["gw"] else None) for r in told["routes"]]
    wanted = extra.into("dns", extra.value.get("dns") or {})
    found = told["dns"]
    dns = Dns(
        wanted.texts("servers") or tuple(found.get("nameserver", ())),
        "",
        wanted.texts("searches") or tuple(found.get("search", ()) if found.get("nameserver") else ()),
        wanted.texts("options") or tuple(found.get("options", ()) if found.get("nameserver") else ()),
    )
    return Result((interface,), tuple(ips), tuple(routes), dns)
