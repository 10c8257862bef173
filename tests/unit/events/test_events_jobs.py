"""Which requests ask for an asynchronous answer."""

import pytest

from events import codec, jobs


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([("Prefer", "respond-async")], True),
        ([("prefer", "Respond-Async")], True),
        ([("Prefer", "wait=5, respond-async")], True),
        ([("Prefer", "respond-async;foo=bar")], True),
        ([("Prefer", "respond-async"), ("Prefer", "wait=5")], True),
        ([("Prefer", "wait=5"), ("Prefer", "respond-async")], True),
        ([("Prefer", "return=minimal")], False),
        ([("Prefer", "not-respond-async")], False),
        ([("Prefer", "respond-asynchronously")], False),
        ([], False),
    ],
)
def test_prefer(headers: list[tuple[str, str]], wanted: bool) -> None:
    assert jobs.wants_async(codec.lower(headers)) is wanted
