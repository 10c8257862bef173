"""Finds uploads nobody told us about: producers that notify once and forget (SeaweedFS's webhook
gives up at the first failure) lose every notification sent while the adapter is away.

A sweep lists the watched buckets and publishes an event, through the broker like any other, for
each object that is old enough to have been notified, young enough to be remembered, and of which
the journal knows nothing. It works with time-based sequencers (SeaweedFS's are the nanosecond of
the write): a swept event says "written within this second", so a late original is seen to be older,
and an object dealt with meanwhile is recognised by the second it was written in.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from .event import Event
from .journal import Journal
from .listing import Listed
from .objects import ObjectStore
from .sender import Sender
from .sources import s3
from .spec import ObjectFilter
from .storage import SWEPT_FLOOR, digest

logger = logging.getLogger(__name__)

SOURCE = "seaweedfs:s3"
PUBLISHERS = 8
"""Events published at once: a broker answers each when it is on disk."""

CHUNK = 256
"""Objects looked at between two rounds of publishing; bounds memory in a bucket of any size."""

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did."""

    looked_at: int = 0
    published: int = 0


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
    return s3.from_record(record).with_attributes(**{SWEPT_FLOOR: f"{floor_ns:016X}"})


class Sweeper:
    """Sweeps for one trigger."""

    def __init__(
        self,
        objects: ObjectFilter,
        *,
        store: ObjectStore,
        journal: Journal,
        sender: Sender,
        scope: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`scope`: the trigger's source, under which the journal knows its objects."""
        self._objects = objects
        self._scope = scope
        self._store = store
        self._journal = journal
        self._sender = sender
        self._clock = clock
        self._running = threading.Lock()

    def run(self) -> Swept:
        """One sweep; nothing at all while another one is under way.

        Raises `TryAgain` when the store or the broker is away; the next sweep goes on.
        """
        if not self._running.acquire(blocking=False):
            return Swept()
        try:
            with ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="sweep") as pool:
                return self._run(pool)
        finally:
            self._running.release()

    def _run(self, pool: ThreadPoolExecutor) -> Swept:
        looked_at = published = 0
        now = self._clock()
        for bucket in self._objects.buckets:
            candidates = (
                found
                for found in self._store.listing(bucket, self._objects.prefix)
                if self._is_due(bucket, found, now)
            )
            while chunk := list(islice(candidates, CHUNK)):
                looked_at += len(chunk)
                events = [event_of(bucket, one) for one in chunk if self._is_unknown(bucket, one)]
                published += sum(1 for _ in pool.map(self._sender.send, events))
        logger.info(
            "swept", extra={"looked_at": looked_at, "published": published, "seconds": _since(now)}
        )
        return Swept(looked_at=looked_at, published=published)

    def _is_due(self, bucket: str, found: Listed, now: float) -> bool:
        age_s = now - found.modified_s
        old_enough = self._objects.sweep_min_age_s <= age_s <= self._objects.sweep_max_age_s
        return old_enough and self._objects.wants(bucket, found.key, "ObjectCreated:Put")

    def _is_unknown(self, bucket: str, found: Listed) -> bool:
        last = self._journal.last_sequencer(digest(self._scope, bucket, found.key))
        return last is None or last < f"{int(found.modified_s) * _SECOND_NS:016X}"


def _since(then: float) -> float:
    return round(time.time() - then, 3)
