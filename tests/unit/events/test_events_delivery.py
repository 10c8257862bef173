"""Delivery rules; rows marked [K] are Knative's own test vectors."""

from datetime import UTC, datetime
from typing import Any

import pytest

from events import delivery
from events.delivery import Delivery, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT2.5S", 2.5), ("PT0.2S", 0.2), ("PT1M", 60), ("P1DT2H", 93600), ("P1W", 604800)],
)
def test_duration(text: str, seconds: float) -> None:
    assert delivery.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["1s", "", "P", "PT", "P1Y", "PT-1S", "pt1s", "10", None, 5])
def test_what_is_not_a_duration(text: Any) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        delivery.parse_duration(text)


@pytest.mark.parametrize(
    ("policy", "delay", "waits"),
    [  # [K] n = 1..5
        ("linear", 2.5, [2.5, 5, 7.5, 10, 12.5]),
        ("exponential", 1.5, [3, 6, 12, 24, 48]),
        ("exponential", 0.5, [1, 2, 4, 8, 16]),
    ],
)
def test_backoff(policy: Any, delay: float, waits: list[float]) -> None:
    block = Delivery(backoff_policy=policy, backoff_delay_s=delay)
    assert [delivery.backoff_s(block, n) for n in range(1, 6)] == waits


def test_backoff_origin_depends_on_the_broker() -> None:
    block = Delivery(backoff_policy="exponential", backoff_delay_s=1)
    linear = Delivery(backoff_policy="linear", backoff_delay_s=1)
    channel, kafka = delivery.first_n("MTChannelBasedBroker"), delivery.first_n("Kafka")
    assert [delivery.backoff_s(block, channel + i) for i in range(3)] == [1, 2, 4]
    assert [delivery.backoff_s(linear, channel + i) for i in range(3)] == [0, 1, 2]
    assert [delivery.backoff_s(block, kafka + i) for i in range(3)] == [2, 4, 8]


def test_without_a_delay_there_is_no_wait_and_no_overflow() -> None:
    assert delivery.backoff_s(Delivery(retry=3), 5) == 0
    assert delivery.backoff_s(Delivery(backoff_delay_s=1), 100_000) == delivery.MAX_BACKOFF_S


@pytest.mark.parametrize(
    ("status", "verdict"),
    [  # [K] plus "no response"
        (None, Verdict.RETRY),
        (-1, Verdict.RETRY),
        (100, Verdict.FAILED),
        (200, Verdict.DELIVERED),
        (202, Verdict.DELIVERED),
        (204, Verdict.DELIVERED),
        (299, Verdict.DELIVERED),
        (300, Verdict.FAILED),
        (308, Verdict.FAILED),
        (400, Verdict.FAILED),
        (401, Verdict.FAILED),
        (403, Verdict.FAILED),
        (404, Verdict.RETRY),
        (408, Verdict.RETRY),
        (409, Verdict.RETRY),
        (410, Verdict.FAILED),
        (413, Verdict.FAILED),
        (422, Verdict.FAILED),
        (429, Verdict.RETRY),
        (500, Verdict.RETRY),
        (502, Verdict.RETRY),
        (503, Verdict.RETRY),
        (599, Verdict.RETRY),
    ],
)
def test_which_statuses_are_retried(status: int | None, verdict: Verdict) -> None:
    assert delivery.classify(status) is verdict


@pytest.mark.parametrize(
    ("maximum", "status", "header", "wait"),
    [  # [K] back-off 2 s
        (None, 429, "30", 2),
        (90, 429, "30", 30),
        (90, 503, "30", 30),
        (10, 429, "30", 10),
        (90, 429, "soon", 2),
        (90, 429, None, 2),
        (90, 500, "30", 2),
        (90, 429, "1", 2),
        (90, 503, "Thu, 01 Jan 2026 00:00:20 GMT", 20),
        (90, 503, "Wed, 31 Dec 2025 00:00:00 GMT", 2),
    ],
)
def test_retry_after(maximum: float | None, status: int, header: str | None, wait: float) -> None:
    block = Delivery(backoff_delay_s=2, backoff_policy="linear", retry_after_max_s=maximum)
    found = delivery.wait_s(block, 1, status=status, retry_after=header, now=NOW)
    assert found == wait


def test_a_triggers_block_replaces_the_brokers_as_a_whole() -> None:
    broker = delivery.parse({"retry": 3, "deadLetterSink": {"uri": "http://dead"}})
    assert delivery.parse(None, broker) is broker
    assert delivery.parse({"retry": 5}, broker).dead_letter_sink is None


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"retry": -1}, "retry"),
        ({"retry": True}, "retry"),
        ({"backoffPolicy": "random"}, "backoffPolicy"),
        ({"backoffDelay": "1s"}, "backoffDelay"),
        ({"timeout": "PT0S"}, "timeout"),
        ({"retryAfterMax": "PT30S"}, "retryAfterMax"),
        ({"deadLetterSink": {}}, "deadLetterSink"),
        ({"deadLetterSink": {"uri": "/relative"}}, "deadLetterSink.uri"),
        ({"deadLetterSink": {"ref": {"kind": "Service"}}}, "deadLetterSink.ref.name"),
        ({"retries": 3}, "retries"),
        ({"format": "xml"}, "format"),
        ([], ""),
    ],
)
def test_problems_of_a_delivery_block(block: Any, problem: str) -> None:
    assert [path for path, _ in delivery.check(block)] == [problem]


def test_a_complete_block_has_no_problems() -> None:
    block = {
        "retry": 10,
        "backoffPolicy": "exponential",
        "backoffDelay": "PT0.2S",
        "timeout": "PT10M",
        "deadLetterSink": {"ref": {"kind": "Service", "name": "dead"}, "uri": "/dead"},
        "format": "binary",
    }
    assert delivery.check(block) == []
    assert delivery.check({"retryAfterMax": "PT1M"}, retry_after=True) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("", None),
        ("-1", None),
        ("9" * 400, None),
        ("٣", None),
        ("1.5", None),
    ],
)
def test_seconds_of_a_retry_after(text: str, seconds: float | None) -> None:
    assert delivery.whole_seconds(text) == seconds
