"""`emulab capture`: packets of a pod or node, for tshark and Wireshark."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import IO, TYPE_CHECKING

import click

from emulab.cli.lab import complete_any, connect, lab_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from emulab.kernel.capture import Captured

_ENDING = signal.SIGINT, signal.SIGTERM


@click.command("capture", short_help="Capture the packets of a pod or node.")
@click.argument("target", metavar="POD|NODE[:IFACE]", shell_complete=complete_any)
@click.argument("expression", metavar="[FILTER]", nargs=-1)
@click.option("-w", "--write", "file", metavar="FILE|-", help="Write pcapng there; default: - unless that is a terminal.")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="Stop after N packets.")
@lab_option
def command(target: str, expression: tuple[str, ...], file: str | None, count: int | None, lab: str | None) -> int:
    """Capture until Ctrl-C or N packets; on a terminal a line per packet, else pcapng.  FILTER is tcpdump's language.

    Default interface: a pod's eth0, all of a node's.

    \b
    Examples:
      emulab capture a1 icmp
      emulab capture node-a:eth0 -w - udp port 8472 | tshark -r -
      emulab capture node-a | wireshark -k -i -
      emulab capture a1 -w a1.pcapng -c 10
    """
    from emulab.control import enter
    from emulab.errors import InputError
    from emulab.kernel import capture

    instructions = capture.compile_filter(" ".join(expression)) if expression else b""
    name, _, interface = target.partition(":")
    with connect(lab) as client:
        found = client.ask("enter", target=name)
        namespaces = dict(zip(found["kinds"], client.descriptors(), strict=True))
    wanted = interface or ("eth0" if found["pod"] else None)
    out = _opened(file)
    enter.join_network(namespaces)
    try:
        tap = capture.open_tap(wanted, instructions)
    except OSError as error:
        raise InputError(f"{found['name']} has no interface '{wanted}' ({error.strerror})") from None
    for number in _ENDING:  # what has been seen by then is shown, so nothing sent before is missing
        signal.signal(number, lambda *_: tap.setblocking(False))
    click.echo(f"capturing on {found['name']}:{wanted or 'all interfaces'}", err=True)
    show = _lines(found["name"]) if out is None else _pcapng(found["name"], out)
    with contextlib.suppress(BrokenPipeError):
        for taken, frame in enumerate(capture.frames(tap), 1):
            show(frame)
            if taken == count:
                break
    if out is not None:
        with contextlib.suppress(BrokenPipeError):
            out.flush()
    for number in _ENDING:  # one more, while Python ends, would end it with a signal
        signal.signal(number, signal.SIG_IGN)
    if out is sys.stdout.buffer:  # nobody may be reading any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _opened(file: str | None) -> IO[bytes] | None:
    from emulab.errors import InputError

    if file is None and sys.stdout.isatty():
        return None
    if file in (None, "-"):
        return sys.stdout.buffer
    assert file is not None
    try:
        return open(file, "wb")
    except OSError as error:
        raise InputError(f"{file}: cannot write there: {error.strerror}") from None


def _pcapng(name: str, out: IO[bytes]) -> Callable[[Captured], None]:
    from emulab.report import pcapng

    interfaces: dict[str, int] = {}
    out.write(pcapng.section_header())
    out.flush()

    def write(frame: Captured) -> None:
        if frame.interface not in interfaces:
            interfaces[frame.interface] = len(interfaces)
            out.write(pcapng.interface_description(f"{name}:{frame.interface}"))
        number = interfaces[frame.interface]
        out.write(pcapng.enhanced_packet(number, frame.time, frame.data, len(frame.data), frame.outbound))
        out.flush()

    return write


def _lines(name: str) -> Callable[[Captured], None]:
    import time

    from emulab.probe.words import summary

    def show(frame: Captured) -> None:
        seconds, rest = divmod(frame.time, 1_000_000_000)
        clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06}"
        click.echo(f"{clock}  {name}:{frame.interface} {'out' if frame.outbound else 'in '}  {summary(frame.data)}")

    return show
