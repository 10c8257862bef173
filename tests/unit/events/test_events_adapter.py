"""The adapter's decisions: who may post, what is passed on, when a producer is told yes."""

import base64
import datetime
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from events.adapter import Adapter, Answer, Credentials, RateLimit
from events.errors import DeliveryFailed, Refused
from events.event import Event
from events.sender import Sender
from events.sources.sns_signature import Verifier, signed_text
from tests import fakes_events as shapes

JSON = {"content-type": "application/json"}


class FakeSender:
    """Takes events, or fails as told after so many."""

    def __init__(self, error: Exception | None = None, after: int = 0) -> None:
        self.events: list[Event] = []
        self._error = error
        self._after = after

    def send(self, event: Event) -> int:
        if self._error and len(self.events) >= self._after:
            raise self._error
        self.events.append(event)
        return 202


def adapter(sender: FakeSender, **options: Any) -> Adapter:
    options.setdefault("verifier", Verifier(enabled=False))
    return Adapter(cast("Sender", sender), **options)


def post(target: Adapter, body: Any) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return target.handle(JSON, raw)


def test_taken_means_the_sink_has_it() -> None:
    sender = FakeSender()
    assert post(adapter(sender), shapes.records()).status == 204
    assert [event.subject for event in sender.events] == [shapes.KEY]


@pytest.mark.parametrize(
    ("error", "status"),
    [(DeliveryFailed("busy", retry_after_s=7), 503), (Refused("the sink answered 400"), 422)],
)
def test_not_taken_is_not_acknowledged(error: Exception, status: int) -> None:
    answer = post(adapter(FakeSender(error)), shapes.records())
    assert answer.status == status
    assert answer.headers.get("Retry-After") == ("7" if status == 503 else None)


def test_a_notification_half_taken_is_not_acknowledged() -> None:
    sender = FakeSender(DeliveryFailed("busy"), after=1)
    body = shapes.records(shapes.aws_record("a"), shapes.aws_record("b"))
    assert post(adapter(sender), body).status == 503
    assert len(sender.events) == 1


def test_an_event_the_sink_refuses_keeps_no_other_from_going_out() -> None:
    class Picky(FakeSender):
        def send(self, event: Event) -> int:
            if event.subject == "b":
                raise Refused("the sink answered 400")
            return super().send(event)

    sender = Picky()
    target = adapter(sender)
    answer = post(target, shapes.records(*(shapes.aws_record(key) for key in "abc")))
    assert [event.subject for event in sender.events] == ["a", "c"]
    assert (answer.status, answer.error) == (422, "the sink answered 400")
    assert 'events_total{kind="refused"} 1' in target.metrics.text()


def test_of_a_batch_the_valid_events_go_out_and_the_sender_hears() -> None:
    sender = FakeSender()
    good = {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}
    batch = [good, {**good, "id": ""}, 7, {**good, "id": "2"}]
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    answer = adapter(sender).handle(headers, json.dumps(batch).encode())
    assert [event.id for event in sender.events] == ["1", "2"]
    assert answer.status == 400
    assert "batch[1]" in answer.error
    assert "batch[2]" in answer.error
    assert adapter(sender).handle(headers, b"[]").status == 204
    assert adapter(sender).handle(headers, b"[{}]").status == 400


def test_of_a_notification_with_a_bad_record_the_good_ones_go_out_and_the_sender_hears() -> None:
    sender = FakeSender()
    answer = post(
        adapter(sender), shapes.records(shapes.aws_record("a"), {}, shapes.aws_record("b"))
    )
    assert [event.subject for event in sender.events] == ["a", "b"]
    assert answer.status == 400
    assert "Records[1]" in answer.error


def test_a_partition_key_is_the_objects_own() -> None:
    sender = FakeSender()
    body = shapes.records(*(shapes.aws_record(key) for key in ("a", "b", "a")))
    assert post(adapter(sender, partition_by_object=True), body).status == 204
    first, second, third = (event.attributes["partitionkey"] for event in sender.events)
    assert first == third != second


def test_test_messages_and_directories_are_acknowledged() -> None:
    sender = FakeSender()
    for body in (shapes.TEST_EVENT, shapes.SEAWEED_DIRECTORY):
        assert post(adapter(sender), body).status == 204
    assert sender.events == []


def test_rubbish_is_400() -> None:
    assert post(adapter(FakeSender()), b"{").status == 400


@pytest.mark.parametrize(
    ("credentials", "authorization", "token", "accepted"),
    [
        (Credentials(), "", "", True),
        (Credentials(token="t"), "Bearer t", "", True),
        (Credentials(token="t"), "bearer t", "", True),
        (Credentials(token="t"), "", "t", True),
        (Credentials(token="t"), "", "", False),
        (Credentials(token="t"), "Bearer u", "", False),
        (Credentials(token="two words"), "two words", "", True),
        (
            Credentials(user="u", password="p"),
            "Basic " + base64.b64encode(b"u:p").decode(),
            "",
            True,
        ),
        (
            Credentials(user="u", password="p"),
            "Basic " + base64.b64encode(b"u:q").decode(),
            "",
            False,
        ),
        (Credentials(user="u", password="p"), "Basic !!!", "", False),
        (Credentials(token="t", user="u", password="p"), "Bearer t", "", True),
        (Credentials(token="ü"), "Bearer ü", "", True),
    ],
)
def test_who_may_post(
    credentials: Credentials, authorization: str, token: str, accepted: bool
) -> None:
    refusal = adapter(FakeSender(), credentials=credentials).refusal(authorization, token)
    assert (refusal is None) is accepted
    assert accepted or (refusal is not None and refusal.status == 401)


def test_secrets_are_not_in_reprs() -> None:
    assert "hidden" not in repr(Credentials(token="hidden", user="u", password="hidden"))


def test_the_rate_limit_lets_a_second_of_burst_through() -> None:
    now = [0.0]
    target = adapter(FakeSender(), rate=RateLimit(2, clock=lambda: now[0]))
    statuses = [target.refusal("", "") is None for _ in range(3)]
    assert statuses == [True, True, False]
    now[0] += 0.5
    assert target.refusal("", "") is None
    refusal = target.refusal("", "")
    assert refusal is not None
    assert (refusal.status, refusal.headers["Retry-After"]) == (429, "1")


def test_only_buckets_on_the_list() -> None:
    sender = FakeSender()
    target = adapter(sender, buckets=frozenset({"mnist"}))
    other = shapes.aws_record()
    other["s3"]["bucket"]["name"] = "other"
    assert post(target, shapes.records(other)).status == 403
    assert post(target, shapes.records(other, shapes.aws_record())).status == 204
    assert len(sender.events) == 1
    assert (
        target.handle(
            {"ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0"}, b""
        ).status
        == 403
    )


# --- SNS ------------------------------------------------------------------------------------------
CERT_URL = "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-1.pem"


@pytest.fixture(scope="module")
def signer() -> tuple[rsa.RSAPrivateKey, bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return key, certificate.public_bytes(serialization.Encoding.PEM)


def sign(message: dict[str, Any], key: rsa.RSAPrivateKey) -> dict[str, Any]:
    algorithm = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()
    signature = key.sign(signed_text(message), padding.PKCS1v15(), algorithm)
    return {**message, "Signature": base64.b64encode(signature).decode()}


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda m: m, 204),
        (lambda m: {**m, "Message": json.dumps(shapes.records(shapes.aws_record("evil")))}, 403),
        (lambda m: {**m, "Signature": "AAAA"}, 403),
        (lambda m: {**m, "Signature": "!"}, 403),
        (lambda m: {**m, "SignatureVersion": "3"}, 403),
        (
            lambda m: {**m, "SigningCertURL": "https://sns.us-west-2.amazonaws.com.evil.com/c.pem"},
            403,
        ),
        (lambda m: {**m, "SigningCertURL": "http://sns.us-west-2.amazonaws.com/c.pem"}, 403),
        # A bucket called "sns" at one of S3's own addresses.
        (lambda m: {**m, "SigningCertURL": "https://sns.s3-us-west-2.amazonaws.com/c.pem"}, 403),
        (lambda m: {**m, "SigningCertURL": "https://sns.s3.us-west-2.amazonaws.com/c.pem"}, 403),
        (lambda m: {**m, "SigningCertURL": "https://sns.us-west-2.amazonaws.com/?x=y"}, 403),
        (lambda m: {**m, "SigningCertURL": "https://sns.us-west-2.amazonaws.com:x/c.pem"}, 403),
        (lambda m: {**m, "SigningCertURL": "https://["}, 403),
        (lambda m: {**m, "SigningCertURL": None}, 403),
        (lambda m: {**m, "SigningCertURL": CERT_URL.replace("us-west-2", "us-gov-east-1")}, 204),
        (lambda m: {**m, "SigningCertURL": "https://evil@evil.com/c.pem"}, 403),
        (lambda m: {**m, "TopicArn": "arn:aws:sns:us-west-2:1:Other"}, 403),
    ],
)
def test_sns_signatures(
    signer: tuple[rsa.RSAPrivateKey, bytes],
    version: str,
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
    status: int,
) -> None:
    key, certificate = signer
    message = shapes.sns(shapes.records(), SignatureVersion=version, SigningCertURL=CERT_URL)
    topics = frozenset({message["TopicArn"]})
    verifier = Verifier(enabled=True, topics=topics, fetch=lambda url: certificate)
    target = adapter(FakeSender(), verifier=verifier)
    assert post(target, spoil(sign(message, key))).status == status


def test_a_subscription_is_confirmed_once_its_signature_is_good(
    signer: tuple[rsa.RSAPrivateKey, bytes],
) -> None:
    key, certificate = signer
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return certificate

    url = "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&Token=t"
    message = shapes.sns(
        "please",
        Type="SubscriptionConfirmation",
        SubscribeURL=url,
        Token="t",
        SigningCertURL=CERT_URL,
    )
    target = adapter(FakeSender(), verifier=Verifier(enabled=True, fetch=fetch))
    assert post(target, sign(message, key)).status == 204
    assert fetched == [CERT_URL, url]
    elsewhere = {**message, "SubscribeURL": "https://evil.example/confirm"}
    assert post(target, sign(elsewhere, key)).status == 403
    assert fetched == [CERT_URL, url]


@pytest.mark.parametrize(("status", "taken"), [(200, True), (403, False), (500, False)])
def test_what_sns_does_not_give_is_no_certificate(status: int, taken: bool) -> None:
    from events import adapter_app
    from events.http import Answer as HttpAnswer

    class Fetcher:
        def get(self, url: str, timeout_s: float) -> HttpAnswer:
            return HttpAnswer(status, {}, b"pem")

    client = cast("Any", Fetcher())
    if taken:
        assert adapter_app._fetched(client, "https://x/") == b"pem"
        return
    with pytest.raises(DeliveryFailed, match=str(status)):
        adapter_app._fetched(client, "https://x/")
