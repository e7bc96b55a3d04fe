"""What is measured: Triolet before demo replicas that all keep one steady pace."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from bench.peers.ready import await_answer
from bench.peers.triolet import serve_command, serve_config
from bench.relay.children import Child, free_port

__all__ = ["Pace", "Seen", "Served", "samples", "serve"]

_ROOT: Final = Path(__file__).parents[2]
_READ_LIMIT_S: Final = 10.0
_SAMPLE: Final = re.compile(r"^vllm:(\w+)\{[^}]*\} (\S+)$", re.MULTILINE)


class Pace(NamedTuple):
    """How the replicas answer."""

    replicas: int = 2
    ttft_s: float = 0.05
    tokens_per_s: float = 100.0


class Seen(NamedTuple):
    """What the replicas say they did: sums, since their start or between two looks."""

    requests: float
    """That have ended, however they did."""
    ttft_s: float
    ttft_count: float
    itl_s: float
    itl_count: float
    latency_s: float
    latency_count: float

    def since(self, before: Seen) -> Seen:
        """What was done after an earlier look."""
        return Seen(*(now - then for now, then in zip(self, before, strict=True)))


class Served(NamedTuple):
    """A server that answers."""

    url: str
    """Where clients go."""
    replicas: tuple[str, ...]

    def look(self) -> Seen:
        """What all replicas together have done until now. Raises OSError if one does not say."""
        found = [samples(_read(f"{url}/metrics")) for url in self.replicas]
        return Seen(*(sum(one[at] for one in found) for at in range(len(Seen._fields))))


@contextmanager
def serve(model: str, pace: Pace, *, direct: bool = False) -> Iterator[Served]:
    """Start replicas, and Triolet before them unless clients are to go `direct` to the first one;
    end all afterwards.

    Raises ChildFailed if one of them does not get ready.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="triolet-clients-"))
        place = Path(directory)
        replicas = tuple(
            _replica(number, model, pace, place, stack) for number in range(pace.replicas)
        )
        if direct:
            yield Served(replicas[0], replicas)
            return
        port = free_port()
        config = place / "triolet.toml"
        config.write_text(serve_config(port=port, model=model, replicas=replicas, access_log=False))
        command = [*serve_command(None), "--config", str(config)]
        _start("triolet", command, port, model, place, stack)
        yield Served(f"http://127.0.0.1:{port}", replicas)


def _replica(number: int, model: str, pace: Pace, place: Path, stack: ExitStack) -> str:
    port = free_port()
    command = [
        *(sys.executable, "-m", "server.cli", "replica", "--port", str(port)),
        *("--model", model, "--name", f"demo-{number}"),
        *("--ttft-s", str(pace.ttft_s), "--tokens-per-s", str(pace.tokens_per_s)),
    ]
    _start(f"replica-{number}", command, port, model, place, stack)
    return f"http://127.0.0.1:{port}"


def _start(
    name: str, command: list[str], port: int, model: str, place: Path, stack: ExitStack
) -> None:
    child = Child(
        name,
        command,
        log=place / f"{name}.log",
        cores=os.sched_getaffinity(0),
        environment={**_unset(os.environ), "PYTHONPATH": str(_ROOT)},
    )
    stack.enter_context(child)
    await_answer(child, port, model)


def _unset(environ: Mapping[str, str]) -> dict[str, str]:
    """What takes a user's own settings of Triolet out: an empty variable counts as none."""
    return {name: "" for name in environ if name.startswith("TRIOLET_")}


def _read(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_READ_LIMIT_S) as answer:
        content: bytes = answer.read()
    return content.decode()


def samples(page: str) -> Seen:
    """What a replica's metrics page says."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(page):
        sums[name] = sums.get(name, 0.0) + float(value)
    names = (
        "request_success_total",
        *_sum_and_count("time_to_first_token"),
        *_sum_and_count("inter_token_latency"),
        *_sum_and_count("e2e_request_latency"),
    )
    return Seen(*(sums.get(name, 0.0) for name in names))


def _sum_and_count(name: str) -> tuple[str, str]:
    return f"{name}_seconds_sum", f"{name}_seconds_count"
