"""Kubernetes manifests: from text to the values of `emulab.objects`.  Pure; the typed models are lightkube's.

    pods, objects, *_ = applied(topology, read(text, "web.yaml"))

What is heavy is imported when there is a manifest to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulab.kube.applying import Applied
    from emulab.kube.document import Document
    from emulab.model import Topology

__all__ = ["applied", "read"]


def read(text: str, file: str, ignore_unknown: bool = False, namespace: str = "") -> list[Document]:
    """See `emulab.kube.reading.read`."""
    from emulab.kube import reading

    return reading.read(text, file, ignore_unknown, namespace)


def applied(topology: Topology, documents: Sequence[Document]) -> Applied:
    """See `emulab.kube.applying.applied`."""
    from emulab.kube import applying

    return applying.applied(topology, documents)
