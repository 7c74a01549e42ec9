"""Something answers at every port that a pod declares: who it is, and whom it saw.

One thread serves all pods; each socket stays in the namespace in which it was opened.  It says, in one line of JSON::

    {"pod": "default/web-1", "node": "node-a", "protocol": "tcp", "port": 8080, "peer": "10.1.2.3", "peer_port": 40112}

to a datagram, to whatever comes over a connection, and to a connection whose client has said all it will say; an HTTP request
gets an HTTP response with that line as its body.  What the probes send is answered as the probes' own servers would
(`emulab.probe.payload`).  SCTP is answered by the kernel's sockets, where it has them, else by hand (`emulab.probe.sctp`).

At port 53 of the pods that Service kube-dns stands for, the cluster's DNS answers instead (`emulab.serving.dns`).

A port that is served is taken: a server of one's own at the same port gets "Address already in use".  Declare the port
no more, or let the pod have the label ``emulab.io/responder=off``: then nothing of it is served here.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from emulab import zone
from emulab.kernel.namespaces import Namespace, Namespaces, entered
from emulab.model import Cluster
from emulab.objects import ContainerPort
from emulab.probe import sctp
from emulab.serving.answers import Connection, answer_datagrams, answer_packets

if TYPE_CHECKING:
    from emulab.serving.dns import NameServer

OFF = ("emulab.io/responder", "off")
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_PACKET_INFO = {4: (socket.IPPROTO_IP, 8), 6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)}
_KINDS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, sctp.PROTOCOL),
    "sctp by hand": (socket.SOCK_RAW, sctp.PROTOCOL),
}
_MOST = 4096  # connections at once; the oldest makes room
_IDLE = 30.0  # seconds that a connection may stay silent
_QUEUE = 1 << 20  # bytes of a socket's queue: the kernel gives as much of it as it allows


class Listener(NamedTuple):
    """What is served at one socket: ``place`` is a network namespace, ``pods`` says whose each port is."""

    place: str
    node: str
    family: int
    protocol: str  # a key of _KINDS
    pods: tuple[tuple[int, str], ...]  # (port, pod key)
    names: bool = False  # whether it is the cluster's DNS that answers

    @property
    def port(self) -> int:
        return 0 if self.protocol == "sctp by hand" else self.pods[0][0]

    def __str__(self) -> str:
        return f"{self.pods[0][1]}: {self.protocol}/{self.port or self.pods[0][0]} on IPv{self.family}"


class Responder:
    """Follows a cluster: `follow` opens and closes what has come and gone.  Without declared ports it has no thread."""

    def __init__(self) -> None:
        self._open: dict[Listener, tuple[Namespace, socket.socket]] = {}
        self._handlers: dict[int, Callable[[], None]] = {}
        self._connections: dict[int, tuple[Listener, Connection]] = {}
        self._told: set[Listener] = set()
        self._asked: tuple[object, ...] = ()  # what decides on what is served, as last seen
        self._names: NameServer | None = None
        self._lock = threading.Lock()  # held while sockets are served, opened or closed
        self._thread: threading.Thread | None = None
        self._ending = -1
        self._epoll: select.epoll | None = None

    def follow(self, namespaces: Namespaces, cluster: Cluster) -> None:
        """Serve what the pods of ``cluster`` declare, those that have a namespace, and nothing else.

        A port that cannot be had is told once, on standard error.
        """
        if self._names is not None:
            self._names.know(cluster)
        topology = cluster.topology
        asked = (cluster.endpoints, topology.objects.host_pods, topology.links, frozenset(namespaces))
        if asked == self._asked:
            return
        self._asked = asked
        wanted = {listener for listener in declared(cluster) if listener.place in namespaces}
        kept = {one for one in wanted if one in self._open and self._open[one][0] is namespaces[one.place]}
        with self._lock:
            self._close([one for one in self._open if one not in kept])
        if self._names is None and any(listener.names for listener in wanted):
            from emulab.serving.dns import NameServer

            self._names = NameServer()
            self._names.know(cluster)
        by_place: dict[str, list[Listener]] = {}
        for listener in wanted - kept:
            by_place.setdefault(listener.place, []).append(listener)
        for place, listeners in by_place.items():
            with entered(namespaces[place].net):
                made = [(one, self._listen(one)) for one in sorted(listeners)]
            with self._lock:
                for listener, sock in made:
                    if sock is not None:
                        self._add(listener, namespaces[place], sock)
        self._told &= wanted

    def leave(self, places: Collection[str]) -> None:
        """Serve nothing any more in those namespaces, which are to go."""
        self._asked = ()
        with self._lock:
            self._close([listener for listener in self._open if listener.place in places])

    def close(self) -> None:
        if self._thread is not None:
            os.eventfd_write(self._ending, 1)
            self._thread.join()
            self._thread = None
            os.close(self._ending)
        with self._lock:
            self._close(list(self._open))
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    # Opening and closing

    def _listen(self, listener: Listener) -> socket.socket | None:
        kind, protocol = _KINDS[listener.protocol]
        made = None
        try:
            made = socket.socket(_AF[listener.family], kind | socket.SOCK_NONBLOCK, protocol)
            if listener.family == 6 and kind != socket.SOCK_RAW:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if listener.protocol == "udp":
                made.setsockopt(*_PACKET_INFO[listener.family], 1)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if listener.port:
                made.bind(("" if listener.family == 4 else "::", listener.port))
            if kind == socket.SOCK_STREAM:
                made.listen(4096)
        except OSError as error:
            if made is not None:
                made.close()
            if listener not in self._told:
                self._told.add(listener)
                print(f"{listener} is not served: {error.strerror}", file=sys.stderr, flush=True)
            return None
        return made

    def _add(self, listener: Listener, namespace: Namespace, sock: socket.socket) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._ending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll.register(self._ending, select.EPOLLIN)
            self._thread = threading.Thread(target=self._run, args=(self._epoll,), name="responder", daemon=True)
            self._thread.start()
        self._open[listener] = namespace, sock
        namespace.served.add((listener.protocol, listener.port, listener.family))
        names = self._names if listener.names else None
        if listener.protocol == "udp":
            handler = lambda: answer_datagrams(sock, names, listener.node, *listener.pods[0])  # noqa: E731
        elif listener.protocol == "sctp by hand":
            pods = dict(listener.pods)
            handler = lambda: answer_packets(sock, listener.family, listener.node, pods)  # noqa: E731
        else:
            handler = lambda: self._accept(listener, sock)  # noqa: E731
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _close(self, listeners: Collection[Listener]) -> None:
        gone = set(listeners)
        for fd, (listener, _) in list(self._connections.items()):
            if listener in gone:
                self._hang_up(fd)
        for listener in gone:
            namespace, sock = self._open.pop(listener)
            namespace.served.discard((listener.protocol, listener.port, listener.family))
            self._handlers.pop(sock.fileno(), None)
            sock.close()  # which takes it out of the epoll set, too

    # Serving

    def _run(self, epoll: select.epoll) -> None:
        while True:
            ready = epoll.poll(_IDLE / 6 if self._connections else None, 256)
            with self._lock:
                for fd, _ in ready:
                    if fd == self._ending:
                        return
                    handler = self._handlers.get(fd)
                    if handler is None:
                        continue
                    try:
                        handler()
                    except Exception as error:  # of one client: the others are still to be served
                        if not isinstance(error, OSError):
                            sys.excepthook(*sys.exc_info())
                        if fd in self._connections:
                            self._hang_up(fd)
                for fd, (_, connection) in list(self._connections.items()):
                    if connection.idle < _IDLE:
                        break  # they are in the order in which they came
                    self._hang_up(fd)

    def _accept(self, listener: Listener, server: socket.socket) -> None:
        assert self._epoll is not None
        for _ in range(256):
            try:
                sock, name = server.accept()
            except BlockingIOError:
                return
            except OSError:
                if self._connections:  # out of descriptors, most likely
                    self._hang_up(next(iter(self._connections)))
                return
            sock.setblocking(False)
            if len(self._connections) >= _MOST:
                self._hang_up(next(iter(self._connections)))
            fd = sock.fileno()
            names = self._names if listener.names else None
            connection = Connection(sock, names, listener.protocol, listener.node, *listener.pods[0], name[0], name[1])
            self._connections[fd] = listener, connection
            self._handlers[fd] = lambda fd=fd: self._converse(fd)  # type: ignore[misc]
            self._epoll.register(fd, select.EPOLLIN)

    def _converse(self, fd: int) -> None:
        if not self._connections[fd][1].serve():
            self._hang_up(fd)

    def _hang_up(self, fd: int) -> None:
        _, connection = self._connections.pop(fd)
        del self._handlers[fd]
        connection.close()


def declared(cluster: Cluster) -> Iterator[Listener]:
    """Everything that a cluster's pods declare, one for each family that they have.  Of two pods that want one port of
    their node, the first has it.
    """
    by_hand = not sctp.supported()
    dns = {e.key for e in cluster.endpoints if e.pod.namespace == zone.NAMESPACE and zone.SERVER_LABEL in e.pod.labels}
    offers: dict[tuple[str, str, int], dict[tuple[str, int], str]] = {}
    topology = cluster.topology

    def offer(place: str, node: str, families: Collection[int], pod: str, ports: tuple[ContainerPort, ...]) -> None:
        for family in families:
            for port in ports:
                offers.setdefault((place, node, family), {}).setdefault((port.protocol, port.number), pod)

    for endpoint in cluster.endpoints:
        if endpoint.pod.ports and OFF not in endpoint.pod.labels:
            families = [address.version for address in endpoint.addresses]
            offer(endpoint.key, endpoint.node, families, endpoint.key, endpoint.pod.ports)
    for host_pod in topology.objects.host_pods:
        if host_pod.ports and OFF not in host_pod.labels:
            own = {address.version for address in topology.uplink(host_pod.node).addresses}
            offer(host_pod.node, host_pod.node, sorted(own), host_pod.key, host_pod.ports)
    for (place, node, family), ports in offers.items():
        for (protocol, number), pod in ports.items():
            if protocol != "sctp" or not by_hand:
                yield Listener(place, node, family, protocol, ((number, pod),), number == zone.PORT and pod in dns)
        packets = tuple((number, pod) for (protocol, number), pod in ports.items() if protocol == "sctp")
        if packets and by_hand:
            yield Listener(place, node, family, "sctp by hand", packets)
