"""Check files as a table: good ones with what becomes of their expectations, broken ones with what is said of them.

Of a good one: per plugin a sign for each expectation, + for one that holds, - for one that is planted and must not.
"""

from __future__ import annotations

from typing import NamedTuple


class Good(NamedTuple):
    outcomes: str
    text: str


POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""
SHOP = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: node-b, containers: [{name: web, ports: [{containerPort: 80}]}]}
"""
TOPOLOGY = """\
pod-cidrs: [10.1.0.0/16]
nodes:
  left: {pods: 1}
  right: {pods: {r: 10.1.2.9}}
"""
BESIDE = {"manifests/deny.yaml": POLICY, "manifests/shop.yaml": SHOP, "topologies/mine.yaml": TOPOLOGY}

GOOD = {
    "sentence": Good("+", "expect: a1 reaches c2\n"),
    "sentences": Good(
        "+++",
        """\
plugin: calico
expect:
  - a1 reaches c2 tcp/80 without NAT
  - a1 REACHES b1 by udp, over IPv6, and without nat, in 2 hops
  - "* reaches * within 5s"
""",
    ),
    "mapping": Good(
        "++", "expect:\n  - {from: a1, to: b1, protocol: udp, port: 53, nat: false}\n  - from: a1\n    to: c1\n    hops: 2\n"
    ),
    "encapsulation": Good(
        "++- ++- +-+",
        """\
plugin: [flannel, weave, calico]
set: {calico: {encap: never}}
expect:
  - a1 reaches a2 without NAT
  - a1 reaches c2 over IPv4, encapsulated vxlan
  - a1 reaches c2 over IPv4, not encapsulated
""",
    ),
    "vni": Good(
        "+-", "set: {vni: 7}\nexpect:\n  - a1 reaches c2, encapsulated vxlan VNI 7\n  - a1 reaches c2, encapsulated vxlan VNI 1\n"
    ),
    "mtu": Good("+-", "expect: [a1 reaches c2 over IPv4 with MTU 1450, a1 reaches c2 over IPv4 with MTU 1500]\n"),
    "big": Good("+", "plugin: weave\nexpect: a1 reaches c2 by udp over IPv6 with 1300 bytes\n"),
    "nat": Good(
        "-+",
        """\
topology: non-flat
plugin: nat
expect:
  - "* reaches * without NAT"
  - {from: a1, to: internet, nat: true, family: 4}
""",
    ),
    "seen-as": Good(
        "+-", "expect:\n  - a1 reaches c2 over IPv4 seen as 10.1.1.1\n  - a1 reaches c2 over IPv4 seen as 10.1.1.2\n"
    ),
    "masquerade": Good(
        "+-+",
        """\
description: a rule that masquerades what goes from pod to pod
steps:
  - expect: a1 reaches c2 tcp/80 without NAT
  - fault inject: {name: masquerade-pods, at: node-a}
  - expect: a1 reaches c2 tcp/80 without NAT
  - fault clear
  - expect: a1 reaches c2 tcp/80 without NAT
""",
    ),
    "missing-route": Good(
        "++-+",
        """\
steps:
  - fault inject: {name: missing-route, at: node-a}
  - expect:
      - a1 cannot reach b1
      - a1 reaches a2
      - a1 reaches b1
  - repair
  - expect: a1 reaches b1
""",
    ),
    "dropped": Good(
        "+-",
        """\
plugin: calico
steps:
  - fault inject: {name: ip-forward-off, at: node-c}
  - expect:
      - a1 cannot reach c2 over IPv4, dropped at node-c
      - a1 cannot reach c2 over IPv4, dropped at node-a
""",
    ),
    "repair-some": Good(
        "+",
        "steps:\n  - fault inject: ip-forward-off\n  - repair: [node-a, node-b]\n  - repair: node-c\n  - expect: a1 reaches c2\n",
    ),
    "pods": Good(
        "+++",
        """\
steps:
  - pod add: {name: a3, node: node-a}
  - pod add: {name: b7, node: node-b, ip: 10.1.2.77, labels: {app: web}}
  - expect: [a3 reaches app=web over IPv4, b7 reaches a3 over IPv4 seen as 10.1.2.77]
  - pod rm: [a3, b7]
  - pod rm: a2
  - expect: a1 reaches *
""",
    ),
    "nodes": Good(
        "++++",
        """\
plugin: calico
steps:
  - node add: node-d
  - node add: {name: node-e, ip: 192.168.50.77}
  - pod add: {name: d1, node: node-d}
  - expect: a1 reaches d1 without NAT
  - node stop: node-d
  - expect: a1 cannot reach d1
  - node start: node-d
  - expect: a1 reaches d1 within 10s
  - node rm: node-d
  - node rm: node-b
  - expect: a1 reaches *
""",
    ),
    "links": Good(
        "+-++",
        """\
steps:
  - link down: node-b
  - expect: [a1 cannot reach b1, a1 reaches b1]
  - link up: node-b
  - expect: a1 reaches b1 within 5s
  - link set: {node: node-b, rate: 10mbit}
  - expect: a1 reaches b1 by tcp
""",
    ),
    "partition": Good(
        "+++++",
        """\
steps:
  - partition: node-a,node-b | node-c
  - expect: [a1 reaches b1, a1 cannot reach c1, c1 reaches c2]
  - heal
  - partition: [[node-a], [node-b, node-c]]
  - expect: a1 cannot reach b1
  - heal:
  - partition: node-c
  - heal
  - expect: a1 reaches c1
""",
    ),
    "weave-way-around": Good(
        "+", "plugin: weave\nsteps:\n  - partition: [node-a, node-b]\n  - expect: a1 reaches b1 within 5s\n"
    ),
    "policies": Good(
        "++++ ++++",
        """\
plugin: [calico, weave]
steps:
  - expect: b1 reaches a1
  - apply: ../manifests/deny.yaml
  - expect: ['* cannot reach a1 tcp/80', a1 cannot reach b1]
  - delete: netpol/deny-all
  - expect: b1 reaches a1
""",
    ),
    "unenforced": Good("-", "steps:\n  - apply: ../manifests/deny.yaml\n  - expect: b1 cannot reach a1\n"),
    "manifests": Good(
        "++",
        """\
topology: flat
manifests: [../manifests/shop.yaml]
steps:
  - expect: [a1 reaches shop/web tcp/80, shop/app=web reaches *]
  - delete: pod/shop/web
""",
    ),
    "folder": Good(
        "++", "topology: flat\nplugin: calico\nmanifests: ../manifests\nexpect: [a1 reaches shop/web, shop/web cannot reach a1]\n"
    ),
    "inline": Good(
        "++",
        """\
topology: flat
plugin: calico
manifests:
  apiVersion: v1
  kind: Namespace
  metadata: {name: x}
steps:
  - apply:
      - apiVersion: v1
        kind: Pod
        metadata: {name: p, namespace: x}
        spec: {containers: [{name: c}]}
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: deny, namespace: x}
        spec: {podSelector: {}, policyTypes: [Ingress]}
  - expect: [x/* reaches a1, a1 cannot reach x/p]
""",
    ),
    "service": Good(
        "++-+",
        """\
topology: flat
manifests:
  - apiVersion: v1
    kind: Pod
    metadata: {name: w, labels: {app: w}}
    spec: {nodeName: node-b, containers: [{name: w, ports: [{containerPort: 80}]}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec: {selector: {app: w}, ports: [{port: 80}]}
steps:
  - expect: [a1 reaches svc/web tcp/80, a1 reaches svc/web tcp/80 with NAT]
  - pod unready: w
  - expect: a1 reaches svc/web tcp/80
  - pod ready: w
  - expect: a1 reaches svc/web tcp/80
""",
    ),
    "no-topology": Good("+", "manifests: ../manifests/shop.yaml\nexpect: node-a reaches shop/web\n"),
    "topology-file": Good("+-", "topology: ../topologies/mine.yaml\nexpect: [left1 reaches r, r cannot reach *]\n"),
    "fleet": Good("+", "name: ten pods\ntopology: fleet,5,2\nplugin: weave\nexpect: '* reaches * by udp'\n"),
    "two-racks": Good(
        "+ +",
        "topology: two-racks\nplugin: [flannel, calico]\nset:\n  calico: {encap: cross-subnet}\nexpect: a1 reaches *\n",
    ),
    "single": Good("-", "topology: single-node\nexpect: {from: a1, to: a2, encapsulation: vxlan}\n"),
    "nobody-else": Good("-+", "expect:\n- from: a1\n  to: c2\n  reaches: false\n- from: a1\n  to: c2\n  within: 2\n"),
}


class Broken(NamedTuple):
    """``said``: the line in the file, and what is wrong there; ``by_schema``: an editor sees it, too."""

    said: str
    by_schema: bool
    text: str


BROKEN = {
    "empty": Broken(": nothing in it: a check has at least 'expect'", True, "# nothing\n"),
    "no-yaml": Broken(":2: broken YAML: did not find expected ',' or ']'", False, "expect: [a1 reaches c2\n"),
    "list": Broken(":1: a mapping with 'expect' or 'steps' expected, got a list", True, "- a1 reaches c2\n"),
    "two": Broken(
        ":3: a second document: one check per file expected", False, "expect: a1 reaches c2\n---\nexpect: a1 reaches c2\n"
    ),
    "twice": Broken(":3: there are two 'expect' here", False, "expect: a1 reaches c2\nplugin: calico\nexpect: a1 reaches c2\n"),
    "manifest": Broken(
        ":2: kind: a manifest, not a check: it belongs into a folder of its own, named by 'manifests' or 'apply'",
        True,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
    ),
    "key": Broken(":1: plugins: unknown field (did you mean 'plugin'?)", True, "plugins: calico\nexpect: a1 reaches c2\n"),
    "expects-nothing": Broken(":1: no 'expect' and no 'steps': a check expects something", True, "topology: flat\n"),
    "both": Broken(
        ":3: expect: there are steps as well: put it among them, so that it is clear what comes first",
        True,
        "steps:\n- heal\nexpect: a1 reaches c2\n",
    ),
    "cannot-fail": Broken(
        ":2: steps: no 'expect' among the steps: a check that cannot fail", False, "plugin: calico\nsteps:\n- pod rm: a1\n"
    ),
    "none": Broken(":1: expect: at least one expectation expected", False, "expect: []\n"),
    "type": Broken(":1: expect: text or a mapping or a list expected, got 7", True, "expect: 7\n"),
    "plugin": Broken(
        ":2: no plugin 'calcio' (did you mean 'calico'?)",
        False,
        "topology: flat\nplugin: [flannel, calcio]\nexpect: a1 reaches c2\n",
    ),
    "option": Broken(
        ":3: plugin 'flannel' has no option 'vnii' (did you mean 'vni'?)",
        False,
        "plugin: flannel\nset:\n  vnii: 7\nexpect: a1 reaches c2\n",
    ),
    "option-value": Broken(
        ":5: set vni=many: a whole number expected",
        False,
        "plugin: [calico, flannel]\nset:\n  flannel:\n    port: 1\n    vni: many\nexpect: a1 reaches c2\n",
    ),
    "option-of-nobody": Broken(
        ":3: set.flannel: none of the plugins of this check (known: calico)",
        False,
        "plugin: calico\nset:\n  flannel: {vni: 7}\nexpect: a1 reaches c2\n",
    ),
    "option-refused": Broken(
        ":2: calico: unknown encap 'none' (known: cross-subnet, never, vxlan)",
        False,
        "plugin: calico\nset: {encap: none}\nexpect: a1 reaches c2\n",
    ),
    "topology": Broken(":1: no topology 'flatt' (did you mean 'flat'?)", False, "topology: flatt\nexpect: a1 reaches c2\n"),
    "topology-file": Broken(
        ":2: missing.yaml: cannot read the topology: No such file or directory",
        False,
        "expect: a1 reaches c2\ntopology: ./missing.yaml\n",
    ),
    "topology-refused": Broken(
        ":2: weave: one pod CIDR per family expected, since all pods share one subnet",
        False,
        "topology: non-flat\nplugin: weave\nexpect: a1 reaches c2\n",
    ),
    "verb": Broken(
        ":3: expect[1]: 'a1 reachs c2': column 4: 'reaches' or 'cannot reach' expected, got 'reachs' (did you mean 'reaches'?)",
        True,
        "expect:\n- a1 reaches c2\n- a1 reachs c2\n",
    ),
    "verb-missing": Broken(":1: expect: 'a1': column 3: 'reaches' or 'cannot reach' expected, got nothing", True, "expect: a1\n"),
    "condition": Broken(
        ":1: expect: 'a1 reaches c2 tcp/80 witout NAT': column 22: 'witout' is no condition (did you mean 'without'?)",
        False,
        "expect: a1 reaches c2 tcp/80 witout NAT\n",
    ),
    "with-what": Broken(
        ":1: expect: 'a1 reaches c2 with care': column 20: 'NAT', 'MTU' or a number of bytes expected, got 'care'",
        False,
        "expect: a1 reaches c2 with care\n",
    ),
    "port": Broken(
        ":1: expect: 'a1 reaches c2 tcp/http': column 15: a port expected, got 'http'", False, "expect: a1 reaches c2 tcp/http\n"
    ),
    "port-range": Broken(
        ":1: expect: 'a1 reaches c2 tcp/70000': port 70000: 1 to 65535 expected", False, "expect: a1 reaches c2 tcp/70000\n"
    ),
    "protocol-twice": Broken(
        ":1: expect: 'a1 reaches c2 tcp/80 by udp': column 25: protocol is there twice",
        False,
        "expect: a1 reaches c2 tcp/80 by udp\n",
    ),
    "denied-and-nat": Broken(
        ":1: expect: 'a1 cannot reach c2 without NAT': nat: cannot be expected of a packet that is not to arrive",
        False,
        "expect: a1 cannot reach c2 without NAT\n",
    ),
    "pod": Broken(
        ":4: no pod or node 'a9' (did you mean 'a2'?)", False, "steps:\n- expect: a1 reaches c2\n- expect:\n  - a9 reaches c2\n"
    ),
    "pattern": Broken(":1: no pod is meant by 'shop/*' (known: default/*)", False, "expect: default/* reaches shop/*\n"),
    "family": Broken(
        ":2: IPv6: the pods of this topology have IPv4 only",
        False,
        "topology: ../topologies/mine.yaml\nexpect: left1 reaches r over IPv6\n",
    ),
    "size": Broken(":1: size 70: 80 to 65000 bytes expected", False, "expect: a1 reaches c2 with 70 bytes\n"),
    "mapping-key": Broken(
        ":4: expect[0].with: unknown field (did you mean 'within'?)", True, "expect:\n- from: a1\n  to: c2\n  with: care\n"
    ),
    "mapping-lacks": Broken(":2: expect[0].to: required", True, "expect:\n- from: a1\n  reaches: true\n"),
    "mapping-type": Broken(
        ":4: expect[0].port: a whole number expected, got 'http'", True, "expect:\n- from: a1\n  to: c2\n  port: http\n"
    ),
    "mapping-range": Broken(":4: expect[0]: hops 77: 0 to 64 expected", True, "expect:\n- from: a1\n  to: c2\n  hops: 77\n"),
    "mapping-word": Broken(
        ":4: expect[0]: protocol 'sctp' (did you mean 'tcp'?)", True, "expect:\n- from: a1\n  to: c2\n  protocol: sctp\n"
    ),
    "within": Broken(
        ":4: expect[0]: within soon: a number and one of us, ms, s expected",
        False,
        "expect:\n- from: a1\n  to: c2\n  within: soon\n",
    ),
    "step": Broken(
        ":2: steps[0][pod ad]: unknown field (did you mean 'pod add'?)",
        True,
        "steps:\n- pod ad: {name: a3, node: node-a}\n- expect: a1 reaches c2\n",
    ),
    "bare-step": Broken(":2: steps[0]: no step 'heel' (did you mean 'heal'?)", True, "steps:\n- heel\n- expect: a1 reaches c2\n"),
    "two-in-one": Broken(
        ":2: steps[0]: one thing per step expected, got pod rm, expect: begin each with '-'",
        True,
        "steps:\n- pod rm: a2\n  expect: a1 reaches c2\n",
    ),
    "pod-is-gone": Broken(
        ":3: no pod or node 'a2' (did you mean 'c2'?)", False, "steps:\n- pod rm: a2\n- expect: a1 reaches a2\n"
    ),
    "pod-there": Broken(
        ":2: pod add a1 on node-a: there is a pod 'default/a1' already",
        False,
        "steps:\n- pod add: {name: a1, node: node-a}\n- expect: a1 reaches c2\n",
    ),
    "pod-address": Broken(
        ":2: pod add a3 on node-a: 'ten' is no IP address",
        False,
        "steps:\n- pod add:\n    name: a3\n    node: node-a\n    ip: ten\n- expect: a1 reaches c2\n",
    ),
    "node": Broken(
        ":2: node stop node-x: no node 'node-x' (did you mean 'node-c'?)",
        False,
        "steps:\n- node stop: node-x\n- expect: a1 reaches c2\n",
    ),
    "node-stopped": Broken(
        ":3: node node-a is stopped (emulab node start node-a)", False, "steps:\n- node stop: node-a\n- expect: a1 reaches c2\n"
    ),
    "heal": Broken(":3: heal: nothing is partitioned", False, "steps:\n- expect: a1 reaches c2\n- heal\n"),
    "link": Broken(
        ":2: steps[0][link set].speed: unknown field (known: delay, loss, node, rate)",
        True,
        "steps:\n- link set: {node: node-a, speed: 1gbit}\n- expect: a1 reaches c2\n",
    ),
    "link-rate": Broken(
        ":4: steps[0][link set]: rate 10knots: a number and one of bit, kbit, mbit, gbit expected",
        False,
        "steps:\n- link set:\n    node: node-a\n    rate: 10knots\n- expect: a1 reaches c2\n",
    ),
    "fault": Broken(
        ":2: steps[0][fault inject]: unknown fault 'missing-rout' (did you mean 'missing-route'?)",
        True,
        "steps:\n- fault inject: missing-rout\n- expect: a1 reaches c2\n",
    ),
    "fault-nowhere": Broken(
        ":3: with plugin nat: fault inject missing-fdb: fault missing-fdb cannot be injected here: nothing can break in this way",
        False,
        "plugin: [flannel, nat]\nsteps:\n- fault inject: missing-fdb\n- expect: a1 reaches c2\n",
    ),
    "delete": Broken(
        ':2: delete netpol/none: networkpolicies.networking.k8s.io "none" not found',
        False,
        "steps:\n- delete: netpol/none\n- expect: a1 reaches c2\n",
    ),
    "delete-what": Broken(
        ":2: steps[0].delete: KIND/NAME, or several of one kind, expected, e.g. netpol/deny-all",
        False,
        "steps:\n- delete: deny-all\n- expect: a1 reaches c2\n",
    ),
    "manifest-file": Broken(
        ":1: manifests[0]: missing.yaml: cannot read the manifest: No such file or directory",
        False,
        "manifests: [missing.yaml]\nexpect: a1 reaches c2\n",
    ),
    "manifest-field": Broken(
        ":7: document 1, steps[0].apply, Pod default/p: spec.container: unknown field (did you mean 'containers'?)",
        False,
        "steps:\n- apply:\n    apiVersion: v1\n    kind: Pod\n    metadata: {name: p}\n    spec:\n      container: []\n"
        "- expect: a1 reaches c2\n",
    ),
    "manifest-namespace": Broken(
        ':5: document 1, Pod x/p: metadata.namespace: namespaces "x" not found',
        False,
        "steps:\n- expect: a1 reaches c2\n- apply:\n  - {apiVersion: v1, kind: Namespace, metadata: {name: y}}\n"
        "  - {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: x}, spec: {containers: [{name: c}]}}\n",
    ),
    "name": Broken(":1: name: a name in one line expected", False, "name: ' '\nexpect: a1 reaches c2\n"),
}
