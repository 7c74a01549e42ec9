"""Who may work when: one operation at a time for each container, and garbage is collected while nobody else is at work.

Sections 2, "GC", and 3, "Lifecycle and ordering".
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """For the threads of one process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._containers: set[str] = set()
        self._networks: Counter[str] = Counter()  # operations at work
        self._collected: set[str] = set()

    @contextmanager
    def of_container(self, network: str, container: str) -> Iterator[None]:
        """Wait until nothing else happens to the container, and no garbage is collected in the network."""
        with self._changed:
            self._changed.wait_for(lambda: container not in self._containers and network not in self._collected)
            self._containers.add(container)
            self._networks[network] += 1
        try:
            yield
        finally:
            with self._changed:
                self._containers.remove(container)
                self._networks[network] -= 1
                self._changed.notify_all()

    @contextmanager
    def of_network(self, network: str) -> Iterator[None]:
        """Wait until nothing happens in the network; nothing does meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: network not in self._collected)
            self._collected.add(network)  # so that nobody new begins
            try:
                self._changed.wait_for(lambda: not self._networks[network])
            except BaseException:
                self._collected.remove(network)
                raise
        try:
            yield
        finally:
            with self._changed:
                self._collected.remove(network)
                self._changed.notify_all()
