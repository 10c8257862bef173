"""Object keys as producers write them, and sequencers. Pure.

A decade of bugs in one table: AWS and MinIO form-encode the key in the record (space is `+`, `+` is
`%2B`), Ceph, EventBridge and SeaweedFS do not encode at all. Decoding a raw key destroys `+` and
`%41`; not decoding an encoded one gives NoSuchKey.
"""

from urllib.parse import quote_plus, unquote_plus

ENCODED_SOURCES = ("aws:s3", "minio:s3")
RAW_SOURCES = ("ceph:s3", "aws.s3", "seaweedfs:s3")
"""Producers whose records carry the key as it is."""


def decode(key: str, event_source: str) -> str:
    """The real key of a record. Unknown S3-like producers encode as AWS does.

    A key that is not valid UTF-8 once decoded is taken as it stands.
    """
    if event_source in RAW_SOURCES:
        return key
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        return key


def other_spelling(key: str, raw: str) -> str | None:
    """The key to try once when `key` was not found: the raw text, or what decoding it would
    give."""
    if raw != key:
        return raw
    try:
        decoded = unquote_plus(raw, errors="strict")
    except UnicodeDecodeError:
        return None
    return decoded if decoded != key else None


def encode(key: str) -> str:
    """A key as AWS writes it into a record (`/` stays literal)."""
    return quote_plus(key, safe="/")


def is_newer(sequencer: str | None, than: str | None) -> bool | None:
    """Whether one event of a key came after another; None when that cannot be told.

    Hexadecimal of possibly unequal length: the shorter is padded with zeros on the right, then they
    compare as text (AWS, "Event message structure"). Only meaningful for one and the same key.
    """
    if not sequencer or not than:
        return None
    width = max(len(sequencer), len(than))
    left, right = sequencer.upper().ljust(width, "0"), than.upper().ljust(width, "0")
    return None if left == right else left > right
