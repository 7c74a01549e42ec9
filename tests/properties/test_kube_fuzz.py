"""Whatever is wrong with a manifest is one line: random damage to a file that is right, in YAML and in JSON."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from emulab import registry
from emulab.errors import InputError
from emulab.kube import applied, read
from emulab.kube.applying import begun, deleted, relabelled

RIGHT = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: blue}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: In, values: [web]}]}
  template:
    metadata: {labels: {app: web}, annotations: {kubernetes.io/ingress-bandwidth: 10M}}
    spec:
      restartPolicy: Always
      containers:
      - {name: web, image: nginx, ports: [{name: http, containerPort: 80, hostPort: 80, protocol: TCP, hostIP: 10.0.0.1}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log, namespace: kube-system}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec:
      hostNetwork: true
      nodeSelector: {kubernetes.io/hostname: node-a}
      containers: [{name: log, ports: [{containerPort: 9100}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: p, annotations: {cni.projectcalico.org/ipAddrs: '["10.1.1.9"]', kubernetes.io/egress-bandwidth: 1M}}
spec: {hostname: h, subdomain: s, nodeName: node-a, containers: [{name: c, ports: [{containerPort: 1}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  selector: {app: web}
  clusterIP: 10.96.0.77
  clusterIPs: [10.96.0.77, 'fd00:10:96::77']
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  loadBalancerIP: 198.51.100.9
  loadBalancerSourceRanges: [10.0.0.0/8]
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  ports: [{port: 80, targetPort: http, name: a, nodePort: 30009, protocol: TCP}, {port: 81, name: b}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.1.1], conditions: {ready: false}, nodeName: node-a}]
---
apiVersion: v1
kind: Node
metadata: {name: node-a, labels: {disk: ssd}}
spec: {podCIDRs: [10.1.1.0/24], taints: [{key: a, effect: b}]}
status: {addresses: [{type: InternalIP, address: 192.168.50.1}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: Exists}]}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - {namespaceSelector: {matchLabels: {team: blue}}, podSelector: {}}
    - {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}
    ports: [{port: http}, {port: 1, endPort: 2, protocol: UDP}]
  egress:
  - to: [{podSelector: {}}]
"""
FLAT = registry.topology("flat")
OBJECTS = list(yaml.safe_load_all(RIGHT))
ODD: list[Any] = [None, 0, -1, 5, 70000, 2**70, 1.5, float("inf"), float("nan"), True, "", "x", "X_Y", "a" * 300, "é\x00"]
ODD += ["10.0.0.0/8", "fd00::1", "::ffff:1.2.3.4", "10.1.1.1", "None", "%", "10.1.1.1%eth0", "1:2", "9" * 400, "1e999", "0x10"]
ODD += ["2020-01-01T00:00:00Z", "[]", "null", "{}", '["x"]', "[1]", '["10.1.1.1","10.1.1.2"]', [], [None], [[]], [1, 2], {}]
ODD += [{"a": None}, {"": ""}, {"a": {}}, ["10.96.0.1", "10.96.0.2"]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for step in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[step], (*path, step))


def damaged(dice: random.Random) -> list[Any]:
    """The objects with one to three things altered, left out, doubled or added."""
    objects = copy.deepcopy(OBJECTS)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        path = dice.choice(list(places(objects)))
        parent: Any = objects
        for step in path[:-1]:
            parent = parent[step]
        what = dice.choice(("alter", "alter", "alter", "drop", "more"))
        if what == "drop":
            del parent[path[-1]]
        elif what == "alter":
            parent[path[-1]] = copy.deepcopy(dice.choice(ODD))
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            parent[dice.choice(("x", "spec", "metadata", "from", "name"))] = copy.deepcopy(dice.choice(ODD))
    return objects


def use(text: str, file: str, dice: random.Random) -> None:
    """All that is done with documents; what is accepted is complete: applied again, it is unchanged."""
    documents = read(text, file, ignore_unknown=dice.random() < 0.2)
    if dice.random() < 0.3:
        begun(FLAT, documents, named=dice.random() < 0.5)
        return
    found = applied(FLAT, documents)
    made = relabelled(replace(FLAT, pods=found.pods, objects=found.objects), {n.node.name: n.node.labels for n in found.nodes})
    again = applied(made, documents)
    assert {what for title, what in again.results if not title.startswith("node/")} <= {"unchanged"}
    assert (again.pods, again.objects) == (found.pods, found.objects)
    deleted(made, [document.key for document in documents if document.kind.name != "Node"])


def test_what_is_right_is_accepted() -> None:
    use(RIGHT, "x.yaml", random.Random(1))


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_one_line(seed: int) -> None:
    dice = random.Random(seed)
    refused = 0
    for _ in range(20):
        objects = damaged(dice)
        text, file = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}), "x.json"
        if dice.random() < 0.5:
            text, file = "---\n".join(yaml.safe_dump(one) for one in objects), "x.yaml"
        try:
            use(text, file, dice)
        except InputError as error:
            refused += 1
            assert str(error).startswith(file) and len(str(error).splitlines()) == 1
    assert refused > 8
