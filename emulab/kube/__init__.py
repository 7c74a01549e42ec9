"""Kubernetes manifests: from text to the values of `emulab.objects`.  Pure; the typed models are lightkube's."""
