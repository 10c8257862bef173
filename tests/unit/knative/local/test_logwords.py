"""Log lines for people."""

import json

from knative.local.logwords import last_error, readable

RECORDS = [
    {"ts": "1", "level": "INFO", "message": "fetched 3 of 10 MB"},
    {"ts": "2", "level": "ERROR", "message": "bucket not found", "exception": "Trace\nNotFound: b"},
    {"ts": "3", "level": "INFO", "message": "bye"},
]
TAIL = "\n".join([json.dumps(record) for record in RECORDS] + ["plain words", "{not json", "[1]"])


def test_records_become_their_message() -> None:
    assert readable(TAIL).splitlines() == [
        "INFO fetched 3 of 10 MB",
        "ERROR bucket not found",
        "Trace",
        "NotFound: b",
        "INFO bye",
        "plain words",
        "{not json",
        "[1]",
    ]


def test_only_the_last_lines() -> None:
    assert readable(TAIL, 2) == "{not json\n[1]"
    assert readable("") == ""


def test_repetitions_are_shown_once() -> None:
    again = json.dumps({"level": "INFO", "message": "fetching"})
    assert readable("\n".join([again, again, again, "x", again])) == (
        "INFO fetching\nx\nINFO fetching"
    )


def test_the_last_error_is_the_reason() -> None:
    assert last_error(TAIL) == "bucket not found"
    assert last_error("plain\n" + json.dumps(RECORDS[0])) == ""
    assert last_error(json.dumps({"level": "ERROR"})) == ""
