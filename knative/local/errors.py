"""What can go wrong in the local engine, for the terminal and for clients of the gateway.

TurnoutError (knative.errors)
 +- EngineError          1   the engine cannot start or go on; says what to do
 |   +- PortInUse       75   the port or the state directory belongs to somebody else
 +- InvalidWorkload     65   a manifest that Knative may accept but this machine cannot run

PodFailed                    one pod could not start; carries the log tail (never reaches the
terminal
                             as an exception: it becomes a status and a 503)
"""

from collections.abc import Sequence

from knative import errors


class EngineError(errors.TurnoutError):
    """The engine cannot start, or a verb cannot reach it."""


class PortInUse(errors.TryAgain):
    """Another process owns the port or the state directory."""


class InvalidWorkload(errors.ManifestError):
    """Manifests that cannot run here; every problem is one `path: message` line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.lines = tuple(problems)


class PodFailed(Exception):
    """A pod that did not become ready, or died. Not an error of the engine."""

    def __init__(self, reason: str, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.log_tail = log_tail
