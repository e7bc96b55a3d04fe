"""Which model served here stands for one that an export names. Pure.

    names = ModelNames({"langgenius/openai/openai:gpt-4o": "qwen3-8b", "*": "small"})
    names.find(ModelRef("openai", "gpt-4o"))  # "qwen3-8b"

A key is `provider:model`, a model's name alone for one of any provider, or `*` for all. In both
parts `*` stands for any characters. Short and long names of a provider are the same: "openai" is
"langgenius/openai/openai".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from server.workflow.app import Bindings, ModelRef

__all__ = ["Choice", "How", "ModelNames", "NO_BINDINGS"]

How: TypeAlias = Literal["binding", "configured", "same name", "only model"]
"""By an app's binding, by `[models]`, because a model served here has that name, or because there
is but one model here and nothing is configured."""

NO_BINDINGS: Final = Bindings()

_REMEMBERED: Final = 1_000
"""References whose choice is kept; when there are more, all are forgotten."""


class Choice(NamedTuple):
    """The model for a reference, and why it."""

    model: str
    how: How
    key: str | None = None
    """The key of the table that named it."""


class _Pattern(NamedTuple):
    key: str
    model: str
    provider: str
    name: str

    @property
    def weight(self) -> tuple[int, int]:
        """Exact ones first, then fewest wildcards, then most other characters: least is best."""
        pattern = f"{self.provider}:{self.name}"
        wildcards = pattern.count("*")
        return (wildcards, wildcards - len(pattern))

    def fits(self, providers: tuple[str, str], name: str) -> bool:
        if not _matches(self.name, name):
            return False
        return any(_matches(self.provider, provider) for provider in providers)


class ModelNames:
    """The table `[models]`, compiled. `find` takes microseconds."""

    def __init__(self, table: Mapping[str, str] | None = None) -> None:
        self._table = dict(table or {})
        self._patterns = _compiled(self._table)
        self._found: dict[tuple[str, str], Choice | None] = {}
        self._bindings: dict[int, tuple[Mapping[str, str], list[_Pattern]]] = {}

    def find(
        self, ref: ModelRef, bindings: Bindings = NO_BINDINGS, served: Collection[str] = ()
    ) -> str | None:
        """The model that stands for `ref`; None if nothing says so. `served` are those here."""
        choice = self.choose(ref, bindings, served)
        return None if choice is None else choice.model

    def choose(
        self, ref: ModelRef, bindings: Bindings = NO_BINDINGS, served: Collection[str] = ()
    ) -> Choice | None:
        """The same, and why. An app's bindings count first, then `[models]`, then what is served
        under that very name, then the only one that is served, unless `[models]` says anything."""
        if bindings.models:
            bound = _best(self._bound(bindings.models), ref, "binding")
            if bound is not None:
                return bound
        configured = self._configured(ref)
        if configured is not None:
            return configured
        if ref.name in served:
            return Choice(ref.name, "same name")
        if not self._table and len(served) == 1:
            return Choice(next(iter(served)), "only model")
        return None

    def _bound(self, table: Mapping[str, str]) -> list[_Pattern]:
        """An app's table, compiled once: it is the same object in all of the app's runs."""
        known = self._bindings.get(id(table))
        if known is None or known[0] is not table:
            if len(self._bindings) >= _REMEMBERED:
                self._bindings.clear()
            known = self._bindings[id(table)] = (table, _compiled(table))
        return known[1]

    def _configured(self, ref: ModelRef) -> Choice | None:
        key = (ref.provider, ref.name)
        if key not in self._found:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[key] = _best(self._patterns, ref, "configured")
        return self._found[key]


def _compiled(table: Mapping[str, str]) -> list[_Pattern]:
    """The best first; of equals the one that stands first."""
    patterns = [_pattern(key, model) for key, model in table.items()]
    return sorted(patterns, key=lambda pattern: pattern.weight)


def _pattern(key: str, model: str) -> _Pattern:
    provider, colon, name = key.strip().partition(":")
    if not colon:
        provider, name = "*", provider
    return _Pattern(key, model, provider if "*" in provider else _long(provider), name)


def _best(patterns: list[_Pattern], ref: ModelRef, how: How) -> Choice | None:
    providers = (_long(ref.provider), _short(ref.provider))
    for pattern in patterns:
        if pattern.fits(providers, ref.name):
            return Choice(pattern.model, how, pattern.key)
    return None


_RENAMED: Final = {"google": "langgenius/gemini/google"}
"""The one provider whose plugin has another name than itself."""


def _long(provider: str) -> str:
    """As exports since 2025 have it: organisation, plugin, provider."""
    if "/" in provider:
        return provider
    return _RENAMED.get(provider, f"langgenius/{provider}/{provider}")


def _short(provider: str) -> str:
    """As earlier exports have it, for patterns such as `open*:gpt-4o`."""
    return provider.rpartition("/")[2] if provider.startswith("langgenius/") else provider


def _matches(pattern: str, text: str) -> bool:
    """Whether `text` is as `pattern` says; in time proportional to both."""
    first, *middle = pattern.split("*")
    if not middle:
        return text == pattern
    last = middle.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True
