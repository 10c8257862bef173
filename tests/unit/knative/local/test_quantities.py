"""Durations and quantities."""

from decimal import Decimal

import pytest

from knative.local.quantities import parse_duration, parse_quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6s", 6), ("1m30s", 90), ("0", 0), ("0s", 0), ("1h", 3600), ("1.5s", 1.5), ("250ms", 0.25)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "6", "s", "6 s", "-1s", "1m30", "six"])
def test_not_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        (1, "1"),
        (0.5, "0.5"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("2Gi", str(2 * 2**30)),
        ("1E", str(10**18)),
        ("1e3", "1000"),
        ("100n", "1e-7"),
    ],
)
def test_quantities(text: str | float, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1GiB", "two", "1 Gi", "m"])
def test_not_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
