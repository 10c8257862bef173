"""CloudEvents over HTTP for V1: binary and structured mode in, the same mode out.

Standard library only. Spec: CloudEvents HTTP protocol binding 1.0.2, sections 3.1 and 3.2; what
KServe does with them is in the "CloudEvents on v1 predict/explain" section of our notes on it.
"""

import base64
import binascii
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_REQUIRED = ("specversion", "id", "source", "type")
VERSIONS = frozenset({"1.0", "0.3"})


class BadEvent(ValueError):
    """The request claims to be an event but is not one."""


def is_binary(headers: Mapping[str, str]) -> bool:
    """All four required attributes are there as headers (lower-case names)."""
    return all(f"ce-{name}" in headers for name in _REQUIRED)


def is_structured(document: Any) -> bool:
    """A JSON object with the four required attributes and data."""
    return (
        isinstance(document, Mapping)
        and all(name in document for name in _REQUIRED)
        and ("data" in document or "data_base64" in document)
    )


def binary_attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """Attributes and extensions from the `ce-` headers. Raises BadEvent."""
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    _check(attributes)
    return attributes


def structured_parts(document: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """(attributes, data); data_base64 becomes bytes. Raises BadEvent."""
    attributes = {k: v for k, v in document.items() if k not in ("data", "data_base64")}
    _check(attributes)
    if "data_base64" in document:
        try:
            return attributes, base64.b64decode(document["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise BadEvent("data_base64 is not base64") from None
    return attributes, document.get("data")


def _check(attributes: Mapping[str, Any]) -> None:
    if attributes.get("specversion") not in VERSIONS:
        raise BadEvent(
            f"Cloud Event Exceptions: specversion {attributes.get('specversion')!r} is unknown"
        )
    for name in ("id", "source", "type"):
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise BadEvent(f"Cloud Event Exceptions: {name} is missing or empty")


def reply_attributes(
    request: Mapping[str, Any], *, event_type: str, source: str, merge: bool
) -> dict[str, Any]:
    """Attributes of the reply event; `merge` copies the request's own, except id and time."""
    attributes: dict[str, Any] = {}
    if merge:
        attributes.update({k: v for k, v in request.items() if k not in ("id", "time")})
    attributes |= {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": source,
        "type": event_type,
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    attributes.pop("datacontenttype", None)
    return attributes
