"""The underlay as a Mininet network: the only file that imports Mininet.

Nodes, switches and links are Mininet's own classes with their effects replaced: a node is a namespace held by a descriptor,
whose shell starts when somebody types into it; a switch is a plain Linux bridge; a link is a pair made in place.  That is
fifteen times quicker than forking a shell for every step, and the API (`cmd`, `popen`, `pid`, the prompt) stays whole.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from emulab import fabric
from emulab.kernel import applier
from emulab.kernel.namespaces import Namespaces
from emulab.model import GATEWAY, OUTSIDE_HOST, SWITCHES, Topology
from emulab.state import Address, KernelObject, Veth


def _import_mininet() -> None:
    """Mininet wants one class of distutils, for Open vSwitch's version alone.

    Python 3.12 has no distutils any more, and before that importing it costs more than all of Mininet.
    """
    if "mininet.node" in sys.modules:
        return
    stand_in = ModuleType("distutils.version")
    stand_in.StrictVersion = str  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("distutils", "distutils.version")}
    sys.modules["distutils"] = before["distutils"] or ModuleType("distutils")
    sys.modules["distutils.version"] = stand_in
    try:
        import mininet.node  # noqa: F401
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


_import_mininet()

from mininet.link import Intf, Link  # noqa: E402
from mininet.net import Mininet  # noqa: E402
from mininet.node import Node  # noqa: E402
from mininet.topo import Topo  # noqa: E402

# Mininet's own start-up raises limits of the whole machine by sysctl.  Nothing outside the sandbox is ours to change.
Mininet.inited = True


class NamespaceNode(Node):  # type: ignore[misc]
    """A Mininet node in one of our namespaces; its shell starts at first use."""

    def __init__(
        self,
        name: str,
        namespaces: Namespaces,
        objects: tuple[KernelObject, ...] = (),
        key: str = "",
        mounts: str = "",
        **params: Any,
    ) -> None:
        """``key`` is the network namespace, ``mounts`` the one whose mounts it shares; both are the node's own by default."""
        self.namespaces, self.objects = namespaces, objects
        self.key, self.mounts = key or name, mounts or name
        self._shell: Any = None
        self._started = self._starting = False
        super().__init__(name, **params)

    @classmethod
    def checkSetup(cls) -> None:
        """Nothing to check: no ifconfig, no external tool."""

    def startShell(self, mnopts: str | None = None) -> None:
        if self.key not in self.namespaces:
            self.namespaces.create([self.key])
        self._started = True

    def config(self, **_: Any) -> dict[str, Any]:
        """Bring up everything that the underlay holds in this node."""
        applier.add(self.namespaces, {self.key: self.objects})
        return {}

    @property
    def shell(self) -> Any:
        """Mininet asks for the shell before it uses it: that starts it."""
        if self._shell is None and self._started and not self._starting:
            self._starting = True
            try:
                super().startShell()
            finally:
                self._starting = False
        return self._shell

    @shell.setter
    def shell(self, value: Any) -> None:
        self._shell = value

    @property
    def pid(self) -> int | None:
        return self.shell.pid if self.shell else None

    @pid.setter
    def pid(self, value: int | None) -> None:
        """It is the shell's."""

    def terminate(self) -> None:
        if self._shell is not None:
            super().terminate()

    def _popen(self, cmd: list[str], **params: Any) -> Any:
        """Mininet starts a node's shell by ``mnexec -cdn env …``: start the same command inside our namespaces instead.

        Without its last word: `mn -c` kills whatever has "mininet:" in its arguments.
        """
        if cmd[0] == "mnexec" and "env" in cmd:
            command = [word for word in cmd[cmd.index("env") :] if not word.startswith("mininet:")]
            enter = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.namespaces[self.key].net}"]
            mounts = self.namespaces[self.mounts].mounts
            if mounts is not None:
                enter.append(f"--mount=/proc/{os.getpid()}/fd/{mounts}")
            cmd = ["setsid", *enter, "--", *command]
        return super()._popen(cmd, **params)

    def setMAC(self, mac: str, intf: Any = None) -> None:
        """Addresses come from the plan."""

    def setIP(self, *_: Any, **__: Any) -> None:
        """Addresses come from the plan."""

    def IP(self, intf: Any = None, family: int = 4) -> str | None:
        """The node's own address, of ``family`` if it has one."""
        addresses = [str(thing.address.ip) for thing in self.objects if isinstance(thing, Address)]
        return next((a for a in addresses if (":" in a) == (family == 6)), addresses[0] if addresses else None)


class BridgeSwitch(NamespaceNode):
    """A segment: a Linux bridge in the namespace of the switches.  No Open vSwitch, no controller, no brctl."""

    dpid = None

    def start(self, _controllers: list[Any]) -> None:
        applier.add(self.namespaces, {SWITCHES: self.objects})

    def startShell(self, mnopts: str | None = None) -> None:
        self._started = True

    def connected(self) -> bool:
        return True


class VethLink(Link):  # type: ignore[misc]
    """A pair of interfaces, each made in the namespace where it belongs."""

    def __init__(self, node1: Any, node2: Any, pair: Veth, home: str, made: bool = False, **params: Any) -> None:
        self.pair, self.home, self.made, self.namespaces = pair, home, made, node1.namespaces
        super().__init__(node1, node2, **params)

    def makeIntfPair(self, *_: Any, **__: Any) -> None:
        if not self.made:
            applier.add(self.namespaces, {self.home: (self.pair,)})


class PlainIntf(Intf):  # type: ignore[misc]
    """An interface whose addresses come from the plan."""

    def config(self, **_: Any) -> dict[str, Any]:
        return {}


class UnderlayTopo(Topo):  # type: ignore[misc]
    """An emulab topology in Mininet's terms."""

    def build(self, topology: Topology, namespaces: Namespaces) -> None:
        for node in topology.nodes:
            self.addHost(node.name, namespaces=namespaces, objects=tuple(fabric.node(topology, node.name)))
        self.addHost(GATEWAY, namespaces=namespaces, objects=tuple(fabric.gateway(topology)))
        self.addHost(OUTSIDE_HOST, namespaces=namespaces, objects=tuple(fabric.outside()))
        for index, segment in enumerate(topology.segments):
            objects = tuple(fabric.switch(topology, segment))
            if index == 0:
                objects += tuple(fabric.cuts(topology))
            self.addSwitch(_switch_name(segment.name), namespaces=namespaces, objects=objects)
        for link in topology.links:
            self._join(link.node, _switch_name(link.segment), fabric.uplink(topology, link))
        for leg in fabric.legs(topology):
            self._join(GATEWAY, _switch_name(leg[1].name), fabric.gateway_leg(topology, *leg))
        outside = fabric.outside_link()
        self.addLink(OUTSIDE_HOST, GATEWAY, intfName1=outside.peer, intfName2=outside.name, pair=outside, home=GATEWAY)

    def _join(self, node: str, switch: str, pair: Veth) -> None:
        self.addLink(node, switch, intfName1=pair.peer, intfName2=pair.name, pair=pair, home=SWITCHES)


def _switch_name(segment: str) -> str:
    return f"{SWITCHES}:{segment}"  # no node can be called so


def start(topology: Topology, namespaces: Namespaces) -> Any:
    """Build and start the underlay; returns the running `mininet.net.Mininet`.

    The calling thread's namespace becomes that of the switches.
    """
    namespaces.adopt(SWITCHES)
    network = Mininet(
        topo=UnderlayTopo(topology=topology, namespaces=namespaces),
        host=NamespaceNode,
        switch=BridgeSwitch,
        link=VethLink,
        intf=PlainIntf,
        controller=None,
        build=False,
    )
    network.build()
    network.start()
    return network


def follow(network: Any, topology: Topology, namespaces: Namespaces) -> None:
    """Let Mininet know of nodes that have come, gone, or been switched off or on; the kernel has them already."""
    running = {node.name for node in topology.nodes if node.running}
    for host in [host for host in network.hosts if host.name not in running | {GATEWAY, OUTSIDE_HOST}]:
        host.terminate()
        network.hosts.remove(host)
        del network.nameToNode[host.name]
        network.links = [link for link in network.links if host not in (link.intf1.node, link.intf2.node)]
    for node in topology.nodes:
        if not node.running or node.name in network.nameToNode:
            continue
        host = network.addHost(node.name, namespaces=namespaces, objects=tuple(fabric.node(topology, node.name)))
        for link in topology.links:
            if link.node == node.name:
                pair = fabric.uplink(topology, link)
                switch = network.nameToNode[_switch_name(link.segment)]
                ends = {"intfName1": pair.peer, "intfName2": pair.name}
                network.addLink(host, switch, pair=pair, home=SWITCHES, made=True, **ends)
