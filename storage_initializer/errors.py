"""Errors of the storage initializer.

    StorageError                     exit 1, final
    ├── InvalidSettings              exit 2: every bad variable, with value and expectation
    ├── InvalidUri                   exit 2: the URI itself is wrong
    ├── MissingExtra                 the provider's library is not installed
    ├── NotFound · AccessDenied      the source says so; trying again does not help
    ├── Untrusted                    the https certificate does not verify
    ├── UnsafePath · UnsafeArchive   the source's content is refused
    ├── NoSpace · DestinationError   the destination is the problem
    ├── LimitExceeded                a setting forbids going on
    ├── DeadlineExceeded
    ├── Corrupt                      content differs from what the source promised (after retries)
    ├── Changed                      the source changed under the download: list again
    └── TransferFailed               retryable: connection, timeout, 5xx, short body
        ├── Relocated                the address is another one now: at once, without a wait
        ├── ShortBody                the connection ended inside the body
        ├── Stalled                  no or too few bytes for too long
        └── Throttled                429/503/SlowDown, perhaps with a wait

Messages are one line: source, object, cause, what to do. They never carry credentials: URIs pass
`uri.redact` first. `OSError` from the destination's file system is wrapped at one place
(`from_os_error`); programming errors are not wrapped at all.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class StorageError(Exception):
    """Root of the unit's errors; `str()` is the one line for stderr and the termination log."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class InvalidSettings(StorageError):
    """Bad environment or arguments; `problems` has one line each."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class InvalidUri(StorageError):
    exit_code = 2

    def __init__(self, uri: str, cause: str) -> None:
        super().__init__(f"{uri}: {cause}")


class MissingExtra(StorageError):
    """A provider needs a library that this installation does not have."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the Python package {library!r}, which is not installed: "
            f"pip install 'turnout[{extra}]'"
        )


class NotFound(StorageError):
    def __init__(self, where: str, cause: str = "no such object") -> None:
        super().__init__(f"{where}: {cause}; check the URI's spelling and that the model is there")


class AccessDenied(StorageError):
    def __init__(self, where: str, cause: str, advice: str = "check the credentials") -> None:
        super().__init__(f"{where}: access denied ({cause}); {advice}")


class Untrusted(StorageError):
    def __init__(self, where: str, host: str, cause: str) -> None:
        super().__init__(
            f"{where}: the certificate of {host} is not trusted ({cause}); mount your CA and name "
            "it in AWS_CA_BUNDLE (s3) or SSL_CERT_FILE"
        )


class UnsafePath(StorageError):
    def __init__(self, where: str, path: str, cause: str) -> None:
        super().__init__(f"{where}: refusing the path {path!r}: {cause}")


class UnsafeArchive(StorageError):
    def __init__(self, archive: str, cause: str) -> None:
        super().__init__(f"archive {archive!r} refused: {cause}")


class NoSpace(StorageError):
    def __init__(self, directory: str, needed: int | None, free: int | None) -> None:
        if needed is None or free is None:
            fact = f"the file system of {directory} is full"
        else:
            fact = f"{directory} has {free:,} bytes free, {needed:,} are needed"
        super().__init__(f"{fact}; enlarge the volume (emptyDir sizeLimit, PVC size)")


class DestinationError(StorageError):
    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"destination {path}: {cause}")


class LimitExceeded(StorageError):
    def __init__(self, what: str, limit: str) -> None:
        super().__init__(f"{what}; raise {limit} if that is meant")


class DeadlineExceeded(StorageError):
    def __init__(self, seconds: float, state: str) -> None:
        super().__init__(
            f"not done after {seconds:g} s (STORAGE_DEADLINE_SECONDS); {state}; "
            "a further run resumes where this one stopped"
        )


class Corrupt(StorageError):
    """Downloaded bytes do not have the promised checksum. Retried a few times as a whole file."""

    def __init__(self, where: str, algorithm: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{where}: {algorithm} is {actual}, the source says {expected}; "
            "the object or the way to it is damaged: upload it again"
        )


class Changed(StorageError):
    """The object is no longer the one that was listed."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where}: changed at the source while it was downloaded; run again")


class TransferFailed(StorageError):
    retryable = True

    def __init__(self, where: str, cause: str) -> None:
        super().__init__(f"{where}: {cause}")


class Relocated(TransferFailed):
    """A redirect, a renewed signed address, another region: the next try goes there."""


class Stalled(TransferFailed):
    """Nothing, or too little, came for `STORAGE_STALL_SECONDS`."""


class ShortBody(TransferFailed):
    """The connection ended inside the body; `got` bytes of the last buffer are good."""

    def __init__(self, where: str, cause: str, got: int) -> None:
        super().__init__(where, cause)
        self.got = got


class Throttled(TransferFailed):
    """`wait_s`: what the server asked for (`Retry-After`), None when it named nothing."""

    def __init__(self, where: str, cause: str, wait_s: float | None = None) -> None:
        super().__init__(where, cause)
        self.wait_s = wait_s


def from_os_error(exc: OSError, path: str) -> StorageError:
    """The file system's refusal as one of ours."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(path, None, None)
    name = errno.errorcode.get(exc.errno or 0, "error")
    if exc.errno == errno.EISDIR and exc.filename:  # a file was to be made where a directory is
        why = f"the source has both a file and a directory of this name ({name})"
        return DestinationError(str(exc.filename), why)
    return DestinationError(str(exc.filename or path), f"{exc.strerror or exc} ({name})")
