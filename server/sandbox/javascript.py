"""JavaScript in a worker: QuickJS, whose own limits do not stop a regular expression. The process
is what is limited."""

from __future__ import annotations

import json
from typing import Any, Final

from server.sandbox.worker import Failed

__all__ = ["prepare", "work"]

_STACK_BYTES: Final = 1 << 20

_PRELUDE: Final = """
globalThis.console = Object.fromEntries(
  ["log", "info", "warn", "error", "debug", "trace", "table"].map((name) => [name, () => {}]));
globalThis.btoa = (text) => {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const codes = Array.from(String(text), (letter) => letter.codePointAt(0));
  if (codes.some((code) => code > 255)) throw new Error("btoa: a character is not Latin-1");
  let encoded = "";
  for (let at = 0; at < codes.length; at += 3) {
    const [first, second, third] = [codes[at], codes[at + 1], codes[at + 2]];
    const bits = (first << 16) | ((second || 0) << 8) | (third || 0);
    encoded += digits[bits >> 18] + digits[(bits >> 12) & 63];
    encoded += second === undefined ? "=" : digits[(bits >> 6) & 63];
    encoded += third === undefined ? "=" : digits[bits & 63];
  }
  return encoded;
};
globalThis.atob = (text) => {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let [bits, held, decoded] = [0, 0, ""];
  for (const letter of String(text).replace(/[\\s=]/g, "")) {
    const digit = digits.indexOf(letter);
    if (digit < 0) throw new Error("atob: not Base64");
    bits = (bits << 6) | digit;
    held += 6;
    if (held >= 8) decoded += String.fromCharCode((bits >> (held -= 8)) & 255);
    bits &= 0xffff;
  }
  return decoded;
};
"""

_CALL: Final = """
globalThis.__outcome = {};
((arguments_) => {
  if (typeof main !== "function") throw new Error("the code has no function main");
  Promise.resolve(main(JSON.parse(arguments_))).then(
    (value) => { __outcome.text = JSON.stringify(value); __outcome.done = true; },
    (error) => { __outcome.error = [error, error && error.stack].filter(Boolean).join("\\n"); });
})
"""


def prepare() -> None:
    """Load the engine, if it is there."""
    try:
        import quickjs  # type: ignore[import-untyped]
    except ImportError:
        return
    quickjs.Context().eval("1")


def work(head: dict[str, Any], body: bytes) -> bytes:
    """Run `head["source"]` and call `main` with the object in `body`; its result as JSON."""
    try:
        import quickjs
    except ImportError:
        raise Failed("javascript needs quickjs: pip install 'triolet[code]'") from None
    context = quickjs.Context()
    context.set_memory_limit(head["memory_bytes"])
    context.set_max_stack_size(_STACK_BYTES)
    try:
        context.eval(_PRELUDE)
        context.eval(head["source"])
        context.eval(_CALL)(body.decode())
        while context.execute_pending_job():
            pass
        text = _outcome(context)
    except quickjs.JSException as error:
        raise Failed(_told(str(error))) from None
    return text.encode("utf-8", "replace")


def _outcome(context: Any) -> str:
    error = context.eval("__outcome.error")
    if error is not None:
        raise Failed(_told(error))
    if not context.eval("__outcome.done === true"):
        raise Failed("main returned a promise that nothing settles")
    text = context.eval("__outcome.text")
    if not isinstance(text, str) or not isinstance(json.loads(text), dict):
        raise Failed("main must return an object")
    return text


def _told(text: str) -> str:
    text = text.strip().replace("<input>", "code")
    return "out of memory" if "out of memory" in text else text[:2000]
