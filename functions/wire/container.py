"""What Knative gives a container, and what every unit gives back.

The facts are Knative's runtime contract (environment variables, probe user agents) plus our own
promises at the process border: `GET /readyz`, one JSON object per log line on stderr, exit codes.
Pure data and one log formatter; nothing here opens a socket or reads the environment.
"""

import json
import logging
import sys
import time
from typing import TextIO

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


class JsonLogFormatter(logging.Formatter):
    """One JSON object per record, on one line, whatever the message contains.

    Extra attributes (`logger.info("...", extra={"model": name})`) become further keys.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second[0]:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, stamp)
        line: dict[str, object] = {
            "ts": f"{self._second[1]}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "unit": self._unit,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD_ATTRIBUTES:
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODE(line)


def configure_logging(unit: str, *, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every logger of this process to `stream` (stderr) as JSON lines; only for `__main__`."""
    forget_callers()
    handler = logging.StreamHandler(stream or sys.stderr)
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
