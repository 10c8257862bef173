"""Log lines as every unit writes them: one JSON object a line on stderr, the same keys.

As a library this unit logs through `logging`, like any other. As a program it writes the lines
itself: `logging` is 6 ms of imports that every pod would wait for, and only the SDKs that some
sources need bring it along anyway (`adopt`). The keys are `functions.wire.container`'s, which may
not be imported here; a test holds the two together.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

UNIT = "storage_initializer"
TERMINATION_LOG_BYTES = 4096
"""What Kubernetes keeps of a termination message."""
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
_CHATTY = ("botocore", "urllib3", "dulwich", "hdfs")


class _Sink:
    """Where the program's lines go, from which level on."""

    def __init__(self, stream: TextIO | None, level: str) -> None:
        self.stream = stream
        self.level = level
        self.lock = threading.Lock()


_sink: _Sink | None = None


class Log:
    """The part of `logging.Logger` that this unit uses."""

    def __init__(self, name: str) -> None:
        self.name = name

    def info(self, message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._say("INFO", message, args, extra)

    def warning(self, message: str, *args: object) -> None:
        self._say("WARNING", message, args, None)

    def error(self, message: str, *args: object) -> None:
        self._say("ERROR", message, args, None)

    def _say(
        self, level: str, message: str, args: tuple[object, ...], extra: Mapping[str, object] | None
    ) -> None:
        if _sink is None:
            import logging

            logger = logging.getLogger(self.name)
            logger.log(LEVELS[level], message, *args, extra=extra, stacklevel=3)
        elif LEVELS[level] >= LEVELS[_sink.level] and _sink.stream is not None:
            text = line(time.time(), level, self.name, message % args if args else message, extra)
            with _sink.lock, suppress(OSError, ValueError):  # nobody listens any more
                _sink.stream.write(text + "\n")
                _sink.stream.flush()


def line(
    seconds: float, level: str, name: str, message: str, extra: Mapping[str, object] | None = None
) -> str:
    """One log line, without its end; `seconds` since the epoch."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    facts: dict[str, object] = {
        "ts": f"{stamp}.{int((seconds - int(seconds)) * 1000):03d}Z",
        "level": level,
        "unit": UNIT,
        "logger": name,
        "message": message,
        **(extra or {}),
    }
    return json.dumps(facts, default=str, ensure_ascii=False)


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """This process is the program. Called by `cli` only."""
    global _sink
    _sink = _Sink(stream or sys.stderr, level)


def adopt() -> None:
    """What libraries log by `logging` becomes lines like ours; nothing to do in a library."""
    if _sink is None or "logging" not in sys.modules:
        return
    import logging

    from .library_logs import JsonLogFormatter

    handler: logging.Handler = logging.NullHandler()
    if _sink.stream is not None:
        handler = logging.StreamHandler(_sink.stream)
    handler.setFormatter(JsonLogFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_sink.level)
    for chatty in _CHATTY:  # what fails there is told by our one line
        logging.getLogger(chatty).setLevel("ERROR")


def write_termination_message(path: str, message: str) -> None:
    """What `kubectl describe pod` shows; only where Kubernetes has made the file."""
    if path and os.path.isfile(path):
        data = message.encode("utf-8", "replace")[:TERMINATION_LOG_BYTES]
        with suppress(OSError), open(path, "wb") as file:
            file.write(data)
