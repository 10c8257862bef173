"""The grammar of an inference trigger: which events, which graph, which body, which results.

This is the `spec` of an InferenceTrigger and, with `target.url` resolved, what `python -m events
sink` is started with. `check` names every problem as (path, message), `parse` gives frozen types.
Pure. Fields are described in docs/events.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from . import names, template
from .errors import SpecError
from .spec_check import check
from .template import Body, Text

__all__ = [
    "Action",
    "Dedupe",
    "ObjectFilter",
    "Reply",
    "RequestSpec",
    "ResultSpec",
    "SinkSpec",
    "Write",
    "check",
    "parse",
]

ObjectForm = Literal["none", "base64", "bytes", "text", "json", "url"]
DEAD_LETTER_PATH = "/dead-letters"
"""Path of a sink that takes what the broker gave up on, and says so in the log."""

SWEEP_PATH = "/sweep"
"""Path of a sink that starts a sweep; a PingSource posts to it."""

DEFAULT_KEY = "{object.key}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFilter:
    """Which objects: any of the buckets, key prefix and suffix, event names with `*` at the end."""

    buckets: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""
    events: tuple[str, ...] = ("ObjectCreated:*",)
    removed: Literal["Ignore", "DeleteResult"] = "Ignore"
    endpoint_url: str | None = None
    region: str | None = None
    sweep_min_age_s: float = 30.0
    """A sweep leaves younger objects to their own notification."""
    sweep_max_age_s: float = 86400.0
    """A sweep leaves older objects alone; must stay below the journal's memory."""

    def wants(self, bucket: str, key: str, event_name: str) -> bool:
        """Whether an object event is this trigger's business."""
        return (
            bucket in self.buckets
            and key.startswith(self.prefix)
            and key.endswith(self.suffix)
            and any(
                event_name.startswith(name[:-1]) if name.endswith("*") else event_name == name
                for name in self.events
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpec:
    """How the request body is made of event and object."""

    object: ObjectForm = "none"
    template: Body | None = None
    content_type: str | None = None
    headers: tuple[tuple[str, Text], ...] = ()
    max_object_bytes: int = 32 << 20
    url_expires_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The reply CloudEvent. Source and subject default to the trigger's and the event's own."""

    type: Text
    source: Text | None = None
    subject: Text | None = None
    data: Body | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A JSON object with the answer. `bucket` None: the bucket of the event's object."""

    bucket: Text | None
    key: Text
    content: Body | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Copy or move the event's object. `bucket` None: stay in the bucket; `key` None: keep the
    key."""

    bucket: Text | None
    key: Text | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSpec:
    """What happens with the answer; everything optional."""

    reply: Reply | None = None
    write: Write | None = None
    copy: Action | None = None
    move: Action | None = None
    tag: tuple[tuple[str, Text], ...] = ()

    @property
    def touches_objects(self) -> bool:
        return bool(self.write or self.copy or self.move or self.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dedupe:
    """Where it is remembered which events have been dealt with, how long and how many."""

    store: Literal["memory", "sqlite", "s3"] = "memory"
    path: str = ""
    """SQLite file; relative paths are relative to the working directory."""
    bucket: str = ""
    prefix: str = ".turnout/"
    ttl_s: float = 7 * 86400.0
    max_entries: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSpec:
    """One trigger as the sink runs it."""

    name: str
    namespace: str
    objects: ObjectFilter | None
    filters: Mapping[str, Any]
    target_url: str
    target_timeout_s: float
    request: RequestSpec
    result: ResultSpec
    dedupe: Dedupe
    max_concurrency: int = 8
    max_waiting: int = 32
    """Events held while all places are taken; more get 429."""
    deadline_s: float = 300.0
    """From an event's arrival to its answer, waiting included."""
    async_ttl_s: float = 3600.0
    """How long the answer to a `Prefer: respond-async` request can be fetched."""
    max_hops: int = 8
    """What this many triggers have made one after the other is refused: the end of a loop."""

    def allowed_buckets(self) -> names.AllowList:
        """Every bucket this trigger may touch, and nothing else."""
        exact = set(self.objects.buckets if self.objects else ())
        patterns = []
        places = (self.result.write, self.result.copy, self.result.move)
        for place in places:
            # The event's own bucket is named by the source already.
            if place and place.bucket and not _is_own_bucket(place.bucket):
                patterns.append(place.bucket.pattern(names.PLACEHOLDER_IN_BUCKET))
        if self.dedupe.store == "s3":
            exact.add(self.dedupe.bucket)
        return names.AllowList(exact, patterns)

    @property
    def full_name(self) -> str:
        """NAMESPACE/NAME, as in the marks on everything it writes."""
        return f"{self.namespace}/{self.name}"

    @property
    def source(self) -> str:
        """CloudEvents source of everything this trigger says."""
        return (
            f"/apis/turnout.dev/v1alpha1/namespaces/{self.namespace}/inferencetriggers/{self.name}"
        )


def _is_own_bucket(bucket: Text) -> bool:
    return [getattr(part, "text", None) for part in bucket.parts] == ["object.bucket"]


def parse(value: Mapping[str, Any]) -> SinkSpec:
    """The typed spec. Raises `SpecError` with all problems."""
    problems = [(path, message) for path, message in check(value, resolved=True)]
    if problems:
        raise SpecError(problems)
    concurrency = value.get("concurrency") or {}
    target = value["target"]
    deadline_s = float(value.get("deadlineSeconds") or 300)
    return SinkSpec(
        name=str(value.get("name") or "trigger"),
        namespace=str(value.get("namespace") or "default"),
        objects=_objects((value.get("source") or {}).get("s3")),
        filters={"filters": (value.get("source") or {}).get("filters") or []},
        target_url=_target_url(target),
        target_timeout_s=float(target.get("timeoutSeconds") or deadline_s),
        request=_request(value.get("request") or {}),
        result=_result(value.get("result") or {}),
        dedupe=_dedupe(value.get("dedupe") or {}),
        max_concurrency=int(concurrency.get("max") or 8),
        max_waiting=int(concurrency.get("waiting", 32)),
        deadline_s=deadline_s,
        async_ttl_s=float(value.get("asyncTtlSeconds") or 3600),
        max_hops=int(value.get("maxHops") or 8),
    )


def _target_url(target: Mapping[str, Any]) -> str:
    url, path = str(target["url"]), str(target.get("path") or "")
    return url.rstrip("/") + "/" + path.lstrip("/") if path else url


def _objects(value: Mapping[str, Any] | None) -> ObjectFilter | None:
    if value is None:
        return None
    buckets = value.get("buckets") or [value["bucket"]]
    return ObjectFilter(
        buckets=tuple(buckets),
        prefix=str(value.get("prefix") or ""),
        suffix=str(value.get("suffix") or ""),
        events=tuple(
            str(name).removeprefix("s3:") for name in value.get("events") or ["ObjectCreated:*"]
        ),
        removed=value.get("removed") or "Ignore",
        endpoint_url=value.get("endpoint"),
        region=value.get("region"),
        sweep_min_age_s=float((value.get("sweep") or {}).get("minAgeSeconds", 30)),
        sweep_max_age_s=float((value.get("sweep") or {}).get("maxAgeSeconds", 86400)),
    )


def _request(value: Mapping[str, Any]) -> RequestSpec:
    body = value.get("template")
    return RequestSpec(
        object=value.get("object") or "none",
        template=None if body is None else template.compile_body(body, "data"),
        content_type=value.get("contentType"),
        headers=tuple(
            (name, template.compile_text(str(text), "data"))
            for name, text in (value.get("headers") or {}).items()
        ),
        max_object_bytes=int(value.get("maxObjectBytes") or 32 << 20),
        url_expires_s=float(value.get("urlExpiresSeconds") or 900),
    )


def _result(value: Mapping[str, Any]) -> ResultSpec:
    reply, write = value.get("reply"), value.get("write")
    return ResultSpec(
        reply=None if reply is None else _reply(reply),
        write=None
        if write is None
        else Write(
            bucket=_text(write.get("bucket")),
            key=template.compile_text(write.get("key") or DEFAULT_KEY, "answer"),
            content=_body(write.get("content")),
        ),
        copy=_action(value.get("copy")),
        move=_action(value.get("move")),
        tag=tuple(
            (name, template.compile_text(str(text), "answer"))
            for name, text in (value.get("tag") or {}).items()
        ),
    )


def _reply(value: Mapping[str, Any]) -> Reply:
    return Reply(
        type=template.compile_text(value["type"], "answer"),
        source=_text(value.get("source")),
        subject=_text(value.get("subject")),
        data=_body(value.get("data")),
    )


def _action(value: Mapping[str, Any] | None) -> Action | None:
    return (
        None
        if value is None
        else Action(bucket=_text(value.get("bucket")), key=_text(value.get("key")))
    )


def _text(value: str | None) -> Text | None:
    return None if value is None else template.compile_text(value, "answer")


def _body(value: Any) -> Body | None:
    return None if value is None else template.compile_body(value, "answer")


def _dedupe(value: Mapping[str, Any]) -> Dedupe:
    return Dedupe(
        store=value.get("store") or "memory",
        path=str(value.get("path") or ""),
        bucket=str(value.get("bucket") or ""),
        prefix=str(value.get("prefix") or ".turnout/"),
        ttl_s=float(value.get("ttlSeconds") or 7 * 86400),
        max_entries=int(value.get("maxEntries") or 100_000),
    )
