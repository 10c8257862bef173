"""Is an SNS message from SNS? Signature check and subscription confirmation.

The certificate's URL comes with the message, so it is believed only if it is an HTTPS URL of an SNS
host of Amazon; certificates are kept. Signature version 1 is SHA1, version 2 SHA256, both RSA
PKCS#1 v1.5 over the documented lines. The only module that imports cryptography, and only when an
SNS message arrives. Source: Amazon SNS, "Verifying the signatures of Amazon SNS messages".
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from events.errors import Refused

from .detect import Handshake

_HOST = re.compile(r"sns\.[a-z]{2}(?:-[a-z]+)+-\d{1,2}\.amazonaws\.com(?:\.cn)?\Z")
"""A region in the middle: `sns.s3-us-west-2.amazonaws.com` would be somebody's bucket."""

_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_KEEP = 64
"""Certificates kept; Amazon uses one a region for a year."""

Fetch = Callable[[str], bytes]


class BadSignature(Refused):
    """Not signed by SNS, or for a topic nobody asked for."""

    status = 403


class Verifier:
    """Checks messages against Amazon's certificates, fetched by `fetch` (URL -> bytes)."""

    def __init__(
        self, *, enabled: bool, topics: frozenset[str] = frozenset(), fetch: Fetch | None = None
    ) -> None:
        self._enabled = enabled
        self._topics = topics
        self._fetch = fetch
        self._keys: dict[str, Any] = {}

    def check(self, message: Mapping[str, Any]) -> None:
        """Raises `BadSignature`."""
        topic = message.get("TopicArn")
        if self._topics and topic not in self._topics:
            raise BadSignature(f"SNS topic {topic!r} is not on the list of topics")
        if self._enabled:
            self._check_signature(message)

    def confirm(self, handshake: Handshake) -> None:
        """Fetch the SubscribeURL, if it leads to SNS. Raises `BadSignature` otherwise."""
        _require_amazon(handshake.url)
        self._get(handshake.url)

    def _check_signature(self, message: Mapping[str, Any]) -> None:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives import hashes
            from cryptography.hazmat.primitives.asymmetric import padding
        except ImportError as error:
            raise BadSignature(
                "SNS messages cannot be checked without the `sns` extra (cryptography); "
                "install it, or set TURNOUT_SNS_VERIFY=false on a trusted network"
            ) from error
        url = str(message.get("SigningCertURL") or message.get("SigningCertUrl") or "")
        _require_amazon(url)
        if not urlsplit(url).path.endswith(".pem"):
            raise BadSignature(f"{url[:120]!r} is not the URL of a certificate")
        version = str(message.get("SignatureVersion"))
        if version not in ("1", "2"):
            raise BadSignature(f"SNS SignatureVersion {version!r} is not known")
        try:
            signature = base64.b64decode(str(message.get("Signature")), validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadSignature("the SNS signature is not base64") from error
        algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303 - SNS's choice
        try:
            self._key(url).verify(signature, signed_text(message), padding.PKCS1v15(), algorithm)
        except InvalidSignature as error:
            raise BadSignature("the SNS signature does not match the message") from error

    def _key(self, url: str) -> Any:
        if url not in self._keys:
            from cryptography.x509 import load_pem_x509_certificate

            try:
                key = load_pem_x509_certificate(self._get(url)).public_key()
            except ValueError as error:
                raise BadSignature(f"{url} is not a certificate") from error
            if len(self._keys) >= _KEEP:
                self._keys.clear()
            self._keys[url] = key
        return self._keys[url]

    def _get(self, url: str) -> bytes:
        if self._fetch is None:
            raise BadSignature("this adapter has no way to fetch SNS URLs")
        return self._fetch(url)


def signed_text(message: Mapping[str, Any]) -> bytes:
    """The lines SNS signs: name and value of the fixed members that are present, in order."""
    names = _NOTIFICATION if message.get("Type") == "Notification" else _CONFIRMATION
    lines = [f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None]
    return "".join(lines).encode("utf-8")


def _require_amazon(url: str) -> None:
    try:
        parts = urlsplit(url)
        believed = parts.scheme == "https" and parts.port in (None, 443)
    except ValueError:  # no URL at all
        believed = False
    if not believed or not _HOST.match(parts.hostname or ""):
        raise BadSignature(f"{url[:120]!r} is not an SNS URL of Amazon")
