"""Bytes: readiness of sockets, HTTP/1.1 towards replicas, server-sent events, OpenAI's fields."""
