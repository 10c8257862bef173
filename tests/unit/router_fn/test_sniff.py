"""Content types; `tests/vectors/go_sniff_observed.jsonl` holds Go's whole table."""

import pytest

from router_fn import sniff


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"", None),
        (b"{}", "application/json"),
        (b'"s"', "application/json"),
        (b" 12\n", "application/json"),
        (b'{"a":NaN}', "text/plain; charset=utf-8"),
        (b"not json", "text/plain; charset=utf-8"),
        ("hello w\xf6rld".encode(), "text/plain; charset=utf-8"),
        (b"<html><body>", "text/html; charset=utf-8"),
        (b"  <!DOCTYPE html>", "text/html; charset=utf-8"),
        (b"<custom>", "text/plain; charset=utf-8"),
        (b'<?xml version="1.0"?>', "text/xml; charset=utf-8"),
        (b"\x1f\x8b\x08rest", "application/x-gzip"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\x00\x01\x02", "application/octet-stream"),
        (b"a" * 600 + b"\x00", "text/plain; charset=utf-8"),  # beyond what is looked at
    ],
)
def test_content_type(text: bytes, kind: str | None) -> None:
    assert sniff.content_type(text) == kind
