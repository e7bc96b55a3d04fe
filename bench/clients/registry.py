"""The clients by name: how each is installed, started and read."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from bench.clients import aiperf, genai_perf, guidellm, locust, own
from bench.clients.install import TOOLS, install
from bench.clients.perf_analyzer import add_engine, engine_environment
from bench.clients.process import offline_environment
from bench.clients.result import Load, Result
from bench.clients.tokenizer import HubTokenizer, make_hub
from bench.installation import NotInstalled

__all__ = ["NAMES", "Client", "installed_clients", "own_client"]

NAMES: Final = tuple(TOOLS)
"""All that can be compared with."""


class Client(NamedTuple):
    """One load client, ready to run."""

    name: str
    version: str
    command: Callable[[Load, str, Path], list[str]]
    """Takes the load, the server's URL and a directory for results."""
    environment: Callable[[Load], Mapping[str, str]]
    read: Callable[[Path, Load], Result]
    """Raises ClientFailed if the directory holds no result."""


def own_client() -> Client:
    """`triolet bench` itself, as it is in this process's environment."""
    try:
        version = importlib.metadata.version("triolet")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    root = str(Path(__file__).parents[2])
    return Client(
        own.NAME,
        version,
        own.own_command,
        lambda load: {"PYTHONPATH": root},
        lambda out, load: own.read_own(out),
    )


def installed_clients(
    names: Iterable[str], cache: Path, say: Callable[[str], None], missing: list[str]
) -> list[Client]:
    """The named clients, installed on first use; what cannot be had is told in `missing`."""
    homes: dict[str, Path] = {}
    for name in names:
        finish = add_engine if name == genai_perf.NAME else None
        try:
            homes[name] = install(TOOLS[name], cache, say, finish)
        except NotInstalled as error:
            missing.append(f"{name} is left out, it cannot be installed: {error}")
            say(missing[-1])
    if not homes:
        return []
    tokenizer = make_hub(cache / "clients" / "tokenizer", _corpora(homes.values()))
    places = cache / "clients" / "home"
    return [_client(name, home, tokenizer, places / name) for name, home in homes.items()]


def _corpora(homes: Iterable[Path]) -> list[Path]:
    """The texts that tools make prompts of, so that their words are in the vocabulary."""
    found = (home.rglob("shakespeare.txt") for home in sorted(homes))
    return [text for texts in found for text in sorted(texts)][:1]


def _client(name: str, home: Path, tokenizer: HubTokenizer, place: Path) -> Client:
    place.mkdir(parents=True, exist_ok=True)
    program, path = TOOLS[name].program(home), str(tokenizer.path)
    offline = offline_environment(place, tokenizer.hub)
    version = TOOLS[name].version
    if name == aiperf.NAME:
        return Client(
            name,
            version,
            lambda load, url, out: aiperf.aiperf_command(program, load, url, tokenizer.name, out),
            lambda load: offline,
            lambda out, load: aiperf.read_aiperf(out),
        )
    if name == genai_perf.NAME:
        return Client(
            name,
            version,
            lambda load, url, out: genai_perf.genai_perf_command(program, load, url, path, out),
            lambda load: offline | engine_environment(home),
            lambda out, load: genai_perf.read_genai_perf(out, load.requests),
        )
    if name == guidellm.NAME:
        return Client(
            name,
            version,
            lambda load, url, out: guidellm.guidellm_command(program, load, url, path, out),
            lambda load: offline,
            lambda out, load: guidellm.read_guidellm(out),
        )
    return Client(
        name,
        version,
        lambda load, url, out: locust.locust_command(program, load, url, out),
        lambda load: offline | locust.locust_environment(load),
        lambda out, load: locust.read_locust(out),
    )
