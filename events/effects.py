"""What happens to objects once the answer is known; each effect can be repeated without harm.

Order: write the result, tag the input, copy or move it last, so that an interrupted run can always
find its input again, or else sees from the mark on the copy that the move was complete.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import lineage, names
from .errors import NoBucket, ObjectGone, Refused, TryAgain
from .event import Event
from .lineage import HOPS, MADE_BY
from .objects import ObjectStore, Stored
from .request import describe_object
from .spec import SinkSpec, Write
from .storage import SWEPT_FLOOR, ObjectRef
from .template import Body, Text

EVENT_MARK = "turnout-event"
"""User metadata: which piece of work made this object; tells a finished move from a missing
input."""

WRITTEN_MARK = "turnout-written"
"""User metadata: the second in which the input was written, where the producer's sequencer is a
time."""

SWEPT_MARK = "turnout-swept"
"""User metadata: made because of a sweep, which knows the input's time to the second only."""

_encode = json.JSONEncoder(ensure_ascii=False).encode
_MAX_TAG_VALUE = 256
_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the graph said: bytes as they came, and what templates see of them: their JSON value, or
    the text of an answer that is text."""

    body: bytes
    content_type: str
    value: Any = None
    is_json: bool = False
    hops: int = 0
    """Of what it was made from, see `lineage`; what is made of the answer has one more."""

    @property
    def has_value(self) -> bool:
        return self.is_json or self.value is not None


def answer_of(body: bytes, content_type: str, hops: int = 0) -> Answer:
    """An answer from the wire."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace") if content_type.startswith("text/") else None
        return Answer(body=body, content_type=content_type, value=text, hops=hops)
    return Answer(body=body, content_type=content_type, value=value, is_json=True, hops=hops)


def pack(answer: Answer) -> bytes:
    """For the journal: hops, content type, newline, body."""
    return f"{answer.hops} {answer.content_type}\n".encode("utf-8", "replace") + answer.body


def unpack(packed: bytes) -> Answer:
    head, _, body = packed.partition(b"\n")
    text = head.decode("utf-8")
    hops, _, content_type = text.partition(" ")
    if not hops.isdigit():  # kept before hops were counted
        return answer_of(body, text)
    return answer_of(body, content_type, int(hops))


@dataclass(frozen=True, slots=True)
class _Filing:
    """What to do with the input: tags to set, and where to copy or move it (empty: nowhere)."""

    tags: Mapping[str, str]
    bucket: str = ""
    name: str = ""


class Effects:
    """The effects of one trigger."""

    def __init__(self, spec: SinkSpec, store: ObjectStore) -> None:
        self._spec = spec
        self._store = store
        self._allowed = spec.allowed_buckets()

    def apply(
        self,
        key: str,
        event: Event,
        about: ObjectRef | None,
        documents: dict[str, Any],
        answer: Answer,
        stored: Stored | None = None,
        *,
        resumed: bool = False,
    ) -> list[str]:
        """Do everything the spec asks for; returns `s3://` names of what was made, for the log.

        `key` identifies the piece of work; `stored`: what is known of the
        input already; `resumed`: an earlier run may have done some of it. Raises
        `Refused` or `TryAgain`.
        """
        write = self._spec.result.write
        # Every name is computed before anything is done: one that is refused leaves no half.
        target = self._target(write, about, documents) if write is not None else None
        filing = self._filing(about, documents) if about is not None else None
        marks = {
            MADE_BY: self._spec.full_name,
            HOPS: str(answer.hops + 1),
            EVENT_MARK: key,
            **_time_marks(event, about),
        }
        made: list[str] = []
        if write is not None and target is not None:
            if not (resumed and self._is_ours(*target, marks)):
                content = self._content(write.content, event, documents, answer)
                self._write(*target, content, marks)
            made.append("s3://{}/{}".format(*target))
        if about is not None and filing is not None:
            made += self._file(about, documents, filing, marks, stored, answer)
        return made

    def undo(self, about: ObjectRef, documents: dict[str, Any]) -> str | None:
        """The object is gone: delete the result that was written for it. Returns its name.

        Only what this trigger wrote: anything else there is somebody's own, and deleting what is
        not there is an event for some servers, which would be answered by the next such delete.
        """
        write = self._spec.result.write
        if write is None:
            return None
        bucket, name = self._target(write, about, documents)
        try:
            present = self._store.head(bucket, name)
        except ObjectGone:
            return None
        if present.metadata.get(MADE_BY) != self._spec.full_name:
            return None
        self._store.delete(bucket, name)
        return f"s3://{bucket}/{name}"

    def _target(
        self, write: Write, about: ObjectRef | None, documents: dict[str, Any]
    ) -> tuple[str, str]:
        """Bucket and key of the result object."""
        name = names.key(write.key.text(documents), about.key if about else "")
        return self._bucket(write.bucket, about, documents), name

    def _filing(self, about: ObjectRef, documents: dict[str, Any]) -> _Filing | None:
        result = self._spec.result
        action = result.move or result.copy
        if action is None and not result.tag:
            return None
        tags = {tag: text.text(documents)[:_MAX_TAG_VALUE] for tag, text in result.tag}
        if action is None:
            return _Filing(tags)
        name = action.key.text(documents) if action.key else documents["object"]["key"]
        return _Filing(
            tags, self._bucket(action.bucket, about, documents), names.key(name, about.key)
        )

    def _file(
        self,
        about: ObjectRef,
        documents: dict[str, Any],
        filing: _Filing,
        marks: Mapping[str, str],
        stored: Stored | None,
        answer: Answer,
    ) -> list[str]:
        result = self._spec.result
        bucket, name = filing.bucket, filing.name
        try:
            source = stored or self._store.head(
                about.bucket,
                documents["object"]["key"],
                version_id=about.version_id,
                etag=about.etag,
            )
        except ObjectGone:
            if result.move and self._is_ours(bucket, name, marks):
                return [f"s3://{bucket}/{name}"]
            raise
        if filing.tags:
            self._tag(source, filing.tags, about, answer.hops)
        if not bucket or (bucket, name) == (source.bucket, source.key):
            return []
        self._store.copy(source, bucket, name, marks)
        if result.move:
            self._delete(source)
        return [f"s3://{bucket}/{name}"]

    def _tag(self, source: Stored, tags: Mapping[str, str], about: ObjectRef, hops: int) -> None:
        """Add tags to the object's own. Setting what is set already would only be another event."""
        present = self._store.tags(source.bucket, source.key, about.version_id)
        merged = present | dict(tags)
        if merged == present:
            return
        if about.is_tagging:
            merged[HOPS] = lineage.tag_mark(hops + 1, self._spec.full_name, merged)
        self._store.set_tags(source.bucket, source.key, merged, about.version_id)

    def _delete(self, source: Stored) -> None:
        """Delete what was copied, unless it has been replaced meanwhile: that is another upload."""
        try:
            present = self._store.head(source.bucket, source.key)
        except ObjectGone:
            return
        if (present.version_id, present.etag) == (source.version_id, source.etag):
            self._store.delete(source.bucket, source.key)

    def _write(self, bucket: str, name: str, content: bytes, marks: Mapping[str, str]) -> None:
        """Write a result once: a request of a killed process that arrives late finds it there."""
        try:
            self._store.put(bucket, name, content, _JSON, marks, only_new=True)
            return
        except NoBucket:
            raise
        except ObjectGone:  # there is an object: ours, or the result of an earlier upload
            present = self._store.head(bucket, name)
        if _is_same(present.metadata, marks):
            return
        try:
            self._store.put(bucket, name, content, _JSON, marks, if_etag=present.etag)
        except ObjectGone as error:
            raise TryAgain(f"s3://{bucket}/{name} is being written by somebody else") from error

    def _is_ours(self, bucket: str, name: str, marks: Mapping[str, str]) -> bool:
        """Whether an interrupted run of the same work made this object already."""
        try:
            return _is_same(self._store.head(bucket, name).metadata, marks)
        except ObjectGone:
            return False

    def _bucket(
        self, bucket: Text | None, about: ObjectRef | None, documents: dict[str, Any]
    ) -> str:
        if bucket is not None:
            return self._allowed.require(names.bucket(bucket.text(documents)))
        if about is None:
            raise Refused("result.write needs a bucket: this event is not about an object")
        return about.bucket

    def _content(
        self, content: Body | None, event: Event, documents: dict[str, Any], answer: Answer
    ) -> bytes:
        """The result object. By default the answer's JSON goes in as it came, digit for digit."""
        if content is not None:
            return _encode(content.build(documents)).encode("utf-8", "replace")
        head: dict[str, Any] = {
            "trigger": self._spec.name,
            "event": {
                name: event.attributes[name]
                for name in ("id", "source", "type", "subject", "time")
                if name in event.attributes
            },
        }
        if "object" in documents:
            head["object"] = {
                name: documents["object"][name]
                for name in ("bucket", "key", "versionId", "etag", "size")
                if documents["object"].get(name) is not None
            }
        body = answer.body if answer.is_json else json.dumps(answer.body.decode("latin-1")).encode()
        prefix = _encode(head).encode("utf-8", "replace")
        return prefix[:-1] + b', "answer": ' + body + b"}"


def _time_marks(event: Event, about: ObjectRef | None) -> dict[str, str]:
    if about is None or not event.source.startswith("seaweedfs:"):
        return {}
    if not about.sequencer or not re.fullmatch(r"[0-9A-Fa-f]{16}", about.sequencer):
        return {}
    marks = {WRITTEN_MARK: str(int(about.sequencer, 16) // 1_000_000_000)}
    if SWEPT_FLOOR in event.attributes:
        marks[SWEPT_MARK] = "true"
    return marks


def _is_same(present: Mapping[str, str], marks: Mapping[str, str]) -> bool:
    """Whether an object was made by this very work, or by a sweep's (or the original's) double of
    it."""
    if present.get(EVENT_MARK) == marks[EVENT_MARK]:
        return True
    swept = SWEPT_MARK in present or SWEPT_MARK in marks
    written = marks.get(WRITTEN_MARK)
    return (
        swept
        and written is not None
        and present.get(WRITTEN_MARK) == written
        and present.get(MADE_BY) == marks[MADE_BY]
    )


def object_documents(event: Event, about: ObjectRef | None, answer: Answer) -> dict[str, Any]:
    """Documents for effects alone, when the object's content is not at hand (resuming, deletes)."""
    result: dict[str, Any] = {"event": dict(event.attributes)}
    if about is not None:
        result["object"] = describe_object(about, None)
    if answer.has_value:
        result["answer"] = answer.value
    return result
