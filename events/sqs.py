"""Polls an SQS queue for S3 notifications and hands CloudEvents to K_SINK.

A message is deleted only after the sink took all its events. While a delivery lasts the message's
visibility is extended, so that nobody else gets it; a delivery that fails makes it visible again
after a growing pause. A message that can never be read or taken is logged and left alone until the
queue's redrive policy moves it (that is the queue's dead letter queue); without one it is set
aside for as long as SQS allows after `max_receives`.
"""

import logging
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from functions.wire import container

from .adapter import Adapter
from .errors import TryAgain
from .settings import SqsSettings

logger = logging.getLogger(__name__)

MAX_PAUSE_S = 900
"""Longest pause before a failed message is tried again."""

POISON_PAUSE_S = 43_200
"""SQS's own maximum of a visibility timeout: twelve hours."""


class Messages(Protocol):
    """The queue, as far as the poller needs it (`objects.Queue`)."""

    def receive(
        self, *, wait_s: int, visibility_s: int, count: int = 10
    ) -> list[dict[str, Any]]: ...

    def delete(self, receipt: str) -> None: ...

    def extend(self, receipt: str, visibility_s: int) -> None: ...


class Poller:
    """Receives while there are free workers; `run` returns after `stop` and the last delivery."""

    def __init__(self, queue: Messages, adapter: Adapter, settings: SqsSettings) -> None:
        self._queue = queue
        self._adapter = adapter
        self._settings = settings
        self._stop = threading.Event()
        self._under_way: dict[Future[None], str] = {}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        settings = self._settings
        keeper = threading.Thread(target=self._keep_hidden, name="visibility", daemon=True)
        keeper.start()
        with ThreadPoolExecutor(settings.workers, thread_name_prefix="deliver") as pool:
            while not self._stop.is_set():
                self._collect()
                free = settings.workers - len(self._under_way)
                if free <= 0:
                    wait(list(self._under_way), timeout=1.0, return_when=FIRST_COMPLETED)
                    continue
                for message in self._receive(min(10, free)):
                    future = pool.submit(self.deal_with, message)
                    self._under_way[future] = message["ReceiptHandle"]
        self._collect()

    def deal_with(self, message: Mapping[str, Any]) -> None:
        """Deliver one message and say so to the queue. Never raises."""
        receipt = str(message["ReceiptHandle"])
        received = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
        answer = self._adapter.handle({}, str(message.get("Body", "")).encode("utf-8"))
        try:
            if answer.status < 300:
                self._queue.delete(receipt)
                return
            hopeless = answer.status < 500 and answer.status not in (408, 409, 429)
            if received >= self._settings.max_receives:
                logger.error(
                    "message set aside after %d receives",
                    received,
                    extra={"message_id": message.get("MessageId"), "reason": answer.error[:500]},
                )
                self._queue.extend(receipt, POISON_PAUSE_S)
            else:
                pause = 1 if hopeless else min(MAX_PAUSE_S, 2 ** min(received - 1, 10))
                self._queue.extend(receipt, pause)
        except TryAgain as error:
            logger.warning("SQS was not told: %s; the message will come again", error)

    def _receive(self, count: int) -> list[dict[str, Any]]:
        settings = self._settings
        # With work under way the poll is short, so that finished workers are noticed.
        wait_s = 1 if self._under_way else settings.wait_s
        try:
            return self._queue.receive(
                wait_s=min(wait_s, settings.wait_s), visibility_s=settings.visibility_s, count=count
            )
        except TryAgain as error:
            logger.warning("%s; trying again", error)
            self._stop.wait(2.0)
            return []

    def _collect(self) -> None:
        for future in [future for future in self._under_way if future.done()]:
            del self._under_way[future]

    def _keep_hidden(self) -> None:
        """Extend the visibility of everything under way, well before it ends."""
        while not self._stop.wait(self._settings.visibility_s / 3):
            for future, receipt in list(self._under_way.items()):
                if not future.done():
                    try:
                        self._queue.extend(receipt, self._settings.visibility_s)
                    except TryAgain as error:
                        logger.warning("a message may be delivered twice: %s", error)


def run(settings: SqsSettings) -> int:
    """Poll until SIGTERM, answering /readyz and /metrics on PORT meanwhile."""
    from .adapter_app import make_adapter
    from .health import HealthServer
    from .http import Client
    from .objects import Queue
    from .settings import AdapterSettings

    adapter = make_adapter(
        AdapterSettings(
            server=settings.server,
            sender=settings.sender,
            buckets=settings.buckets,
            partition_by_object=settings.partition_by_object,
            verify_sns=False,  # only the topic's owner can write to the queue
        ),
        Client(
            settings.sender.proxies,
            connections=settings.workers,
            ca_certs=settings.sender.ca_certs,
        ),
    )
    queue = Queue(settings.queue_url, endpoint_url=settings.endpoint_url, region=settings.region)
    poller = Poller(queue, adapter, settings)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: poller.stop())
    with HealthServer(settings.server.port, adapter.metrics.text):
        poller.run()
    return container.EXIT_OK
