"""Workflows: graphs whose nodes are tasks in a nursery. Knows nothing of HTTP servers or files."""
