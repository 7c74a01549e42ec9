"""One running lab: build it, measure it, unwind it.

A lab runs inside a sandbox (`emulab.kernel.sandbox`); when the process ends, the kernel takes all of it away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from emulab import mending, settling
from emulab.cni.result import Result
from emulab.dataplane import DataPlane
from emulab.diff import Diff, diff
from emulab.drift import RTPROT_KERNEL, Deviation, Foreign, Found, compare
from emulab.errors import EmulabError, InputError, OverloadError
from emulab.kernel import applier, nftables
from emulab.kernel.attaching import Attaching
from emulab.kernel.namespaces import Namespaces
from emulab.kernel.observe import observe
from emulab.model import SWITCHES, Cluster, Endpoint, IPAddress
from emulab.planning import Design, attached, corrected
from emulab.probe import neighbours
from emulab.probe.taps import stamped
from emulab.result import RunResult
from emulab.serving.responder import Responder
from emulab.settling import both_ends, switched_on
from emulab.state import Cni, CniAttachment, Device, KernelObject, Route, State, Veth
from emulab.verification import Probing, Verification, tunnel_ports

_ATTEMPTS = 3  # measurements on a machine that is too busy

__all__ = ["Lab", "Probing"]


@dataclass
class Lab:
    """A design and the kernel that holds it."""

    design: Design
    timings: dict[str, float] = field(default_factory=dict)
    network: Any = None

    def __post_init__(self) -> None:
        nftables.prepare()
        self._release = ExitStack()
        self.namespaces = Namespaces()
        self._release.callback(self.namespaces.close)
        self._release.enter_context(stamped())
        self.responder = Responder()
        self._release.callback(self.responder.close)
        self.attaching = Attaching(self.namespaces)
        self._release.callback(self.attaching.close)
        self._round = int(time.time()) & 0x3FFF
        self._primed: Design | None = None

    @property
    def cluster(self) -> Cluster:
        return self.design.cluster

    @property
    def plane(self) -> DataPlane:
        return self.design.plane

    @property
    def plan(self) -> State:
        """What is planned, and what CNI plugins have made of it."""
        return self.design.made

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self._release.close()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase of the run."""
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    def build(self) -> None:
        """Underlay, namespaces of the pods, data plane; returns when packets can pass."""
        with self.phase("underlay"):
            from emulab import underlay

            self.network = underlay.start(self.cluster.topology, self.namespaces)
        with self.phase("pods"):
            if attached(self.design.plan):
                self.attaching.prepare(self.design.plan)
            self.namespaces.create([endpoint.key for endpoint in self.cluster.endpoints])
            for node in self.cluster.nodes:
                self.namespaces.add_mounts(node.name)
                pods = {e.key: e.pod.netns for e in self.cluster.endpoints_on(node.name)}
                self.namespaces.name_pods(node.name, pods)
        with self.phase("data plane"):
            applier.add(self.namespaces, self.design.plan)
            if attached(self.design.plan):
                self._attach(self.design.plan, frozenset())
            self.wait_until_up({**switched_on(self.design.real), **switched_on(self.design.real, pods=True)})
        self.responder.follow(self.namespaces, self.cluster)

    def change(self, after: Design) -> Diff:
        """Bring the kernel to another design; returns what was changed.  When the kernel refuses, all is put back."""
        from emulab import underlay

        before, changes = self.design, diff(self.design.desired, after.desired)
        endpoints = {e.key: e for design in (before, after) for e in design.cluster.endpoints}
        self._check_names(changes.new, endpoints)
        plugins = attached(before.plan) or attached(after.plan)
        extra = self._extra() if plugins else frozenset()
        detached = self._detach(changes) if plugins else {}
        self._leave(changes.gone, endpoints)
        self._enter(changes.new, endpoints)
        try:
            applier.apply(self.namespaces, changes)
            self.design = after
            if plugins:
                self._attach(changes.add, extra)
        except EmulabError:
            self.design = before
            self._leave(changes.new, endpoints)
            self.namespaces.remove(changes.new)
            self._reattach(detached, changes.gone, endpoints)
            self.repair()
            self.responder.follow(self.namespaces, before.cluster)
            raise
        self._move_out(before, changes)
        after = self.design
        self.namespaces.remove(changes.gone)
        self.namespaces.give_back(self.namespaces.lent.difference(endpoint.key for endpoint in after.cluster.endpoints))
        underlay.follow(self.network, after.topology, self.namespaces)
        settling.forget_flows(self.namespaces, before, after)
        settling.relearn(self.namespaces, after, changes)
        pods = switched_on({name: after.desired[name] for name in changes.new}, pods=True)
        self.wait_until_up({**both_ends(after.desired, switched_on(changes.add)), **pods})
        self.responder.follow(self.namespaces, after.cluster)
        if SWITCHES in changes.touched:  # whoever asked for a MAC when nobody could answer would wait for seconds
            for name in self.namespaces:
                applier.forget_neighbours(self.namespaces[name], applier.UNANSWERED)
        return changes

    def _move_out(self, before: Design, changes: Diff) -> None:
        """What is lent does not vanish with what is in it; with a node's namespace its ends would, but only some time later."""
        lent = self.namespaces.lent.intersection(changes.gone)
        pairs = [one for things in before.desired.values() for one in things if isinstance(one, Veth)] if lent else []
        for pair in pairs:
            if pair.peer_namespace in lent:
                applier.remove(self.namespaces, {pair.peer_namespace: (Veth(pair.peer, pair.name, pair.peer_namespace),)})

    def _attach(self, state: State, extra: Collection[tuple[str, Found]]) -> None:
        """Let plugins attach pods, learn their addresses, and take for granted what came of it but for what was ``extra``."""
        made = self.attaching.add(state)
        try:
            after = corrected(self.design, {pod: _given(result) for pod, result in made.items()})
            applier.apply(self.namespaces, diff(self.design.desired, after.desired))
        except EmulabError:
            self.attaching.remove(state)
            raise
        for name in after.desired:
            self.namespaces[name].look()
        plain = {name: tuple(t for t in objects if not isinstance(t, Cni)) for name, objects in after.desired.items()}
        adopted: dict[str, list[KernelObject]] = {}
        observed = observe(self.namespaces, plain)
        for one in compare(plain, observed):
            if one.planned is None and one.found is not None and (one.namespace, one.found) not in extra:
                adopted.setdefault(one.namespace, []).append(cast(KernelObject, one.found))
        after = replace(after, adopted={name: tuple(things) for name, things in adopted.items()})
        missing = ((one.namespace, one.planned) for one in compare(after.real, observed) if not one.found)
        lacking = {(name, thing) for name, thing in missing if isinstance(thing, Route) and thing.protocol == RTPROT_KERNEL}
        self.design = replace(after, lacking=frozenset(lacking))

    def _extra(self) -> frozenset[tuple[str, Found]]:
        """What is there and should not be: no plugin has made it."""
        return frozenset((one.namespace, one.found) for one in self.drift() if one.found is not None)

    def _detach(self, changes: Diff) -> State:
        """Let plugins detach the pods that leave nodes that stay; returns those."""
        leaving: dict[str, tuple[KernelObject, ...]] = {}
        for state in (changes.first, changes.remove):
            for name, objects in state.items():
                if name not in changes.gone:
                    leaving[name] = (*leaving.get(name, ()), *(t for t in objects if isinstance(t, CniAttachment)))
        try:
            self.attaching.remove(leaving)
        except EmulabError:
            self._reattach(leaving, (), {})
            raise
        return leaving

    def _reattach(self, state: State, gone: Collection[str], endpoints: Mapping[str, Endpoint]) -> None:
        """Undo `_detach`."""
        if not any(state.values()):
            return
        for name in gone:
            if name in endpoints and endpoints[name].node not in gone:
                self.namespaces.name_pods(endpoints[name].node, {name: endpoints[name].pod.netns})
        self._attach(state, self._extra())

    def drift(self, only: Collection[str] | None = None) -> list[Deviation]:
        """What of the lab, or of the namespaces ``only``, is not as planned: altered by hand, or broken on purpose."""
        real, lacking, lent = self.design.real, self.design.lacking, self.namespaces.lent
        compared = compare(real, observe(self.namespaces, real, only), only)
        found = [one for one in compared if (one.namespace, one.planned) not in lacking]
        return [one for one in found if one.planned or one.namespace not in lent]  # what else is there is its owner's business

    def repair(self, names: Collection[str] | None = None) -> list[Deviation]:
        """Put back what is not as planned, everywhere or in the namespaces ``names``; returns what it was."""
        mended: list[Deviation] = []
        where: Collection[str] | None = None
        for _ in range(5):  # what hung on a device that had to be made anew shows only then
            deviations = mending.of(self.drift(where), names)
            if not deviations:
                break
            deviations = [d for d in deviations if d.found and isinstance(d.planned, Device)] or deviations
            changes = mending.mend(self.design.real, deviations)
            touched = {*changes.touched, *(d.namespace for d in deviations)}
            # All but devices, and what no plan has an object for, is of its own namespace alone.
            where = None if any(isinstance(d.planned or d.found, (*Device, Foreign)) for d in deviations) else touched
            for name in touched:
                self.namespaces[name].look()
            applier.apply(self.namespaces, changes)
            settling.relearn(self.namespaces, self.design, changes)
            mended += [deviation for deviation in deviations if deviation not in mended]
        if mended:  # who was asked while things were wrong may have given a wrong answer
            for name in self.design.desired:
                applier.forget_neighbours(self.namespaces[name])
            self.wait_until_up()
        return mended

    def _check_names(self, new: Collection[str], endpoints: Mapping[str, Endpoint]) -> None:
        """Somebody may have typed `ip netns add` on a node."""
        for node in {endpoints[name].node for name in new if name in endpoints}.intersection(self.namespaces):
            taken = self.namespaces.names_on(node)
            for name in new:
                if name in endpoints and endpoints[name].node == node and endpoints[name].pod.netns in taken:
                    there = endpoints[name].pod.netns
                    raise InputError(f"{node} has a network namespace '{there}' that is no pod's, where {name} would be")

    def _enter(self, new: Collection[str], endpoints: Mapping[str, Endpoint]) -> None:
        """Make the namespaces that are to come, and give them their names."""
        self.namespaces.create(list(new))
        for name in new:
            if name not in endpoints:
                self.namespaces.add_mounts(name)
        for name in new:
            if name in endpoints:
                self.namespaces.name_pods(endpoints[name].node, {name: endpoints[name].pod.netns})

    def _leave(self, gone: Collection[str], endpoints: Mapping[str, Endpoint]) -> None:
        """Stop what runs in the namespaces that are to go, and take their names away."""
        if gone:
            self.namespaces.kill(gone)
            self.responder.leave(gone)
            self.attaching.leave(gone)
        for name in gone:
            if name in endpoints and endpoints[name].node not in gone:
                self.namespaces.unname_pods(endpoints[name].node, [endpoints[name].pod.netns])

    def wait_until_up(self, devices: Mapping[str, Collection[str]] | None = None) -> None:
        """Until those interfaces of each namespace (default: all) have their carrier."""
        settling.wait_until_up(self.namespaces, self.design, switched_on(self.design.desired) if devices is None else devices)

    @property
    def tunnel_ports(self) -> frozenset[int]:
        return tunnel_ports(self.design)

    def next_round(self) -> int:
        """The number of the round of probing that begins: what an earlier one sent is not taken for its packets."""
        self._round += 1
        return self._round

    def prime(self) -> None:
        """Once per design, before anything is probed: see `emulab.probe.neighbours`."""
        if self._primed is not self.design:
            neighbours.prime(self.namespaces, self.design.present, self.plan)
            self._primed = self.design

    def verify(
        self,
        probing: Probing,
        on_progress: Callable[[int, int], None] | None = None,
        on_frame: Callable[[Any], None] | None = None,
    ) -> RunResult:
        """Probe and judge.

        ``on_progress`` is told (flows done, flows in all), ``on_frame`` gets every `emulab.probe.taps.Frame`.
        """
        self.prime()
        for attempt in range(1, _ATTEMPTS + 1):
            verification = Verification(self.namespaces, self.design, probing, self.next_round(), on_progress, on_frame)
            try:
                result = verification.run()
                break
            except OverloadError:  # a busy moment says nothing of the lab
                if attempt == _ATTEMPTS:
                    raise
        for name in ("probe", "udp mesh"):  # of the last time
            self.timings.pop(name, None)
        self.timings.update(verification.timings)
        result.timings = self.timings
        return result


def _given(result: Result) -> tuple[tuple[IPAddress, ...], str]:
    """A pod's addresses, and the MAC of its interface."""
    inside = [one for one in result.interfaces if one.sandbox]
    return tuple(one.address.ip for one in result.ips), inside[0].mac if inside else ""
