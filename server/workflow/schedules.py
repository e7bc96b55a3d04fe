"""When a schedule is due next, from a cron expression or from the fields of Dify's editor. Pure.

Five cron fields (minute, hour, day of the month, month, day of the week) with lists, ranges, steps
and names, `L` for the last day of the month, and `@daily` and the like. As in cron, if both days
are restricted, either will do. Clock times that a change to summer time leaves out are due right
after it, those that come twice are due the first time.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

__all__ = ["Schedule", "ScheduleError", "next_time", "read_cron", "read_schedule"]

MOST_DAYS: Final = 366 * 9
"""How far a schedule is followed: 29 February can be eight years away."""

_MONTHS: Final = {name.lower(): n for n, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS: Final = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class ScheduleError(ValueError):
    """A schedule that cannot be read."""


class Schedule(msgspec.Struct, frozen=True):
    """When it is due, in the clock of its `zone`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None
    """Of the month; 32 stands for the last one. None: any."""
    months: frozenset[int]
    weekdays: frozenset[int] | None
    """0 is Sunday. None: any."""
    zone: str = "UTC"

    def falls_on(self, day: date) -> bool:
        """Whether it is due on that day."""
        if day.month not in self.months:
            return False
        if self.days is None and self.weekdays is None:
            return True
        by_weekday = self.weekdays is not None and day.isoweekday() % 7 in self.weekdays
        return by_weekday or (self.days is not None and self._by_day(day))

    def _by_day(self, day: date) -> bool:
        assert self.days is not None
        is_last = day.day == calendar.monthrange(day.year, day.month)[1]
        return day.day in self.days or (is_last and 32 in self.days)


def next_time(config: Mapping[str, Any], now: float) -> float | None:
    """When the schedule of a trigger-schedule node is due after `now`; both in Unix seconds.

    None if it never is (30 February). Raises `ScheduleError`.
    """
    schedule = read_schedule(config)
    zone = _zone(schedule.zone)
    day = datetime.fromtimestamp(now, zone).date()
    for _ in range(MOST_DAYS):
        if schedule.falls_on(day):
            due = _due_on(day, schedule, zone, now)
            if due is not None:
                return due
        day += timedelta(days=1)
    return None


def _due_on(day: date, schedule: Schedule, zone: tzinfo, now: float) -> float | None:
    times = (
        datetime.combine(day, time(hour, minute), zone).astimezone(UTC).timestamp()
        for hour in schedule.hours
        for minute in schedule.minutes
    )
    return min((at for at in times if at > now), default=None)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleError(f"there is no time zone {name!r}"[:200]) from None


# Reading


def read_schedule(config: Mapping[str, Any]) -> Schedule:
    """The data of a trigger-schedule node: mode, cron_expression or frequency and visual_config,
    timezone. Raises `ScheduleError`."""
    zone = str(config.get("timezone") or "UTC")
    if config.get("mode") == "cron" or (config.get("cron_expression") and not _frequency(config)):
        return read_cron(str(config.get("cron_expression") or ""), zone)
    return _visual(_frequency(config), config.get("visual_config") or {}, zone)


def _frequency(config: Mapping[str, Any]) -> str:
    return str(config.get("frequency") or "")


def _visual(frequency: str, fields: Mapping[str, Any], zone: str) -> Schedule:
    if not isinstance(fields, Mapping):
        raise ScheduleError("visual_config: expected a mapping")
    every_month = frozenset(range(1, 13))
    if frequency == "hourly":
        minute = _whole(fields.get("on_minute") or 0, 0, 59)
        hours = frozenset(range(24))
        return Schedule(frozenset((minute,)), hours, None, every_month, None, zone)
    at = _clock(str(fields.get("time") or "12:00 AM"))
    minutes, hours = frozenset((at.minute,)), frozenset((at.hour,))
    if frequency == "daily":
        return Schedule(minutes, hours, None, every_month, None, zone)
    if frequency == "weekly":
        weekdays = frozenset(_weekday(day) for day in _listed(fields, "weekdays"))
        return Schedule(minutes, hours, None, every_month, weekdays, zone)
    if frequency == "monthly":
        days = frozenset(_month_day(day) for day in _listed(fields, "monthly_days"))
        return Schedule(minutes, hours, days, every_month, None, zone)
    raise ScheduleError(f"there is no frequency {frequency!r}"[:200])


def _listed(fields: Mapping[str, Any], key: str) -> list[Any]:
    found = fields.get(key)
    if not isinstance(found, list) or not found:
        raise ScheduleError(f"visual_config.{key}: expected a list of days")
    return found


def _clock(text: str) -> time:
    for form in ("%I:%M %p", "%H:%M"):
        try:
            return datetime.strptime(text.strip().upper(), form).time()
        except ValueError:
            continue
    raise ScheduleError(f"expected a time such as 11:30 AM, got {text!r}"[:200])


def _weekday(day: Any) -> int:
    found = _WEEKDAYS.get(str(day).strip().lower()[:3])
    if found is None:
        raise ScheduleError(f"there is no weekday {day!r}"[:200])
    return found


def _month_day(day: Any) -> int:
    return 32 if day == "last" else _whole(day, 1, 31)


def _whole(text: Any, least: int, most: int) -> int:
    try:
        number = int(text)
    except (TypeError, ValueError):
        raise ScheduleError(f"expected a number, got {text!r}"[:200]) from None
    if not least <= number <= most:
        raise ScheduleError(f"expected a number from {least} to {most}, got {number}")
    return number


def read_cron(expression: str, zone: str = "UTC") -> Schedule:
    """Raises `ScheduleError`."""
    source = _NICKNAMES.get(expression.strip().lower(), expression)
    fields = source.lower().split()
    if len(fields) != 5 or len(source) > 500:
        raise ScheduleError(f"expected five fields of cron, got {expression!r}"[:200])
    minutes, hours, days, months, weekdays = fields
    return Schedule(
        _field(minutes, 0, 59),
        _field(hours, 0, 23),
        None if days in ("*", "?") else _field(days, 1, 31, {"l": 32}),
        _field(months, 1, 12, _MONTHS),
        None if weekdays in ("*", "?") else _weekdays(weekdays),
        zone,
    )


def _weekdays(field: str) -> frozenset[int]:
    return frozenset(day % 7 for day in _field(field, 0, 7, _WEEKDAYS))


def _field(field: str, least: int, most: int, names: Mapping[str, int] = {}) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        found.update(_span(span, bool(step), least, most, names)[:: _step(part, step)])
    return frozenset(found)


def _step(part: str, step: str) -> int:
    return _whole(step, 1, 59) if "/" in part else 1


def _span(
    text: str, is_stepped: bool, least: int, most: int, names: Mapping[str, int]
) -> list[int]:
    if text in ("*", "?"):
        return list(range(least, most + 1))
    first, dash, last = text.partition("-")
    start = _value(first, least, most, names)
    if not dash:
        return list(range(start, most + 1)) if is_stepped else [start]
    end = _value(last, least, most, names)
    if end < start:
        raise ScheduleError(f"{text!r} goes from {start} back to {end}"[:200])
    return list(range(start, end + 1))


def _value(text: str, least: int, most: int, names: Mapping[str, int]) -> int:
    return names[text] if text in names else _whole(text, least, most)
