"""The folder `topologies/` is the package `emulab_topologies` (see setup.cfg): every module in it is one of the topologies."""
