"""What a tier allows on one replica."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from balancer.admission import Tier


@pytest.mark.parametrize(
    ("caps", "in_flight", "unread_tokens", "kv_share", "fits"),
    [
        ({}, 10_000, 10**9, 1.0, True),
        ({"max_requests": 4}, 3, 10**9, 1.0, True),
        ({"max_requests": 4}, 4, 0, 0.0, False),
        ({"max_unread_tokens": 4096}, 10_000, 4095, 1.0, True),
        ({"max_unread_tokens": 4096}, 1, 4096, 0.0, False),
        ({"max_kv_share": 0.8}, 10_000, 10**9, 0.79, True),
        ({"max_kv_share": 0.8}, 1, 0, 0.8, False),
        ({"max_kv_share": 0.8}, 1, 0, None, True),
        ({"max_requests": 1, "max_unread_tokens": 1, "max_kv_share": 0.1}, 0, 10**9, 1.0, True),
    ],
)
def test_fits(
    caps: dict[str, float],
    in_flight: int,
    unread_tokens: int,
    kv_share: float | None,
    fits: bool,
) -> None:
    """Each cap holds; what is not known caps nothing; an idle replica may always get one."""
    tier = replace(Tier(name="t", rank=0), **caps)
    assert tier.fits(in_flight, unread_tokens, kv_share) is fits
    assert tier.capped is bool(caps)
