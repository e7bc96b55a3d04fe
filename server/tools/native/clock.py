"""time: what the clock says, and sums with it."""

from __future__ import annotations

import calendar
import time
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from server.tools.native.given import Given
from server.tools.native.native_tool import NativeTool, arguments
from server.workflow.services import Tool, ToolFailed, ToolOutput

__all__ = ["tools"]

_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
_ZONE: Final = "Asia/Shanghai"
"""What Dify takes if none is given."""


def tools() -> list[Tool]:
    zone = "A time zone, such as Europe/Berlin."
    when = "A local time, such as 2024-01-31 18:30:00."
    return [
        NativeTool("time", "current_time", "Tells the present date and time.", arguments({}), _now),
        NativeTool(
            "time",
            "weekday",
            "Tells which day of the week a date is.",
            arguments(
                {
                    "year": ("integer", "The year."),
                    "month": ("integer", "The month, 1 to 12."),
                    "day": ("integer", "The day of the month."),
                },
                ("year", "month", "day"),
            ),
            _weekday,
        ),
        NativeTool(
            "time",
            "timezone_conversion",
            "Tells what time it is in one time zone when it is a given time in another.",
            arguments(
                {"current_time": when, "current_timezone": zone, "target_timezone": zone},
                ("current_time", "current_timezone", "target_timezone"),
            ),
            _converted,
        ),
        NativeTool(
            "time",
            "localtime_to_timestamp",
            "Turns a local time into a Unix timestamp in seconds.",
            arguments({"localtime": when, "timezone": zone}, ("localtime",)),
            _timestamp,
        ),
        NativeTool(
            "time",
            "timestamp_to_localtime",
            "Turns a Unix timestamp in seconds into a local time.",
            arguments(
                {"timestamp": ("number", "Seconds since 1970."), "timezone": zone}, ("timestamp",)
            ),
            _localtime,
        ),
    ]


async def _now(given: Given) -> ToolOutput:
    zone = _zone(given, given.text("timezone", "UTC"))
    form = given.text("format", _FORMAT + " %Z")
    return ToolOutput(text=datetime.fromtimestamp(time.time(), zone).strftime(form[:200]))


async def _weekday(given: Given) -> ToolOutput:
    year, month, day = (int(given.number(name)) for name in ("year", "month", "day"))
    try:
        date = datetime(year, month, day)
    except (ValueError, OverflowError):
        return ToolOutput(text=f"Invalid date: Year {year}, Month {month}, Day {day}.")
    name = calendar.day_name[date.weekday()]
    return ToolOutput(text=f"{calendar.month_name[month]} {day}, {year} is {name}.")


async def _converted(given: Given) -> ToolOutput:
    source = _zone(given, given.text("current_timezone", _ZONE))
    target = _zone(given, given.text("target_timezone", "Asia/Tokyo"))
    local = _read(given, "current_time").replace(tzinfo=source)
    try:
        return ToolOutput(text=local.astimezone(target).strftime(_FORMAT))
    except OverflowError:
        raise given.wrong("'current_time' is out of range; years are 1 to 9999") from None


async def _timestamp(given: Given) -> ToolOutput:
    zone = _zone(given, given.text("timezone", _ZONE))
    local = _read(given, "localtime").replace(tzinfo=zone)
    try:
        return ToolOutput(text=str(int(local.timestamp())))
    except OverflowError:
        raise given.wrong("'localtime' is out of range; years are 1 to 9999") from None


async def _localtime(given: Given) -> ToolOutput:
    zone = _zone(given, given.text("timezone", _ZONE))
    try:
        local = datetime.fromtimestamp(given.number("timestamp"), zone)
    except (ValueError, OverflowError, OSError):
        raise given.wrong("'timestamp' is out of range; it takes seconds since 1970") from None
    return ToolOutput(text=local.strftime(_FORMAT))


def _read(given: Given, name: str) -> datetime:
    written = given.text(name)
    for form in (_FORMAT, "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"):
        try:
            return datetime.strptime(written.strip(), form)
        except ValueError:
            continue
    raise given.wrong(f"{name!r} is {written[:60]!r}; it takes 2024-01-31 18:30:00")


def _zone(given: Given, name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ToolFailed(f"Invalid timezone: {name[:60]}", "ToolInvokeError") from None
