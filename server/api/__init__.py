"""What clients call. Hot endpoints are plain ASGI callables that also know their log record."""
