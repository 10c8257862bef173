"""Log lines of the hot path: the same line, whichever way it takes."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from functions.wire import container

FACTS = {
    "event_id": 'a"\n\u00e9\x00',
    "status": 204,
    "ms": 1.5,
    "ok": True,
    "names": ["x"],
    "no": None,
}


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of its own, which no other handler of this test run listens to."""
    made = logging.getLogger("tests.log_facts")
    made.propagate = False
    made.setLevel(logging.INFO)
    yield made
    made.handlers.clear()
    made.filters.clear()
    made.propagate = True


def lines(logger: logging.Logger, stream: io.StringIO) -> logging.Handler:
    handler = container.JsonLines(stream)
    handler.setFormatter(container.JsonLogFormatter("unit"))
    logger.addHandler(handler)
    return handler


def read(stream: io.StringIO) -> dict[str, object]:
    (line,) = stream.getvalue().splitlines()
    value = json.loads(line)
    assert isinstance(value, dict)
    return value


def test_the_line_is_the_one_that_a_record_makes(logger: logging.Logger) -> None:
    direct, standard = io.StringIO(), io.StringIO()
    lines(logger, direct)
    container.log_facts(logger, logging.WARNING, "event done", FACTS)
    logger.handlers.clear()
    lines(logger, standard)
    logger.warning("event done", extra=FACTS)
    one, other = read(direct), read(standard)
    assert list(one) == list(other)
    assert {**one, "ts": ""} == {**other, "ts": ""}
    assert one["event_id"] == FACTS["event_id"]


def test_everybody_who_listens_hears_it(logger: logging.Logger) -> None:
    first, second = io.StringIO(), io.StringIO()
    lines(logger, first)
    lines(logger, second)
    container.log_facts(logger, logging.INFO, "event done", FACTS)
    assert read(first)["status"] == read(second)["status"] == 204


def test_levels_and_filters_hold(logger: logging.Logger) -> None:
    stream = io.StringIO()
    handler = lines(logger, stream)
    container.log_facts(logger, logging.DEBUG, "event done", FACTS)
    handler.setLevel(logging.ERROR)
    container.log_facts(logger, logging.INFO, "event done", FACTS)
    handler.setLevel(logging.NOTSET)
    handler.addFilter(lambda record: False)
    container.log_facts(logger, logging.INFO, "event done", FACTS)
    assert stream.getvalue() == ""


def test_a_stream_that_cannot_be_written_stops_nobody(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    lines(logger, stream)
    stream.close()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    container.log_facts(logger, logging.INFO, "event done", FACTS)
