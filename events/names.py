"""Bucket names and object keys computed from answers: what is acceptable, and what may be touched.

A computed name is input from a model, so it is checked like input from anywhere else. Pure.
Source: Amazon S3, "Bucket naming rules" and "Creating object key names".
"""

import re
from collections.abc import Iterable

from .errors import Forbidden, Refused

MAX_KEY_BYTES = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
PLACEHOLDER_IN_BUCKET = r"[a-z0-9.-]+"
"""What a placeholder in a bucket's name may become; the literal part around it cannot be
escaped."""


def bucket(name: str) -> str:
    """The name itself, if it is a bucket name. Raises `Refused`."""
    if not _BUCKET.match(name) or ".." in name:
        raise Refused(
            f"{name!r} is not a bucket name (3-63 of a-z, 0-9, dots and dashes); "
            "check the template of the result's bucket"
        )
    return name


def key(name: str, given: str = "") -> str:
    """The key itself, if every S3 server would keep it as it is. Raises `Refused`.

    `given`: the key of the input, which its server has kept as it is; what is made of it by adding
    to its end (`a//b.png` -> `a//b.png.json`) may have the same oddities.
    """
    if not name or len(name.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise Refused(f"a computed key must be 1-{MAX_KEY_BYTES} bytes long, got {name[:80]!r}")
    added = name.removeprefix(given) if given else name
    if added != name:
        added = f"x{added}"  # in place of the input's last segment
    if any(part in ("", ".", "..") for part in added.split("/")):
        raise Refused(f"computed key {name[:80]!r} has empty, '.' or '..' segments")
    if _CONTROL.search(added):
        raise Refused(f"computed key {name[:80]!r} has control characters")
    return name


class AllowList:
    """Buckets that may be touched: exact names, and patterns of computed ones (`digit-{...}`)."""

    def __init__(self, names: Iterable[str], patterns: Iterable[str] = ()) -> None:
        self._names = frozenset(names)
        self._patterns = tuple(re.compile(f"(?:{pattern})\\Z") for pattern in patterns)

    def require(self, name: str) -> str:
        """The name itself. Raises `Forbidden` if it is not on the list."""
        if name in self._names or any(pattern.match(name) for pattern in self._patterns):
            return name
        raise Forbidden(f"bucket {name!r} is not one this trigger names; add it to the trigger")
