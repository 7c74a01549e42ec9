"""Manifests that are large."""

from __future__ import annotations

import json

import pytest

from emulab import registry
from emulab.errors import InputError
from emulab.kube import applied, read


def test_many_services_in_json_are_read() -> None:
    one = {"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    items = [{**one, "metadata": {"name": f"s{number}"}} for number in range(1000)]
    found = applied(registry.topology("flat"), read(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), "x.json"))
    assert len({service.addresses for service in found.objects.services if service.name != "kube-dns"}) == 1000


def test_three_mebibytes_and_no_more() -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n"
    room = (3 << 20) - len(pod)
    assert [one.name for one in read(pod + "#" * room, "web.yaml")] == ["a"]
    for text in (pod + "#" * (room + 1), pod + "#é" * (room // 3 + 1)):
        with pytest.raises(InputError, match=r"^web.yaml: more than 3 MiB"):
            read(text, "web.yaml")
