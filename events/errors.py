"""What can go wrong between a notification and a filed result.

    EventsError
     +- InvalidEvent          400   not a CloudEvent or notification we can read; never retried
     |   +- UnsupportedMedia  415   an event format nobody here reads
     +- Refused               4xx   understood, and will never work: the broker must not try again
     |   +- ObjectGone        422   the object was deleted or replaced meanwhile
     |   |   +- NoBucket      422   there is not even a bucket
     |   +- Forbidden         422   the bucket, key or target is outside what this sink may touch
     +- TryAgain              503   not now: busy, sleeping, unreachable, credentials expired
     |   +- DeliveryFailed    503   the next hop did not take the event
     |   +- InFlight          409   another delivery of the same event is being worked on
     +- SpecError             exit 2   a sink specification with problems, all of them at once

`status` is what a broker sees: Knative retries 404, 408, 409, 429 and every 5xx and gives up at
once on other 4xx (dead letter), so a final failure must never use one of the retried statuses.
Errors of boto3, requests and sqlite3 stop at the module that imports the library and arrive
chained.
"""

from collections.abc import Sequence
from typing import ClassVar


class EventsError(Exception):
    """Base of everything this unit raises on purpose; `str(error)` says what to do."""

    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class InvalidEvent(EventsError):
    """The bytes are not a CloudEvent 1.0 and not a storage notification of a known shape."""

    status = 400


class UnsupportedMedia(InvalidEvent):
    """A CloudEvents format other than JSON."""

    status = 415


class Refused(EventsError):
    """A final failure: repeating the same delivery gives the same failure. Dead-letter it now."""

    status = 422


class ObjectGone(Refused):
    """The object of the event is not there any more, or is another version by now."""


class NoBucket(ObjectGone):
    """The bucket does not exist: a setting is wrong, or somebody has yet to make it."""


class Forbidden(Refused):
    """The event names something this sink has not been given."""


class TryAgain(EventsError):
    """A failure that time may heal; `retry_after_s` is a hint for the sender (None: none given)."""

    status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeliveryFailed(TryAgain):
    """The next hop did not answer 2xx; `cause_status` is what it said (None: it said nothing)."""

    def __init__(
        self,
        message: str,
        *,
        cause_status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.cause_status = cause_status


class InFlight(TryAgain):
    """The same event is being processed right now; ask again later for the recorded reply."""

    status = 409


class SpecError(EventsError):
    """A specification with problems: `(path, message)` pairs, all of them."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{path}: {message}" for path, message in problems))
        self.problems = tuple(problems)
