"""What the sources hold, before anything is fetched: the items that are wanted, one by one."""

from __future__ import annotations

from collections.abc import Iterator

from .errors import LimitExceeded, NotFound, StorageError
from .items import RESERVED, Filter, Item, Source, safe_path
from .retry import Control
from .settings import Settings


def wanted(
    sources: list[Source], settings: Settings, control: Control
) -> Iterator[tuple[Source, Item]]:
    """Every wanted item of every source, with a safe and unique path."""
    chosen = Filter(settings.allow_patterns, settings.ignore_patterns)
    seen: set[str] = set()
    for source in sources:
        matched = 0
        for item in _entries(source):
            control.check("listing")
            path = safe_path(source.shown, item.path)
            if path.split("/")[0] in RESERVED:
                continue
            if source.filtered and not chosen.wants(path):
                continue
            matched += 1
            if path in seen:
                raise StorageError(f"{source.shown}: two files are called {path!r}")
            seen.add(path)
            if len(seen) > settings.max_files:
                raise LimitExceeded(
                    f"{source.shown}: more than {settings.max_files} files",
                    "STORAGE_MAX_FILES",
                )
            yield source, item if path == item.path else item.but(path=path)
        if not matched:
            raise NotFound(source.shown, "no file passes STORAGE_ALLOW/IGNORE_PATTERNS")


def _entries(source: Source) -> Iterator[Item]:
    """The source's items. What a server says is input: an answer of a shape that its protocol does
    not know is an error about the source, not a traceback."""
    listing = source.items()
    while True:
        try:
            item = next(listing, None)
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            cause = f"the answer is not what its protocol promises ({type(exc).__name__}: {exc})"
            raise StorageError(f"{source.shown}: {cause}") from exc
        if item is None:
            return
        if item.size is not None and item.size < 0:
            raise StorageError(f"{source.shown}: {item.path!r} has a size of {item.size}")
        yield item
