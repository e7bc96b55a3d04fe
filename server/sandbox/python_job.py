"""Python code in a worker: the source is run as a script, then its `main` is called."""

from __future__ import annotations

import datetime
import importlib
import json
import linecache
import sys
import traceback
import types
from typing import Any, Final

from server.sandbox.loading import load_encodings
from server.sandbox.worker import Failed

__all__ = ["MODULES", "prepare", "work"]

_NAME: Final = "<code>"
_TRACE_LINES: Final = 12
_MESSAGE: Final = 1000

MODULES: Final = (
    *("abc", "argparse", "array", "ast", "asyncio", "base64", "binascii", "bisect", "bz2"),
    *("calendar", "cmath", "codecs", "collections.abc", "colorsys", "concurrent.futures"),
    *("configparser", "contextlib", "contextvars", "copy", "csv", "ctypes", "dataclasses"),
    *("datetime", "decimal", "difflib", "email.message", "email.mime.multipart"),
    *("email.mime.text", "email.parser", "email.utils", "enum", "fnmatch", "fractions"),
    *("functools", "getpass", "glob", "graphlib", "gzip", "hashlib", "heapq", "hmac"),
    *("html.entities", "html.parser", "http.client", "http.cookies", "importlib.util"),
    *("inspect", "io", "ipaddress", "itertools", "json", "keyword", "locale", "logging"),
    *("lzma", "math", "mimetypes", "mmap", "multiprocessing", "numbers", "operator", "os.path"),
    *("pathlib", "pickle", "platform", "pprint", "queue", "quopri", "random", "re"),
    *("reprlib", "resource", "sched", "secrets", "select", "selectors", "shlex", "shutil"),
    *("signal", "socket", "ssl", "stat", "statistics", "string", "stringprep", "struct"),
    *("subprocess", "sysconfig", "tarfile", "tempfile", "textwrap", "threading", "time"),
    *("timeit", "token", "tokenize", "tomllib", "traceback", "types", "typing"),
    *("unicodedata", "unittest.mock", "urllib.error", "urllib.parse", "urllib.request"),
    *("urllib.response", "uuid", "warnings", "wave", "weakref", "xml.dom.minidom"),
    *("xml.etree.ElementTree", "xml.sax", "xmlrpc.client", "zipfile", "zlib", "zoneinfo"),
)
"""Loaded before forks: a worker may be unable to read the interpreter's folder."""


def prepare() -> None:
    """Load the standard library, and what it loads only at a first use."""
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:  # newer versions leave old modules out
            continue
    datetime.datetime.strptime("2000", "%Y")
    load_encodings()


def work(head: dict[str, Any], body: bytes) -> bytes:
    """Run `head["source"]` and call `main` with the arguments in `body`; its result as JSON."""
    sys.stdout = sys.stderr = _Nowhere()
    sys.argv = [""]
    try:
        result = _call(head["source"], json.loads(body))
    except BaseException as error:  # noqa: ASYNC103 - no Trio here: a process of its own
        raise Failed(_told(error)) from None  # noqa: ASYNC104
    if not isinstance(result, dict):
        raise Failed(f"main must return a dict, not {type(result).__name__}")
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Failed(f"the result of main cannot be JSON: {error}") from None
    return text.encode("utf-8", "replace")


def _call(source: str, arguments: dict[str, Any]) -> Any:
    lines = source.splitlines(keepends=True)
    linecache.cache[_NAME] = (len(source), None, lines, _NAME)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(source, _NAME, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__["main"](**arguments) if "main" in module.__dict__ else _no_main()


def _no_main() -> Any:
    raise Failed("the code has no function main")


class _Nowhere:
    """Standard output: what code prints is for nobody."""

    encoding = "utf-8"
    errors = "replace"

    def write(self, text: str) -> int:
        return len(text)

    def writelines(self, lines: Any) -> None:
        for _ in lines:
            pass

    def flush(self) -> None:
        return

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return 1


def _told(error: BaseException) -> str:
    """The exception, and where in the code: only the code's own lines."""
    if isinstance(error, Failed):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    places = [
        f"  line {frame.lineno}, in {frame.name}: {(frame.line or '').strip()[:200]}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == _NAME
    ]
    if isinstance(error, SyntaxError) and error.filename == _NAME:
        places.append(f"  line {error.lineno}: {(error.text or '').strip()[:200]}")
    return "\n".join([_summary(error), *_shortened(places)])


def _summary(error: BaseException) -> str:
    kind = type(error).__name__
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += f" ({_remedy(error.name.partition('.')[0])})"
    return f"{kind}: {text}"[:_MESSAGE] if text else kind


def _remedy(package: str) -> str:
    if package == "requests":
        return (
            "code may have it once it is installed, with `network = true` and"
            " `packages = ['requests']` in [code]"
        )
    return f"code may have it once it is installed, with `packages = [{package!r}]` in [code]"


def _shortened(places: list[str]) -> list[str]:
    if len(places) <= _TRACE_LINES:
        return places
    half = _TRACE_LINES // 2
    return [*places[:half], f"  ... {len(places) - 2 * half} more ...", *places[-half:]]
