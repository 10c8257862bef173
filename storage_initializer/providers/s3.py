"""`s3://bucket/key` and `s3://bucket/prefix`: AWS, MinIO, Ceph, SeaweedFS and the like.

An exact key wins; otherwise the path is a directory: only keys below `path/` belong to it, so a
sibling `model-old/` never leaks into `model/`. Requests are built and signed here and carried by
the engine; botocore is imported only when credentials must be looked up (see `s3_credentials`).
Environment: KServe's and the AWS SDKs' names, listed in docs/storage.md.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from posixpath import basename
from urllib.parse import urlsplit

from storage_initializer import digest, retry
from storage_initializer.context import Context, refusal
from storage_initializer.errors import (
    AccessDenied,
    Changed,
    InvalidSettings,
    NotFound,
    Relocated,
    StorageError,
    Throttled,
    TransferFailed,
)
from storage_initializer.items import HttpSource, Item
from storage_initializer.records import Record
from storage_initializer.settings import MIB, Reader
from storage_initializer.uri import Uri
from storage_initializer.wire import Request, Tls

from . import s3_credentials
from .s3_sign import Signer, query_string, quote_key
from .s3_xml import Page, error_code

_MULTIPART = r"[0-9a-f]{32}-(\d+)"
_COMPOSITE = r"([A-Za-z0-9+/]{6}==)-(\d+)"
_USUAL_PARTS_MIB = (8, 5, 16, 50, 64, 32, 10, 100)
"""boto3 and the aws tools, rclone, s5cmd and others, most frequent first."""
_REGION = r"[a-z]{2}(?:-[a-z]+)+-\d"
_DNS_BUCKET = r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"
_CHECKSUMS = {
    "x-amz-checksum-crc64nvme": "crc64nvme",
    "x-amz-checksum-crc32c": "crc32c",
    "x-amz-checksum-crc32": "crc32",
    "x-amz-checksum-sha1": "sha1",
    "x-amz-checksum-sha256": "sha256",
}
_THROTTLED = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "ServiceUnavailable",
        "BandwidthLimitExceeded",
    }
)
_TRANSIENT = frozenset(
    {
        "InternalError",
        "RequestTimeout",
        "OperationAborted",
        "IncompleteBody",
        "RequestTimeTooSkewed",
    }
)
_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
        "ExpiredToken",
        "AccessDenied",
        "InvalidSecurity",
        "AllAccessDisabled",
    }
)


class S3Settings(Record):
    """What the environment says about S3."""

    endpoint: str
    """Base URL of a server that is not AWS; empty means AWS."""
    amazon: bool
    """Whether it is AWS, whose roles count there."""
    region: str
    virtual: bool
    """Bucket in the host name; AWS always where the name allows it."""
    accelerate: bool
    anonymous: bool
    requester_pays: bool
    tls: Tls

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "S3Settings":
        reader = Reader(environ)
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
        secure = reader.flag("S3_USE_HTTPS", True)
        if not endpoint and environ.get("S3_ENDPOINT"):
            endpoint = environ["S3_ENDPOINT"]
        if endpoint and "://" not in endpoint:
            endpoint = f"{'https' if secure else 'http'}://{endpoint}"
        if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
            reader.problems.append(f"AWS_ENDPOINT_URL={endpoint!r}: expected http(s)://HOST[:PORT]")
        region = environ.get("AWS_DEFAULT_REGION") or environ.get("AWS_REGION") or ""
        host = urlsplit(endpoint).hostname or ""
        amazon = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        if amazon and not region and (found := re.search(rf"[.-]({_REGION})\.", host)):
            region = found[1]
        if re.fullmatch(rf"s3([.-]{_REGION})?\.amazonaws\.com(\.cn)?", host):
            endpoint = ""  # AWS itself; others of its hosts (VPC, FIPS, dual stack) are meant
        ca_file = environ.get("AWS_CA_BUNDLE", "")
        settings = cls(
            endpoint=endpoint.rstrip("/"),
            amazon=amazon or not endpoint,
            region=region,
            virtual=reader.flag("S3_USER_VIRTUAL_BUCKET", False),
            accelerate=reader.flag("S3_USE_ACCELERATE", False),
            anonymous=reader.flag("awsAnonymousCredential", False),
            requester_pays=reader.flag("S3_REQUESTER_PAYS", False),
            tls=Tls(verify=reader.flag("S3_VERIFY_SSL", True), ca_file=ca_file),
        )
        if ca_file and settings.tls.verify:
            import os

            if not os.path.exists(ca_file):
                reader.problems.append(f"AWS_CA_BUNDLE={ca_file!r}: expected an existing PEM file")
        if reader.problems:
            raise InvalidSettings(reader.problems)
        return settings


def connect(uri: Uri, context: Context) -> "S3Source":
    return S3Source(uri, context)


class S3Source(HttpSource):
    """One object or one prefix of a bucket."""

    def __init__(self, uri: Uri, context: Context) -> None:
        self.shown = uri.shown
        self._context = context
        self._bucket, self._key = uri.authority, uri.path.lstrip("/")  # s3://bucket//path, too
        self._sha256 = uri.sha256
        self._settings = settings = S3Settings.from_env(context.environ)
        region = settings.region
        if settings.anonymous:
            self._credentials: s3_credentials.Resolve = lambda: None
        else:
            self._credentials, profile_region = s3_credentials.resolver(
                context.environ, own_endpoint=not settings.amazon
            )
            region = region or profile_region
        self._redirects = 0
        self.filtered = True
        self._use_region(region or "us-east-1")

    def _use_region(self, region: str) -> None:
        self._signer = Signer(region)
        settings, bucket = self._settings, self._bucket
        dns = re.fullmatch(_DNS_BUCKET, bucket) is not None
        if settings.endpoint:
            base, virtual = settings.endpoint, settings.virtual
        elif settings.accelerate and dns:
            base, virtual = "https://s3-accelerate.amazonaws.com", True
        else:
            suffix = ".cn" if region.startswith("cn-") else ""
            base, virtual = f"https://s3.{region}.amazonaws.com{suffix}", dns
        parts = urlsplit(base)
        self._prefix = parts.path.rstrip("/") + ("" if virtual else f"/{bucket}")
        scheme, host = parts.scheme, parts.hostname or ""
        self._scheme = scheme
        self._host = f"{bucket}.{host}" if virtual else host
        self._port = parts.port or (443 if scheme == "https" else 80)
        default = self._port == (443 if scheme == "https" else 80)
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._host_header = shown if default else f"{shown}:{self._port}"
        self.scope = f"{scheme}://{self._host_header}"
        """The server: buckets of one name at two endpoints are two things to the node cache."""

    # -- listing -----------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        key = re.sub("/+$", "/", self._key)
        if key and not key.endswith("/"):
            exact = self._head(key)
            if exact is not None:
                self.filtered = False
                yield exact
                return
        prefix = key if not key or key.endswith("/") else key + "/"
        self.filtered = True
        found = False
        for item in self._list(prefix):
            found = True
            yield item
        if not found:
            what = f"no object {key!r} and nothing below {prefix!r}" if key else "an empty bucket"
            raise NotFound(self.shown, what)

    def _head(self, key: str) -> Item | None:
        """The object of exactly this key; None when there is none (or we may not know)."""
        status, headers, _ = self._context.ask(
            lambda: self._sign("HEAD", key, {}, {"x-amz-checksum-mode": "ENABLED"}),
            ok=(200, 403, 404),
            explain=self._explain,
        )
        if status != 200:
            return None
        size = headers.get("content-length", "")
        return Item(
            path=basename(key),
            size=int(size) if size.isdigit() else None,
            version=headers.get("etag", ""),
            checks=self._hint(headers.get("etag", ""), self._sha256),
            validators={"etag": headers["etag"]} if headers.get("etag") else {},
            ref=key,
            part_bytes=_part_bytes(headers.get("etag", ""), int(size) if size.isdigit() else 0),
        )

    @staticmethod
    def _hint(etag: str, sha256: str | None = None) -> dict[str, str]:
        """What the listing promises; `checks` corrects it: an encrypted object's ETag is no MD5."""
        bare = etag.strip('"').lower()
        found = {"md5": bare} if len(bare) == 32 and not bare.strip("0123456789abcdef") else {}
        return found | ({"sha256": sha256} if sha256 else {})

    def _list(self, prefix: str) -> Iterator[Item]:
        token = ""
        while True:
            query = {"list-type": "2", "encoding-type": "url", "max-keys": "1000"}
            if prefix:
                query["prefix"] = prefix
            if token:
                query["continuation-token"] = token
            make = functools.partial(self._sign, "GET", "", query, {})
            _, _, body = self._context.ask(make, explain=self._explain)
            page = Page.parse(body, self.shown)
            for key, size, etag in page.objects:
                if not key.startswith(prefix):
                    raise StorageError(
                        f"{self.shown}: the listing has {key!r}, not below {prefix!r}"
                    )
                relative = key.removeprefix(prefix).lstrip("/")
                if not relative or (key.endswith("/") and size):
                    continue
                yield Item(
                    path=relative,
                    size=size,
                    version=etag,
                    ref=key,
                    checks=self._hint(etag),
                    validators={"etag": etag} if etag else {},
                    part_bytes=_part_bytes(etag, size),
                )
            if not page.token:
                return
            token = page.token

    # -- requests ----------------------------------------------------------------------------------

    def request(self, item: Item, start: int, stop: int | None) -> Request:
        headers = {}
        if start or stop is not None:
            # A whole object needs no condition: its answer's ETag is compared anyway.
            if item.version:
                headers["If-Match"] = item.version
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        else:
            headers["x-amz-checksum-mode"] = "ENABLED"
        return self._sign("GET", item.ref, {}, headers)

    def _sign(
        self, method: str, key: str, query: Mapping[str, str], headers: dict[str, str]
    ) -> Request:
        path = f"{self._prefix}/{quote_key(key)}"
        text = query_string(query)
        if self._settings.requester_pays:
            headers = {**headers, "x-amz-request-payer": "requester"}
        credentials = self._credentials()
        if credentials is not None:
            headers = self._signer.sign(method, self._host_header, path, text, headers, credentials)
        return Request(
            method=method,
            scheme=self._scheme,
            host=self._host,
            port=self._port,
            target=f"{path}?{text}" if text else path,
            headers=headers,
            tls=self._settings.tls,
            where=f"s3://{self._bucket}/{key}",
        )

    def checks(self, item: Item, headers: Mapping[str, str]) -> Mapping[str, str]:
        """What S3 tells of the whole object. Without headers (ranges were fetched) it is asked."""
        if not headers:
            _, headers, _ = self._context.ask(
                lambda: self._sign("HEAD", item.ref, {}, {"x-amz-checksum-mode": "ENABLED"}),
                explain=self._explain,
            )
        found = dict(item.checks)
        composite = headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT"
        for name, algorithm in _CHECKSUMS.items():
            value = headers.get(name, "")
            if value and "-" not in value and not composite:
                found.setdefault(algorithm, _hex(value))
        encrypted = headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
        encrypted = encrypted or "x-amz-server-side-encryption-customer-algorithm" in headers
        if encrypted:
            found.pop("md5", None)
        mode = self._context.settings.verify
        of_parts = re.fullmatch(_COMPOSITE, headers.get("x-amz-checksum-crc32", ""))
        if mode == "full" and not encrypted:
            found |= self._etag_of_parts(item)
        elif mode != "size" and of_parts and (part := self._uploaded_in(item, int(of_parts[2]))):
            value = f"{_hex(of_parts[1])}-{of_parts[2]}"
            found[f"{digest.CRC_OF_PARTS}{part}"] = value
        return found

    def _etag_of_parts(self, item: Item) -> dict[str, str]:
        """The ETag of a multipart upload, where all parts have the size of the first."""
        etag = item.version.strip('"').lower()
        count = re.fullmatch(_MULTIPART, etag)
        part = self._uploaded_in(item, int(count[1])) if count else 0
        return {f"{digest.MD5_OF_PARTS}{part}": etag} if part else {}

    def _uploaded_in(self, item: Item, count: int) -> int:
        """Size of the parts of a multipart upload; 0 if the server does not tell or they differ.

        Asked are the first and the last: that those between sum up right is no accident.
        """
        if item.size is None:
            return 0
        part = self._length_of(item, 1)
        rest = item.size - (count - 1) * part
        uniform = 0 < rest <= part and (count == 1 or self._length_of(item, count) == rest)
        return part if uniform else 0

    def _length_of(self, item: Item, number: int) -> int:
        status, headers, _ = self._context.ask(
            lambda: self._sign("HEAD", item.ref, {"partNumber": str(number)}, {}),
            ok=(200, 206, 400, 403, 404, 405, 416, 501),
            explain=self._explain,
        )
        length = headers.get("content-length", "")
        return int(length) if status in (200, 206) and length.isdigit() else 0

    # -- refusals ----------------------------------------------------------------------------------

    def explain(
        self, item: Item | None, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        where = f"s3://{self._bucket}/{item.ref}" if item else self.shown
        code, message = error_code(body)
        said = f"{status} {code}: {message}" if code else str(status)
        region = headers.get("x-amz-bucket-region", "")
        if region and region != self._signer.region and self._redirects < 3:
            self._redirects += 1
            self._use_region(region)
            return Relocated(where, f"the bucket is in {region}")
        if code == "RequestTimeTooSkewed":
            self._learn_clock(headers)
        if code in _THROTTLED or status in retry.THROTTLING:
            return Throttled(where, f"answered {said}", retry.retry_after_s(headers))
        if code in _TRANSIENT or status in retry.TRANSIENT:
            return TransferFailed(where, f"answered {said}")
        if status in (412, 416):
            return Changed(where)
        if code == "InvalidObjectState":
            return AccessDenied(where, said, "the object is archived: restore it first")
        if status in (401, 403) or code in _CREDENTIALS:
            return AccessDenied(where, said, self._credential_advice())
        if status == 404 and code == "NoSuchBucket":
            return NotFound(where, f"bucket {self._bucket!r} does not exist at {self._host}")
        if status in (301, 307):
            return StorageError(
                f"{where}: the bucket is in another region ({said}); set AWS_DEFAULT_REGION"
            )
        return refusal(where, status, {}, b"") if not code else _by_status(where, status, said)

    def _explain(self, status: int, headers: Mapping[str, str], body: bytes) -> StorageError:
        return self.explain(None, status, headers, body)

    def _credential_advice(self) -> str:
        if self._credentials() is None:
            return (
                "no credentials were used: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                "(a KServe Secret does), or a role"
            )
        return (
            "check the key's permissions: s3:GetObject on the objects, s3:ListBucket on the bucket"
        )

    def _learn_clock(self, headers: Mapping[str, str]) -> None:
        import time
        from email.utils import parsedate_to_datetime

        try:
            server = parsedate_to_datetime(headers.get("date", "")).timestamp()
        except (ValueError, TypeError):
            return
        self._signer.skew_s = server - time.time()


def _hex(text: str) -> str:
    """Base64 as hexadecimal digits; what is none stays as it is, and nothing will have that sum."""
    return digest.from_base64(text) or text


def _by_status(where: str, status: int, said: str) -> StorageError:
    if status == 404:
        return NotFound(where, said)
    return StorageError(f"{where}: unexpected answer {said}")


def _part_bytes(etag: str, size: int) -> int:
    """The part size a multipart ETag (`…-COUNT`) suggests: a usual one, else whole megabytes."""
    found = re.fullmatch(_MULTIPART, etag.strip('"').lower())
    count = int(found[1]) if found else 0
    if count < 2:
        return 0
    average = (size + count - 1) // count
    rounded = (average + MIB - 1) // MIB
    for megabytes in (*_USUAL_PARTS_MIB, rounded):
        if -(-size // (megabytes * MIB)) == count:
            return megabytes * MIB
    return 0
