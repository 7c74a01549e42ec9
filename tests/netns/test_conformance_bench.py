"""The bench on which plugins are tried: one check leaves nothing to the next."""

from __future__ import annotations

import json

from attaching import DEBIAN
from sandboxed import inside

from emulab.cni import config
from emulab.conformance import running
from emulab.conformance.bench import Bench
from emulab.conformance.host import Host, difference

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}


def test_a_container_taken_away_is_gone_from_the_host_when_its_check_ends() -> None:
    """The kernel takes down its interfaces in the background; no DEL does it before, as if that had failed."""

    def work() -> list[str]:
        network = config.read(json.dumps({"cniVersion": "1.0.0", "name": "mynet", "type": "ptp", "ipam": IPAM}))
        bench = Bench(running.subject(DEBIAN / "ptp", network), [DEBIAN], Host([DEBIAN]), 1)
        with bench.box(watched=True) as box:
            bench.add(box)
            bench._owed[box.name].clear()
            bench.host.remove(box.name)
        return [one for one in difference(box.before, bench.host.look()) if not one.startswith("file ")]

    assert inside(work, "user") == []
