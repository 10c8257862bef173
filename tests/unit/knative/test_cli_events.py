"""`turnout events`: what is printed of an engine's answer."""

from typing import Any

import pytest

from knative import errors
from knative.cli import events, main


def entry(number: int, fate: str) -> dict[str, Any]:
    event = {"type": "t", "source": "/s", "id": str(number), "subject": "a.png"}
    return {"broker": "b", "event": event, "triggers": {"default/x": fate}}


def test_following_prints_an_event_again_when_something_happened_to_it() -> None:
    seen: set[str] = set()

    def news(*recent: dict[str, Any]) -> list[str]:
        return list(events.news({"recent": recent}, "recent", seen))

    assert news(entry(2, "pending"), entry(1, "pending")) == [
        "t  /s  1  a.png  default/x pending",
        "t  /s  2  a.png  default/x pending",
    ]
    assert news(entry(2, "pending"), entry(1, "delivered")) == [
        "t  /s  1  a.png  default/x delivered"
    ]
    assert news(entry(2, "pending"), entry(1, "delivered")) == []


def test_what_a_subscriber_answered_gives_the_terminal_no_orders() -> None:
    failure = {"code": 500, "destination": "http://x", "body": "no\n\x1b[2J way"}
    dead = {"id": 1, "trigger": "default/x", **entry(1, "dead"), "failure": failure}
    (line,) = events.lines({"dead": [dead]}, "dead")
    assert line.endswith("500 from http://x: no ?[2J way")


def test_following_is_for_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knative.cli.engine_options.connect", lambda args: None)
    assert main.run(["events", "-f", "--json"]) == errors.UsageError.exit_code
    assert "--json" in capsys.readouterr().err
