"""S3's error codes become ours by one table; retryable and final are told apart."""

import pytest

from events import objects, s3_errors
from events.errors import EventsError, Forbidden, NoBucket, ObjectGone, Refused, TryAgain
from events.names import AllowList


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
