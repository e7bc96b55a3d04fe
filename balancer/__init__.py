"""Choosing a replica and streaming from it.

Knows replicas, pools, policies and the wire to them. Knows nothing of apps, users, HTTP servers
or databases, so that it can be simulated and tested without any of them.
"""
