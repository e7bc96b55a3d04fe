"""Templates in a worker: those that could take long. They keep jinja2's sandbox here as well."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from server.sandbox.loading import load_encodings
from server.sandbox.worker import Failed
from server.workflow.jinja_environment import make_environment

__all__ = ["prepare", "work"]


def prepare() -> None:
    """Load jinja2, and use it well and badly, so that it has loaded what it loads late."""
    load_encodings()
    _render("{% for a in b %}{{ a|tojson|urlize }}{% else %}{{ c.d }}{% endfor %}", {"b": [1]})
    for wrong in ("{% if %}", "{{ a.b.c }}", "{{ a|nothing }}"):
        with contextlib.suppress(Failed):
            work({"source": wrong}, b"{}")


def work(head: dict[str, Any], body: bytes) -> bytes:
    """Render `head["source"]` with the values in `body`."""
    import jinja2

    try:
        text = _render(head["source"], json.loads(body))
    except jinja2.TemplateSyntaxError as error:
        message = f"line {error.lineno}: {error.message}"
        raise Failed(message[:2000], "TemplateSyntaxError") from None
    except MemoryError:
        raise
    except Exception as error:
        raise Failed(str(error)[:2000], type(error).__name__) from None
    return text.encode("utf-8", "replace")


def _render(source: str, values: dict[str, Any]) -> str:
    return make_environment().from_string(source).render(values)
