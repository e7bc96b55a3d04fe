"""Workloads: who asks what, and when; the same for the load client (as text) and the simulator."""
