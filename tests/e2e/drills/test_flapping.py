"""A replica that comes and goes all the time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.e2e.drills.drilled import drilled, pool
from tests.e2e.drills.load import under_load
from tests.e2e.drills.puppet import Puppet, puppets

pytestmark = pytest.mark.slow

FLAPS = 3
UP_S = DOWN_S = 0.6
"""Long enough for probes to find it up, and down."""


async def _flap(puppet: Puppet) -> None:
    for _ in range(FLAPS):
        puppet.down()
        await trio.sleep(DOWN_S)
        puppet.up()
        await trio.sleep(UP_S)


async def test_nobody_sees_an_error_before_its_first_byte(tmp_path: Path) -> None:
    """Only streams that had begun at the replica that flaps break, and are told so."""
    async with puppets(3) as made:
        urls = [puppet.url for puppet in made]
        flapping = made[0]
        async with drilled(tmp_path, pool(*urls), up=urls) as service:
            async with under_load(service.port) as load:
                await _flap(flapping)
            load.assert_accounted(refused=0)
            told = load.of("told")
            assert all(call.begun and call.replica == flapping.url for call in told)
            assert len(told) <= FLAPS * 24
            # It was of use in between, and the others had no more than its share besides.
            answered = load.by_replica()
            assert answered[flapping.url] > 0
            assert len(load.calls) > 200
            # Each was answered to the end once, wherever it was tried.
            ended = [heard.id for puppet in made for heard in puppet.calls if heard.answered]
            assert len(ended) == len(set(ended))
            await service.assert_settled(load)
