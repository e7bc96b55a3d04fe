"""The peers: other gateways and Triolet, one after the other before the same simulated replicas."""
