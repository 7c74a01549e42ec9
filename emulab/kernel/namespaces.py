"""Network namespaces held by descriptors, and the mount namespaces of nodes.

A pod's namespace is nested in its node: the node has a mount namespace with a ``/run`` of its own, and the names in its
``/run/netns`` are exactly its pods.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from emulab.kernel import syscalls
from emulab.kernel.netlink import RouteSocket

T = TypeVar("T")
_OWN_NET = "/proc/thread-self/ns/net"
_OWN_MOUNTS = "/proc/thread-self/ns/mnt"


@dataclass
class Namespace:
    """A live network namespace.  ``links`` maps the interfaces that we made to their indices, which we choose.

    ``served`` are the ports at which emulab itself answers: (protocol, port, family).
    """

    name: str
    net: int
    mounts: int | None = None
    links: dict[str, int] = field(default_factory=lambda: {"lo": 1})
    next_index: int = 2
    route: RouteSocket | None = None
    served: set[tuple[str, int, int]] = field(default_factory=set)

    def take_index(self, link: str, unlike: int = 0) -> int:
        """The index that ``link`` shall get here: any but ``unlike``."""
        self.links[link] = index = self.next_index + (self.next_index == unlike)
        self.next_index = index + 1
        return index

    def look(self) -> None:
        """Learn which interfaces there are: somebody else may have made some, or taken some away."""
        self.links = {name: status.number for name, status in self.socket().links().items()}
        self.next_index = max([self.next_index - 1, *self.links.values()]) + 1

    def socket(self) -> RouteSocket:
        """This namespace's rtnetlink socket, opened at first use."""
        if self.route is None:
            with entered(self.net):
                self.route = RouteSocket()
        return self.route

    def close(self) -> None:
        if self.route is not None:
            self.route.close()
            self.route = None
        os.close(self.net)
        if self.mounts is not None:
            os.close(self.mounts)


@contextmanager
def entered(net: int) -> Iterator[None]:
    """The calling thread is in the network namespace ``net`` meanwhile.  Sockets opened inside stay there."""
    with returning():
        syscalls.setns(net, syscalls.CLONE_NEWNET)
        yield


@contextmanager
def returning() -> Iterator[None]:
    """Whatever namespace the thread is in at the end, it comes back to the one it was in."""
    before = os.open(_OWN_NET, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        syscalls.setns(before, syscalls.CLONE_NEWNET)
        os.close(before)


class Namespaces:
    """All namespaces of one lab, by name.  Closing it lets the kernel take them down, with everything in them."""

    def __init__(self) -> None:
        self._all: dict[str, Namespace] = {}
        self._lent: dict[str, int] = {}
        self._release = ExitStack()
        # setns(CLONE_NEWNS) needs a thread that shares its root and working directory with nobody.
        self._mounter = ThreadPoolExecutor(1, "mounts", initializer=lambda: syscalls.unshare(syscalls.CLONE_FS))
        self._release.callback(self._mounter.shutdown)
        self._home = os.open(_OWN_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._release.callback(os.close, self._home)

    def __getitem__(self, name: str) -> Namespace:
        return self._all[name]

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def adopt(self, name: str) -> Namespace:
        """The namespace that the calling thread is in, under ``name``."""
        return self._hold(name)

    def create(self, names: list[str]) -> None:
        """Network namespaces, new and empty, but for those that were lent to us."""
        with returning():
            for name in names:
                if name in self._lent:
                    syscalls.setns(self._lent[name], syscalls.CLONE_NEWNET)
                    self._hold(name).look()
                else:
                    syscalls.unshare(syscalls.CLONE_NEWNET)
                    self._hold(name)

    @property
    def lent(self) -> frozenset[str]:
        return frozenset(self._lent)

    def lend(self, name: str, net: int) -> Namespace:
        """From now on ``name`` is the network namespace ``net``, whenever it is created, until `give_back`.

        It stays somebody else's: what is in there is not killed, and not taken away.  Returns it as it is now, to be closed.
        Raises OSError when it is none, or none that we may enter.
        """
        with entered(net):
            own = os.open(_OWN_NET, os.O_RDONLY | os.O_CLOEXEC)  # unlike ``net``, this keeps no mount of its owner busy
        namespace = Namespace(name, os.dup(own))
        namespace.look()
        self._lent[name] = own
        return namespace

    def give_back(self, names: Collection[str]) -> None:
        """Know nothing of lent namespaces any more; those of other names are passed over."""
        for name in names:
            if name in self._lent:
                os.close(self._lent.pop(name))

    def holds(self, net: int) -> str | None:
        """The name under which that namespace is here already."""
        wanted = os.fstat(net)
        held = {name: namespace.net for name, namespace in self._all.items()} | self._lent
        return next((name for name, one in held.items() if os.path.samestat(os.fstat(one), wanted)), None)

    def _hold(self, name: str) -> Namespace:
        self._all[name] = namespace = Namespace(name, os.open(_OWN_NET, os.O_RDONLY | os.O_CLOEXEC))
        return namespace

    def remove(self, names: Collection[str]) -> None:
        """Let go of namespaces; with their last process, socket and name they vanish."""
        self.in_mounts(lambda: syscalls.setns(self._home, syscalls.CLONE_NEWNS))  # else it would keep a node's mounts
        for name in names:
            self._all.pop(name).close()

    def kill(self, names: Collection[str]) -> None:
        """Kill the processes in namespaces, as switching off a machine does.  Only this sandbox's processes are in sight."""
        inodes = {f"net:[{os.fstat(self._all[name].net).st_ino}]" for name in names if name not in self._lent}
        for entry in os.listdir("/proc"):
            with suppress(OSError):
                if entry.isdigit() and int(entry) != os.getpid() and os.readlink(f"/proc/{entry}/ns/net") in inodes:
                    os.kill(int(entry), signal.SIGKILL)

    def add_mounts(self, node: str) -> None:
        """Give a node its own mount namespace: an empty /run with /run/netns, and a /sys that shows its interfaces."""
        namespace = self._all[node]

        def prepare() -> int:
            with entered(namespace.net):
                syscalls.setns(self._home, syscalls.CLONE_NEWNS)
                syscalls.unshare(syscalls.CLONE_NEWNS)
                syscalls.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
                os.mkdir("/run/netns", 0o755)
                # Inside some containers it may not be; /sys then shows the interfaces of whoever mounted it.
                with suppress(PermissionError):
                    syscalls.mount("sysfs", "/sys", "sysfs", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
                return os.open(_OWN_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)

        namespace.mounts = self.in_mounts(prepare)

    def name_pods(self, node: str, pods: dict[str, str]) -> None:
        """Bind pods (namespace name -> netns name) into the node's /run/netns, as ``ip netns add`` would."""
        mounts = self._all[node].mounts
        assert mounts is not None

        def bind() -> None:
            syscalls.setns(mounts, syscalls.CLONE_NEWNS)
            for pod, name in pods.items():
                path = f"/run/netns/{name}"
                os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0))
                syscalls.mount(f"/proc/thread-self/fd/{self._all[pod].net}", path, None, syscalls.MS_BIND)

        self.in_mounts(bind)

    def names_on(self, node: str) -> frozenset[str]:
        """What ``ip netns list`` shows there."""
        mounts = self._all[node].mounts
        assert mounts is not None

        def look() -> frozenset[str]:
            syscalls.setns(mounts, syscalls.CLONE_NEWNS)
            return frozenset(os.listdir("/run/netns"))

        return self.in_mounts(look)

    def unname_pods(self, node: str, names: Collection[str]) -> None:
        """Take names out of the node's /run/netns, as ``ip netns del`` would."""
        mounts = self._all[node].mounts
        assert mounts is not None

        def unbind() -> None:
            syscalls.setns(mounts, syscalls.CLONE_NEWNS)
            for name in names:
                with suppress(FileNotFoundError):  # somebody typed `ip netns del`
                    syscalls.unmount(f"/run/netns/{name}")
                    os.unlink(f"/run/netns/{name}")

        self.in_mounts(unbind)

    def at_home(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the lab's own mounts: nodes get theirs as copies of them."""

        def there() -> T:
            syscalls.setns(self._home, syscalls.CLONE_NEWNS)
            return work()

        return self.in_mounts(there)

    def in_mounts(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the thread that may change its mount namespace."""
        return self._mounter.submit(work).result()

    def close(self) -> None:
        """Let go of everything at once: the kernel takes namespaces down together far quicker than one by one."""
        while self._all:
            self._all.popitem()[1].close()
        self.give_back(self.lent)
        self._release.close()
