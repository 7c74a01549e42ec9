"""What a pod or node finds in its own /etc: its name, and the names it knows.  Pure."""

from __future__ import annotations

from emulab import zone
from emulab.errors import InputError, nearest
from emulab.model import GATEWAY, OUTSIDE_HOST, Cluster, Endpoint

_LOCAL = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# The kubelet's text (pkg/kubelet/kubelet_pods.go, nodeHostsFileContent and ensureHostsFile).
_POD_HOSTS = (
    f"# Kubernetes-managed hosts file.\n{_LOCAL}fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
)


def of(cluster: Cluster, name: str) -> dict[str, str]:
    """The files of the namespace ``name`` by their names: hostname, hosts, resolv.conf."""
    pod = next((endpoint for endpoint in cluster.endpoints if endpoint.key == name), None)
    if pod is not None:
        hosts = _POD_HOSTS + "".join(f"{address}\t{pod.pod.name}\n" for address in pod.addresses)
        domains = f"{pod.pod.namespace}.svc.cluster.local svc.cluster.local cluster.local"
        resolver = f"{_name_server(cluster, pod)}search {domains}\noptions ndots:5\n"
        return {"hostname": f"{pod.pod.name}\n", "hosts": hosts, "resolv.conf": resolver}
    links = cluster.topology.links
    hosts = _LOCAL + "".join(f"{address.ip}\t{link.node}\n" for link in links for address in link.addresses)
    return {"hostname": f"{name}\n", "hosts": hosts, "resolv.conf": "# no name server: this cluster is on its own\n"}


def _name_server(cluster: Cluster, pod: Endpoint) -> str:
    """The line for the cluster's DNS, where there is one: the kubelet's clusterDNS is one address."""
    for service in cluster.topology.objects.services:
        if (service.namespace, service.name) == (zone.NAMESPACE, zone.SERVICE):
            families = {address.version for address in pod.addresses}
            return next((f"nameserver {address}\n" for address in service.addresses if address.version in families), "")
    return ""


def resolve(cluster: Cluster, name: str, *, others: bool = True) -> str:
    """The namespace that ``name`` means: a pod by ``a1`` or ``default/a1``, a node, with ``others`` the gateway or outside host.

    Raises `InputError` with the nearest name.
    """
    pods = {endpoint.key for endpoint in cluster.endpoints}
    nodes = {node.name for node in cluster.nodes}
    if name in nodes or name in pods:
        return name
    if f"default/{name}" in pods:
        return f"default/{name}"
    for pod in cluster.topology.objects.host_pods:  # it lives in its node's namespace
        if pod.key in (name, f"default/{name}"):
            return pod.node
    if others and name in (GATEWAY, OUTSIDE_HOST):
        return name
    known = [*nodes, *(key.removeprefix("default/") for key in pods)]
    raise InputError(f"no pod or node '{name}'{nearest(name, known)}")
