"""The environment of the three programs, read once in `__main__`; every problem is reported at
once.

Names that a contract gives are kept (PORT, K_SINK, K_CE_OVERRIDES, SINK_SPEC, AWS_*); ours start
with TURNOUT_. The only module of this unit that looks at the environment.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .errors import SpecError
from .http import ProxySettings, tls_context
from .sigv4 import Credentials

_URL = re.compile(r"https?://[^/\s]+")


class BadSettings(Exception):
    """Every wrong variable: name, value, expectation; one a line."""


class _Reader:
    """Reads variables, collecting problems instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        return self.environ.get(name, default)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        raw = self.environ.get(name, "")
        if not raw:
            return default
        if not re.fullmatch(r"-?\d{1,12}", raw) or not low <= int(raw) <= high:
            self.problems.append(f"{name}={raw!r}: expected a whole number from {low} to {high}")
            return default
        return int(raw)

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        raw = self.environ.get(name, "")
        if not raw:
            return default
        if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", raw) or not low <= float(raw) <= high:
            self.problems.append(f"{name}={raw!r}: expected seconds from {low:g} to {high:g}")
            return default
        return float(raw)

    def flag(self, name: str, default: bool) -> bool:
        raw = self.environ.get(name, "").lower()
        if raw not in ("", "true", "false", "1", "0"):
            self.problems.append(f"{name}={raw!r}: expected true or false")
        return default if not raw else raw in ("true", "1")

    def url(self, name: str, *, required: bool) -> str:
        raw = self.environ.get(name, "")
        if (raw or required) and not _URL.match(raw):
            self.problems.append(f"{name}={raw!r}: expected an http(s) URL")
        return raw

    def words(self, name: str) -> frozenset[str]:
        return frozenset(
            word.strip() for word in self.environ.get(name, "").split(",") if word.strip()
        )

    def overrides(self) -> dict[str, str]:
        """K_CE_OVERRIDES of a SinkBinding: `{"extensions": {"name": "value"}}`, or empty."""
        raw = self.environ.get("K_CE_OVERRIDES", "")
        if not raw.strip():
            return {}
        expected = 'expected {"extensions": {"name": "value"}}'
        try:
            extensions = json.loads(raw).get("extensions") or {}
            names = all(re.fullmatch(r"[a-z0-9]+", name) for name in extensions)
        except (ValueError, AttributeError, TypeError):
            names, extensions = False, {}
        if not names:
            self.problems.append(f"K_CE_OVERRIDES={raw!r}: {expected}")
            return {}
        return {name: str(value) for name, value in extensions.items()}

    def proxies(self) -> ProxySettings:
        def either(name: str) -> str:
            return self.environ.get(name) or self.environ.get(name.upper()) or ""

        return ProxySettings(
            http=either("http_proxy") or None,
            https=either("https_proxy") or None,
            no=either("no_proxy"),
        )

    def certificates(self) -> str:
        raw = self.environ.get("K_CA_CERTS", "").strip()
        if raw:
            try:
                tls_context(raw)
            except OSError as error:
                self.problems.append(f"K_CA_CERTS: expected certificates as PEM ({error})")
        return raw

    def credentials(self) -> Credentials | None:
        """S3 credentials given as such; None: boto3's chain finds them (profile, role ...)."""
        access, secret = self.text("AWS_ACCESS_KEY_ID"), self.text("AWS_SECRET_ACCESS_KEY")
        if not access or not secret:
            return None
        return Credentials(access, secret, self.text("AWS_SESSION_TOKEN"))

    def require_no_problems(self) -> None:
        if self.problems:
            raise BadSettings("\n".join(self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What every program that listens has."""

    port: int = 8080
    threads: int = 32
    """Requests worked on at once by the HTTP server; more wait in the listen queue."""
    log_level: str = "INFO"
    drain_s: float = 30.0
    """After SIGTERM: how long requests under way may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSettings:
    """How events leave."""

    sink: str
    """K_SINK: where CloudEvents go."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0
    """For the sink to take one event. A broker answers in milliseconds once it is awake."""
    proxies: ProxySettings = field(default_factory=ProxySettings)
    ca_certs: str = field(default="", repr=False)
    """K_CA_CERTS: PEM, what a SinkBinding gives for sinks with a certificate of the cluster's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """`python -m events adapter`."""

    server: ServerSettings
    sender: SenderSettings
    token: str = field(default="", repr=False)
    """Bearer token (`Authorization: Bearer`, or `access_token` in the query); empty: none asked."""
    user: str = ""
    password: str = field(default="", repr=False)
    """HTTP basic authentication; both or neither."""
    buckets: frozenset[str] = frozenset()
    """Only events of these buckets are taken; empty: all."""
    topics: frozenset[str] = frozenset()
    """Only these SNS topics (ARNs) are confirmed and believed; empty: all with a valid
    signature."""
    verify_sns: bool = True
    partition_by_object: bool = False
    """Events carry a `partitionkey` of bucket and key: a Kafka Broker then keeps their order."""
    max_body_bytes: int = 1 << 20
    """SNS and S3 send 256 KiB at most; a larger body is 413."""
    max_in_flight: int = 512
    """Notifications under way at once; more is 429 with Retry-After. Each holds its body."""
    rate_per_s: int = 0
    """Requests a second, bursts of one second; 0: unlimited. More is 429 with Retry-After."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "AdapterSettings":
        """Raises `BadSettings`."""
        read = _Reader(os.environ if environ is None else environ)
        settings = cls(
            server=_server(read),
            sender=_sender(read),
            token=read.text("TURNOUT_TOKEN"),
            user=read.text("TURNOUT_USER"),
            password=read.text("TURNOUT_PASSWORD"),
            buckets=read.words("TURNOUT_BUCKETS"),
            topics=read.words("TURNOUT_SNS_TOPICS"),
            verify_sns=read.flag("TURNOUT_SNS_VERIFY", True),
            partition_by_object=read.flag("TURNOUT_PARTITION_BY_OBJECT", False),
            max_body_bytes=read.integer("TURNOUT_MAX_BODY_BYTES", 1 << 20, 1024, 1 << 30),
            max_in_flight=read.integer("TURNOUT_MAX_IN_FLIGHT", 512, 1, 100_000),
            rate_per_s=read.integer("TURNOUT_RATE_PER_SECOND", 0, 0, 1_000_000),
        )
        if bool(settings.user) != bool(settings.password):
            read.problems.append("TURNOUT_USER and TURNOUT_PASSWORD: expected both or neither")
        read.require_no_problems()
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsSettings:
    """`python -m events sqs`."""

    server: ServerSettings
    sender: SenderSettings
    queue_url: str
    endpoint_url: str | None = None
    region: str | None = None
    buckets: frozenset[str] = frozenset()
    partition_by_object: bool = False
    wait_s: int = 20
    """Long poll; SQS allows 20 at most."""
    visibility_s: int = 60
    """A message under work is hidden for this long, and again before it ends."""
    workers: int = 8
    """Messages delivered at once."""
    max_receives: int = 10
    """A message that fails this often is set aside: logged, and left to the queue's redrive
    policy."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "SqsSettings":
        """Raises `BadSettings`."""
        read = _Reader(os.environ if environ is None else environ)
        queue_url = read.url("TURNOUT_SQS_QUEUE_URL", required=True)
        origin, region = _sqs_of(queue_url)
        settings = cls(
            server=_server(read),
            sender=_sender(read),
            queue_url=queue_url,
            endpoint_url=read.url("AWS_ENDPOINT_URL_SQS", required=False)
            or read.url("AWS_ENDPOINT_URL", required=False)
            or origin,
            region=region
            or read.text("AWS_REGION")
            or read.text("AWS_DEFAULT_REGION")
            or ("us-east-1" if origin else None),
            buckets=read.words("TURNOUT_BUCKETS"),
            partition_by_object=read.flag("TURNOUT_PARTITION_BY_OBJECT", False),
            wait_s=read.integer("TURNOUT_SQS_WAIT_SECONDS", 20, 0, 20),
            visibility_s=read.integer("TURNOUT_SQS_VISIBILITY_SECONDS", 60, 2, 43200),
            workers=read.integer("TURNOUT_SQS_WORKERS", 8, 1, 256),
            max_receives=read.integer("TURNOUT_SQS_MAX_RECEIVES", 10, 1, 1000),
        )
        read.require_no_problems()
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """`python -m events sink`, beside its specification."""

    server: ServerSettings
    spec: Mapping[str, Any]
    """The specification as JSON (`events.spec` is its grammar)."""
    proxies: ProxySettings = field(default_factory=ProxySettings)
    endpoint_url: str | None = None
    region: str | None = None
    credentials: Credentials | None = None
    broker: str = ""
    """K_SINK: where a sweep publishes; empty: no sweeps."""
    ca_certs: str = field(default="", repr=False)
    """K_CA_CERTS, see `SenderSettings`."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    max_body_bytes: int = 8 << 20
    """Of an event, and of an asynchronous request; more is 413."""

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, spec_text: str | None = None
    ) -> "SinkSettings":
        """`spec_text`: the specification from the command line. Raises `BadSettings`,
        `SpecError`."""
        read = _Reader(os.environ if environ is None else environ)
        spec = _spec(read, spec_text if spec_text is not None else read.text("SINK_SPEC"))
        settings = cls(
            server=_server(read),
            spec=spec,
            proxies=read.proxies(),
            broker=read.url("K_SINK", required=False),
            ca_certs=read.certificates(),
            extensions=read.overrides(),
            endpoint_url=read.url("AWS_ENDPOINT_URL_S3", required=False)
            or read.url("AWS_ENDPOINT_URL", required=False)
            or None,
            region=read.text("AWS_REGION") or read.text("AWS_DEFAULT_REGION") or None,
            credentials=read.credentials(),
            max_body_bytes=read.integer("TURNOUT_MAX_BODY_BYTES", 8 << 20, 1024, 1 << 30),
        )
        read.require_no_problems()
        return settings


def _spec(read: _Reader, text: str) -> Mapping[str, Any]:
    if not text.strip():
        read.problems.append(
            "SINK_SPEC='': expected the sink's specification as JSON (or --spec-file, --spec-json)"
        )
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SpecError([("SINK_SPEC", f"is not JSON: {error}")]) from error
    if not isinstance(value, dict):
        raise SpecError([("SINK_SPEC", "must be a JSON object")])
    return value


def _sqs_of(queue_url: str) -> tuple[str | None, str | None]:
    """Where a queue's API is: Amazon's region, or the address of whoever else speaks SQS (which
    gets a region all the same, because requests are signed for one)."""
    parts = urlsplit(queue_url)
    host = parts.hostname or ""
    found = re.match(r"(?:sqs\.)?([a-z]{2}(?:-[a-z]+)+-\d+)\.(?:queue\.)?amazonaws\.com", host)
    if found:
        return None, found.group(1)
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return None, None
    return f"{parts.scheme}://{parts.netloc}" if host else None, None


def _server(read: _Reader) -> ServerSettings:
    level = read.text("TURNOUT_LOG_LEVEL", "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        read.problems.append(f"TURNOUT_LOG_LEVEL={level!r}: expected DEBUG, INFO, WARNING or ERROR")
        level = "INFO"
    return ServerSettings(
        port=read.integer("PORT", 8080, 0, 65535),
        threads=read.integer("TURNOUT_THREADS", 32, 1, 1024),
        log_level=level,
        drain_s=read.seconds("TURNOUT_DRAIN_SECONDS", 30.0, 0.0, 3600.0),
    )


def _sender(read: _Reader) -> SenderSettings:
    return SenderSettings(
        sink=read.url("K_SINK", required=True),
        extensions=read.overrides(),
        timeout_s=read.seconds("TURNOUT_SEND_TIMEOUT_SECONDS", 30.0, 0.1, 3600.0),
        proxies=read.proxies(),
        ca_certs=read.certificates(),
    )
