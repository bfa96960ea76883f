"""Schedules as cron writes them: `minute hour day-of-month month day-of-week`, or @hourly, @daily, @every 90m.

Pure. Fields take `*`, `?`, numbers, names (jan, mon), ranges, steps and lists. If both days are restricted, either
suffices. Wall times that a change to summer time skips do not occur; those that a change back repeats occur twice.
Read by CronJobs and disruption budgets. What cannot be read raises ScheduleError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

_MONTHS: Final = dict(
    zip("jan feb mar apr may jun jul aug sep oct nov dec".split(), range(1, 13), strict=True)  # noqa: SIM905
)
_DAYS: Final = dict(zip("sun mon tue wed thu fri sat".split(), range(7), strict=True))  # noqa: SIM905
_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DURATION: Final = re.compile(r"([0-9]*\.?[0-9]+)(h|ms|m|s)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_YEARS_AHEAD: Final = 5


class ScheduleError(ValueError):
    """The schedule or its time zone cannot be read."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A schedule by the calendar."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool  # whether both day fields must match (one is a star) or either suffices

    def day_matches(self, moment: datetime) -> bool:
        by_date = moment.day in self.days
        by_weekday = moment.isoweekday() % 7 in self.weekdays
        return by_date and by_weekday if self.any_day else by_date or by_weekday

    def after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """The first instant after `moment` (UTC) that matches; None if there is none for years (30 February)."""
        instant = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        last_year = instant.year + _YEARS_AHEAD
        while True:
            local = instant.astimezone(zone)
            if local.year > last_year:
                return None
            if local.month not in self.months:
                first = local.replace(day=1, hour=0, minute=0, fold=0)
                year, month = (first.year + 1, 1) if first.month == 12 else (first.year, first.month + 1)
                instant = _later(instant, first.replace(year=year, month=month))
            elif not self.day_matches(local):
                instant = _later(instant, local.replace(hour=0, minute=0, fold=0) + timedelta(days=1))
            elif local.hour not in self.hours:
                instant += timedelta(minutes=60 - local.minute)
            elif local.minute not in self.minutes:
                following = (minute for minute in sorted(self.minutes) if minute > local.minute)
                instant += timedelta(minutes=next(following, 60) - local.minute)
            else:
                return instant


@dataclass(frozen=True, slots=True)
class Every:
    """A schedule by a fixed delay, counted from the last run."""

    seconds: float

    def after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        return (moment + timedelta(seconds=self.seconds)).astimezone(UTC).replace(microsecond=0)


Schedule = Fields | Every


def _later(instant: datetime, local: datetime) -> datetime:
    """The local wall time as an instant; if a time change makes that no progress, an hour on."""
    found = local.astimezone(UTC)
    return found if found > instant else instant + timedelta(hours=1)


@lru_cache(1024)
def parse(text: str) -> Schedule:
    """Read a schedule. Raises ScheduleError."""
    text = text.strip()
    if text.startswith("@every "):
        return Every(_duration(text.removeprefix("@every ")))
    if text.startswith("@"):
        named = _NAMED.get(text)
        if named is None:
            raise ScheduleError(f"unrecognized descriptor: {text}")
        text = named
    parts = text.split()
    if len(parts) != 5:
        raise ScheduleError(f"expected exactly 5 fields, found {len(parts)}: {parts}")
    minute, hour, day, month, weekday = parts
    days, every_day = _field(day, 1, 31, {})
    weekdays, every_weekday = _field(weekday, 0, 6, _DAYS)
    return Fields(
        _field(minute, 0, 59, {})[0],
        _field(hour, 0, 23, {})[0],
        days,
        _field(month, 1, 12, _MONTHS)[0],
        weekdays,
        every_day or every_weekday,
    )


def _duration(text: str) -> float:
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ScheduleError(f"failed to parse duration @every {text}")
    return max(1.0, float(int(sum(float(number) * _UNITS[unit] for number, unit in found))))


def _field(text: str, low: int, high: int, names: Mapping[str, int]) -> tuple[frozenset[int], bool]:
    """The values of a field, and whether it is a plain star."""
    values: set[int] = set()
    star = False
    for part in text.split(","):
        numbers, is_star = _part(part, low, high, names)
        values.update(numbers)
        star = star or is_star
    return frozenset(values), star


def _part(text: str, low: int, high: int, names: Mapping[str, int]) -> tuple[range, bool]:
    span, slash, step_text = text.partition("/")
    step = _number(step_text, {}) if slash else 1
    first_text, dash, last_text = span.partition("-")
    if span in ("*", "?"):
        first, last = low, high
    else:
        first = _number(first_text, names)
        last = _number(last_text, names) if dash else (high if slash else first)
    if first < low:
        raise ScheduleError(f"beginning of range ({first}) below minimum ({low}): {text}")
    if last > high:
        raise ScheduleError(f"end of range ({last}) above maximum ({high}): {text}")
    if first > last:
        raise ScheduleError(f"beginning of range ({first}) beyond end of range ({last}): {text}")
    if step == 0:
        raise ScheduleError(f"step of range should be a positive number: {text}")
    return range(first, last + 1, step), span in ("*", "?") and step == 1


def _number(text: str, names: Mapping[str, int]) -> int:
    named = names.get(text.lower())
    if named is not None:
        return named
    if not text.isascii() or not text.isdigit():
        raise ScheduleError(f"failed to parse int from {text}")
    return int(text)


@lru_cache(256)
def zone_of(name: str | None) -> tzinfo:
    """The time zone of that name; UTC without a name. Raises ScheduleError."""
    if not name:
        return UTC
    import zoneinfo  # reads the system's database; only schedules with a zone need it

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"unknown time zone {name}") from error


def times(schedule: Schedule, zone: tzinfo, after: datetime, until: datetime) -> Iterator[datetime]:
    """The instants of the schedule in (after, until]."""
    moment: datetime | None = after
    while moment is not None:
        moment = schedule.after(moment, zone)
        if moment is None or moment > until:
            return
        yield moment
