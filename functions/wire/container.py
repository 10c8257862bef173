"""What Knative gives a container, and what every unit gives back.

The facts are Knative's runtime contract (environment variables, probe user agents) plus our own
promises at the process border: `GET /readyz`, one JSON object per log line on stderr, exit codes.
Pure data and one log formatter; nothing here opens a socket or reads the environment.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Protocol, TextIO, cast

DEFAULT_PORT = 8080
"""TCP port to listen on when Knative's `PORT` is not set."""

READY_PATH = "/readyz"
"""Readiness of every unit: 200 ready, 503 not (loading, or draining after SIGTERM)."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
"""Bad configuration; every problem has been named on stderr."""

TERMINATION_LOG = "/dev/termination-log"
"""Kubernetes shows what a container writes here in `kubectl describe`."""

LOG_KEYS = ("ts", "level", "unit", "logger", "message")
"""Keys every log line has, in this order; `exception` and extras follow when there are any."""

_STANDARD_ATTRIBUTES = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None))
    | {"message": "", "asctime": "", "taskName": ""}
)


_ENCODE = json.JSONEncoder(default=str, ensure_ascii=False).encode


def _encode_line(line: Mapping[str, object]) -> str:
    """What `_ENCODE` makes of it, faster for a flat object of texts and integers."""
    members = [
        f"{encode_basestring(key)}: "
        + (
            encode_basestring(value)
            if type(value) is str
            else repr(value)
            if type(value) is int
            else _ENCODE(value)
        )
        for key, value in line.items()
    ]
    return f"{{{', '.join(members)}}}"


class JsonLogFormatter(logging.Formatter):
    """One JSON object per record, on one line, whatever the message contains.

    Extra attributes (`logger.info("...", extra={"model": name})`) become further keys.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit
        self._second = (-1, "")

    def head(self, created: float, level: str, logger: str, message: str) -> dict[str, object]:
        """The keys that every line has; `created` in seconds since 1970."""
        second = int(created)
        if second != self._second[0]:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, stamp)
        return {
            "ts": f"{self._second[1]}.{int((created - second) * 1000):03d}Z",
            "level": level,
            "unit": self._unit,
            "logger": logger,
            "message": message,
        }

    def format(self, record: logging.LogRecord) -> str:
        line = self.head(record.created, record.levelname, record.name, record.getMessage())
        for key, value in vars(record).items():
            if key not in _STANDARD_ATTRIBUTES:
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode_line(line)


class LineWriter(Protocol):
    """A handler that `log_facts` may write to."""

    formatter: logging.Formatter | None

    def write_line(self, text: str) -> None: ...


class JsonLines(logging.StreamHandler[TextIO]):
    """A stream of JSON lines."""

    def write_line(self, text: str) -> None:
        """A line that is formatted already. Raises OSError, ValueError."""
        self.acquire()
        try:
            self.stream.write(text + self.terminator)
            self.flush()
        finally:
            self.release()


def log_facts(
    logger: logging.Logger, level: int, message: str, facts: Mapping[str, object]
) -> None:
    """`logger.log(level, message, extra=facts)` for a line that every request or event has.

    Where one handler of JSON lines is all that listens, which is how our programs run, the line is
    written without a record and its way through the handlers: a third of the cost. Otherwise
    (tests that capture, other handlers) it is exactly that call. `message` has no placeholders.
    """
    if not logger.isEnabledFor(level):
        return
    handler = _only_listener(logger, level)
    if handler is None or not isinstance(handler.formatter, JsonLogFormatter):
        logger.log(level, message, extra=dict(facts))
        return
    name = logging.getLevelName(level)
    line = handler.formatter.head(time.time(), name, logger.name, message)
    line.update(facts)
    try:
        handler.write_line(_encode_line(line))
    except Exception:  # the standard way has its own for failures
        logger.log(level, message, extra=dict(facts))


def _only_listener(logger: logging.Logger, level: int) -> LineWriter | None:
    """The one handler that a record of this logger and level would reach, if it takes lines."""
    found: logging.Handler | None = None
    place: logging.Logger | None = logger
    while place is not None:
        for handler in place.handlers:
            if handler.level <= level:
                if found is not None:
                    return None
                found = handler
        place = place.parent if place.propagate else None
    if logger.filters or found is None or found.filters or not hasattr(found, "write_line"):
        return None
    return cast("LineWriter", found)


def configure_logging(unit: str, *, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every logger of this process to `stream` (stderr) as JSON lines; only for `__main__`."""
    forget_callers()
    handler = JsonLines(stream or sys.stderr)
    handler.setFormatter(JsonLogFormatter(unit))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def forget_callers() -> None:
    """Spare every record what no line of ours shows: source line, thread and process.

    Source: "Optimization" in the logging HOWTO of Python.
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
