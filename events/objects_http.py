"""The S3 requests that every event and every sweep make, without boto3's machinery around them.

A GET and a PUT cost 1.2 and 1.5 ms of CPU through a boto3 client and a tenth of it here. Only for
servers named by an endpoint URL, which are addressed by path; Amazon's own addressing, and every
rarer operation, stays with boto3 (`objects`). Credentials are those of the environment, else of
boto3's chain, which refreshes them.
"""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from functions.wire.http1_chunked import BadChunk
from functions.wire.http1_head import BadHead

from . import listing
from .errors import Refused, TryAgain
from .http import Answer, Client
from .http_answer import MAX_ANSWER_BYTES, AnswerTooLong
from .listing import Listed
from .sigv4 import Credentials, Signer, quote_key

Resolve = Callable[[], Credentials]
"""Gives the credentials to sign with now. Raises `TryAgain`."""


class S3Refusal(Exception):
    """An S3 error answer: its code, or the status where there is no body (HEAD, If-Match)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SignedHttp:
    """GET, HEAD and PUT of objects, and listings, path-style. Thread-safe."""

    def __init__(
        self,
        endpoint_url: str,
        region: str,
        *,
        client: Client,
        timeout_s: float,
        credentials: Credentials | None,
    ) -> None:
        parts = urlsplit(endpoint_url.rstrip("/"))
        self._origin, self._base = f"{parts.scheme}://{parts.netloc}", parts.path
        self._host = parts.netloc.rpartition("@")[2]
        self._signer = Signer(region)
        self._client = client
        self._timeout_s = timeout_s
        self._resolve: Resolve = (lambda: credentials) if credentials else _Chain()

    def request(
        self,
        method: str,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        version_id: str | None = None,
        max_bytes: int | None = None,
    ) -> Answer:
        """One signed request; its 2xx. Raises `S3Refusal`, `Refused` (over `max_bytes`) or
        `TryAgain`."""
        return self._send(
            method,
            f"{self._base}/{bucket}/{quote_key(key)}",
            urlencode({"versionId": version_id}) if version_id else "",
            headers,
            body,
            MAX_ANSWER_BYTES if max_bytes is None else max_bytes,
            f"s3://{bucket}/{key}",
        )

    def list_page(self, bucket: str, prefix: str, token: str) -> tuple[list[Listed], str]:
        """A page of objects and the token of the next, as `listing.parse`. Raises as `request`."""
        path, query = f"{self._base}/{bucket}", listing.query(prefix, token)
        where = f"the listing of s3://{bucket}"
        answer = self._send("GET", path, query, {}, b"", MAX_ANSWER_BYTES, where)
        try:
            return listing.parse(answer.body)
        except ValueError as error:
            raise TryAgain(f"{where}: {error}") from error

    def _send(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        most: int,
        where: str,
    ) -> Answer:
        """`path` and `query` are quoted; `where` is for messages."""
        signed = self._signer.sign(method, self._host, path, query, headers, body, self._resolve())
        try:
            answer = self._client.request(
                method,
                self._origin,
                f"{path}?{query}" if query else path,
                signed,
                body,
                self._timeout_s,
                most=most,
            )
        except AnswerTooLong as error:
            raise Refused(f"{where} has {error.size} bytes; the limit is {error.most}") from error
        except (OSError, ValueError, BadHead, BadChunk) as error:
            raise TryAgain(f"S3 is not available: {error or type(error).__name__}") from error
        if answer.status >= 300:
            text = answer.body[:65536].decode("utf-8", "replace")
            raise S3Refusal(_code(text) or str(answer.status), text[:300])
        return answer


class _Chain:
    """boto3's own chain: profiles, web identity, instance roles; loaded when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: Any = None

    def __call__(self) -> Credentials:
        from botocore.exceptions import BotoCoreError

        with self._lock:
            if self._found is None:
                import boto3

                self._found = boto3.session.Session().get_credentials()
        if self._found is None:
            raise TryAgain("no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        try:
            frozen = self._found.get_frozen_credentials()
        except BotoCoreError as error:
            raise TryAgain(f"no S3 credentials: {error}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")


def _code(text: str) -> str:
    found = re.search(r"<Code>([A-Za-z0-9]+)</Code>", text)
    return found.group(1) if found else ""
