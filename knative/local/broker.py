"""Brokers and Triggers on one machine: durable queue, filters, retries, replies, dead letters.

    service = BrokerService(path, objects, send)      # objects: compiled manifests; send: see Send
    await service.start()                              # also delivers what an earlier run left
    status, headers, body = await service.handle("POST", "/default/default", headers, body)
    await service.stop()

An event is on disk before its sender hears 202. Each Trigger has one dispatcher with a bounded
number of deliveries in flight; everything else stays in the database, so a long queue costs no
memory. A full queue is 503 with Retry-After. Semantics: `broker_rules`; storage: `broker_store`.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from events import codec
from events.errors import InvalidEvent
from events.event import Event
from functions.wire.container import log_facts
from knative.local import broker_rules as rules
from knative.local.broker_dispatch import Dispatcher, Send
from knative.local.broker_rules import Answer, Broker, Trigger
from knative.local.broker_store import Row, Store, StoreError

__all__ = ["BrokerService", "Send"]

logger = logging.getLogger(__name__)

HttpAnswer = tuple[int, dict[str, str], bytes]
RECENT = 200
"""Events remembered for `turnout events`, newest first."""


class BrokerService:
    """All brokers of one engine. Methods belong to the loop that called `start`."""

    def __init__(
        self,
        path: Path,
        objects: Iterable[Mapping[str, Any]],
        send: Send,
        *,
        clock: Callable[[], float] = time.time,
        max_pending: int = 1_000_000,
        max_in_flight: int = 64,
        max_event_bytes: int = 10 << 20,
        durable: bool = False,
    ) -> None:
        """`clock`: wall time (due times outlive the process); `max_in_flight`: deliveries per
        trigger.

        Raises `ValueError` for a Trigger that cannot be resolved.
        """
        self._store = Store(path, durable=durable)
        self._send = send
        self._clock = clock
        self._max_pending = max_pending
        self._max_in_flight = max_in_flight
        self._max_event_bytes = max_event_bytes
        self._brokers, self._triggers = rules.parse_objects(objects)
        self._dispatchers: dict[str, Dispatcher] = {}
        self._pending: Counter[str] = Counter()
        self._second = (-1.0, "")
        """A second and its text: events come many to one."""
        self._recent: deque[dict[str, Any]] = deque()
        self._recent_by_id: dict[str, dict[str, Any]] = {}
        self.stats: Counter[str] = Counter()
        """received, delivered, replied, retried, dead, invalid, rejected: since the start."""

    @property
    def brokers(self) -> Mapping[str, Broker]:
        return self._brokers

    @property
    def triggers(self) -> Mapping[str, Trigger]:
        return self._triggers

    async def start(self) -> None:
        """Open the queue and go on where the last run stopped. Raises `StoreError`."""
        await self._store.start()
        self._pending.update(await self._store.counts())
        for trigger in self._triggers.values():
            self._dispatch(trigger)

    async def stop(self, drain_s: float = 5.0) -> None:
        """Stop taking deliveries, give those in flight a moment, close. Nothing is lost either
        way."""
        await asyncio.gather(*(one.stop(drain_s) for one in self._dispatchers.values()))
        self._dispatchers.clear()
        await self._store.stop()

    async def update(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """New manifests: triggers appear, change or go (with their undelivered events)."""
        brokers, triggers = rules.parse_objects(objects)
        gone = self._triggers.keys() - triggers.keys()
        self._brokers, self._triggers = brokers, triggers
        for key in gone:
            await self._dispatchers.pop(key).stop(0)
            await self._store.drop(key)
            del self._pending[key]
        for trigger in triggers.values():
            if trigger.key in self._dispatchers:
                self._dispatchers[trigger.key].change(trigger)
            else:
                self._dispatch(trigger)

    # --- ingress ----------------------------------------------------------------------------------
    async def handle(
        self, method: str, path: str, headers: codec.Headers, body: bytes
    ) -> HttpAnswer:
        """Any request to the ingress host."""
        found = rules.refuse_early(method, path)
        if isinstance(found, Answer):
            return _http(found)
        return await self._ingress(*found, headers, body)

    async def _ingress(
        self, namespace: str, broker: str, headers: codec.Headers, body: bytes
    ) -> HttpAnswer:
        """One event for one broker: 202 once it is on disk, else Knative's status for the
        problem."""
        known = self._brokers.get(f"{namespace}/{broker}")
        if known is None:
            self.stats["rejected"] += 1
            return _http(Answer(status=404, body=f"there is no broker {namespace}/{broker}"))
        if len(body) > self._max_event_bytes:
            self.stats["rejected"] += 1
            limit = f"an event may have {self._max_event_bytes} bytes, this one has {len(body)}"
            return _http(Answer(status=413, body=limit))
        fields = codec.lower(headers)
        try:
            event = rules.admit(fields, body, self._now_text())
        except InvalidEvent as error:
            self.stats["invalid"] += 1
            return _http(Answer(status=400, body=str(error)))
        if self._is_full(known.key):
            self.stats["rejected"] += 1
            retry = {"Retry-After": "1"}
            return _http(Answer(status=503, body="the broker's queue is full", headers=retry))
        try:
            await self._accept(known.key, event, rules.forwarded(fields))
        except StoreError as error:
            self.stats["rejected"] += 1
            logger.error("event not accepted: %s", error, extra={"event_id": event.id})
            return _http(Answer(status=503, body=str(error), headers={"Retry-After": "5"}))
        return _http(Answer(status=202))

    async def publish(self, broker: str, event: Event) -> None:
        """An event of the engine's own (a PingSource). Raises `StoreError`, `InvalidEvent`."""
        attributes: dict[str, Any] = {rules.TTL: rules.DEFAULT_TTL, rules.ARRIVAL: self._now_text()}
        await self._accept(broker, event.with_attributes(**attributes), {})

    # --- for people -------------------------------------------------------------------------------
    def recent(self) -> list[dict[str, Any]]:
        """Accepted events, newest first: attributes, broker, triggers, how far each got."""
        return list(self._recent)[::-1]

    async def pending(self, limit: int = 100) -> list[dict[str, Any]]:
        """Deliveries that wait or are under way, oldest first."""
        return [
            {
                "delivery": row.id,
                "trigger": trigger,
                "event": dict(row.event.attributes),
                "attempt": row.attempt,
                "due": due,
                "deadLetter": row.failure is not None,
            }
            for trigger, row, due in await self._store.pending(limit)
        ]

    async def dead(self, limit: int = 100) -> list[dict[str, Any]]:
        """Dead letters, newest first, each with its reason and the id that `replay` wants."""
        return [
            {
                "id": row.id,
                "trigger": row.trigger,
                "at": row.at,
                "event": dict(row.event.attributes),
                "failure": row.failure,
                "delivered": row.delivered,
            }
            for row in await self._store.dead(limit)
        ]

    async def replay(self, dead: int | None = None) -> int:
        """Deliver one dead letter again, or all; how many there were."""
        triggers = await self._store.replay(dead, self._clock())
        for trigger in triggers:
            self._pending[trigger] += 1
            if trigger in self._dispatchers:
                self._dispatchers[trigger].wake()
        return len(triggers)

    def depth(self) -> dict[str, int]:
        """Deliveries not yet made, by trigger."""
        return {trigger: self._pending[trigger] for trigger in self._triggers}

    # --- inside -----------------------------------------------------------------------------------
    def _dispatch(self, trigger: Trigger) -> None:
        dispatcher = Dispatcher(
            trigger,
            store=self._store,
            send=self._send,
            reply=self._take_reply,
            settled=self._settled,
            clock=self._clock,
            max_in_flight=self._max_in_flight,
        )
        self._dispatchers[trigger.key] = dispatcher
        dispatcher.start()

    async def _accept(
        self,
        broker: str,
        event: Event,
        headers: Mapping[str, str],
        *,
        instead_of: int | None = None,
    ) -> None:
        wanted = [
            one for one in self._triggers.values() if one.broker == broker and one.wants(event)
        ]
        names = [trigger.key for trigger in wanted]
        await self._store.accept(
            broker, event, headers, names, self._clock(), instead_of=instead_of
        )
        self.stats["received"] += 1
        self._pending.update(names)
        self._remember(broker, event, names)
        for name in names:
            if name in self._dispatchers:
                self._dispatchers[name].wake()
        log_facts(
            logger,
            logging.INFO,
            "event accepted",
            {
                "broker": broker,
                "event_id": event.id,
                "event_source": event.source,
                "event_type": event.type,
                "triggers": names,
            },
        )

    async def _take_reply(self, trigger: Trigger, row: Row, reply: Event) -> None:
        """A subscriber's reply enters the broker in the same transaction that ends the delivery.

        Raises `InvalidEvent` if it has hopped enough.
        """
        again = rules.reply_for_ingress(reply, row.event)
        ttl = rules.next_ttl(again.attributes.get(rules.TTL))
        if ttl <= 0:
            raise InvalidEvent(f"{rules.TTL} is used up: replies go round in a circle")
        hop: dict[str, Any] = {rules.TTL: ttl, rules.ARRIVAL: self._now_text()}
        admitted = again.with_attributes(**hop)
        await self._accept(trigger.broker, admitted, row.headers, instead_of=row.id)

    def _settled(self, trigger: Trigger, row: Row, outcome: str) -> None:
        """A dispatcher reports: delivered, replied, retried, failed (to the dead letter sink),
        dead."""
        self.stats[outcome] += 1
        if outcome in ("delivered", "replied", "dead"):
            self._pending[trigger.key] -= 1
        entry = self._recent_by_id.get(row.event.id)
        if entry is not None and trigger.key in entry["triggers"]:
            entry["triggers"][trigger.key] = outcome

    def _remember(self, broker: str, event: Event, triggers: list[str]) -> None:
        fates = dict.fromkeys(triggers, "pending")
        entry = {"broker": broker, "event": dict(event.attributes), "triggers": fates}
        self._recent.append(entry)
        self._recent_by_id[event.id] = entry
        if len(self._recent) > RECENT:
            oldest = self._recent.popleft()
            if self._recent_by_id.get(oldest["event"]["id"]) is oldest:
                del self._recent_by_id[oldest["event"]["id"]]

    def _is_full(self, broker: str) -> bool:
        depth = sum(
            self._pending[one.key] for one in self._triggers.values() if one.broker == broker
        )
        return depth >= self._max_pending

    def _now_text(self) -> str:
        second, fraction = divmod(self._clock(), 1)
        if second != self._second[0]:
            stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, stamp)
        return f"{self._second[1]}.{int(fraction * 1e6):06d}Z"


def _http(answer: Answer) -> HttpAnswer:
    headers = dict(answer.headers)
    if answer.body:
        headers["Content-Type"] = "text/plain; charset=utf-8"
    return answer.status, headers, answer.body.encode()
