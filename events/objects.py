"""Objects in S3 and messages in SQS: with `objects_http` the only module that imports boto3.

Every bucket is checked against the allow-list before it is touched. boto3's errors end here: "not
there" and "replaced" are final, "you may not" is final unless the credentials have merely expired,
everything else is worth another try. Credentials and region come from boto3's own chain.
"""

import base64
import contextlib
import io
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Forbidden, Refused, TryAgain
from .http import Client
from .listing import Listed
from .names import AllowList
from .objects_http import S3Refusal, SignedHttp
from .s3_errors import translate
from .sigv4 import Credentials

_META = "x-amz-meta-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object's metadata, and its bytes if they were fetched."""

    bucket: str
    key: str
    etag: str
    content_type: str
    metadata: Mapping[str, str]
    size: int
    version_id: str | None = None
    body: bytes = b""


class ObjectStore:
    """S3 within an allow-list. Thread-safe; the boto3 client is made on first use."""

    def __init__(
        self,
        allowed: AllowList,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        timeout_s: float = 60.0,
        connections: int = 32,
        client: Client | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """`client`: for servers named by `endpoint_url`; `credentials` None: boto3's chain."""
        self._allowed = allowed
        self._endpoint_url = endpoint_url
        self._region = region
        self._timeout_s = timeout_s
        self._connections = connections
        self._made: Any = None
        self._lock = threading.Lock()
        self.has_credentials = credentials is not None
        """Whether they were given as such: then a look at an object that may not be needed is
        cheap, and does not go through boto3's chain for nothing."""
        self._http = (
            SignedHttp(
                endpoint_url,
                region or "us-east-1",
                client=client or Client(connections=connections),
                timeout_s=timeout_s,
                credentials=credentials,
            )
            if endpoint_url
            else None
        )

    def get(
        self,
        bucket: str,
        key: str,
        *,
        version_id: str | None = None,
        etag: str | None = None,
        max_bytes: int | None = None,
    ) -> Stored:
        """The object; exactly this version, or (unversioned) exactly this entity tag.

        Raises `ObjectGone` if it is not there or was replaced, `Refused` if longer than
        `max_bytes`.
        """
        if self._http is not None:
            headers = {"If-Match": f'"{etag}"'} if etag and not version_id else {}
            return self._quick(
                "GET", bucket, key, headers, version_id=version_id, max_bytes=max_bytes
            )
        answer = self._call("get_object", bucket, **_exactly(bucket, key, version_id, etag))
        size = int(answer.get("ContentLength") or 0)
        with answer["Body"] as stream:
            if max_bytes is not None and size > max_bytes:
                raise Refused(f"s3://{bucket}/{key} has {size} bytes; the limit is {max_bytes}")
            body = self._guard(stream.read, bucket)
        return _stored(bucket, key, answer, size, body)

    def head(
        self, bucket: str, key: str, *, version_id: str | None = None, etag: str | None = None
    ) -> Stored:
        """Metadata only. Raises as `get` does."""
        try:
            return self._head(bucket, key, version_id, etag)
        except Forbidden:
            # No body says why: it may be credentials that have expired, which a GET would tell.
            with contextlib.suppress(Refused):
                self._first_byte(bucket, key, version_id)
            raise

    def _first_byte(self, bucket: str, key: str, version_id: str | None) -> None:
        only = "bytes=0-0"
        if self._http is not None:
            headers = {"Range": only}
            self._quick("GET", bucket, key, headers, version_id=version_id, max_bytes=65536)
        else:
            self._call("get_object", bucket, Range=only, **_exactly(bucket, key, version_id, None))

    def _head(self, bucket: str, key: str, version_id: str | None, etag: str | None) -> Stored:
        if self._http is not None:
            headers = {"If-Match": f'"{etag}"'} if etag and not version_id else {}
            return self._quick("HEAD", bucket, key, headers, version_id=version_id)
        answer = self._call("head_object", bucket, **_exactly(bucket, key, version_id, etag))
        return _stored(bucket, key, answer, int(answer.get("ContentLength") or 0), b"")

    def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        *,
        only_new: bool = False,
        if_etag: str | None = None,
    ) -> str:
        """Write an object; returns its entity tag.

        `only_new`: only if there is none; `if_etag`: only over exactly that one. Otherwise
        `ObjectGone`.
        """
        if self._http is not None:
            headers = {"Content-Type": content_type}
            headers |= {f"x-amz-meta-{name}": text for name, text in (metadata or {}).items()}
            if only_new:
                headers["If-None-Match"] = "*"
            if if_etag is not None:
                headers["If-Match"] = f'"{if_etag}"'
            return self._quick("PUT", bucket, key, headers, body).etag
        more: dict[str, Any] = {}
        if only_new:
            more["IfNoneMatch"] = "*"
        if if_etag is not None:
            more["IfMatch"] = if_etag
        answer = self._call(
            "put_object",
            bucket,
            Bucket=bucket,
            Key=key,
            Body=io.BytesIO(body),
            ContentType=content_type,
            Metadata=dict(metadata or {}),
            **more,
        )
        return str(answer.get("ETag", "")).strip('"')

    def copy(self, source: Stored, bucket: str, key: str, metadata: Mapping[str, str]) -> None:
        """Server-side copy of exactly this version, with metadata added."""
        self._allowed.require(source.bucket)
        origin: dict[str, str] = {"Bucket": source.bucket, "Key": source.key}
        if source.version_id:
            origin["VersionId"] = source.version_id
        self._call(
            "copy_object",
            bucket,
            Bucket=bucket,
            Key=key,
            CopySource=origin,
            CopySourceIfMatch=source.etag,
            MetadataDirective="REPLACE",
            ContentType=source.content_type,
            Metadata=_ascii({**source.metadata, **metadata}),
        )

    def delete(self, bucket: str, key: str) -> None:
        """Delete; an object that is not there is deleted already."""
        self._call("delete_object", bucket, Bucket=bucket, Key=key)

    def tags(self, bucket: str, key: str, version_id: str | None) -> dict[str, str]:
        """The object's tags."""
        where = _exactly(bucket, key, version_id, None)
        found = self._call("get_object_tagging", bucket, **where).get("TagSet", [])
        return {item["Key"]: item["Value"] for item in found}

    def set_tags(
        self, bucket: str, key: str, tags: Mapping[str, str], version_id: str | None
    ) -> None:
        """Replace the object's tags by these."""
        where = _exactly(bucket, key, version_id, None)
        tag_set = [{"Key": name, "Value": value} for name, value in tags.items()]
        self._call("put_object_tagging", bucket, **where, Tagging={"TagSet": tag_set})

    def presign(self, bucket: str, key: str, version_id: str | None, expires_s: float) -> str:
        """A URL that lets anybody GET this object for a while."""
        self._allowed.require(bucket)
        parameters = {"Bucket": bucket, "Key": key}
        if version_id:
            parameters["VersionId"] = version_id
        client = self._client()
        return str(
            self._guard(
                lambda: client.generate_presigned_url(
                    "get_object", Params=parameters, ExpiresIn=int(expires_s)
                ),
                bucket,
            )
        )

    def listing(self, bucket: str, prefix: str) -> Iterator[Listed]:
        """Every object under a prefix, page by page."""
        if self._http is not None:
            yield from self._quick_listing(self._http, bucket, prefix)
            return
        token: dict[str, str] = {}
        while True:
            answer = self._call("list_objects_v2", bucket, Bucket=bucket, Prefix=prefix, **token)
            for item in answer.get("Contents", ()):
                yield Listed(
                    key=item["Key"],
                    etag=str(item.get("ETag", "")).strip('"'),
                    size=int(item.get("Size") or 0),
                    modified_s=item["LastModified"].timestamp(),
                )
            if not answer.get("IsTruncated"):
                return
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    def _quick_listing(self, http: SignedHttp, bucket: str, prefix: str) -> Iterator[Listed]:
        self._allowed.require(bucket)
        token = ""
        while True:
            try:
                found, token = http.list_page(bucket, prefix, token)
            except S3Refusal as error:
                raise translate({"Error": {"Code": error.code}}, str(error), bucket) from error
            yield from found
            if not token:
                return

    def _quick(
        self,
        method: str,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        **limits: Any,
    ) -> Stored:
        """A GET, HEAD or PUT without a boto3 client; same checks, same errors."""
        assert self._http is not None
        self._allowed.require(bucket)
        try:
            answer = self._http.request(method, bucket, key, headers, body, **limits)
        except S3Refusal as error:
            raise translate({"Error": {"Code": error.code}}, str(error), bucket) from error
        fields = answer.headers
        metadata = {
            name[len(_META) :]: value for name, value in fields.items() if name.startswith(_META)
        }
        return Stored(
            bucket=bucket,
            key=key,
            etag=fields.get("etag", "").strip('"'),
            content_type=fields.get("content-type", "application/octet-stream"),
            metadata=metadata,
            size=len(answer.body) or int(fields.get("content-length") or 0),
            version_id=fields.get("x-amz-version-id"),
            body=answer.body,
        )

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _make_client(
                    "s3", self._endpoint_url, self._region, self._timeout_s, self._connections
                )
            return self._made

    def _call(self, operation: str, bucket: str, **arguments: Any) -> Any:
        self._allowed.require(bucket)
        client = self._client()
        return self._guard(lambda: getattr(client, operation)(**arguments), bucket)

    def _guard(self, call: Any, bucket: str) -> Any:
        """Run a boto3 call and translate what it raises."""
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

        try:
            return call()
        except ClientError as error:
            raise translate(error.response, str(error), bucket) from error
        except ParamValidationError as error:
            raise Refused(f"not a possible S3 request: {error}") from error
        except (BotoCoreError, OSError) as error:
            raise TryAgain(f"S3 is not available: {error}") from error


class Queue:
    """One SQS queue."""

    def __init__(self, url: str, *, endpoint_url: str | None, region: str | None) -> None:
        self.url = url
        self._client = _make_client("sqs", endpoint_url, region, 60.0, 10)

    def receive(self, *, wait_s: int, visibility_s: int, count: int = 10) -> list[dict[str, Any]]:
        """Up to ten messages, waiting for the first one; `Attributes` carry the receive count."""
        answer = self._run(
            "receive_message",
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=visibility_s,
            MaxNumberOfMessages=count,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return list(answer.get("Messages", ()))

    def delete(self, receipt: str) -> None:
        self._run("delete_message", ReceiptHandle=receipt)

    def extend(self, receipt: str, visibility_s: int) -> None:
        """Hide the message for this long from now; 0: let it come back at once."""
        self._run(
            "change_message_visibility", ReceiptHandle=receipt, VisibilityTimeout=visibility_s
        )

    def _run(self, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, operation)(QueueUrl=self.url, **arguments)
        except (ClientError, BotoCoreError, OSError) as error:
            raise TryAgain(f"SQS {operation} failed: {error}") from error


def _make_client(
    service: str, endpoint_url: str | None, region: str | None, timeout_s: float, connections: int
) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise Refused("boto3 is not installed; install the `events` extra") from error
    config = Config(
        connect_timeout=min(10.0, timeout_s),
        read_timeout=timeout_s,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": 2},
        # Path style for any server that is not AWS: bucket names are rarely in its DNS.
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        # boto3 would sign URLs as in 2006, which young buckets and several servers refuse.
        signature_version="s3v4" if service == "s3" else None,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client(
        service, endpoint_url=endpoint_url, region_name=region, config=config
    )


def _exactly(bucket: str, key: str, version_id: str | None, etag: str | None) -> dict[str, Any]:
    where: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if version_id:
        where["VersionId"] = version_id
    elif etag:
        where["IfMatch"] = etag
    return where


def _stored(bucket: str, key: str, answer: Any, size: int, body: bytes) -> Stored:
    return Stored(
        bucket=bucket,
        key=key,
        etag=str(answer.get("ETag", "")).strip('"'),
        content_type=str(answer.get("ContentType") or "application/octet-stream"),
        metadata={name.lower(): text for name, text in (answer.get("Metadata") or {}).items()},
        size=size,
        version_id=answer.get("VersionId"),
        body=body,
    )


def _ascii(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata as a request may carry it: other characters as S3 itself shows them (RFC 2047)."""
    return {
        name: text
        if text.isascii()
        else f"=?UTF-8?B?{base64.b64encode(text.encode('latin-1', 'replace')).decode()}?="
        for name, text in metadata.items()
    }
