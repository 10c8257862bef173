"""Cron expressions of PingSources: five fields, UTC unless `CRON_TZ=` says otherwise. Pure.

Lists, ranges, steps, names (`mon`, `jan`) and `@hourly` and the like, as robfig/cron (which
Knative uses) reads them. When both day fields are restricted, either may match.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_SHORTCUTS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_PART = re.compile(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?")

_HORIZON_DAYS = 4 * 366 + 1
"""A schedule without a date within one leap cycle has none."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What `parse` made of an expression; `after` finds the next instant."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    day_stars: tuple[bool, bool]
    zone: ZoneInfo

    def after(self, unix: float) -> float:
        """The first matching minute after `unix` (seconds). Raises ValueError when there is
        none."""
        at = datetime.fromtimestamp(unix, self.zone).replace(second=0, microsecond=0)
        at += timedelta(minutes=1)
        limit = at + timedelta(days=_HORIZON_DAYS)
        while at < limit:
            if at.month not in self.months or not self._day(at):
                at = at.replace(hour=0, minute=0) + timedelta(days=1)
            elif at.hour not in self.hours:
                at = at.replace(minute=0) + timedelta(hours=1)
            elif at.minute not in self.minutes:
                at += timedelta(minutes=1)
            else:
                return at.timestamp()
        raise ValueError("the schedule never comes")

    def _day(self, at: datetime) -> bool:
        by_day, by_weekday = at.day in self.days, at.isoweekday() % 7 in self.weekdays
        if any(self.day_stars):
            return by_day and by_weekday
        return by_day or by_weekday


def parse(text: str, zone: str = "UTC") -> Schedule:
    """Raises ValueError naming the field that is wrong."""
    expression = text.strip()
    if match := re.match(r"(?:CRON_TZ|TZ)=(\S+)\s+", expression):
        zone, expression = match[1], expression[match.end() :]
    fields = _SHORTCUTS.get(expression.lower(), expression).split()
    if len(fields) != 5:
        raise ValueError(f"{text!r}: a schedule has five fields, such as `*/5 * * * *`")
    try:
        found = ZoneInfo(zone or "UTC")
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{zone!r} is not a time zone") from None
    values = [_field(fields[index], index) for index in range(5)]
    weekdays = frozenset(day % 7 for day in values[4])
    stars = (fields[2][0] in "*?", fields[4][0] in "*?")
    return Schedule(values[0], values[1], values[2], values[3], weekdays, stars, found)


def _field(text: str, index: int) -> frozenset[int]:
    low, high = _BOUNDS[index]
    chosen: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is not a {_FIELDS[index]}")
        step = int(match[3] or 1)
        if match[1] in "*?":
            first, last = low, high
        else:
            first = _number(match[1], index)
            last = _number(match[2], index) if match[2] else (high if match[3] else first)
        if step < 1 or not low <= first <= last <= high:
            raise ValueError(f"{part!r}: a {_FIELDS[index]} is between {low} and {high}")
        chosen.update(range(first, last + 1, step))
    return frozenset(chosen)


def _number(text: str, index: int) -> int:
    names = {3: _MONTHS, 4: _DAYS}.get(index, [])
    if text.lower() in names:
        return names.index(text.lower()) + (1 if index == 3 else 0)
    if not text.isdigit():
        raise ValueError(f"{text!r} is not a {_FIELDS[index]}")
    return int(text)
