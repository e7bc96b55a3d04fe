"""What is seen from outside: metrics, logs, the loop's lag."""
