"""Cron schedules of PingSources."""

from datetime import UTC, datetime

import pytest

from knative.local import cron


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("schedule", "now", "following"),
    [
        ("* * * * *", "2026-01-01T00:00:30", "2026-01-01T00:01:00"),
        ("*/15 * * * *", "2026-01-01T00:15:00", "2026-01-01T00:30:00"),
        ("5,10 2-4 * * *", "2026-01-01T04:10:00", "2026-01-02T02:05:00"),
        ("0 0 1 jan *", "2026-01-01T00:00:00", "2027-01-01T00:00:00"),
        ("30 9 * * mon-fri", "2026-11-20T09:30:00", "2026-11-23T09:30:00"),
        ("0 0 13 * fri", "2026-11-12T12:00:00", "2026-11-13T00:00:00"),
        ("0 0 13 * fri", "2026-11-13T00:00:00", "2026-11-20T00:00:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("@hourly", "2026-01-01T00:59:59", "2026-01-01T01:00:00"),
        ("0 12 * * 7", "2026-11-21T12:00:00", "2026-11-22T12:00:00"),
        ("CRON_TZ=Europe/Berlin 0 9 * * *", "2026-07-01T00:00:00", "2026-07-01T07:00:00"),
    ],
)
def test_next_time(schedule: str, now: str, following: str) -> None:
    assert cron.parse(schedule).after(at(now)) == at(following)


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("* * * *", "five fields"),
        ("61 * * * *", "a minute is between 0 and 59"),
        ("* * * foo *", "'foo' is not a month"),
        ("*/0 * * * *", "a minute is between"),
        ("5-2 * * * *", "a minute is between"),
        ("a/b * * * *", "is not a minute"),
        ("CRON_TZ=Mars/City * * * * *", "not a time zone"),
    ],
)
def test_what_is_wrong_is_named(schedule: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        cron.parse(schedule)


def test_a_date_that_never_comes() -> None:
    with pytest.raises(ValueError, match="never comes"):
        cron.parse("0 0 30 2 *").after(at("2026-01-01T00:00:00"))
