"""E-mails: the text of their body."""

from __future__ import annotations

import email
import email.policy
from email.message import MIMEPart

from server.sandbox.document_text.encoding import decoded
from server.sandbox.document_text.markup import text_of_html

__all__ = ["eml_text"]


def eml_text(data: bytes) -> str:
    """The plain body, or the HTML body as text; attachments are left out."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    body = message.get_body(preferencelist=("plain", "html"))
    if body is None:
        return ""
    text = _content(body)
    return text_of_html(text) if body.get_content_subtype() == "html" else text


def _content(part: MIMEPart) -> str:
    try:
        return str(part.get_content())
    except (LookupError, UnicodeDecodeError):  # a charset that is none
        payload = part.get_payload(decode=True)
        return decoded(payload if isinstance(payload, bytes) else b"")
