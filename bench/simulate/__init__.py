"""Policy simulation: the balancer's own code over simulated replicas, in virtual time."""
