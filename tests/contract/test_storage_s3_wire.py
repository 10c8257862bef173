"""S3 behaviour that SeaweedFS does not show: AWS's wire as documented, on a scripted server."""

import base64
import hashlib
import json
import random
import subprocess
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.contract.test_storage_providers import Answer, Scripted, scripted
from tests.fakes_storage import initialize, tree

DATA = random.Random(11).randbytes(400_000)
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "very-secret"}


def bucket(
    objects: Mapping[str, bytes],
    *,
    headers: Mapping[str, str] | None = None,
    etag: Callable[[bytes], str] = lambda data: hashlib.md5(data).hexdigest(),
) -> Callable[..., Answer]:
    """Path-style bucket `bkt`, two keys a page."""

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        key = urllib.parse.unquote(parts.path).removeprefix("/bkt/")
        if query.get("list-type") == "2":
            names = sorted(name for name in objects if name.startswith(query.get("prefix", "")))
            at = int(query.get("continuation-token") or 0)
            rows = "".join(
                f"<Contents><Key>{urllib.parse.quote(name)}</Key><Size>{len(objects[name])}</Size>"
                f"<ETag>&quot;{etag(objects[name])}&quot;</ETag></Contents>"
                for name in names[at : at + 2]
            )
            more = at + 2 < len(names)
            token = f"<NextContinuationToken>{at + 2}</NextContinuationToken>" if more else ""
            xml = (
                f"<ListBucketResult><EncodingType>url</EncodingType>{rows}{token}"
                f"<IsTruncated>{str(more).lower()}</IsTruncated></ListBucketResult>"
            )
            return 200, {"Content-Type": "application/xml"}, xml.encode()
        if key not in objects:
            return 404, {}, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
        found = {"ETag": f'"{etag(objects[key])}"', **(headers or {})}
        return 200, found, objects[key]

    return answer


def environ(server: Scripted, **extra: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": server.url, "STORAGE_PART_BYTES": "128Ki", **KEYS, **extra}


def message(done: "subprocess.CompletedProcess[str]") -> str:
    return str(json.loads(done.stderr.strip().splitlines()[-1])["message"])


def test_listings_go_on_over_pages_and_keep_odd_keys(tmp_path: Path) -> None:
    objects = {f"m/{n}": n.encode() for n in ("a b", "c+d", "ü/é", "e&f<g>", "h%41", "i", "dir/")}
    objects["m/dir/"] = b""
    with scripted(bucket(objects)) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server))
    assert done.returncode == 0, done.stderr
    want = {key.removeprefix("m/"): data for key, data in objects.items() if data}
    assert tree(tmp_path / "m") == want
    assert (tmp_path / "m" / "dir").is_dir()


@pytest.mark.parametrize("key", ["m/../../evil", "m/a/../../b", "m//etc/x"])
def test_keys_cannot_leave_the_destination(tmp_path: Path, key: str) -> None:
    with scripted(bucket({key: b"x"})) as server:
        done = initialize("s3://bkt/m", tmp_path / "d" / "m", environ=environ(server))
    if ".." in key:
        assert done.returncode == 1
        assert "leads out" in message(done)
    assert {path.name for path in tmp_path.iterdir()} <= {"d"}


@pytest.mark.parametrize("path", ["m", "/m", "m/", "m//"])
def test_slashes_too_many_do_not_matter(tmp_path: Path, path: str) -> None:
    with scripted(bucket({"m/a/b": b"x", "m//c": b"y", "m-old/d": b"z"})) as server:
        done = initialize(f"s3://bkt/{path}", tmp_path / "m", environ=environ(server))
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"a/b": b"x", "c": b"y"}


def test_a_listing_that_ignores_the_prefix_is_refused(tmp_path: Path) -> None:
    with scripted(bucket({"other/a": b"x"})) as server:
        good = server.answer
        server.answer = lambda method, path, *rest: good(method, path.split("&prefix")[0], *rest)
        done = initialize("s3://bkt/m/", tmp_path / "m", environ=environ(server))
    assert done.returncode == 1
    assert "not below 'm/'" in message(done)


def test_a_file_and_a_directory_of_one_name_clash(tmp_path: Path) -> None:
    with scripted(bucket({"m/a": b"x", "m/a/b": b"y"})) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server))
    assert done.returncode == 1
    assert "both a file and a directory" in message(done)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({}, False),
        ({"x-amz-server-side-encryption": "AES256"}, False),
        ({"x-amz-server-side-encryption": "aws:kms"}, True),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, True),
    ],
)
@pytest.mark.parametrize("size", [1000, 400_000], ids=["small", "ranges"])
def test_an_etag_is_an_md5_unless_the_object_is_encrypted(
    tmp_path: Path, headers: dict[str, str], good: bool, size: int
) -> None:
    wrong = bucket({"m": DATA[:size]}, headers=headers, etag=lambda _: "0" * 32)
    with scripted(wrong) as server:
        extra = {"STORAGE_PART_BYTES": "64Ki"}
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server, **extra))
    assert (done.returncode == 0) is good, done.stderr
    if not good:
        assert "md5 is" in message(done)
        assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("size", [1000, 400_000], ids=["small", "ranges"])
def test_a_checksum_header_is_verified(tmp_path: Path, size: int) -> None:
    data = DATA[:size]
    for value, good in ((zlib.crc32(data), True), (1, False)):
        text = base64.b64encode(value.to_bytes(4)).decode()
        wire = bucket({"m": data}, headers={"x-amz-checksum-crc32": text}, etag=lambda _: "x-2")
        with scripted(wire) as server:
            place = tmp_path / str(good)
            done = initialize("s3://bkt/m", place, environ=environ(server))
        assert (done.returncode == 0) is good, done.stderr


def test_another_region_is_followed(tmp_path: Path) -> None:
    inner = bucket({"m": DATA})

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        if "/eu-west-1/s3/" not in sent.get("authorization", ""):
            error = b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>x</Message></Error>"
            return 400, {"x-amz-bucket-region": "eu-west-1"}, error
        return inner(method, path, sent, body)

    with scripted(answer) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server))
    assert done.returncode == 0, done.stderr


def test_the_servers_clock_is_learnt(tmp_path: Path) -> None:
    inner, calls = bucket({"m": DATA[:10]}), []

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        calls.append(sent["x-amz-date"])
        if not sent["x-amz-date"].startswith("2040"):
            error = b"<Error><Code>RequestTimeTooSkewed</Code><Message>x</Message></Error>"
            head = {"Date": "Sun, 01 Jan 2040 00:00:00 GMT"}
            return 403, head, error if method == "GET" else b""
        return inner(method, path, sent, body)

    with scripted(answer) as server:
        done = initialize("s3://bkt/m/", tmp_path / "m", environ=environ(server))
    assert "nothing below" in message(done)  # the listing was understood after one correction
    assert calls[1].startswith("2040")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "InvalidAccessKeyId", "access denied"),
        (403, "InvalidObjectState", "restore it first"),
        (403, "AccessDenied", "s3:GetObject"),
        (404, "NoSuchBucket", "bucket 'bkt' does not exist"),
    ],
)
def test_refusals_say_what_to_do(tmp_path: Path, status: int, code: str, said: str) -> None:
    error = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
    with scripted(lambda *_: (status, {}, error)) as server:
        done = initialize("s3://bkt/m/", tmp_path / "m", environ=environ(server))
    assert done.returncode == 1
    assert said in message(done)
    assert "very-secret" not in done.stderr


def test_slow_down_is_waited_for(tmp_path: Path) -> None:
    inner, left = bucket({"m/a": b"1", "m/b": b"2"}), [6]

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET" and left[0]:
            left[0] -= 1
            error = b"<Error><Code>SlowDown</Code><Message>Reduce</Message></Error>"
            return 503, {}, error
        return inner(method, path, sent, body)

    with scripted(answer) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["retries"] >= 1


def test_requester_pays_session_tokens_and_anonymous(tmp_path: Path) -> None:
    seen: list[Mapping[str, str]] = []
    inner = bucket({"m": b"x"})

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        seen.append(sent)
        return inner(method, path, sent, body)

    with scripted(answer) as server:
        extra = {"S3_REQUESTER_PAYS": "true", "AWS_SESSION_TOKEN": "tok"}
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server, **extra))
        assert done.returncode == 0, done.stderr
        assert {sent["x-amz-request-payer"] for sent in seen} == {"requester"}
        assert {sent["x-amz-security-token"] for sent in seen} == {"tok"}
        assert all("x-amz-request-payer" in sent["authorization"] for sent in seen)
        seen.clear()
        extra = {"awsAnonymousCredential": "true"}
        done = initialize("s3://bkt/m", tmp_path / "n", environ=environ(server, **extra))
        assert done.returncode == 0, done.stderr
        assert not any("authorization" in sent for sent in seen)


def test_virtual_hosts(tmp_path: Path) -> None:
    hosts: set[str] = set()
    inner = bucket({"m": b"x"})

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        hosts.add(sent["host"])
        return inner(method, path.replace("http://bkt.models.test/", "/bkt/"), sent, body)

    with scripted(answer) as server:
        extra = {
            "AWS_ENDPOINT_URL": "http://models.test", "S3_USER_VIRTUAL_BUCKET": "true",
            "http_proxy": server.url,
        }  # fmt: skip
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server, **extra))
    assert done.returncode == 0, done.stderr
    assert hosts == {"bkt.models.test"}


def test_a_role_comes_from_botocores_chain(tmp_path: Path) -> None:
    """A profile with `credential_process`: the chain, not the environment, gives the keys."""
    seen: set[str] = set()
    inner = bucket({"m": b"x"})

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        seen.add(sent.get("authorization", "").partition("/")[0])
        return inner(method, path, sent, body)

    keys = {"Version": 1, "AccessKeyId": "ROLEKEY", "SecretAccessKey": "s", "SessionToken": "t"}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    (tmp_path / "config").write_text(
        f"[profile team]\nregion = eu-west-1\ncredential_process = cat {tmp_path}/keys.json\n"
    )
    with scripted(answer) as server:
        env = {
            "AWS_ENDPOINT_URL": server.url, "AWS_PROFILE": "team",
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
        }  # fmt: skip
        done = initialize("s3://bkt/m", tmp_path / "m", environ=env)
    assert done.returncode == 0, done.stderr
    assert seen == {"AWS4-HMAC-SHA256 Credential=ROLEKEY"}


def test_a_web_identity_is_exchanged_for_keys(tmp_path: Path) -> None:
    """IRSA: a projected token, a role, and STS, all through botocore."""
    (tmp_path / "token").write_text("projected-token")
    seen: set[str] = set()
    inner = bucket({"m": b"x"})

    def sts(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        form = urllib.parse.parse_qs(body.decode())
        assert form["WebIdentityToken"] == ["projected-token"]
        keys = (
            "<AccessKeyId>IRSAKEY</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            "<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
        )
        xml = (
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>"
            f"<Credentials>{keys}</Credentials>"
            "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )
        return 200, {"Content-Type": "text/xml"}, xml.encode()

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        seen.add(sent.get("authorization", "").partition("/")[0])
        return inner(method, path, sent, body)

    with scripted(answer) as server, scripted(sts) as tokens:
        env = {
            "AWS_ENDPOINT_URL_S3": server.url, "AWS_ENDPOINT_URL_STS": tokens.url,
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        }  # fmt: skip
        done = initialize("s3://bkt/m", tmp_path / "m", environ=env)
    assert done.returncode == 0, done.stderr
    assert seen == {"AWS4-HMAC-SHA256 Credential=IRSAKEY"}


@pytest.mark.parametrize(
    ("token", "sts", "cause"),
    [
        (False, "http://127.0.0.1:1", "is mounted"),
        (True, "http://127.0.0.1:1", "the credentials cannot be fetched"),
    ],
)
def test_why_a_role_gives_no_credentials(token: bool, sts: str, cause: str, tmp_path: Path) -> None:
    """One line, without the SDK's traceback, and nothing about the destination."""
    if token:
        (tmp_path / "token").write_text("projected-token")
    env = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS": sts,
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_MAX_ATTEMPTS": "1",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "STORAGE_ATTEMPTS": "2",
    }  # fmt: skip
    done = initialize("s3://bkt/m", tmp_path / "m", environ=env)
    assert done.returncode == 1
    assert cause in message(done)
    assert "destination" not in message(done)
    assert "Traceback" not in done.stderr


def test_kserves_storage_spec(tmp_path: Path) -> None:
    with scripted(bucket({"models/m": b"x"})) as server:
        spec = {
            "type": "s3", "bucket": "other", "access_key_id": "a", "secret_access_key": "b",
            "endpoint_url": server.url, "verify_ssl": False,
        }  # fmt: skip
        env = {"STORAGE_CONFIG": json.dumps(spec), "STORAGE_OVERRIDE_CONFIG": '{"bucket": "bkt"}'}
        done = initialize("<scheme-placeholder>://models/m", tmp_path / "m", environ=env)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "m") == {"m": b"x"}
    done = initialize("s3://bkt/m", tmp_path / "n", environ={"STORAGE_CONFIG": "{secret"})
    assert done.returncode == 2
    assert "secret" not in done.stderr.replace("its value is secret", "")


def multipart(
    part: int, value: str, sizes: Callable[[int], int] | None = None
) -> Callable[..., Answer]:
    """An object uploaded in parts of `part` bytes, with ranges, and `value` as its checksum."""
    data = random.Random(12).randbytes(3 << 20)
    count = -(-len(data) // part)

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
        headers = {
            "ETag": f'"{"0" * 32}-{count}"',
            "x-amz-checksum-type": "COMPOSITE",
            "x-amz-checksum-crc32": f"{value}-{count}",
        }
        if number := int(query.get("partNumber", 0)):
            start = (number - 1) * part
            length = sizes(number) if sizes else min(part, len(data) - start)
            return 206, {**headers, "Content-Range": "x"}, bytes(length)
        if span := sent.get("range"):
            first, last = map(int, span.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return 206, headers, data[first : last + 1]
        return 200, headers, data

    return answer


def composite(part: int) -> str:
    data = random.Random(12).randbytes(3 << 20)
    crcs = [zlib.crc32(data[at : at + part]) for at in range(0, len(data), part)]
    whole = zlib.crc32(b"".join(crc.to_bytes(4, "big") for crc in crcs))
    return base64.b64encode(whole.to_bytes(4, "big")).decode()


@pytest.mark.parametrize("part", [1 << 20, 700_000], ids=["guessed", "odd"])
@pytest.mark.parametrize("parts", ["256Ki", "64Mi"], ids=["ranges", "whole"])
@pytest.mark.parametrize("good", [True, False])
def test_the_checksum_of_a_multipart_upload_is_verified(
    tmp_path: Path, part: int, parts: str, good: bool
) -> None:
    """However the ranges lie to the uploaded parts, and in one stream as well."""
    value = composite(part) if good else "AAAAAA=="
    with scripted(multipart(part, value)) as server:
        extra = {"STORAGE_PART_BYTES": parts}
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server, **extra))
    assert done.returncode == (0 if good else 1), done.stderr
    if not good:
        assert "the source says 00000000-" in message(done)
        assert not (tmp_path / "m").exists()


def test_the_checksum_is_asked_for_while_the_bytes_come(tmp_path: Path) -> None:
    """Nothing is left to ask for at the end: the last range comes only after the last question."""
    whole, asked, waited = multipart(1 << 20, composite(1 << 20)), threading.Event(), []

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        if "partNumber=3" in path:
            asked.set()
        if sent.get("range", "").endswith(f"-{(3 << 20) - 1}"):
            waited.append(asked.wait(20))
        return whole(method, path, sent, body)

    with scripted(answer) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server))
    assert done.returncode == 0, done.stderr
    assert waited == [True]


@pytest.mark.parametrize("often", [1, 9], ids=["once", "always"])
def test_a_checksum_that_is_refused_early_is_asked_for_again(tmp_path: Path, often: int) -> None:
    whole, heads = multipart(1 << 20, composite(1 << 20)), []

    def answer(method: str, path: str, sent: Mapping[str, str], body: bytes) -> Answer:
        if method == "HEAD" and "?" not in path:
            heads.append(path)  # the first one finds the object
            if 1 < len(heads) <= 1 + often:
                return 403, {}, b""
        return whole(method, path, sent, body)

    with scripted(answer) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server))
    assert len(heads) == 3
    assert done.returncode == (0 if often == 1 else 1), done.stderr
    assert often == 1 or "s3:GetObject" in message(done)


def test_parts_of_different_sizes_are_no_reason_to_refuse(tmp_path: Path) -> None:
    """Where the parts are not alike, their checksum says nothing that can be computed here."""
    strange = multipart(1 << 20, "AAAAAA==", sizes=lambda number: (1 << 20) - number)
    with scripted(strange) as server:
        done = initialize("s3://bkt/m", tmp_path / "m", environ=environ(server))
    assert done.returncode == 0, done.stderr
