"""Plans refuse what cannot be, by name."""

from __future__ import annotations

from typing import Any

import pytest

from bench.load.plan import Closed, Limits, Loop, Rated, Scheduled
from tests.bench.load.rig import plan


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"urls": ()}, "urls"),
        ({"urls": ("ftp://x",)}, "ftp"),
        ({"loop": Closed(concurrency=0)}, "concurrency"),
        ({"loop": Rated(rate=0)}, "rate"),
        ({"loop": Rated(rate=1, smoothness=0)}, "smoothness"),
        ({"loop": Rated(rate=1, ramp_s=-1)}, "ramp_s"),
        ({"loop": Scheduled(speedup=0)}, "speedup"),
        ({"limits": Limits(requests=0)}, "requests"),
        ({"limits": Limits(duration_s=float("inf"))}, "duration_s"),
        ({"warmup": Limits(sessions=-1)}, "sessions"),
        ({"grace_s": -1}, "grace_s"),
        ({"request_timeout_s": 0}, "request_timeout_s"),
        ({"cancellation_rate": 1.5}, "cancellation_rate"),
        ({"cancellation_delay_s": -1}, "cancellation_delay_s"),
        ({"probe_rate": 0}, "probe_rate"),
        ({"delay_ratio": -1}, "delay_ratio"),
        ({"headers": (("a", "b\r\nc: d"),)}, "header"),
    ],
)
def test_out_of_range(changes: dict[str, Any], named: str) -> None:
    """The message says which value it is."""
    with pytest.raises(ValueError, match=named):
        plan(**changes)


@pytest.mark.parametrize(
    ("loop", "load"), [(Closed(concurrency=3), 3), (Rated(rate=2.5), 2.5), (Scheduled(), None)]
)
def test_load(loop: Loop, load: float | None) -> None:
    """The one number of a load point."""
    assert plan(loop=loop).load == load


def test_paths_and_secrets() -> None:
    """Each endpoint type has its path; what is shown has no key in it."""
    assert plan().path == "/v1/chat/completions"
    assert plan(endpoint_type="completions").path == "/v1/completions"
    assert plan(endpoint="/x").path == "/x"
    shown = plan(headers=(("Authorization", "Bearer k"), ("x-a", "b"))).shown()
    assert shown.headers == (("Authorization", "***"), ("x-a", "b"))
