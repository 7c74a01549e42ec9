"""Manifests that are large."""

from __future__ import annotations

import json

from emulab import registry
from emulab.kube import applied, read


def test_many_services_in_json_are_read() -> None:
    one = {"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    items = [{**one, "metadata": {"name": f"s{number}"}} for number in range(1000)]
    found = applied(registry.topology("flat"), read(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), "x.json"))
    assert len({service.addresses for service in found.objects.services if service.name != "kube-dns"}) == 1000
