"""S3's error codes become ours by one table; retryable and final are told apart."""

from typing import Any, cast

import pytest

from events import objects, s3_errors
from events.errors import EventsError, Forbidden, NoBucket, ObjectGone, Refused, TryAgain
from events.http import Answer, Client
from events.names import AllowList
from events.sigv4 import Credentials


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NoSuchKey", ObjectGone),
        ("NoSuchVersion", ObjectGone),
        ("NoSuchBucket", NoBucket),
        ("404", ObjectGone),
        ("PreconditionFailed", ObjectGone),
        ("412", ObjectGone),
        ("AccessDenied", Forbidden),
        ("403", Forbidden),
        ("SignatureDoesNotMatch", Forbidden),
        ("InvalidAccessKeyId", Forbidden),
        ("ExpiredToken", TryAgain),
        ("RequestTimeTooSkewed", TryAgain),
        ("SlowDown", TryAgain),
        ("InternalError", TryAgain),
        ("503", TryAgain),
        ("", TryAgain),
        ("EntityTooLarge", Refused),
        ("InvalidTag", Refused),
        ("BadRequest", Refused),
        ("XMinioInvalidObjectName", Refused),
        ("PermanentRedirect", Refused),
    ],
)
def test_error_codes(code: str, kind: type[EventsError]) -> None:
    error = s3_errors.translate({"Error": {"Code": code}}, "text", "bucket")
    assert type(error) is kind
    assert code in str(error) or "text" in str(error) or "no bucket 'bucket'" in str(error)


def test_every_error_tells_the_broker_whether_to_come_back() -> None:
    """Knative retries 404, 408, 409, 429 and 5xx: a final failure must have none of these."""
    from events import delivery

    pending: list[type[EventsError]] = [EventsError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        retried = delivery.classify(kind.status) is delivery.Verdict.RETRY
        if issubclass(kind, TryAgain):
            assert retried, kind
        elif issubclass(kind, Refused) or kind.__name__ in ("InvalidEvent", "UnsupportedMedia"):
            assert not retried, kind


@pytest.mark.parametrize(
    ("code", "kind"), [("ExpiredToken", TryAgain), ("AccessDenied", Forbidden), ("", Forbidden)]
)
def test_why_a_head_was_refused_is_asked(code: str, kind: type[EventsError]) -> None:
    """Metadata is all some triggers look at, and an answer to a HEAD has no body."""

    class Denying:
        def request(self, method: str, *rest: Any, **limits: Any) -> Answer:
            if method == "HEAD":
                return Answer(403, {}, b"")
            if not code:  # reading is allowed
                return Answer(206, {}, b"x")
            return Answer(403, {}, f"<Error><Code>{code}</Code></Error>".encode())

    store = objects.ObjectStore(
        AllowList(["mine"]),
        endpoint_url="http://s3",
        client=cast("Client", Denying()),
        credentials=Credentials("a", "b"),
    )
    with pytest.raises(kind) as caught:
        store.head("mine", "k")
    assert type(caught.value) is kind


def test_a_url_cannot_be_signed_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nowhere")
    store = objects.ObjectStore(AllowList(["mine"]), endpoint_url="http://127.0.0.1:9")
    with pytest.raises(TryAgain, match="credentials"):
        store.presign("mine", "k", None, 1)


@pytest.mark.parametrize("operation", ["get", "head", "put", "delete", "presign", "listing"])
def test_nothing_leaves_the_allow_list(operation: str) -> None:
    store = objects.ObjectStore(AllowList(["mine"]), endpoint_url="http://127.0.0.1:9")
    calls = {
        "get": lambda: store.get("other", "k"),
        "head": lambda: store.head("other", "k"),
        "put": lambda: store.put("other", "k", b"", "x/y"),
        "delete": lambda: store.delete("other", "k"),
        "presign": lambda: store.presign("other", "k", None, 1),
        "listing": lambda: list(store.listing("other", "")),
    }
    with pytest.raises(Forbidden):
        calls[operation]()
