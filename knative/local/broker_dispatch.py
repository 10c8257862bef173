"""One Trigger's deliveries: take due rows, send them, settle each by Knative's rules.

Ordered triggers deliver one at a time and never overtake. A row goes through the subscriber's
attempts and then, with the failure attached, through the dead letter sink's attempts by the same
policy.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from events import codec, delivery
from events.delivery import Verdict
from events.errors import InvalidEvent
from events.event import Event
from functions.wire.container import log_facts
from knative.local import broker_rules as rules
from knative.local.broker_rules import Failure, Trigger
from knative.local.broker_store import Row, Store, StoreError

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 900.0
"""Per attempt when the trigger says nothing: Knative's fan-out limit of 15 minutes."""

GATHER_S = 0.02
"""With more waiting than fits, deliveries that end are replaced by several at once, after this at
the latest: one look into the queue for many."""

STORE_PAUSE_S = 1.0
"""After the database refused: how long until it is asked again."""


class Send(Protocol):
    """POST to a URL; raises `OSError` or `TimeoutError` when there is no answer."""

    def __call__(
        self, url: str, headers: dict[str, str], body: bytes, timeout_s: float, /
    ) -> Awaitable[tuple[int, Mapping[str, str], bytes]]: ...


Reply = Callable[[Trigger, Row, Event], Awaitable[None]]
Settled = Callable[[Trigger, Row, str], None]


class Dispatcher:
    """Runs as one task plus one per delivery in flight."""

    def __init__(
        self,
        trigger: Trigger,
        *,
        store: Store,
        send: Send,
        reply: Reply,
        settled: Settled,
        clock: Callable[[], float],
        max_in_flight: int,
    ) -> None:
        self._trigger = trigger
        self._store = store
        self._send = send
        self._reply = reply
        self._settled = settled
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._wake = asyncio.Event()
        self._more = False
        """The last look filled every place, so the queue has more."""
        self._gathering: asyncio.TimerHandle | None = None
        self._stopping = False
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"trigger {self._trigger.key}")

    def wake(self) -> None:
        """There is, or may be, something to deliver."""
        self._wake.set()

    def change(self, trigger: Trigger) -> None:
        """New filters, subscriber or delivery, from the next delivery on."""
        self._trigger = trigger
        self.wake()

    async def stop(self, drain_s: float) -> None:
        """Take nothing more; wait a little for what is in flight, then leave it to the next
        start."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
        if self._in_flight:
            await asyncio.wait(self._in_flight.values(), timeout=drain_s)
        left = list(self._in_flight.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                taken, due = await self._take()
            except StoreError as error:
                logger.error("trigger %s waits: %s", self._trigger.key, error)
                taken, due = 0, self._clock() + STORE_PAUSE_S
            if not taken:
                await self._sleep(due)

    async def _take(self) -> tuple[int, float | None]:
        """Start what is due and fits; how many, and when there is more (None: nobody knows)."""
        limit = 1 if self._trigger.ordered else self._max_in_flight
        free = limit - len(self._in_flight)
        if free <= 0 or self._stopping:
            return 0, None
        if self._more and free < limit // 4:
            if self._gathering is None:
                loop = asyncio.get_running_loop()
                self._gathering = loop.call_later(GATHER_S, self._gathered)
            return 0, None
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        rows, due = await self._store.take(
            self._trigger.key,
            free,
            self._clock(),
            frozenset(self._in_flight),
            in_order=self._trigger.ordered,
        )
        self._more = len(rows) == free
        for row in rows:
            task = asyncio.create_task(self._deliver(row))
            self._in_flight[row.id] = task
            task.add_done_callback(functools.partial(self._done, row.id))
        return len(rows), due

    def _gathered(self) -> None:
        self._gathering = None
        self._more = False
        self._wake.set()

    def _done(self, row_id: int, task: asyncio.Task[None]) -> None:
        del self._in_flight[row_id]
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            logger.error(
                "a delivery of %s failed inside", self._trigger.key, exc_info=task.exception()
            )

    async def _sleep(self, due: float | None) -> None:
        """Until woken, or until something is due (but look at the clock once a minute)."""
        timeout = 60.0 if due is None else min(60.0, max(0.0, due - self._clock()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    # --- one delivery -----------------------------------------------------------------------------
    async def _deliver(self, row: Row) -> None:
        trigger = self._trigger
        try:
            if row.failure is None:
                await self._to_subscriber(trigger, row)
            else:
                await self._to_dead_letter_sink(trigger, row, row.failure)
        except StoreError as error:
            logger.error("delivery not settled: %s", error, extra=_ids(trigger, row))
            await self._put_back(row)

    async def _put_back(self, row: Row) -> None:
        """The database could not be told how a delivery went: it will be made again, once it
        can."""
        while not self._stopping:  # the next start puts back whatever was in flight
            await asyncio.sleep(STORE_PAUSE_S)
            try:
                await self._store.retry(row.id, self._clock(), row.attempt, row.failure)
            except StoreError:
                continue
            return

    async def _to_subscriber(self, trigger: Trigger, row: Row) -> None:
        failure, verdict, reply = await self._attempt(trigger, row)
        if reply is not None:
            try:
                await self._reply(trigger, row, reply)
            except InvalidEvent as error:
                failure = Failure(destination=trigger.subscriber, code=400, reason=str(error))
                verdict = Verdict.FAILED
            else:
                self._settle(trigger, row, "replied")
                return
        if failure is None:
            await self._store.finish(row.id)
            self._settle(trigger, row, "delivered")
        elif verdict is Verdict.RETRY and row.attempt < trigger.delivery.retry:
            wait_s = self._wait_s(trigger, row, failure)
            await self._store.retry(row.id, self._clock() + wait_s, row.attempt + 1, None)
            self._settle(trigger, row, "retried", failure)
        else:
            await self._give_up(trigger, row, failure)

    async def _attempt(
        self, trigger: Trigger, row: Row
    ) -> tuple[Failure | None, Verdict, Event | None]:
        """(why it failed, verdict, reply) of one attempt."""
        headers, body = rules.outgoing(row.event, trigger)
        answer = await self._post(trigger, trigger.subscriber, {**row.headers, **headers}, body)
        if isinstance(answer, Failure):
            return answer, Verdict.RETRY, None
        status, fields, content = answer
        verdict = delivery.classify(status)
        if verdict is not Verdict.DELIVERED:
            extensions = rules.kne_extensions(fields) if trigger.is_kafka else {}
            if "retry-after" in fields:
                extensions = {**extensions, "retryafter": fields["retry-after"]}
            return self._failed(trigger, status, content, "", extensions), verdict, None
        try:
            return None, verdict, rules.reply_of(status, fields, content)
        except InvalidEvent as error:
            # Knative's filter answers 502 for this; Kafka's broker does not try again.
            verdict = Verdict.FAILED if trigger.is_kafka else Verdict.RETRY
            return self._failed(trigger, 502, content, str(error), {}), verdict, None

    def _failed(
        self,
        trigger: Trigger,
        status: int,
        body: bytes,
        reason: str,
        extensions: Mapping[str, str],
    ) -> Failure:
        return Failure(
            destination=trigger.subscriber,
            code=status,
            body=body,
            reason=reason,
            extensions=extensions,
        )

    async def _give_up(self, trigger: Trigger, row: Row, failure: Failure) -> None:
        record = _record(failure)
        if trigger.dead_letter_url is None:
            await self._store.bury(row, trigger.key, self._clock(), record, delivered=False)
            self._settle(trigger, row, "dead", failure)
            return
        await self._store.retry(row.id, self._clock(), 0, record)
        self._settle(trigger, row, "failed", failure)

    async def _to_dead_letter_sink(
        self, trigger: Trigger, row: Row, record: Mapping[str, Any]
    ) -> None:
        failure = _failure(record)
        url = trigger.dead_letter_url
        if url is None:  # the sink was taken away meanwhile
            await self._store.bury(row, trigger.key, self._clock(), record, delivered=False)
            self._settle(trigger, row, "dead", failure)
            return
        letter = rules.dead_letter(
            row.event.with_attributes(**{rules.TTL: None}), failure, is_kafka=trigger.is_kafka
        )
        headers, body = codec.encode_binary(letter)
        answer = await self._post(trigger, url, {**row.headers, **headers}, body)
        status = None if isinstance(answer, Failure) else answer[0]
        verdict = delivery.classify(status)
        if verdict is Verdict.RETRY and row.attempt < trigger.delivery.retry:
            due = self._clock() + delivery.backoff_s(
                trigger.delivery, trigger.first_n + row.attempt
            )
            await self._store.retry(row.id, due, row.attempt + 1, record)
            self._settle(trigger, row, "retried", failure)
            return
        delivered = verdict is Verdict.DELIVERED
        await self._store.bury(row, trigger.key, self._clock(), record, delivered=delivered)
        self._settle(trigger, row, "dead", failure)

    async def _post(
        self, trigger: Trigger, url: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, codec.Fields, bytes] | Failure:
        timeout_s = trigger.delivery.timeout_s or DEFAULT_TIMEOUT_S
        try:
            async with asyncio.timeout(timeout_s):
                status, fields, content = await self._send(url, headers, body, timeout_s)
        except TimeoutError:
            return Failure(destination=url, code=None, reason=f"no answer within {timeout_s:g} s")
        except OSError as error:
            return Failure(destination=url, code=None, reason=str(error) or type(error).__name__)
        return status, codec.lower(fields), content

    def _wait_s(self, trigger: Trigger, row: Row, failure: Failure) -> float:
        now = datetime.fromtimestamp(self._clock(), UTC)
        return delivery.wait_s(
            trigger.delivery,
            trigger.first_n + row.attempt,
            status=failure.code,
            retry_after=failure.extensions.get("retryafter"),
            now=now,
        )

    def _settle(
        self, trigger: Trigger, row: Row, outcome: str, failure: Failure | None = None
    ) -> None:
        self._settled(trigger, row, outcome)
        facts = _ids(trigger, row)
        level = logging.INFO
        if failure is not None:
            level = logging.ERROR if outcome == "dead" else logging.WARNING
            facts |= {"code": failure.code, "reason": _why(failure), "attempt": row.attempt}
        log_facts(logger, level, f"event {outcome}", facts)


def _why(failure: Failure) -> str:
    return failure.reason or failure.body[:300].decode("utf-8", "replace")


def _ids(trigger: Trigger, row: Row) -> dict[str, Any]:
    return {
        "trigger": trigger.key,
        "event_id": row.event.id,
        "event_source": row.event.source,
        "event_type": row.event.type,
    }


def _record(failure: Failure) -> dict[str, Any]:
    """A failure as the database keeps it."""
    return {
        "destination": failure.destination,
        "code": failure.code,
        "body": failure.body[: rules.ERROR_DATA_CHARS * 4].decode("utf-8", "replace"),
        "reason": failure.reason,
        "extensions": {
            name: value for name, value in failure.extensions.items() if name != "retryafter"
        },
    }


def _failure(record: Mapping[str, Any]) -> Failure:
    return Failure(
        destination=record["destination"],
        code=record["code"],
        body=str(record["body"]).encode(),
        reason=record["reason"],
        extensions=record["extensions"],
    )
