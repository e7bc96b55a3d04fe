"""When schedules are due."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.workflow.schedules import ScheduleError, next_time, read_cron


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def due(config: dict[str, Any], now: str) -> str | None:
    found = next_time(config, at(now))
    return None if found is None else datetime.fromtimestamp(found, UTC).strftime("%Y-%m-%d %H:%M")


def visual(frequency: str, zone: str = "UTC", **fields: Any) -> dict[str, Any]:
    return {
        "mode": "visual",
        "frequency": frequency,
        "visual_config": fields,
        "timezone": zone,
    }


def cron(expression: str, zone: str = "UTC") -> dict[str, Any]:
    return {"mode": "cron", "cron_expression": expression, "timezone": zone}


NOW = "2025-03-12 10:17:30"  # a Wednesday

TABLE: list[tuple[dict[str, Any], str]] = [
    (cron("* * * * *"), "2025-03-12 10:18"),
    (cron("*/15 * * * *"), "2025-03-12 10:30"),
    (cron("17 10 * * *"), "2025-03-13 10:17"),
    (cron("5-10/2 11,13 * * *"), "2025-03-12 11:05"),
    (cron("0 9 * * mon-fri"), "2025-03-13 09:00"),
    (cron("0 9 * * 7"), "2025-03-16 09:00"),
    (cron("0 9 * * 0"), "2025-03-16 09:00"),
    (cron("0 0 1 * *"), "2025-04-01 00:00"),
    (cron("0 0 13 * FRI"), "2025-03-13 00:00"),
    (cron("0 0 L * ?"), "2025-03-31 00:00"),
    (cron("0 0 29 2 *"), "2028-02-29 00:00"),
    (cron("0 0 1 jan *"), "2026-01-01 00:00"),
    (cron("30/10 * * * *"), "2025-03-12 10:30"),
    (cron("@daily"), "2025-03-13 00:00"),
    (cron("@hourly"), "2025-03-12 11:00"),
    (cron("0 9 * * *", "Asia/Tokyo"), "2025-03-13 00:00"),
    (visual("hourly", on_minute=5), "2025-03-12 11:05"),
    (visual("hourly"), "2025-03-12 11:00"),
    (visual("daily", time="11:30 AM"), "2025-03-12 11:30"),
    (visual("daily", time="9:00 PM", zone="America/New_York"), "2025-03-13 01:00"),
    (visual("daily", time="12:00 AM"), "2025-03-13 00:00"),
    (visual("weekly", time="2:30 PM", weekdays=["sun", "wed"]), "2025-03-12 14:30"),
    (visual("weekly", time="2:30 AM", weekdays=["wed"]), "2025-03-19 02:30"),
    (visual("monthly", time="12:00 PM", monthly_days=[1, "last"]), "2025-03-31 12:00"),
    (visual("monthly", time="12:00 PM", monthly_days=[31]), "2025-03-31 12:00"),
]


@pytest.mark.parametrize(("config", "expected"), TABLE)
def test_next_time(config: dict[str, Any], expected: str) -> None:
    """The first time after now, in the schedule's own clock."""
    assert due(config, NOW) == expected


def test_a_day_that_never_comes() -> None:
    """It is said, not searched for ever."""
    assert due(cron("0 0 30 2 *"), NOW) is None


def test_a_short_month_is_left_out() -> None:
    """The 31st is not the 28th; "last" is."""
    assert due(visual("monthly", time="00:00", monthly_days=[31]), "2025-01-31 01:00") == (
        "2025-03-31 00:00"
    )
    assert due(visual("monthly", time="00:00", monthly_days=["last"]), "2025-01-31 01:00") == (
        "2025-02-28 00:00"
    )


def test_summer_time() -> None:
    """A time that is left out is due after the gap; one that comes twice is due once."""
    berlin = cron("30 2 * * *", "Europe/Berlin")
    assert due(berlin, "2025-03-29 12:00") == "2025-03-30 01:30"
    assert due(berlin, "2025-10-25 12:00") == "2025-10-26 00:30"
    assert due(berlin, "2025-10-26 00:30") == "2025-10-27 01:30"


@pytest.mark.parametrize(
    "config",
    [
        cron(""),
        cron("* * * *"),
        cron("60 * * * *"),
        cron("* * 0 * *"),
        cron("*/0 * * * *"),
        cron("5-1 * * * *"),
        cron("a * * * *"),
        cron("1- * * * *"),
        cron("1/ * * * *"),
        cron(",".join(["1"] * 300) + " * * * *"),
        cron("* * * * *", "Mars/Olympus"),
        cron("* * * * *", "../../etc/passwd"),
        visual("sometimes"),
        visual("daily", time="25:00"),
        visual("weekly"),
        visual("weekly", weekdays=["someday"]),
        visual("monthly", monthly_days=[0]),
        visual("hourly", on_minute=75),
        {},
        {"mode": "visual", "frequency": "daily", "visual_config": [1]},
    ],
)
def test_schedules_that_cannot_be_read(config: dict[str, Any]) -> None:
    """Each is refused with words, none with a surprise."""
    with pytest.raises(ScheduleError):
        next_time(config, at(NOW))


FIELD = st.sampled_from(["*", "*/7", "3", "1-5", "2,4"])


@given(FIELD, FIELD, FIELD, FIELD, FIELD, st.integers(0, 4_000_000_000))
def test_due_times_fit_the_fields(
    minute: str, hour: str, day: str, month: str, weekday: str, now: int
) -> None:
    """What comes out lies ahead, on a whole minute that all fields allow."""
    expression = f"{minute} {hour} {day} {month} {weekday}"
    found = next_time(cron(expression), now)
    assert found is not None
    assert found > now
    assert found % 60 == 0
    moment, schedule = datetime.fromtimestamp(found, UTC), read_cron(expression)
    assert moment.minute in schedule.minutes
    assert moment.hour in schedule.hours
    assert schedule.falls_on(moment.date())
