"""What providers and the download engine say to each other.

A `Source` lists `Item`s. An HTTP-speaking source (`HttpSource`: s3, gs, azure, http, hf, webhdfs,
oci) only builds requests and explains refusals: connections, ranges, retries, verification and
resume belong to the engine. A `CopySource` (local files, git, hdfs through its library) moves the
bytes itself. No I/O here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path

from .errors import StorageError, UnsafePath
from .records import NOTHING, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .wire import Request

MARKER_NAME = ".turnout-storage.json"
"""Done-marker at the top of a published destination."""
STAGING_NAME = ".turnout-staging"
"""Staging directory inside a destination that cannot be renamed (a mount point)."""
RESERVED = frozenset({MARKER_NAME, STAGING_NAME})

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ZIP_SUFFIXES = (".zip",)
PACKED_SUFFIXES = (".gz", ".tgz", ".br", ".zst", ".z")
"""What servers often declare as a content coding although the file simply is that."""


def is_archive(name: str) -> bool:
    """By its name, as KServe does. A `.mar` is a zip that the model server wants whole."""
    return name.lower().endswith(TAR_SUFFIXES + ZIP_SUFFIXES)


class Item(Record):
    """One file of a source."""

    path: str
    """Relative to the destination, `/`-separated, checked by `safe_path`; ends with `/` for an
    empty directory."""
    size: int | None
    """Bytes; None when the source does not tell before the download."""
    version: str = ""
    """What changes when the content does (ETag, generation, commit, mtime); empty: unknown."""
    checks: Mapping[str, str] = NOTHING
    """Checksums the source tells in its listing: algorithm → lower-case hex."""
    validators: Mapping[str, str] = NOTHING
    """Response headers (lower case) that must have this value in every answer that has them:
    conditional requests are ignored by some servers, and ranges of two versions must not mix."""
    ref: str = ""
    """The provider's own name of the object (key, URL)."""
    ranges: bool = True
    """Whether parts of it can be asked for."""
    part_bytes: int = 0
    """Size of the parts it was probably uploaded in; 0: unknown. Ranges go along them."""
    gzipped: bool = False
    """Stored with `Content-Encoding: gzip`: size and checksums are those of the stored bytes, which
    are unpacked once they are verified."""
    mode: int = 0o644
    """Permission bits; only the execute bits are meaningful."""


class Source:
    """One parsed and connected URI. The classes below say what else it can do."""

    shown: str
    """The URI without secrets, for messages."""
    filtered: bool
    """Whether include and exclude patterns apply (a tree) or not (an exact object)."""

    def items(self) -> Iterator[Item]:
        """All items, lazily, in any order. Raises NotFound when there are none."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove what was kept for the fetch outside the destination."""


class HttpSource(Source):
    """The engine fetches its items."""

    def request(self, item: Item, start: int, stop: int | None) -> Request:
        """A complete (signed) GET for bytes `start` to `stop` (exclusive, None: to the end)."""
        raise NotImplementedError

    def checks(self, item: Item, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Checksums of the whole item, given the headers of a whole-object answer."""
        raise NotImplementedError

    def explain(
        self, item: Item | None, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        """The error for a refusal; retryable or final by its class."""
        raise NotImplementedError


class CopySource(Source):
    """It moves the bytes itself."""

    def copy(self, item: Item, target: Path) -> None:
        """Write the item to `target` (absent; parent exists); all or an exception."""
        raise NotImplementedError


class FinishingSource(Source):
    """What was downloaded is not yet what is published."""

    def finish(self, tree: Path) -> Path:
        """The tree to publish, made of what was downloaded to `tree` (which stays as it is)."""
        raise NotImplementedError


class VerifiedSource(Source):
    """Nothing is moved."""

    def verify(self, dest: Path) -> None:
        """The destination is the source (a mounted volume); raises when it is not usable."""
        raise NotImplementedError


def safe_path(where: str, path: str) -> str:
    """`path` normalised (`//`, `./` collapsed), or UnsafePath.

    Refused: absolute, `..`, NUL and control characters, components over 255 bytes, our own
    reserved names are the caller's business.
    """
    if "\0" in path or any(ord(char) < 32 for char in path):
        raise UnsafePath(where, path, "control characters")
    if path.startswith("/"):
        raise UnsafePath(where, path, "absolute")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        raise UnsafePath(where, path, "empty")
    for part in parts:
        if part == "..":
            raise UnsafePath(where, path, "leads out of the destination (`..`)")
        if len(part.encode("utf-8", "surrogateescape")) > 255:
            raise UnsafePath(where, path, "a component is longer than 255 bytes")
    return "/".join(parts) + ("/" if path.endswith("/") else "")


class Filter(Record):
    """Include and exclude patterns, fnmatch on the whole relative path (KServe's semantics)."""

    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def wants(self, path: str) -> bool:
        bare = path.rstrip("/")
        if self.allow and not any(_fits(bare, p) for p in self.allow):
            return False
        return not any(_fits(bare, p) for p in self.ignore)


def _fits(path: str, pattern: str) -> bool:
    """`onnx/` means all that is below it, as for the Hugging Face hub."""
    return fnmatch.fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern)
