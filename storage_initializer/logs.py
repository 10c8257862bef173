"""Log lines as every unit writes them: one JSON object a line on stderr, the same keys.

A copy of `functions.wire.container`'s formatter, because this unit imports nothing of the others;
a contract test holds the two together.
"""

import json
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

UNIT = "storage_initializer"
TERMINATION_LOG_BYTES = 4096
"""What Kubernetes keeps of a termination message."""

_STANDARD_ATTRIBUTES = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None))
    | {"message": "", "asctime": "", "taskName": ""}
)


class JsonLogFormatter(logging.Formatter):
    """One JSON object per record; extra attributes become further keys."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "ts": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "unit": UNIT,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD_ATTRIBUTES:
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Called by `__main__` only."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLogFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("botocore", "urllib3", "dulwich"):
        logging.getLogger(chatty).setLevel("WARNING")


def write_termination_message(path: str, message: str) -> None:
    """What `kubectl describe pod` shows; only where Kubernetes has made the file."""
    if path and Path(path).is_file():
        data = message.encode("utf-8", "replace")[:TERMINATION_LOG_BYTES]
        with suppress(OSError):
            Path(path).write_bytes(data)
