"""`logging` records of the SDKs as our log lines."""

import logging

from .logs import line

_STANDARD_ATTRIBUTES = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None))
    | {"message": "", "asctime": "", "taskName": ""}
)


class JsonLogFormatter(logging.Formatter):
    """One JSON object per record; extra attributes become further keys."""

    def format(self, record: logging.LogRecord) -> str:
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD_ATTRIBUTES}
        if record.exc_info:
            extra["exception"] = self.formatException(record.exc_info)
        return line(record.created, record.levelname, record.name, record.getMessage(), extra)
