"""What Triolet asks replicas besides the traffic: whether they are up, and what they serve."""
