"""The Container Network Interface: network configurations, results and errors as values, and a runtime that runs plugins.

Facts are those of the CNI specification 1.1.0 (containernetworking/cni SPEC.md, CONVENTIONS.md); "section" in this room is one
of its sections.  What libcni does beside the specification (the cache of results, say) is done the same way, and said to be.
"""
