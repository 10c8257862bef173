"""Listings as S3 servers write them: quoted keys, namespaces, tokens, nonsense."""

import pytest

from events import listing
from events.listing import Listed

PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>input</Name>
<Prefix>a%2Fb</Prefix><IsTruncated>{more}</IsTruncated>
<Contents><Key>{key}</Key><ETag>&#34;9dd4&#34;</ETag><Size>12</Size>
<LastModified>2026-11-29T21:43:26{fraction}Z</LastModified></Contents>{rest}</ListBucketResult>"""
SECOND = 1795988606.0


def page(key: str, rest: str = "", more: str = "false", fraction: str = "") -> bytes:
    return PAGE.format(key=key, rest=rest, more=more, fraction=fraction).encode()


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("a+b%2Bc.txt", "a b+c.txt"),
        ("%2541.bin", "%41.bin"),
        ("%C3%A9/x%26y.bin", "é/x&y.bin"),
        ("line%0Abreak", "line\nbreak"),
    ],
)
def test_quoted_keys_are_unquoted(written: str, key: str) -> None:
    found, token = listing.parse(page(written, "<EncodingType>url</EncodingType>"))
    assert found == [Listed(key=key, etag="9dd4", size=12, modified_s=SECOND)]
    assert token == ""


def test_a_server_that_does_not_quote_is_believed() -> None:
    found, _ = listing.parse(page("a+b %41.bin", fraction=".500"))
    assert [(one.key, one.modified_s) for one in found] == [("a+b %41.bin", SECOND + 0.5)]


def test_a_page_with_more_behind_it_names_its_token() -> None:
    rest = "<NextContinuationToken>to/ken==</NextContinuationToken>"
    _, token = listing.parse(page("a", rest, more="true"))
    assert token == "to/ken=="
    assert listing.query("a b/", token) == (
        "continuation-token=to%2Fken%3D%3D&encoding-type=url&list-type=2&prefix=a%20b%2F"
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b"not xml",
        page("a", more="true"),
        page("a").replace(b"<Key>a</Key>", b""),
        page("a").replace(b"2026-11-29T", b"yesterday"),
        page("a").replace(b"12</Size>", b"many</Size>"),
    ],
)
def test_what_is_no_listing_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        listing.parse(text)
