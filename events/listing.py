"""Pages of ListObjectsV2 as S3 servers send them. Pure. Source: Amazon S3, "ListObjectsV2"."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An object as a listing shows it; `modified_s`: seconds since 1970, often whole ones."""

    key: str
    etag: str
    size: int
    modified_s: float


def query(prefix: str, token: str = "") -> str:
    """The query of a page, in the order that signatures want; `token`: of the page before."""
    # Keys as URL text: XML cannot hold every character that a key can.
    asked = {"encoding-type": "url", "list-type": "2", "prefix": prefix}
    if token:
        asked["continuation-token"] = token
    return "&".join(f"{name}={quote(asked[name], safe='-_.~')}" for name in sorted(asked))


def parse(page: bytes) -> tuple[list[Listed], str]:
    """The objects of a page, and the token of the next one (empty: it was the last). Raises
    ValueError."""
    try:
        # expat itself bounds what entities expand to.
        root = ElementTree.fromstring(page)  # noqa: S314 - from the server that holds the objects
        fields = [_members(element) for element in root if _name(element.tag) == "Contents"]
        more = _members(root)
        is_quoted = more.get("EncodingType", "").lower() == "url"
        found = [_listed(item, is_quoted) for item in fields]
        token = more["NextContinuationToken"] if more.get("IsTruncated") == "true" else ""
    except (ElementTree.ParseError, KeyError) as error:
        raise ValueError(f"not a listing: {error}") from error
    return found, token


def _listed(item: Mapping[str, str], is_quoted: bool) -> Listed:
    key = item["Key"]
    return Listed(
        key=unquote_plus(key) if is_quoted else key,
        etag=item.get("ETag", "").strip('"'),
        size=int(item.get("Size") or 0),
        modified_s=datetime.fromisoformat(item["LastModified"]).timestamp(),
    )


def _members(element: ElementTree.Element) -> dict[str, str]:
    return {_name(child.tag): child.text or "" for child in element}


def _name(tag: str) -> str:
    """Without the namespace, which not every server gives."""
    return tag.rpartition("}")[2]
