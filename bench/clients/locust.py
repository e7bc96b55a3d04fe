"""Locust with our script in bench/locust: its command line for our load, and its JSON statistics.

Locust keeps times of under 100 ms in whole milliseconds and longer ones in two digits, so its
percentiles are coarse; its averages are exact. Its latency ends with the stream.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from bench.clients.readings import number, read_json
from bench.clients.result import ClientFailed, Load, Result, Times

__all__ = ["NAME", "locust_command", "locust_environment", "read_locust"]

NAME = "locust"
_SCRIPT = Path(__file__).parents[1] / "locust" / "locustfile.py"
_FILE = "locust.json"


def locust_command(program: Path, load: Load, url: str, out: Path) -> list[str]:
    """One run; all users start at once."""
    users = str(load.concurrency)
    return [
        *(str(program), "--locustfile", str(_SCRIPT), "--headless", "--host", url),
        *("--users", users, "--spawn-rate", users, "--only-summary"),
        # Locust appends ".json".
        *("--json-file", str((out / _FILE).with_suffix("")), "--exit-code-on-error", "0"),
    ]


def locust_environment(load: Load) -> dict[str, str]:
    """The script's settings. It warms up by user, so the warm-up is rounded up to whole rounds."""
    warmup = math.ceil(load.warmup_requests / load.concurrency)
    settings = {
        "MODEL": load.model,
        "REQUESTS": load.requests,
        "WARMUP": warmup,
        "INPUT_TOKENS": load.input_tokens,
        "OUTPUT_TOKENS": load.output_tokens,
    }
    return {f"LOCUST_CHAT_{name}": str(value) for name, value in settings.items()}


def read_locust(out: Path) -> Result:
    """The result of the run that wrote into `out`. Raises ClientFailed if there is none."""
    content = read_json(out / _FILE)
    entries = {entry.get("name"): _Entry.of(entry) for entry in content}
    full = entries.get("full")
    if full is None:
        raise ClientFailed(f"{out / _FILE}: no request was made")
    none = _Entry(0, 0, 0.0, {}, 0.0)
    first = entries.get("first text", none)
    between = entries.get("between tokens", none)
    tokens = entries.get("output tokens", none)
    return Result(
        client=NAME,
        sent=full.sent,
        errors=full.failures,
        times=Times(
            ttft_avg_ms=first.average,
            ttft_p50_ms=first.percentile(0.5),
            ttft_p99_ms=first.percentile(0.99),
            itl_avg_ms=between.average,
            itl_p50_ms=between.percentile(0.5),
            latency_avg_ms=full.average,
            latency_p50_ms=full.percentile(0.5),
            latency_p99_ms=full.percentile(0.99),
        ),
        # The entry's "time" is a number of tokens.
        tokens_per_s=tokens.total / full.lasted_s if full.lasted_s else None,
        requests_per_s=full.timed / full.lasted_s if full.lasted_s else None,
        output_tokens_avg=tokens.average,
    )


class _Entry(NamedTuple):
    """One line of Locust's statistics."""

    sent: int
    failures: int
    total: float
    """Sum of all values, unrounded."""
    counts: dict[float, int]
    """How often each rounded value came."""
    lasted_s: float
    """From the end of the warm-up to the last value."""

    @classmethod
    def of(cls, entry: Any) -> _Entry:
        counts = entry.get("response_times")
        if not isinstance(counts, dict):
            raise ClientFailed(f"not Locust's statistics: no response_times in {entry}")
        return cls(
            sent=int(number(entry, "num_requests")),
            failures=int(number(entry, "num_failures")),
            total=number(entry, "total_response_time"),
            counts={float(value): count for value, count in counts.items()},
            lasted_s=number(entry, "last_request_timestamp") - number(entry, "start_time"),
        )

    @property
    def timed(self) -> int:
        """How many had a value: failed requests have none."""
        return sum(self.counts.values())

    @property
    def average(self) -> float | None:
        return self.total / self.timed if self.timed else None

    def percentile(self, share: float) -> float | None:
        """The smallest value that at least `share` of all do not exceed."""
        reached = 0
        for value in sorted(self.counts):
            reached += self.counts[value]
            if reached >= share * self.timed:
                return value
        return None
