"""S3's error codes and what they mean here: gone, replaced, denied, impossible, or not now. Pure.

What is in no table may heal.
"""

from collections.abc import Mapping
from typing import Any

from .errors import Forbidden, NoBucket, ObjectGone, Refused, TryAgain

GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound", "MethodNotAllowed"})
CHANGED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "RequestExpired",
    }
)
"""Credentials that will be refreshed, or clocks that will be set: not the event's fault."""

DENIED = frozenset(
    {
        "AccessDenied",
        "403",
        "Forbidden",
        "AllAccessDisabled",
        "AccountProblem",
        "InvalidObjectState",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
    }
)
IMPOSSIBLE = frozenset(
    {
        "AuthorizationHeaderMalformed",  # of another region: the trigger's settings are wrong
        "BadRequest",  # more than ten tags
        "EntityTooLarge",
        "InvalidArgument",
        "InvalidBucketName",
        "InvalidObjectName",
        "InvalidRequest",
        "InvalidTag",
        "InvalidURI",
        "KeyTooLongError",
        "MalformedXML",
        "MetadataTooLarge",
        "NotImplemented",
        "PermanentRedirect",
        "XMinioInvalidObjectName",
    }
)
"""Requests that no later attempt would make possible."""


def translate(response: Mapping[str, Any], text: str, bucket: str) -> Exception:
    """One table from S3's error codes to ours; what is in no column may heal."""
    code = str(response.get("Error", {}).get("Code", ""))
    if code == "NoSuchBucket":
        return NoBucket(f"there is no bucket {bucket!r}: make it, or mend the trigger")
    if code in GONE:
        return ObjectGone(f"the object is not in bucket {bucket!r} any more ({code})")
    if code in CHANGED:
        return ObjectGone(f"the object in bucket {bucket!r} was replaced meanwhile ({code})")
    if code in EXPIRED:
        return TryAgain(f"the S3 credentials have expired ({code})")
    if code in DENIED:
        return Forbidden(f"S3 does not allow this in bucket {bucket!r} ({code}); check credentials")
    if code in IMPOSSIBLE:
        return Refused(f"S3 refuses: {text}")
    return TryAgain(f"S3 says {text}")
