"""`fetch`: sources to destinations, start to end.

For each destination: lock its staging directory → is it complete already? → list the sources →
hand every missing file to the engine → unpack a single archive → publish with the done-marker.
Destinations go in parallel and share one engine; the first error stops everything, publishes
nothing further, and keeps the staging directories for the next run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import digest, logs, publish, retry
from .client import Client
from .context import Context
from .destinations import Destination, Report, plan
from .download import STOP_PATIENCE_S, Engine
from .errors import (
    Changed,
    DeadlineExceeded,
    DestinationError,
    StorageError,
    TransferFailed,
    from_os_error,
)
from .items import FinishingSource, Item, Source, VerifiedSource, is_archive
from .listing import wanted
from .logs import Log
from .progress import Progress, Reporter
from .publish import Marker
from .room import Room
from .settings import Settings
from .staging import FileRecord, Staging, boot_id
from .transfer import Batch
from .uri import Uri

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import NodeCache

logger = Log(__name__)

CHANGED_ATTEMPTS = 3
"""Listing and download start again this often when the source changes meanwhile."""
STOP_POLL_S = 0.2
REVALIDATE_ATTEMPTS = 2
"""Tries to reach the source of a complete destination before it is taken as it is."""


def fetch(source: str | Path, dest: str | Path, settings: Settings | None = None) -> Report:
    """Fetch one source into the directory `dest`; returns when it is published and complete.

    Raises a StorageError otherwise; then nothing has been published, and calling again resumes.
    """
    return fetch_all([(source, dest)], settings)[0]


def is_complete(dest: str | Path) -> bool:
    """Whether `dest` holds a published tree whose files are all there. Asks no source."""
    marker = publish.read_marker(Path(dest))
    return marker is not None and publish.matches(Path(dest), marker)


def fetch_all(
    pairs: Sequence[tuple[str | Path, str | Path]], settings: Settings | None = None
) -> list[Report]:
    """Fetch several sources; pairs with the same destination are merged into one tree."""
    settings = settings or Settings.from_env()
    return Fetch(plan(pairs, settings), settings).run()


class Fetch:
    """One run over all destinations."""

    def __init__(self, destinations: list[Destination], settings: Settings) -> None:
        self._destinations = destinations
        self._settings = settings
        self._control = retry.Control(
            attempts=settings.attempts,
            back_off_s=settings.back_off_s,
            back_off_max_s=settings.back_off_max_s,
            deadline_s=settings.deadline_s,
        )
        self._client = Client(
            connect_timeout_s=settings.connect_timeout_s,
            stall_s=settings.stall_s,
            min_speed=settings.min_speed,
            proxies=settings.proxies,
            no_proxy=settings.no_proxy,
            ca_file=settings.ca_bundle,
        )
        self._progress = Progress()
        self._cache = self._open_cache()
        self._engine = Engine(settings, self._client, self._control, self._progress, self._cache)
        self._context = Context(settings, self._client, self._control)
        self._listing = len(destinations)
        self._lock = threading.Lock()
        self._stagings: list[Staging] = []
        self._room = Room(settings.max_bytes, self._progress)

    def run(self) -> list[Report]:
        try:
            return self._run()
        except StorageError as exc:
            exc.args = (self._said(exc),)
            raise

    def _said(self, error: StorageError) -> str:
        """The message; a server's words in it may repeat what it was sent."""
        from .redaction import scrub, secrets_of

        uris = [uri.text for destination in self._destinations for uri in destination.uris]
        return scrub(str(error), secrets_of(self._settings.environ, uris))

    def _run(self) -> list[Report]:
        connected = [
            (destination, [self._connect(uri) for uri in destination.uris])
            for destination in self._destinations
        ]
        reports: list[Report | None] = [None] * len(connected)
        threads: list[threading.Thread] = []
        watchdog = self._watch_deadline()

        def one(index: int) -> None:
            try:
                reports[index] = self._destination(*connected[index])
            except retry.Cancelled:
                pass
            except OSError as exc:
                self._engine.fail(from_os_error(exc, str(connected[index][0].path)))
            except BaseException as exc:  # this thread owns its destination; raised below
                self._engine.fail(exc)

        try:
            with Reporter(self._progress, self._settings.progress_s):
                for index in range(len(connected)):
                    threads.append(threading.Thread(target=one, args=(index,), daemon=True))
                    threads[-1].start()
                self._wait(threads)
        except BaseException as exc:  # a signal while waiting: wake every thread, raise it below
            self._engine.fail(exc)
        finally:
            self._engine.close()
            if watchdog:
                watchdog.cancel()
            self._client.close()
            for staging in self._stagings:
                staging.leave()
            for _, sources in connected:
                for source in sources:
                    source.close()
        if self._engine.error is not None:
            raise self._engine.error
        return [report for report in reports if report is not None]

    def _wait(self, threads: list[threading.Thread]) -> None:
        """Until all have ended; after a failure (the deadline, too) not for ever: a thread may be
        deep inside somebody else's library, and nothing it does is published any more."""
        for thread in threads:
            while thread.is_alive() and not self._control.stopped.is_set():
                thread.join(STOP_POLL_S)
        ends = time.monotonic() + STOP_PATIENCE_S
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _open_cache(self) -> NodeCache | None:
        settings = self._settings
        if not settings.cache_dir:
            return None
        from .cache import NodeCache

        try:
            return NodeCache(
                settings.cache_dir,
                settings.cache_max_bytes,
                self._control,
                link=settings.local_mode == "hardlink",
            )
        except OSError as exc:
            logger.warning("no node cache: STORAGE_CACHE_DIR: %s", exc)
            return None

    def _connect(self, uri: Uri) -> Source:
        module = importlib.import_module(f".providers.{uri.provider}", __package__)
        source: Source = module.connect(uri, self._context)
        logs.adopt()  # an SDK may have come with it
        return source

    def _watch_deadline(self) -> threading.Timer | None:
        seconds = self._settings.deadline_s
        if not seconds:
            return None

        def expire() -> None:
            state = f"{self._progress.files_done} of {self._progress.files_total} files are there"
            self._engine.fail(DeadlineExceeded(seconds, state))

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        return timer

    # -- one destination ---------------------------------------------------------------------------

    def _destination(self, destination: Destination, sources: list[Source]) -> Report:
        dest = destination.path
        publish.check_destination(dest)
        only = sources[0] if len(sources) == 1 else None
        in_place = destination.uris[0].provider == "local" and (
            os.path.realpath(destination.uris[0].path) == str(dest)
        )
        if only is not None and (in_place or isinstance(only, VerifiedSource)):
            if isinstance(only, VerifiedSource):
                only.verify(dest)
            self._listed()
            return self._report(destination, "provided", ())
        identity = destination.identity(self._settings)
        if ready := self._ready(destination, sources, identity):
            return ready
        if not publish.writable(dest):
            return self._not_writable(destination, identity)
        staging = Staging.open(dest, identity, self._control)
        self._stagings.append(staging)
        if ready := self._ready(destination, sources, identity):  # while waiting for the lock
            staging.remove()
            return ready
        for attempt in range(1, CHANGED_ATTEMPTS + 1):
            try:
                return self._fill(destination, sources, staging, identity)
            except Changed as exc:
                if attempt == CHANGED_ATTEMPTS:
                    raise
                staging.reused = True
                logger.warning("listing again: %s", self._said(exc))
        raise AssertionError("unreachable")

    def _ready(
        self, destination: Destination, sources: list[Source], identity: str
    ) -> Report | None:
        """A report if the destination is complete and, as far as can be told, current."""
        marker = publish.read_marker(destination.path)
        if marker is None or marker.identity != identity:
            return None
        reread = self._settings.verify == "full"
        if not publish.matches(destination.path, marker, reread=reread):
            return None
        if publish.distrusted(marker):  # it was read again just now: once is enough
            with contextlib.suppress(OSError):
                publish.write_marker(destination.path, marker.but(boot=boot_id()))
        if self._settings.revalidate and not self._current(destination, sources, marker):
            return None
        self._listed()
        return self._report(destination, "complete", marker.files)

    def _current(self, destination: Destination, sources: list[Source], marker: Marker) -> bool:
        try:
            with self._control.impatient(REVALIDATE_ATTEMPTS):
                found = {
                    item.path: (item.size, item.version)
                    for _, item in wanted(sources, self._settings, self._control)
                }
        except TransferFailed as exc:
            logger.warning(
                "%s is complete and its source cannot be reached, keeping it: %s",
                destination.path,
                self._said(exc),
            )
            return True
        if any(not version and not path.endswith("/") for path, (_, version) in found.items()):
            same = found.keys() == marker.items.keys() and all(
                size == marker.items[path][0] for path, (size, _) in found.items()
            )
        else:
            same = found == dict(marker.items)
        if same:
            Staging.sweep(destination.path)
        return same

    def _not_writable(self, destination: Destination, identity: str) -> Report:
        """Read-only: what somebody else has put there is taken; half of ours is not."""
        dest = destination.path
        if publish.is_provided(dest):
            logger.warning("%s is read-only and not empty: taken as it is", dest)
            return self._report(destination, "provided", ())
        marker = publish.read_marker(dest)
        if marker is not None and marker.identity != identity:
            cause = f"is read-only and holds {', '.join(marker.sources)}"
        else:
            cause = "cannot be written to and is not complete; mount it writable"
        raise DestinationError(str(dest), cause)

    # -- filling -----------------------------------------------------------------------------------

    def _fill(
        self, destination: Destination, sources: list[Source], staging: Staging, identity: str
    ) -> Report:
        old = publish.replaced_marker(staging)
        items, records = self._gather(destination, sources, staging, old)
        self._conflicts(records)
        if staging.reused:
            staging.prune(
                {record.path for record in records}, [path for path in items if path[-1] == "/"]
            )
        tree, files = staging.tree, records
        links: dict[str, str] = {}
        for source in sources:
            if isinstance(source, FinishingSource):
                tree = source.finish(tree)
                if tree != staging.tree:
                    files, links = scan(tree)
        single = len(records) == 1 and len(items) == 1
        if self._settings.unpack and single and is_archive(records[0].path):
            from . import archive

            tree, files, links = archive.unpack_staged(
                staging,
                destination.path,
                records[0],
                self._settings,
                self._control,
                destination.shown[0],
            )
        marker = Marker(
            identity=identity,
            sources=destination.shown,
            items={path: (item.size, item.version) for path, item in items.items()},
            files=tuple(files),
            links=links,
            boot=boot_id(),
            synced=self._settings.sync,
        )
        self._control.check("publishing")
        publish.publish(staging, tree, marker, old)
        return self._report(destination, "fetched", files)

    def _gather(
        self,
        destination: Destination,
        sources: list[Source],
        staging: Staging,
        old: Marker | None,
    ) -> tuple[dict[str, Item], list[FileRecord]]:
        """List the sources and fetch what is missing: all items by path, and all files, verified
        and staged (or published already, by the run that `old` is of)."""
        published = {record.path: record for record in old.files} if old else {}
        work = Batch()
        items: dict[str, Item] = {}
        kept: list[FileRecord] = []
        total = needed = 0
        for source, item in wanted(sources, self._settings, self._control):
            items[item.path] = item
            size = item.size or 0
            self._progress.expect(1, size)
            # A link takes no room.
            linked = self._settings.local_mode != "copy" and getattr(source, "local", False)
            total += 0 if linked else size
            if item.path.endswith("/"):
                staging.target(item.path + "x")
                self._progress.skip(0)
            elif record := self._have(staging, item, old, published):
                self._progress.skip(size)
                kept.append(record)
            else:
                reclaimed = staging.reclaim(item.path)
                needed += 0 if linked else max(0, size - reclaimed)
                self._room.check(destination, total, needed)
                work.add()
                self._engine.submit(source, item, staging, work)
        self._listed()
        return items, [*kept, *work.wait(self._control)]

    def _have(
        self,
        staging: Staging,
        item: Item,
        old: Marker | None,
        published: Mapping[str, FileRecord],
    ) -> FileRecord | None:
        """The record of a file that need not be fetched: staged, or published and unchanged."""
        record = staging.files.get(item.path)
        if record is not None:
            same = record.version == item.version and (item.gzipped or record.size == item.size)
            if not item.version or not same:
                staging.forget(item.path)
                return None
            for base in (staging.tree, staging.dest):
                if publish.intact(base, record, reread=False):
                    return record
            staging.forget(item.path)
            return None
        known = published.get(item.path)
        if old is None or known is None or not item.version:
            return None
        unchanged = old.items.get(item.path) == (item.size, item.version)
        reread = self._settings.verify == "full" or publish.distrusted(old)
        if unchanged and publish.intact(staging.dest, known, reread=reread):
            staging.record(known.but(version=item.version))
            return known
        return None

    def _conflicts(self, records: list[FileRecord]) -> None:
        paths = {record.path for record in records}
        for path in paths:
            parent = os.path.dirname(path)
            while parent:
                if parent in paths:
                    raise StorageError(f"the source has both a file and a directory {parent!r}")
                parent = os.path.dirname(parent)

    def _listed(self) -> None:
        with self._lock:
            self._listing -= 1
            self._progress.listed = self._listing <= 0

    def _report(
        self, destination: Destination, outcome: str, files: Sequence[FileRecord]
    ) -> Report:
        return Report(
            sources=destination.shown,
            dest=str(destination.path),
            outcome=outcome,
            files=len(files),
            bytes=sum(record.size for record in files),
            bytes_fetched=self._progress.bytes_done,
            seconds=self._progress.elapsed_s,
            retries=self._control.retries,
            cache_hits=self._cache.hits if self._cache else 0,
        )


def scan(tree: Path) -> tuple[list[FileRecord], dict[str, str]]:
    """Records and symbolic links of what is in a tree that was just written."""
    records, links = [], {}
    for directory, folders, names in os.walk(tree):
        for name in [*folders, *names]:
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, tree)
            if os.path.islink(path):
                links[relative] = os.readlink(path)
            elif name in names:
                status = os.stat(path)
                found = f"crc32:{digest.of_file(Path(path), 'crc32')}"
                records.append(FileRecord(relative, status.st_size, "", found, status.st_mtime_ns))
    return records, links
