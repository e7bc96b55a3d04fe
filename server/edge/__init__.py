"""The HTTP servers that carry Triolet's ASGI apps: our own for HTTP/1.1, Hypercorn for TLS."""
