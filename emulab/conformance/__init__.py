"""Does a CNI plugin do what the specification demands?  Each check is a question to a plugin on a host that is made for it.

`run` asks them all: `emulab.conformance.running`.
"""
