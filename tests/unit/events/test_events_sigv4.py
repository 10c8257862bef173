"""Our signature is botocore's, for every kind of request a sink makes."""

import datetime

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from events.sigv4 import Credentials, Signer, quote_key

WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize("token", ["", "session/token+=="])
@pytest.mark.parametrize("unsigned", [{}, {"If-Match": '"e"'}, {"If-None-Match": "*"}])
@pytest.mark.parametrize(
    ("method", "key", "query", "headers", "body"),
    [
        ("GET", "plain", "", {}, b""),
        ("GET", "this im + age blah.txt", "", {}, b""),
        ("GET", "ü/€😀.png", "versionId=a.b_c-d~", {}, b""),
        ("HEAD", "a/b:c.log", "", {}, b""),
        ("PUT", "%41", "", {"Content-Type": "text/x; a=b"}, b"body"),
        ("PUT", "a'b\"c&d=e?f#g", "", {"x-amz-meta-b": "two  blanks", "x-amz-meta-a": "1"}, b"\0"),
        ("PUT", "..//./x", "", {"Content-Type": "application/json"}, b"{}"),
    ],
)
def test_as_botocore_signs(
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    unsigned: dict[str, str],
    method: str,
    key: str,
    query: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    """Conditions are left unsigned, which SigV4 allows; everything else is signed as botocore
    does."""
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: WHEN)
    path = f"/bucket/{quote_key(key)}"
    url = f"http://s3.local:8333{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
    theirs = BotoCredentials("AKID", "secret", token or None)
    auth.S3SigV4Auth(theirs, "s3", "eu-x").add_auth(request)
    credentials = Credentials("AKID", "secret", token)
    ours = Signer("eu-x").sign(
        method,
        "s3.local:8333",
        path,
        query,
        {**headers, **unsigned},
        body,
        credentials,
        WHEN.timestamp(),
    )
    assert ours["Authorization"] == request.headers["Authorization"]
    assert ours["x-amz-content-sha256"] == request.headers["X-Amz-Content-SHA256"]
    assert {name: ours[name] for name in unsigned} == unsigned


def test_the_derived_key_follows_day_and_secret() -> None:
    signer = Signer("eu-x")
    seen = {
        signer.sign("GET", "h", "/b/k", "", {}, b"", Credentials("A", secret), now)["Authorization"]
        for secret in ("one", "two")
        for now in (0.0, 86400.0)
    }
    assert len(seen) == 4


def test_secrets_do_not_show() -> None:
    assert "hidden" not in repr(Credentials("A", "hidden", "hidden"))
