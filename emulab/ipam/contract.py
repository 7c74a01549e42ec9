"""What a data plane needs of an address manager."""

from __future__ import annotations

from typing import Protocol

from emulab.model import IPAddress, Lease, Pod


class Ipam(Protocol):
    """Hands out pod addresses and remembers them.  No clock, no randomness: the same calls give the same answers.

    Every method raises `emulab.errors.InputError` for what the user can mend (no free address, one taken twice).
    """

    def add_node(self, node: str) -> None:
        """Make room for a node's pods (a lease, a block, a place in the ring)."""

    def remove_node(self, node: str) -> None:
        """Give back everything that a node holds; its pods must have been released."""

    def allocate(self, pod: Pod) -> tuple[IPAddress, ...]:
        """One address per family of the pod network, IPv4 first: the fixed ones of ``pod``, else free ones."""
        ...

    def release(self, pod: Pod) -> None:
        """The pod's addresses are free again, though not the next to be given out."""

    def leases(self) -> tuple[Lease, ...]:
        """Who holds which range, in node order."""
        ...

    def gateway(self, node: str) -> tuple[IPAddress, ...]:
        """The node's own addresses inside the pod network; empty when the design gives it none."""
        ...
