"""What answers inside a lab: the containers' ports and the cluster's DNS.  One process holds the sockets of all pods."""
