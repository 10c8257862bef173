"""Log lines for people: JSON records become their message. Pure.

A pod's log stays as it was written; these functions are for errors and the terminal, where
fourteen JSON objects would hide the one sentence that matters.
"""

import json
from typing import Any

_GRAVE = frozenset({"ERROR", "CRITICAL", "FATAL"})


def readable(tail: str, lines: int = 10) -> str:
    """The last lines: JSON records as `LEVEL message` with their exception, others as they are.
    What is said several times in a row is shown once."""
    words: list[str] = []
    for line in tail.splitlines():
        if line.strip() and (said := _words(line)) not in words[-1:]:
            words.append(said)
    return "\n".join("\n".join(words).splitlines()[-lines:])


def last_error(tail: str) -> str:
    """The message of the last record of level ERROR or worse; empty without one."""
    for line in reversed(tail.splitlines()):
        record = _record(line)
        if record is not None and str(record.get("level", "")).upper() in _GRAVE:
            return str(record["message"]).strip()
    return ""


def _words(line: str) -> str:
    record = _record(line)
    if record is None:
        return line
    level = str(record.get("level") or record.get("severity") or "").upper()
    text = f"{level} {record['message']}".strip()
    exception = record.get("exception")
    return f"{text}\n{exception}" if isinstance(exception, str) else text


def _record(line: str) -> dict[str, Any] | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "message" in record else None
