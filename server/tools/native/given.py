"""What a native tool is given: its arguments and settings by name, read leniently as forms and
models write them, and wrong ones refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from server.tools.native.operator_settings import told_by_operator
from server.workflow.large_json import json_text, read_json
from server.workflow.node import NodeRun
from server.workflow.services import Services, ToolFailed, Web
from server.workflow.sizes import TooLarge
from server.workflow.values import File, plain

__all__ = ["Given"]

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "none", "null", ""})


class Given:
    """Arguments over settings; what is empty counts as absent."""

    def __init__(
        self,
        provider: str,
        arguments: Mapping[str, Any],
        settings: Mapping[str, Any],
        run: NodeRun,
    ) -> None:
        self.provider = provider
        self.run = run
        self._values = {
            name: value
            for source in (settings, arguments)
            for name, value in source.items()
            if value is not None and value != ""
        }
        self._of_operator = told_by_operator(settings)
        self._trusted: list[str] = []

    @property
    def services(self) -> Services:
        return self.run.run.services

    def value(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def is_of_operator(self, name: str) -> bool:
        """Whether the operator gave it: what a file or a model says is not to be trusted so."""
        return name in self._of_operator and self.value(name) == self._of_operator[name]

    def text(self, name: str, default: str | None = None) -> str:
        """Raises `ToolFailed` if there is none and no default."""
        found = self._values.get(name, default)
        if found is None:
            raise self.wrong(f"it needs {name!r}")
        if isinstance(found, str):
            return found
        if isinstance(found, bool | int | float):
            return str(found)
        if isinstance(found, File):
            raise self.wrong(f"{name!r} is a file; it takes a text")
        try:
            return json_text(plain(found))
        except ValueError as error:
            raise self.wrong(f"{name!r}: {error}") from None

    def flag(self, name: str, default: bool = False) -> bool:
        found = self._values.get(name, default)
        if isinstance(found, str):
            word = found.strip().lower()
            if word not in _TRUE and word not in _FALSE:
                raise self.wrong(f"{name!r} is {found[:40]!r}; it takes true or false")
            return word in _TRUE
        return bool(found)

    def number(self, name: str, default: float | None = None) -> float:
        found = self._values.get(name, default)
        if found is None:
            raise self.wrong(f"it needs {name!r}")
        try:
            number = float(found)
        except (TypeError, ValueError):
            raise self.wrong(f"{name!r} is {found!r:.60}; it takes a number") from None
        if number != number or abs(number) == float("inf"):
            raise self.wrong(f"{name!r} is {number}; it takes a number")
        return number

    def whole(self, name: str, default: int | None = None, *, low: int, high: int) -> int:
        """Brought within `low` to `high`."""
        return min(max(int(self.number(name, default)), low), high)

    def table(self, name: str) -> dict[str, Any]:
        """An object, or the JSON of one; an empty one if there is none."""
        found = self._values.get(name, {})
        if isinstance(found, str):
            try:
                found = read_json(found)
            except TooLarge as error:
                raise self.wrong(f"{name!r}: {error}") from None
            except ValueError:
                raise self.wrong(f"{name!r} is not JSON") from None
        if not isinstance(found, dict):
            raise self.wrong(f"{name!r} is not a JSON object")
        return found

    def words(self, name: str) -> list[str]:
        """A list, or a text with commas, blanks or line breaks between its items."""
        found = self._values.get(name, [])
        if isinstance(found, str):
            return [word for word in found.replace(",", " ").split() if word]
        return [str(item) for item in found] if isinstance(found, list | tuple) else [str(found)]

    def files(self, name: str) -> list[File]:
        """Raises `ToolFailed` if there is none."""
        found = self._values.get(name)
        items = found if isinstance(found, list) else [found]
        files = [item for item in items if isinstance(item, File)]
        if not files:
            raise self.wrong(f"it needs a file as {name!r}")
        return files

    def credential(self, name: str) -> str:
        """A setting that an export does not carry. Raises `ToolFailed`, naming its binding."""
        found = self.value(name)
        if not isinstance(found, str) or not found.strip() or "[__HIDDEN__]" in found:
            raise self.unbound(name)
        return found.strip()

    def unbound(self, name: str) -> ToolFailed:
        """The error for a setting that only the operator can supply."""
        return ToolFailed(
            f"the tool {self.provider} needs {name}: bind tool:{self.provider}.{name}",
            "ToolProviderCredentialValidationError",
        )

    def base_url(self, default: str, *names: str) -> str:
        """Where the service is: the first of these settings, or `base_url`, or the default. Only
        the operator has a say in it, and may name a server inside."""
        for name in (*names, "base_url"):
            found = self._of_operator.get(name)
            if isinstance(found, str) and found.strip():
                self._trusted = [found.strip()]
                return found.strip().rstrip("/")
        return default

    @property
    def web(self) -> Web:
        """`services.Web`, which lets the operator's base URL be inside, once it was asked for."""
        web = self.services.web
        trusting = getattr(web, "trusting", None)
        if trusting is None or not self._trusted:
            return web
        try:
            return cast(Web, trusting(*self._trusted))
        except ValueError as error:
            raise self.wrong(f"its base URL: {error}") from None

    def wrong(self, message: str) -> ToolFailed:
        return ToolFailed(f"{self.provider}: {message}", "ToolParameterError")
