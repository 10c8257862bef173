"""Finds uploads nobody told us about: producers that notify once and forget (SeaweedFS's webhook
gives up at the first failure) lose every notification sent while the adapter is away.

A sweep lists the watched buckets and publishes an event, through the broker like any other, for
each object that is old enough to have been notified, young enough to be remembered, and of which
the journal knows nothing. It works with time-based sequencers (SeaweedFS's are the nanosecond of
the write): a swept event says "written within this second", so a late original is seen to be older,
and an object dealt with meanwhile is recognised by the second it was written in.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from .event import Event
from .journal import Journal
from .objects import Listed, ObjectStore
from .sender import Sender
from .sources import s3
from .spec import ObjectFilter

logger = logging.getLogger(__name__)

SOURCE = "seaweedfs:s3"
FLOOR = "sweptfrom"
"""Extension of a swept event: the sequencer of the beginning of its second."""

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did."""

    looked_at: int = 0
    published: int = 0


def object_id(bucket: str, key: str) -> str:
    """The journal's name of an object, all versions of it."""
    return hashlib.sha256(f"{bucket}\0{key}".encode("utf-8", "replace")).hexdigest()


def event_of(bucket: str, found: Listed) -> Event:
    """The event of an object as a listing shows it: the time is known to the second."""
    floor_ns = int(found.modified_s) * _SECOND_NS
    record = {
        "eventVersion": "2.1",
        "eventSource": SOURCE,
        "awsRegion": "",
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.modified_s)),
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket},
            "object": {
                "key": found.key,
                "size": found.size,
                "eTag": found.etag,
                "sequencer": f"{floor_ns + _SECOND_NS - 1:016X}",
            },
        },
    }
    return s3.from_record(record).with_attributes(**{FLOOR: f"{floor_ns:016X}"})


class Sweeper:
    """Sweeps for one trigger."""

    def __init__(
        self,
        objects: ObjectFilter,
        *,
        store: ObjectStore,
        journal: Journal,
        sender: Sender,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._objects = objects
        self._store = store
        self._journal = journal
        self._sender = sender
        self._clock = clock

    def run(self) -> Swept:
        """One sweep. Raises `TryAgain` when the store or the broker is away; the next sweep goes
        on."""
        looked_at = published = 0
        now = self._clock()
        for bucket in self._objects.buckets:
            for found in self._store.listing(bucket, self._objects.prefix):
                age_s = now - found.modified_s
                if not self._objects.sweep_min_age_s <= age_s <= self._objects.sweep_max_age_s:
                    continue
                if not self._objects.wants(bucket, found.key, "ObjectCreated:Put"):
                    continue
                looked_at += 1
                last = self._journal.last_sequencer(object_id(bucket, found.key))
                if last is not None and last >= f"{int(found.modified_s) * _SECOND_NS:016X}":
                    continue
                self._sender.send(event_of(bucket, found))
                published += 1
        logger.info(
            "swept", extra={"looked_at": looked_at, "published": published, "seconds": _since(now)}
        )
        return Swept(looked_at=looked_at, published=published)


def _since(then: float) -> float:
    return round(time.time() - then, 3)
