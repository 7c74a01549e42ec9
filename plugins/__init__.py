"""The folder `plugins/` is the package `emulab_plugins` (see setup.cfg): every module in it is one of the plugins."""
