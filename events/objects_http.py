"""The two S3 requests that every event makes, without boto3's machinery around them.

A GET and a PUT cost 1.2 and 1.5 ms of CPU through a boto3 client and 0.5 ms here: botocore's
signer over one pooled connection. Only for servers named by an endpoint URL, which are addressed
by path; Amazon's own addressing, and every rarer operation, stays with boto3 (`objects`).
Credentials come from boto3's chain and are refreshed by it.
"""

import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError

from .errors import Refused, TryAgain

SAFE = "/-_.~"
"""Characters S3 wants unescaped in a signed path (SigV4, "UriEncode")."""

MAX_ERROR_BYTES = 65536


class S3Refusal(Exception):
    """An S3 error answer: its code, or the status where there is no body (HEAD, If-Match)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class S3Answer:
    """A 2xx answer; header names in lower case."""

    headers: Mapping[str, str]
    body: bytes


class SignedHttp:
    """GET, HEAD and PUT of objects, path-style. Thread-safe."""

    def __init__(
        self, endpoint_url: str, region: str, *, timeout_s: float, connections: int
    ) -> None:
        self._endpoint = endpoint_url.rstrip("/")
        self._region = region
        options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            retries=False,
            socket_options=options,
            timeout=urllib3.Timeout(connect=min(10.0, timeout_s), read=timeout_s),
        )
        self._lock = threading.Lock()
        self._credentials: Any = None

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
    ) -> S3Answer:
        """One signed request. Raises `S3Refusal`, `Refused` (over `max_bytes`) or `TryAgain`."""
        url = f"{self._endpoint}/{bucket}/{quote(key, safe=SAFE)}"
        if version_id:
            url += "?" + urlencode({"versionId": version_id})
        signed = self._sign(method, url, headers, body)
        try:
            response = self._pool.request(
                method, url, headers=signed, body=body, preload_content=False, redirect=False
            )
            if response.status >= 300:
                text = response.read(MAX_ERROR_BYTES).decode("utf-8", "replace")
                response.release_conn()
                raise S3Refusal(_code(text) or str(response.status), text[:300])
            size = int(response.headers.get("Content-Length") or 0)
            if max_bytes is not None and size > max_bytes:
                response.close()
                raise Refused(f"s3://{bucket}/{key} has {size} bytes; the limit is {max_bytes}")
            data = response.read()
            response.release_conn()
        except (HTTPError, OSError) as error:
            raise TryAgain(f"S3 is not available: {error}") from error
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return S3Answer(lowered, data)

    def _sign(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, str]:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
        try:
            frozen = self._chain().get_frozen_credentials()
            S3SigV4Auth(frozen, "s3", self._region).add_auth(request)
        except BotoCoreError as error:
            raise TryAgain(f"no S3 credentials: {error}") from error
        return dict(request.headers.items())

    def _chain(self) -> Any:
        with self._lock:
            if self._credentials is None:
                import boto3

                self._credentials = boto3.session.Session().get_credentials()
            if self._credentials is None:
                raise TryAgain("no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
            return self._credentials


def _code(text: str) -> str:
    found = re.search(r"<Code>([A-Za-z0-9]+)</Code>", text)
    return found.group(1) if found else ""
