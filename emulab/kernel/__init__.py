"""The only place that changes the kernel: sandbox, namespaces, netlink, nftables, sysctls, the applier."""
