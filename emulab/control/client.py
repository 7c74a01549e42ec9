"""A client's end of the socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from emulab.control.places import Place
from emulab.control.protocol import LONGEST, Channel, ProtocolError
from emulab.errors import EmulabError, MachineError

if TYPE_CHECKING:
    from emulab.control.live import LiveLab


class Refused(EmulabError):
    """The lab's own words, with the exit code that it gave them."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _refusal(message: dict[str, Any]) -> EmulabError:
    if "cni" in message:
        from emulab.cni.errors import CniError

        if error := CniError.read(message["cni"]):
            return error
    return Refused(message["error"], message["exit_code"])


class Here:
    """The same for a lab in this process."""

    def __init__(self, live: LiveLab) -> None:
        self._live = live
        self._descriptors: list[int] = []
        self._handed: Sequence[int] = ()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        """It stays."""

    def ask(self, do: str, on_event: Callable[[dict[str, Any]], None] | None = None, **arguments: Any) -> Any:
        """Carry out an operation."""
        from emulab.control.operations import perform

        handed, self._handed = self._handed, ()
        answer = perform(self._live, {"do": do, **arguments}, on_event or (lambda _: None), handed)
        self._descriptors += answer.descriptors
        return answer.result

    def hand(self, *descriptors: int) -> None:
        """These go along with the next request."""
        self._handed = descriptors

    def descriptors(self) -> list[int]:
        """Take what came beside the last answer."""
        taken, self._descriptors = self._descriptors, []
        return taken


class Client:
    """A connection to one lab.  Raises `MachineError` when the lab is gone."""

    def __init__(self, place: Place) -> None:
        self.place = place
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(place.socket))
        except OSError as error:
            connection.close()
            raise MachineError(f"lab '{place.name}' does not answer: {error.strerror}") from None
        self._channel = Channel(connection)
        self._handed: Sequence[int] = ()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def ask(self, do: str, on_event: Callable[[dict[str, Any]], None] | None = None, **arguments: Any) -> Any:
        """Have an operation carried out; returns its result, raises its error."""
        try:
            handed, self._handed = self._handed, ()
            self._channel.send({"do": do, **arguments}, handed, most=LONGEST)
            while (message := self._channel.receive()) is not None:
                if "ok" not in message:
                    if on_event:
                        on_event(message)
                elif message["ok"]:
                    return message["result"]
                else:
                    raise _refusal(message)
        except (OSError, ProtocolError) as error:
            raise MachineError(f"lab '{self.place.name}' went away: {error}") from None
        raise MachineError(f"lab '{self.place.name}' went away")

    def hand(self, *descriptors: int) -> None:
        """These go along with the next request."""
        self._handed = descriptors

    def descriptors(self) -> list[int]:
        """Take what came beside the last answer."""
        taken, self._channel.descriptors = self._channel.descriptors, []
        return taken
