"""Files that are text as they are, or nearly."""

from __future__ import annotations

import json

from server.sandbox.document_text.encoding import decoded

__all__ = ["json_text", "properties_text", "text", "yaml_text"]


def text(data: bytes) -> str:
    """As it is."""
    return decoded(data)


def json_text(data: bytes) -> str:
    """Parsed, and written with an indentation of two."""
    return json.dumps(json.loads(decoded(data)), indent=2, ensure_ascii=False)


def yaml_text(data: bytes) -> str:
    """Parsed, and written in block style; all documents of the file."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    documents = list(yaml.load_all(decoded(data), Loader=loader))
    dumped = yaml.dump_all(documents, Dumper=yaml.SafeDumper, allow_unicode=True, sort_keys=False)
    return str(dumped)


def properties_text(data: bytes) -> str:
    """Java's properties: "key: value" lines, comments as they are."""
    return "\n".join(map(_property, decoded(data).splitlines()))


def _property(line: str) -> str:
    line = line.strip()
    if not line or line[0] in "#!":
        return line
    sign = "=" if "=" in line else ":"
    key, _, value = line.partition(sign)
    return f"{key.strip()}: {value.strip()}"
