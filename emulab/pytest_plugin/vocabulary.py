"""`expect(…)`: what tests say of packets, checked as it is said.

A verb (`reaches`, `cannot_reach`) measures at once, and so does every refinement (`without_nat`, `in_hops`, …): it measures
the whole sentence so far once more, with packets of its own.  So a sentence needs no `assert`, and none can be forgotten;
the line that fails is the line that says it.  The only thing that means nothing is `expect(pod)` without a verb, and
`unspoken` finds that.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from emulab.expectation import Expectation
    from emulab.pytest_plugin.members import Selected

_open: list[Subject] = []  # those of which nothing is said yet
_Said = TypeVar("_Said", bound="_Sentence")


class ExpectationFailed(AssertionError):
    """What was expected, what was found instead, and the packet's story."""

    __module__ = "builtins"  # pytest's summary has one line, and shows a module's name before what it is about


def expect(subject: Selected) -> Subject:
    """Begin a sentence about a pod, a node, or several pods: ``expect(lab.pod("a1")).reaches("c2", tcp=80)``."""
    if not hasattr(subject, "selector"):
        raise TypeError(f"expect({subject!r}): lab.pod(…), lab.node(…) or lab.select(…) expected")
    caller = sys._getframe(1)
    return Subject(subject, f"{caller.f_code.co_filename}:{caller.f_lineno}")


def flow(tcp: int | None, udp: int | None) -> dict[str, Any]:
    """The protocol and port that are meant; ICMP if none is.  Raises `LabError` for two at once."""
    __tracebackhide__ = True
    if tcp is not None and udp is not None:
        from emulab.pytest_plugin.members import LabError

        raise LabError(f"tcp={tcp}, udp={udp}: one of them expected")
    by, port = ("tcp", tcp) if tcp is not None else ("udp", udp) if udp is not None else ("icmp", None)
    return {"protocol": by, "port": port}


class Subject:
    """Whom a sentence is about.  ``where`` is the line that began it."""

    def __init__(self, subject: Selected, where: str, within: float = 0.0) -> None:
        self.subject, self.where, self._within = subject, where, within
        _open.append(self)

    def __repr__(self) -> str:
        return f"expect({self.subject})"

    def eventually(self, seconds: float) -> Subject:
        """What follows need not hold now, but within that time: it is measured again until it does."""
        _said(self)
        return Subject(self.subject, self.where, seconds)

    def reaches(
        self,
        destination: str | Selected,
        *,
        tcp: int | None = None,
        udp: int | None = None,
        family: int | None = None,
        size: int | None = None,
    ) -> Reached:
        """Packets arrive and are answered: by TCP or UDP at that port, else ICMP; IPv4 and IPv6, where both have both.

        ``destination`` is a pod, a node, a selector (``shop/*``), ``internet``, or a Service (``svc/web``); ``size`` that of the
        IP packet in bytes.
        """
        __tracebackhide__ = True
        return self._say(Reached, destination, reaches=True, family=family, size=size, **flow(tcp, udp))

    def cannot_reach(
        self,
        destination: str | Selected,
        *,
        tcp: int | None = None,
        udp: int | None = None,
        family: int | None = None,
        size: int | None = None,
    ) -> Unreached:
        """Packets do not even arrive; arguments as of `reaches`."""
        __tracebackhide__ = True
        return self._say(Unreached, destination, reaches=False, family=family, size=size, **flow(tcp, udp))

    def _say(self, sort: type[_Said], destination: str | Selected, **said: Any) -> _Said:
        __tracebackhide__ = True
        from emulab.errors import EmulabError
        from emulab.expectation import Expectation

        _said(self)
        try:
            expected = Expectation(str(self.subject), str(destination), **said)
        except EmulabError as error:
            mistake = str(error)
        else:
            return sort(self.subject, time.monotonic() + self._within, expected)
        raise _mistaken(mistake)


class _Sentence:
    """A verb and its refinements, which hold: else there would be none.

    What can hold for one family only (a size, an address) is expected beside the rest, so that nothing else is narrowed.
    """

    def __init__(
        self, subject: Selected, deadline: float, whole: Expectation, beside: tuple[Expectation, ...] = (), before: Any = ()
    ) -> None:
        __tracebackhide__ = True
        self._subject, self._deadline, self._whole, self._beside = subject, deadline, whole, beside
        within = max(0.0, round(deadline - time.monotonic(), 3))
        expected = [one.show() for one in (whole, *beside)]
        self._outcomes = subject.lab.ask("expect", expectations=expected, within=within)["outcomes"]
        if told := subject.lab.evidence.note(self._outcomes, instead=before):
            raise ExpectationFailed(told)

    def __repr__(self) -> str:
        return "; ".join(map(str, (self._whole, *self._beside)))

    def _and(self: _Said, family: int | None = None, **said: Any) -> _Said:
        __tracebackhide__ = True
        from emulab.errors import EmulabError

        whole, beside = self._whole, self._beside
        try:
            if family is None or whole.family is not None:
                whole = replace(whole, **said)
            else:
                flow = replace(whole, family=family, nat=None, encapsulation=None, vni=None, hops=None)
                beside = (*beside, replace(flow, **said))
        except EmulabError as error:
            mistake = str(error)
        else:
            return type(self)(self._subject, self._deadline, whole, beside, self._outcomes)
        raise _mistaken(mistake)


class Reached(_Sentence):
    """Packets arrive; what else may be said of them."""

    def without_nat(self) -> Reached:
        """No address, port, or payload is rewritten, at no place, there or back."""
        __tracebackhide__ = True
        return self._and(nat=False)

    def with_nat(self) -> Reached:
        """Some address or port is rewritten."""
        __tracebackhide__ = True
        return self._and(nat=True)

    def encapsulated(self, kind: str, *, vni: int | None = None) -> Reached:
        """What crosses the underlay is in a tunnel: ``vxlan``, with this VNI if one is given.  Something has to cross it."""
        __tracebackhide__ = True
        return self._and(encapsulation=kind, vni=vni)

    def without_encapsulation(self) -> Reached:
        """What crosses the underlay is in no tunnel.  Something has to cross it."""
        __tracebackhide__ = True
        return self._and(encapsulation="none")

    def in_hops(self, routers: int) -> Reached:
        """So many routers are passed: the packet has lost as much of its TTL when it arrives."""
        __tracebackhide__ = True
        return self._and(hops=routers)

    def with_mtu(self, size: int) -> Reached:
        """The largest IP packet with DF that passes has this size in bytes: one more does not.

        Of IPv4, where pods have it, unless `reaches` names a family: tunnels of IPv6 have another MTU.
        """
        __tracebackhide__ = True
        families = {4 if "." in address else 6 for pod in self._subject.lab.pods for address in pod.addresses}
        return self._and(family=min(families, default=4), mtu=size)

    def seen_as(self, address: str) -> Reached:
        """The destination sees this source address, of its family."""
        __tracebackhide__ = True
        return self._and(family=6 if ":" in address else 4, seen_as=address)


class Unreached(_Sentence):
    """Packets do not arrive."""

    def dropped_at(self, place: str | Selected) -> Unreached:
        """Where they are seen last: a node, a pod, or an interface (``node-c:eth0``)."""
        __tracebackhide__ = True
        return self._and(dropped_at=str(place))


def _mistaken(told: str) -> Exception:
    from emulab.pytest_plugin.members import LabError

    return LabError(told)


def _said(subject: Subject) -> None:
    if subject in _open:
        _open.remove(subject)


def mark() -> int:
    """How many sentences are open now: what is opened later is asked for by `unspoken`."""
    return len(_open)


def unspoken(since: int) -> list[str]:
    """Sentences begun since `mark` of which nothing was said, as one line each; they are forgotten."""
    found = [f"{one.where}: {one!r} says nothing: .reaches(…) or .cannot_reach(…) expected" for one in _open[since:]]
    del _open[since:]
    return found
