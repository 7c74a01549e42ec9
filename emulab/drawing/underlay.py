"""The underlay: the segments' bars with their ports below each row, and below all the gateway and the host outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emulab.drawing.nouns import Device, Host, Segment
from emulab.drawing.shapes import LINE, Box, Line, Text, clipped, stacked, width, wrapped
from emulab.drawing.sheet import LANE, MARGIN, SIZE, Cell, Sheet, level, rounded
from emulab.model import GATEWAY, OUTSIDE_HOST, SWITCHES

_BETWEEN = 14  # from one bar to the next
_BESIDE = 46  # from the gateway to the host outside


def segments(sheet: Sheet, row: Sequence[Cell], y: float) -> float:
    """Draw the bars of a row, in the last one also those of segments whose nodes are all above; returns where they end."""
    last = sheet.last(row)
    levels: list[list[tuple[float, float]]] = []
    tall = 46 if last else 24
    attached = [(segment, sheet.attached(row, segment)) for segment in sheet.drawing.segments]
    bars: list[tuple[Segment, list[Cell], Box]] = []
    for segment, cells in sorted(attached, key=lambda found: not found[1]):
        spine = segment.name in sheet.spines
        if not cells and not (last and (spine or not any(sheet.attached(other, segment) for other in sheet.rows))):
            continue
        left = min((cell.x for cell in cells), default=sheet.left)
        right = max((cell.right for cell in cells), default=sheet.left + _bare(segment))
        if len(attached) == 1:
            left, right = sheet.left, sheet.right
        reach = MARGIN + LANE * sheet.spines.index(segment.name) + 4 if spine else left
        top = y + level(levels, reach - 4, right + 4) * (tall + _BETWEEN)
        bars.append((segment, cells, Box("segment", left, top, right - left, tall)))
        if spine:
            middle = top + tall / 2
            sheet.lines.append(Line("wire", ((reach, middle), (left, middle))))
            sheet.joints.setdefault(f"segment {segment.name}", []).append((reach, middle))
    taken: list[tuple[float, float]] = []
    for segment, cells, bar in sorted(bars, key=lambda found: -found[2].y):
        end = _bar(sheet, segment, cells, bar, last)
        if last:
            taken.append(_way_out(sheet, segment, bar, end, taken))
            taken.append((bar.x, bar.right))
    return y + len(levels) * (tall + _BETWEEN) - _BETWEEN if levels else y


def _bare(segment: Segment) -> float:
    """How wide the bar of a segment has to be that has no nodes there."""
    words = "  ".join([segment.name, *segment.subnets, f"MTU {segment.mtu}"])
    return min(width(words, SIZE), 300) + sum(width(port.name, SIZE) for port in segment.ports[-1:]) + 80


def _bar(sheet: Sheet, segment: Segment, cells: Sequence[Cell], bar: Box, last: bool) -> float:
    """A segment's bar with the nodes' ports at its upper edge; returns where its name ends."""
    room = bar.width - 20 - max((width(port.name, SIZE) + 18 for port in segment.ports if _to_gateway(port)), default=0)
    if not last:  # beside the first port
        lefts = (_port_left(wire.port.name, wire.x, cell) for cell in cells for wire in sheet.wires(cell, segment))
        room = min(lefts) - 16 - bar.x
    words = wrapped([segment.name, *segment.subnets, f"MTU {segment.mtu}"], room, SIZE)[0]
    text = Text(words, bar.x + 10, bar.bottom - 9, SIZE, "start", "strong")
    place = f"{SWITCHES}:{segment.bridge}"
    tip = "\n".join([place, *segment.subnets, f"MTU {segment.mtu}"])
    sheet.put(replace(bar, texts=(text,), place=place, tip=tip))
    sheet.places.setdefault(SWITCHES, sheet.places[place])
    for cell in cells:
        _ports(sheet, segment, cell, bar.y)
    return text.bounds[2]


def _to_gateway(port: Device) -> bool:
    return port.peer.startswith(f"{GATEWAY}:")


def _way_out(sheet: Sheet, segment: Segment, bar: Box, start: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Draw the gateway's port in a bar, where the way down meets no other bar, if possible; returns what the way takes."""
    port = next((port for port in segment.ports if _to_gateway(port)), None)
    if port is None:
        return bar.x, bar.x
    half = width(port.name, SIZE) / 2 + 5
    least, most = start + 8 + half, bar.right - 6 - half
    wanted = max(bar.centre[0], least)
    spots = sorted((least + 4 * step for step in range(int(max(most - least, 0) / 4) + 1)), key=lambda x: abs(x - wanted))
    free = (x for x in spots if all(x < left - 6 or x > right + 6 for left, right in taken))
    alone = (x for x in spots if all(abs(x - left) > 6 for left, right in taken if left == right))
    x = next(free, next(alone, min(wanted, most)))
    _port(sheet, segment, port, port.name, x - half, bar.bottom - 18)
    return x, x


def _port_left(words: str, x: float, cell: Cell) -> float:
    """Where the box of a port begins: below its wire, and below its cell."""
    wide = width(words, SIZE) + 10
    return max(min(x - wide / 2, cell.right - wide - 4), cell.x + 2)


def _ports(sheet: Sheet, segment: Segment, cell: Cell, top: float) -> None:
    wires = list(sheet.wires(cell, segment))
    if len(cell.nodes) > 1:
        words = f"{len(wires)} ports"
        wide = width(words, SIZE) + 10
        box = Box("port", cell.middle - wide / 2, top + 4, wide, 14, (Text(words, cell.middle, top + 14, SIZE),), tip=words)
        sheet.put(box)
        sheet.places.update((segment.place(wire.port), rounded(*box.centre)) for wire in wires)
        sheet.lines.append(Line("wire", ((cell.middle, cell.bottom), (cell.middle, top + 4))))
        return
    for wire in wires:
        port = wire.port
        room = (wire.uplink and cell.inside.places[port.peer].width) or cell.inside.width
        words = clipped(port.name, room - 8, SIZE)
        _port(sheet, segment, port, words, _port_left(words, wire.x, cell), top + 4)
        tip, state = f"{port.peer} – {segment.place(port)}", "" if port.up else "down"
        sheet.lines.append(Line("wire", ((wire.x, wire.top), (wire.x, top + 4)), tip, state))
        if not port.up:
            x, y = wire.x, (cell.bottom + top) / 2
            sheet.lines.append(Line("cross", ((x - 5, y - 5), (x + 5, y + 5))))
            sheet.lines.append(Line("cross", ((x - 5, y + 5), (x + 5, y - 5))))


def _port(sheet: Sheet, segment: Segment, port: Device, words: str, x: float, y: float) -> None:
    place, wide = segment.place(port), width(words, SIZE) + 10
    tip = "\n".join([f"{place} (port of {port.bridge})", f"MTU {port.mtu}", *([] if port.up else ["down"])])
    text = Text(words, x + wide / 2, y + 10, SIZE)
    sheet.put(Box("port", x, y, wide, 14, (text,), place, tip=tip, state="" if port.up else "down"))


def hosts(sheet: Sheet, y: float) -> float:
    """Draw the gateway below the segments, and beside it the host outside; returns where they end."""
    found = {host.name: host for host in sheet.drawing.hosts}
    gateway, outside = found.get(GATEWAY), found.get(OUTSIDE_HOST)
    if gateway is None:
        return y
    legs = [device for device in gateway.devices if device.peer in sheet.places]
    out = [device for device in gateway.devices if device not in legs]
    wide = _host_width((*legs, *out))
    total = wide + (_BESIDE + _host_width(outside.devices) if outside else 0)
    ports = [sheet.places[device.peer][0] for device in legs]
    centre = sum(ports) / len(ports) if ports else (sheet.left + sheet.right) / 2
    x = max(min(centre - _host_width(legs) / 2, sheet.right - total), MARGIN)
    sheet.right = max(sheet.right, x + total)
    top = y + 14 + 8 * len(legs)
    bottom = _host(sheet, gateway, (*legs, *out), x, top, wide)
    for number, device in enumerate(legs):
        (start, above), (end, _) = sheet.places[device.peer], sheet.places[gateway.place(device)]
        bend = y + 6 + 8 * number
        straight, bent = (start, top + 8), ((start, bend), (end, bend), (end, top + 8))
        points = (straight,) if abs(start - end) <= 2 else bent
        sheet.lines.append(Line("wire", ((start, above + 7), *points), f"{device.peer} – {gateway.place(device)}"))
    if outside:
        bottom = max(bottom, _host(sheet, outside, outside.devices, x + wide + _BESIDE, top, total - wide - _BESIDE))
        for device in out:
            if device.peer in sheet.places:
                sheet.lines.append(Line("wire", (sheet.places[gateway.place(device)], sheet.places[device.peer])))
    return bottom


def _host_width(devices: Sequence[Device]) -> float:
    return sum(_leg_width(device) + 8 for device in devices) + 8


def _leg_width(device: Device) -> float:
    return min(max(64, *(width(word, SIZE) + 12 for word in (device.name, *device.addresses))), 170)


def _host(sheet: Sheet, host: Host, devices: Sequence[Device], x: float, y: float, wide: float) -> float:
    tall = 40 + SIZE * LINE * max((1 + len(device.addresses) for device in host.devices), default=1)
    name = Text(host.name, x + wide / 2, y + tall - 9, 12, kind="name")
    box = Box("router" if host.name == GATEWAY else "outside", x, y, wide, tall, (name,), "", host.name, "", host.name)
    sheet.put(box)
    sheet.places[host.name] = rounded(*box.centre)
    at = x + 8
    for device in devices:
        room = _leg_width(device)
        addresses = [clipped(address, room - 8, SIZE - 1) for address in device.addresses]
        texts = (
            *stacked([device.name], at + room / 2, y + 11, SIZE),
            *stacked(addresses, at + room / 2, y + 11 + SIZE * LINE, SIZE - 1),
        )
        tip = "\n".join([host.place(device), *device.addresses, f"MTU {device.mtu}"])
        sheet.put(Box("leg", at, y + 8, room, tall - 34, texts, host.place(device), host.name, "", tip))
        at += room + 8
    return y + tall
