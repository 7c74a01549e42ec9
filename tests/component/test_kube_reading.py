"""Manifests as people write them: every mistake is one line with file, line, document and field; nothing else is lost."""

from __future__ import annotations

from typing import Any

import pytest
from designed import catalogued
from tables import each_row

from emulab.errors import InputError
from emulab.kube import applied, read
from emulab.kube.document import Document

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n"
POLICY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\nspec:\n  podSelector: {}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  selector: {app: web}\n"
DEPLOYMENT = (
    "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  selector: {matchLabels: {app: web}}\n"
    "  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers: [{name: c}]\n"
)
SLICE = (
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s\n  labels: {kubernetes.io/service-name: web}\n"
)
NODE = "apiVersion: v1\nkind: Node\nmetadata:\n  name: node-x\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
ITEM = "- apiVersion: v1\n  kind: Namespace\n  metadata:\n"
PORT = "  ports: [{port: 80}]\n"
NODE_PORT = "  type: NodePort\n  ports: [{port: 80, nodePort: 30080}]\n"
BLOCK = "  egress:\n  - to:\n    - ipBlock:\n        cidr: 10.0.0.0/8\n        except:\n"

# What is wrong: (manifest, what is said after "web.yaml:"); "…": it goes on.
BAD = {
    "tab": (
        "\tkind: Pod\n",
        "1: broken YAML: found character that cannot start any token",
    ),
    "broken": (
        "kind: [Pod\n",
        "2: broken YAML: did not find expected ',' or ']'",
    ),
    "list": (
        "- a\n",
        "1: document 1: an object with apiVersion and kind expected, got a list",
    ),
    "scalar": (
        "hello\n",
        "1: document 1: an object with apiVersion and kind expected, got 'hello'",
    ),
    "no kind": (
        "apiVersion: v1\nmetadata: {name: a}\n",
        "1: document 1: kind: required",
    ),
    "no version": (
        "kind: Pod\nmetadata: {name: a}\n",
        "1: document 1: apiVersion: required",
    ),
    "kind null": (
        "apiVersion: v1\nkind:\n",
        "2: document 1: kind: text expected, got nothing",
    ),
    "unknown kind": (
        "apiVersion: v1\nkind: Podd\nmetadata: {name: a}\n",
        "2: document 1: kind: no kind 'Podd' in version 'v1' (did you mean 'Pod'?)",
    ),
    "wrong version": (
        "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: a}\n",
        "2: document 1: kind: no kind 'NetworkPolicy' in version 'extensions/v1beta1' …",
    ),
    "twice key": (
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  name: b\n",
        "5: there are two 'name' here",
    ),
    "python tag": (
        "apiVersion: v1\nkind: !!python/object/apply:os.system [true]\n",
        "2: a tag 'tag:yaml.org,2002:python/object/apply:os.system' means nothing here",
    ),
    "tag": (
        "apiVersion: v1\nkind: !foo x\n",
        "2: a tag '!foo' means nothing here",
    ),
    "bomb": (
        BOMB,
        "1: its aliases stand for 1234567880 values, at most 100000 expected",
    ),
    "cycle": (
        "apiVersion: v1\nkind: Pod\nmetadata: &m {labels: *m}\n",
        "3: an alias that contains itself",
    ),
    "undefined alias": (
        "apiVersion: *v\n",
        "1: broken YAML: found undefined alias",
    ),
    "deep": (
        "a: " + "[" * 150 + "]" * 150 + "\n",
        "1: nested more than 100 deep",
    ),
    "deeper": (
        "a: " + "[" * 5000 + "]" * 5000 + "\n",
        "1: broken YAML: exceeded maximum nesting depth",
    ),
    "nul": (
        "apiVersion: v1\nkind: Pod\x00\n",
        "2: no text: control characters are not allowed",
    ),
    "complex key": (
        "apiVersion: v1\nkind: Pod\n? [a]\n: b\n",
        "3: a name expected as a key",
    ),
    "metadata missing": (
        "apiVersion: v1\nkind: Pod\n",
        "1: document 1, Pod: metadata.name: required",
    ),
    "metadata list": (
        "apiVersion: v1\nkind: Pod\nmetadata: []\n",
        "3: document 1, Pod: metadata: a mapping expected, got a list",
    ),
    "no name": (
        "apiVersion: v1\nkind: Pod\nmetadata: {}\n",
        "3: document 1, Pod: metadata.name: required",
    ),
    "name number": (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: 5}\n",
        "3: document 1, Namespace 5: metadata.name: text expected, got 5",
    ),
    "bad name": (
        POD.replace("name: a", "name: A_1"),
        "4: document 1, Pod default/A_1: metadata.name: 'A_1' is no name for a Pod: …",
    ),
    "dotted pod": (
        POD.replace("name: a", "name: a.b"),
        "4: document 1, Pod default/a.b: metadata.name: 'a.b' is no name for a pod: …",
    ),
    "long name": (
        POD.replace("name: a", "name: " + "a" * 64),
        "4: document 1, Pod default/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: metadata.name: …",
    ),
    "namespace of namespace": (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n",
        "3: document 1, Namespace a: metadata.namespace: a Namespace is in no namespace",
    ),
    "unknown namespace": (
        POD.replace("name: a\n", "name: a\n  namespace: shp\n"),
        '5: document 1, Pod shp/a: metadata.namespace: namespaces "shp" not found',
    ),
    "bad namespace": (
        POD.replace("name: a\n", "name: a\n  namespace: Shop\n"),
        "5: document 1, Pod Shop/a: metadata.namespace: 'Shop' is no name for a namespace: …",
    ),
    "unknown top": (
        POD + "spek: {}\n",
        "8: document 1, Pod default/a: spek: unknown field (did you mean 'spec'?)",
    ),
    "unknown spec": (
        POD + "  nodename: node-a\n",
        "8: document 1, Pod default/a: spec.nodename: unknown field (did you mean 'nodeName'?)",
    ),
    "unknown deep": (
        POLICY + "  ingress:\n  - from:\n    - namespaceSelector: {}\n    - podSelecto: {}\n",
        "10: document 1, NetworkPolicy default/web: spec.ingress[0].from[1].podSelecto: unknown field (did you mean '…",
    ),
    "unknown from": (
        POLICY + "  ingress:\n  - to:\n    - podSelector: {}\n",
        "8: document 1, NetworkPolicy default/web: spec.ingress[0].to: unknown field (known: from, ports)",
    ),
    "unknown in list": (
        "apiVersion: v1\nkind: List\nitems:\n" + ITEM + "    name: a\n" + ITEM + "    nam: b\n",
        "11: document 1, items[1], Namespace: metadata.nam: unknown field (did you mean 'name'?)",
    ),
    "items": (
        "apiVersion: v1\nkind: List\nitems: {}\n",
        "3: document 1, List: items: a list expected",
    ),
    "item": (
        "apiVersion: v1\nkind: List\nitems: [1]\n",
        "3: document 1, items[0]: an object with apiVersion and kind expected, got 1",
    ),
    "type": (
        SERVICE + '  ports:\n  - port: "80"\n',
        "8: document 1, Service default/web: spec.ports[0].port: a whole number expected, got '80'",
    ),
    "bool as text": (
        POD + '  hostNetwork: "yes"\n',
        "8: document 1, Pod default/a: spec.hostNetwork: true or false expected, got 'yes'",
    ),
    "text as list": (
        POD + "  tolerations: x\n",
        "8: document 1, Pod default/a: spec.tolerations: a list expected, got 'x'",
    ),
    "list as map": (
        POLICY.replace("podSelector: {}", "podSelector: []"),
        "6: document 1, NetworkPolicy default/web: spec.podSelector: a mapping expected, got a list",
    ),
    "required": (
        POD.replace("- name: c", "- image: c"),
        "7: document 1, Pod default/a: spec.containers[0].name: required",
    ),
    "null item": (
        POLICY + "  ingress:\n  -\n",
        "8: document 1, NetworkPolicy default/web: spec.ingress[0]: a mapping expected, got nothing",
    ),
    "label value": (
        POD.replace("name: a\n", "name: a\n  labels:\n    app: 5\n"),
        "6: document 1, Pod default/a: metadata.labels.app: text expected, got 5 (put it in quotes)",
    ),
    "label value bool": (
        POD.replace("name: a\n", "name: a\n  labels:\n    app: yes\n"),
        "6: document 1, Pod default/a: metadata.labels.app: text expected, got true (put it in quotes)",
    ),
    "label value syntax": (
        POD.replace("name: a\n", "name: a\n  labels:\n    app: -web\n"),
        "6: document 1, Pod default/a: metadata.labels.app: '-web' is no value of a label: …",
    ),
    "label key": (
        POD.replace("name: a\n", "name: a\n  labels:\n    ap p: web\n"),
        "6: document 1, Pod default/a: metadata.labels[ap p]: 'ap p' is no key of a label: …",
    ),
    "label long": (
        POD.replace("name: a\n", "name: a\n  labels:\n    app: " + "x" * 64 + "\n"),
        "6: document 1, Pod default/a: metadata.labels.app: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…",
    ),
    "annotation": (
        POD.replace("name: a\n", "name: a\n  annotations:\n    app: 5\n"),
        "6: document 1, Pod default/a: metadata.annotations.app: text expected, got 5 (put it in quotes)",
    ),
    "no spec": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
        "1: document 1, Pod default/a: spec: required",
    ),
    "no containers": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n",
        "4: document 1, Pod default/a: spec.containers: at least one container expected",
    ),
    "container twice": (
        POD + "  - name: c\n",
        "8: document 1, Pod default/a: spec.containers[1].name: there are two containers 'c'",
    ),
    "container name": (
        POD.replace("name: c", "name: C"),
        "7: document 1, Pod default/a: spec.containers[0].name: 'C' is no name for a container: …",
    ),
    "container port": (
        POD + "    ports:\n    - containerPort: 70000\n",
        "9: document 1, Pod default/a: spec.containers[0].ports[0].containerPort: 70000 is out of range, 1 to 65535 e…",
    ),
    "port name": (
        POD + "    ports:\n    - containerPort: 80\n      name: HTTP\n",
        "10: document 1, Pod default/a: spec.containers[0].ports[0].name: 'HTTP' is no name for a port: …",
    ),
    "port name long": (
        POD + "    ports:\n    - containerPort: 80\n      name: a-very-long-name\n",
        "10: document 1, Pod default/a: spec.containers[0].ports[0].name: 'a-very-long-name' is no name for a port: …",
    ),
    "port twice": (
        POD + "    ports:\n    - {containerPort: 80, name: http}\n    - {containerPort: 81, name: http}\n",
        "10: document 1, Pod default/a: spec.containers[0].ports[1].name: there are two ports 'http'",
    ),
    "protocol": (
        POD + "    ports:\n    - {containerPort: 80, protocol: tcp}\n",
        "9: document 1, Pod default/a: spec.containers[0].ports[0].protocol: 'tcp': TCP or UDP or SCTP expected",
    ),
    "host port": (
        POD + "    ports:\n    - {containerPort: 80, hostPort: 0}\n    - {containerPort: 80, hostPort: 70000}\n",
        "10: document 1, Pod default/a: spec.containers[0].ports[1].hostPort: 70000 is out of range, 1 to 65535 expec…",
    ),
    "host port of host": (
        POD + "    ports:\n    - {containerPort: 80, hostPort: 81}\n  hostNetwork: true\n",
        "9: document 1, Pod default/a: spec.containers[0].ports[0].hostPort: with hostNetwork it must be the containe…",
    ),
    "node": (
        POD + "  nodeName: node-z\n",
        "8: document 1, Pod default/a: spec.nodeName: no node 'node-z' (did you mean 'node-c'?)",
    ),
    "node selector": (
        POD + "  nodeSelector: {disk: ssd}\n",
        "8: document 1, Pod default/a: spec.nodeSelector: no node has the labels disk=ssd",
    ),
    "hostname": (
        POD + "  hostname: a.b\n",
        "8: document 1, Pod default/a: spec.hostname: 'a.b' is no hostname: …",
    ),
    "addresses": (
        POD.replace("name: a\n", "name: a\n  annotations:\n    cni.projectcalico.org/ipAddrs: 10.1.1.7\n"),
        "6: document 1, Pod default/a: metadata.annotations[cni.projectcalico.org/ipAddrs]: '10.1.1.7': a list of add…",
    ),
    "address": (
        POD.replace("name: a\n", "name: a\n  annotations:\n    cni.projectcalico.org/ipAddrs: '[\"10.1.1.700\"]'\n"),
        "6: document 1, Pod default/a: metadata.annotations[cni.projectcalico.org/ipAddrs]: '10.1.1.700' is no IP add…",
    ),
    "bandwidth": (
        POD.replace("name: a\n", "name: a\n  annotations:\n    kubernetes.io/ingress-bandwidth: fast\n"),
        "6: document 1, Pod default/a: metadata.annotations[kubernetes.io/ingress-bandwidth]: 'fast' is no quantity: …",
    ),
    "bandwidth low": (
        POD.replace("name: a\n", 'name: a\n  annotations:\n    kubernetes.io/egress-bandwidth: "10"\n'),
        "6: document 1, Pod default/a: metadata.annotations[kubernetes.io/egress-bandwidth]: '10' is out of range, 1k…",
    ),
    "deployment selector": (
        DEPLOYMENT.replace("{labels: {app: web}}", "{labels: {app: wbe}}"),
        "8: document 1, Deployment default/web: spec.template.metadata.labels: the selector 'app == 'web'' does not m…",
    ),
    "deployment empty selector": (
        DEPLOYMENT.replace("{matchLabels: {app: web}}", "{}"),
        "6: document 1, Deployment default/web: spec.selector: an empty selector would select all pods",
    ),
    "replicas": (
        DEPLOYMENT.replace("spec:\n  selector", "spec:\n  replicas: -1\n  selector"),
        "6: document 1, Deployment default/web: spec.replicas: -1 is out of range, 0 to 10000 expected",
    ),
    "replicas of daemonset": (
        DEPLOYMENT.replace("Deployment", "DaemonSet").replace("spec:\n  selector", "spec:\n  replicas: 1\n  selector"),
        "6: document 1, DaemonSet default/web: spec.replicas: unknown field (did you mean 'template'?)",
    ),
    "restart": (
        DEPLOYMENT + "      restartPolicy: Never\n",
        "11: document 1, Deployment default/web: spec.template.spec.restartPolicy: 'Never': Always expected in a Depl…",
    ),
    "policy type": (
        POLICY + "  policyTypes: [ingress]\n",
        "7: document 1, NetworkPolicy default/web: spec.policyTypes[0]: 'ingress': Ingress or Egress expected",
    ),
    "peer": (
        POLICY + "  ingress:\n  - from:\n    - {}\n",
        "9: document 1, NetworkPolicy default/web: spec.ingress[0].from[0]: podSelector, namespaceSelector or ipBlock…",
    ),
    "block and pods": (
        POLICY + "  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8}\n      podSelector: {}\n",
        "9: document 1, NetworkPolicy default/web: spec.ingress[0].from[0].ipBlock: goes with no podSelector or names…",
    ),
    "cidr": (
        POLICY + "  egress:\n  - to:\n    - ipBlock:\n        cidr: 10.0.0.0\n",
        "10: document 1, NetworkPolicy default/web: spec.egress[0].to[0].ipBlock.cidr: '10.0.0.0' is no network: e.g.…",
    ),
    "cidr 2": (
        POLICY + "  egress:\n  - to:\n    - ipBlock:\n        cidr: 10.0.0.0/33\n",
        "10: document 1, NetworkPolicy default/web: spec.egress[0].to[0].ipBlock.cidr: '10.0.0.0/33' is no network: e…",
    ),
    "except": (
        POLICY + BLOCK + "        - 10.1.0.0/16\n        - 11.0.0.0/8\n",
        "13: document 1, NetworkPolicy default/web: spec.egress[0].to[0].ipBlock.except[1]: 11.0.0.0/8 expected to be…",
    ),
    "except all": (
        POLICY + "  egress:\n  - to:\n    - ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}\n",
        "9: document 1, NetworkPolicy default/web: spec.egress[0].to[0].ipBlock.except[0]: 10.0.0.0/8 expected to be …",
    ),
    "except 6": (
        POLICY + "  egress:\n  - to:\n    - ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/64']}\n",
        "9: document 1, NetworkPolicy default/web: spec.egress[0].to[0].ipBlock.except[0]: fd00::/64 expected to be a…",
    ),
    "end port": (
        POLICY + "  ingress:\n  - ports:\n    - {port: 80, endPort: 79}\n",
        "9: document 1, NetworkPolicy default/web: spec.ingress[0].ports[0].endPort: 79 is smaller than port 80",
    ),
    "end port of name": (
        POLICY + "  ingress:\n  - ports:\n    - port: http\n      endPort: 80\n",
        "10: document 1, NetworkPolicy default/web: spec.ingress[0].ports[0].endPort: needs a number as port, got 'ht…",
    ),
    "end port alone": (
        POLICY + "  ingress:\n  - ports:\n    - endPort: 80\n",
        "9: document 1, NetworkPolicy default/web: spec.ingress[0].ports[0].endPort: needs a port",
    ),
    "policy port": (
        POLICY + "  ingress:\n  - ports:\n    - port: 0\n",
        "9: document 1, NetworkPolicy default/web: spec.ingress[0].ports[0].port: 0 is out of range, 1 to 65535 expec…",
    ),
    "policy port name": (
        POLICY + "  ingress:\n  - ports:\n    - port: '80'\n",
        "9: document 1, NetworkPolicy default/web: spec.ingress[0].ports[0].port: '80' is no name for a port: …",
    ),
    "policy protocol": (
        POLICY + "  ingress:\n  - ports:\n    - protocol: ICMP\n",
        "9: document 1, NetworkPolicy default/web: spec.ingress[0].ports[0].protocol: 'ICMP': TCP or UDP or SCTP expe…",
    ),
    "operator": (
        POLICY.replace("podSelector: {}", "podSelector:\n    matchExpressions:\n    - {key: a, operator: Is}"),
        "8: document 1, NetworkPolicy default/web: spec.podSelector.matchExpressions[0].operator: 'Is': In or NotIn o…",
    ),
    "in": (
        POLICY.replace("podSelector: {}", "podSelector:\n    matchExpressions:\n    - {key: a, operator: In}"),
        "8: document 1, NetworkPolicy default/web: spec.podSelector.matchExpressions[0].values: In needs at least one…",
    ),
    "exists": (
        POLICY.replace("podSelector: {}", "podSelector:\n    matchExpressions:\n    - {key: a, operator: Exists, values: [b]}"),
        "8: document 1, NetworkPolicy default/web: spec.podSelector.matchExpressions[0].values: Exists takes no values",
    ),
    "selector key": (
        POLICY.replace("podSelector: {}", "podSelector:\n    matchLabels: {a/b/c: d}"),
        "7: document 1, NetworkPolicy default/web: spec.podSelector.matchLabels[a/b/c]: 'a/b/c' is no key of a label: …",
    ),
    "no ports": (
        SERVICE,
        "5: document 1, Service default/web: spec.ports: at least one port expected",
    ),
    "service type": (
        SERVICE + "  type: Cluster\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.type: 'Cluster': ClusterIP or NodePort or LoadBalancer or ExternalN…",
    ),
    "service names": (
        SERVICE + "  ports: [{port: 80, name: a}, {port: 81}]\n",
        "7: document 1, Service default/web: spec.ports[1].name: required when there are several ports",
    ),
    "service name twice": (
        SERVICE + "  ports: [{port: 80, name: a}, {port: 81, name: a}]\n",
        "7: document 1, Service default/web: spec.ports[1].name: there are two ports 'a'",
    ),
    "service port twice": (
        SERVICE + "  ports:\n  - {port: 80, name: a}\n  - {port: 80, name: b}\n",
        "9: document 1, Service default/web: spec.ports[1]: there are two ports 80/TCP",
    ),
    "service name": (
        SERVICE.replace("name: web", "name: web.x") + "  ports: [{port: 80}]\n",
        "4: document 1, Service default/web.x: metadata.name: 'web.x' is no name for a Service: …",
    ),
    "target": (
        SERVICE + "  ports: [{port: 80, targetPort: 70000}]\n",
        "7: document 1, Service default/web: spec.ports[0].targetPort: 70000 is out of range, 1 to 65535 expected",
    ),
    "node port": (
        SERVICE + "  type: NodePort\n  ports: [{port: 80, nodePort: 80}]\n",
        "8: document 1, Service default/web: spec.ports[0].nodePort: 80 is out of range, 30000 to 32767 expected",
    ),
    "node port of cluster ip": (
        SERVICE + "  ports: [{port: 80, nodePort: 30080}]\n",
        "7: document 1, Service default/web: spec.ports[0].nodePort: a Service of type ClusterIP has none",
    ),
    "cluster ip": (
        SERVICE + "  clusterIP: 10.1.1.1\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.clusterIP: 10.1.1.1 is not in the Services' range 10.96.0.0/12",
    ),
    "cluster ip text": (
        SERVICE + "  clusterIP: web\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.clusterIP: 'web' is no IP address",
    ),
    "none": (
        SERVICE + "  clusterIP: None\n  type: NodePort\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.clusterIP: None is only for a Service of type ClusterIP, and by its…",
    ),
    "cluster ip twice": (
        SERVICE
        + "  clusterIP: 10.96.0.7\n"
        + PORT
        + "---\n"
        + SERVICE.replace("web", "web2")
        + "  clusterIP: 10.96.0.7\n"
        + PORT,
        "16: document 2, Service default/web2: spec.clusterIP: 10.96.0.7 is taken by Service default/web",
    ),
    "node port twice": (
        SERVICE + NODE_PORT + "---\n" + SERVICE.replace("web", "web2") + NODE_PORT,
        "17: document 2, Service default/web2: spec.ports[0].nodePort: 30080/TCP is taken by Service default/web",
    ),
    "families": (
        SERVICE + "  ipFamilies: [IPv5]\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.ipFamilies[0]: 'IPv5': IPv4 or IPv6 expected",
    ),
    "single": (
        SERVICE + "  ipFamilyPolicy: SingleStack\n  ipFamilies: [IPv4, IPv6]\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.ipFamilyPolicy: SingleStack with two families",
    ),
    "affinity": (
        SERVICE + "  sessionAffinity: Client\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.sessionAffinity: 'Client': None or ClientIP expected",
    ),
    "affinity timeout": (
        SERVICE + "  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}\n" + PORT,
        "8: document 1, Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is out of range, 1…",
    ),
    "external name": (
        SERVICE + "  type: ExternalName\n",
        "5: document 1, Service default/web: spec.externalName: required when type is ExternalName",
    ),
    "policy of cluster ip": (
        SERVICE + "  externalTrafficPolicy: Local\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.externalTrafficPolicy: only for a Service of type NodePort or LoadB…",
    ),
    "traffic policy": (
        SERVICE + "  internalTrafficPolicy: Node\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.internalTrafficPolicy: 'Node': Cluster or Local expected",
    ),
    "source ranges": (
        SERVICE + "  loadBalancerSourceRanges: [10.0.0.0/8]\n  ports: [{port: 80}]\n",
        "7: document 1, Service default/web: spec.loadBalancerSourceRanges: only for a Service of type LoadBalancer",
    ),
    "balancer": (
        SERVICE + "  type: LoadBalancer\n  loadBalancerIP: 9.9.9.9\n  ports: [{port: 80}]\n",
        "8: document 1, Service default/web: spec.loadBalancerIP: 9.9.9.9 is not in the load balancer's pool 198.51.1…",
    ),
    "slice type": (
        SLICE + "addressType: FQDN\nendpoints: []\n",
        "6: document 1, EndpointSlice default/s: addressType: 'FQDN': IPv4 or IPv6 expected",
    ),
    "slice address": (
        SLICE + "addressType: IPv4\nendpoints:\n- addresses: [10.1.1.1]\n- addresses: ['fd00::1']\n",
        "9: document 1, EndpointSlice default/s: endpoints[1].addresses[0]: fd00::1: addressType is IPv4",
    ),
    "slice loopback": (
        SLICE + "addressType: IPv4\nendpoints:\n- addresses: [127.0.0.1]\n",
        "8: document 1, EndpointSlice default/s: endpoints[0].addresses[0]: 127.0.0.1 is no address of an endpoint",
    ),
    "slice no endpoints": (
        SLICE + "addressType: IPv4\nendpoints:\n- addresses: []\n",
        "8: document 1, EndpointSlice default/s: endpoints[0].addresses: at least one address expected",
    ),
    "node name": (
        NODE.replace("node-x", "gateway"),
        "4: document 1, Node gateway: metadata.name: 'gateway' is a name of the underlay: a node cannot have it",
    ),
    "node cidrs": (
        NODE + "spec:\n  podCIDRs: [10.1.7.0/24, 10.1.8.0/24]\n",
        "6: document 1, Node node-x: spec.podCIDRs: at most one pod CIDR per family expected",
    ),
    "node address": (
        NODE + "status:\n  addresses:\n  - {type: InternalIP, address: x}\n",
        "7: document 1, Node node-x: status.addresses[0].address: 'x' is no IP address",
    ),
    "same twice": (
        POD + "---\n" + POD,
        "9: document 2, Pod default/a: the same object is in web.yaml:1",
    ),
}


def complaint(text: str, file: str = "web.yaml") -> str:
    with pytest.raises(InputError) as refused:
        applied(catalogued("flat"), read(text, file))
    return str(refused.value)


@each_row("text, told", BAD.values(), ids=BAD)
def test_a_mistake_is_one_line_that_says_where(text: str, told: str) -> None:
    said = complaint(text)
    assert "\n" not in said
    if told.endswith("…"):
        assert said.startswith(f"web.yaml:{told[:-1]}")
    else:
        assert said == f"web.yaml:{told}"


JSON = {
    "broken": ('{"kind": "Pod",\n "x" 1}', "web.json:2: broken JSON: Expecting ':' delimiter"),
    "twice": ('{"kind": "Pod", "kind": "Pod"}', "web.json:1: there are two 'kind' in one object"),
    "deep": ('{"a":' * 150 + "1" + "}" * 150, "web.json:1: nested more than 100 deep"),
    "deeper": ('{"a":' * 100_000, "web.json:1: nested more than 100 deep"),
    "field": (
        '{"apiVersion": "v1", "kind": "Namespace",\n "metadata":\n  {"nam": "a"}}',
        "web.json:3: document 1, Namespace: metadata.nam: unknown field (did you mean 'name'?)",
    ),
    "second": (
        '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}\n\n{"apiVersion": "v1",\n "kind": "Pods"}',
        "web.json:4: document 2: kind: no kind 'Pods' in version 'v1' (did you mean 'Pod'?)",
    ),
}


@each_row("text, told", JSON.values(), ids=JSON)
def test_json_too(text: str, told: str) -> None:
    assert complaint(text, "web.json") == told


def names(documents: list[Document]) -> list[str]:
    return [one.name for one in documents]


@each_row(
    "text, found",
    [
        ("", []),
        ("---\n# nothing\n---\n", []),
        (f"---\n{POD}---\n---\n{SERVICE}  ports: [{{port: 80}}]\n", ["a", "web"]),
        ("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: x}}\n", ["x"]),
        ("apiVersion: v1\nkind: NamespaceList\nitems: null\n", []),
        ('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}', ["x"]),
        ('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}} ' * 2, ["x", "x"]),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: x}}", ["x"]),
        ("\ufeffapiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n", ["x"]),
        ("apiVersion: v1\nkind: Namespace\nmetadata: &m {name: x}\nspec: {}\nstatus: {phase: Active}\n", ["x"]),
    ],
)
def test_documents_lists_and_streams(text: str, found: list[str]) -> None:
    assert names(read(text, "web.yaml")) == found


@each_row(
    "written, value",
    [
        *(("2020-01-01", "2020-01-01"), ("1:30", "1:30"), ("'yes'", "yes"), ("~", None), ("yes", True), ("off", False)),
        *(("0x10", 16), ("010", 8), ("1_000", 1000), ("-5", -5), ("1.5", 1.5), ("1e3", "1e3"), ("", None), ("=", "=")),
    ],
)
def test_scalars_are_those_of_kubernetes(written: str, value: Any) -> None:
    from emulab.text import documents

    assert next(documents(f"a: {written}\n", "x")).value == {"a": value}


def test_anchors_and_merges() -> None:
    text = f"x: &c {{name: web, image: nginx}}\n{POD}"
    with pytest.raises(InputError, match="x: unknown field"):
        read(text, "web.yaml")
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: &n a}\nspec:\n  containers:\n  - &c {name: *n, image: x}\n"
    (found,) = read(pod + "  - {<<: *c, name: other}\n", "web.yaml")
    assert [(one.name, one.image) for one in found.model.spec.containers] == [("a", "x"), ("other", "x")]


def test_what_is_unknown_may_be_left_out() -> None:
    text = f"{POD}  nodename: node-a\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n"
    documents = read(text, "web.yaml", ignore_unknown=True)
    assert names(documents) == ["a"]
    assert documents[0].warnings == [
        "web.yaml:10: document 2: v1 Secret is left out: an unknown kind",
        "web.yaml:8: Pod default/a: spec.nodename is left out: an unknown field",
    ]


def test_a_namespace_may_be_given() -> None:
    assert read(POD, "web.yaml", namespace="shop")[0].namespace == "shop"
    with pytest.raises(InputError, match="'other' is not 'shop', which was asked for"):
        read(POD.replace("name: a\n", "name: a\n  namespace: other\n"), "web.yaml", namespace="shop")
