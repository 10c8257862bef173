"""URIs, settings, checksums, signatures, retries: no sockets, no sleep."""

import base64
import hashlib
import hmac
import json
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_initializer import destinations, digest, parts, redaction, retry, sha256, uri
from storage_initializer.errors import (
    Corrupt,
    DestinationError,
    InvalidSettings,
    InvalidUri,
    Relocated,
    StorageError,
    Throttled,
    TransferFailed,
    UnsafePath,
)
from storage_initializer.items import Filter, safe_path
from storage_initializer.providers import azure, git, hf, oci, s3, s3_sign, s3_xml
from storage_initializer.settings import MIB, Settings, parse_size


@pytest.mark.parametrize(
    ("text", "provider", "authority", "path"),
    [
        ("s3://bucket/a/b", "s3", "bucket", "a/b"),
        ("s3://bucket/a?b#c", "s3", "bucket", "a?b#c"),
        ("s3://bucket", "s3", "bucket", ""),
        ("gs://bucket/a", "gcs", "bucket", "a"),
        ("https://acct.blob.core.windows.net/c/p", "azure", "acct.blob.core.windows.net", "c/p"),
        ("https://a.z12.blob.storage.azure.net/c", "azure", "a.z12.blob.storage.azure.net", "c"),
        ("https://a.file.core.windows.net/s/p", "azure_files", "a.file.core.windows.net", "s/p"),
        ("abfss://c@a.dfs.core.windows.net/p", "azure", "c@a.dfs.core.windows.net", "p"),
        ("https://host/x.tar.gz", "http", "host", "x.tar.gz"),
        ("https://host/team/repo.git", "git", "host", "team/repo.git"),
        ("git+https://host/repo@v1", "git", "host", "repo@v1"),
        ("hf://org/model:main", "hf", "org", "model:main"),
        ("oci://reg:5000/a/b:v1", "oci", "reg:5000", "a/b:v1"),
        ("pvc://claim/sub", "pvc", "claim", "sub"),
        ("webhdfs://nn:9870/m", "hdfs", "nn:9870", "m"),
        ("file:///a%20b", "local", "", "/a b"),
        ("relative/path", "local", "", "relative/path"),
        ("/abs/path", "local", "", "/abs/path"),
    ],
)
def test_uris_are_classified(text: str, provider: str, authority: str, path: str) -> None:
    parsed = uri.parse(text)
    assert (parsed.provider, parsed.authority, parsed.path) == (provider, authority, path)
    assert uri.check(text) == []


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "empty"),
        (" s3://b/x", "spaces"),
        ("s3://b/x\n", "spaces"),
        ("s3://b/x\x00y", "control"),
        ("ftp://host/x", "unknown scheme"),
        ("s3:/bucket/model", "write s3://"),
        ("file:/models", "write file:///PATH"),
        ("modelscope://owner/model:v1", "hf://owner/model:v1"),
        ("s3:///key", "no bucket name"),
        ("s3://under score/key", "no bucket name"),
        ("https://host", "names a host but no file"),
        ("https://", "nothing after"),
        ("https://host:99999/x", "[Pp]ort"),
        ("file://host/x", "taken for a host"),
        ("hf://org", "hf://owner/model"),
        ("hf://[x/model", "hf://owner/model"),
        ("s3://[x", "no bucket name"),
        ("http://[x/y", "IPv6"),
        ("https://host/x#sha256=12", "64 hexadecimal"),
    ],
)
def test_bad_uris_say_what_to_write(text: str, cause: str) -> None:
    with pytest.raises(InvalidUri, match=cause):
        uri.parse(text)
    assert uri.check(text)[0][0] == ""


def test_every_scheme_has_a_provider_module() -> None:
    directory = Path(uri.__file__).parent / "providers"
    for module in {*uri.PROVIDERS.values(), "azure_files"}:
        assert (directory / f"{module}.py").exists()


def test_secrets_leave_neither_through_text_nor_identity() -> None:
    text = "https://ann:pass@h.blob.core.windows.net/c/p?sv=1&sig=abc%3D"
    assert uri.redact(text) == "https://…@h.blob.core.windows.net/c/p?sv=…&sig=…"
    with pytest.raises(InvalidUri) as refused:
        uri.parse("s3://key:secret@bucket/model")
    assert "secret" not in str(refused.value)
    assert "secret" not in uri.redact("http://ann:secret@[x/y")
    renewed = text.replace("abc", "def").replace("pass", "other")
    assert uri.parse(text).identity == uri.parse(renewed).identity
    assert uri.parse("/a/b").identity == uri.parse("file:///a/b").identity
    assert uri.parse("s3://bkt/a").identity != uri.parse("s3://bkt/a2").identity


@pytest.mark.parametrize(
    ("mirrors", "text", "expected"),
    [
        ("s3://b/=file:///m", "s3://b/x/y.mar", "file:///m/x/y.mar"),
        ("s3://b=file:///m", "s3://b/x", "file:///m/x"),
        ("s3://b/model=s3://c/n", "s3://b/model-old/x", "s3://b/model-old/x"),
        ("s3://b/=file:///m,s3://b/x/=file:///n", "s3://b/x/y", "file:///n/y"),
        ("gs://b/=file:///m", "s3://b/x", "s3://b/x"),
        ("s3://b/x=file:///one", "s3://b/x", "file:///one"),
    ],
)
def test_mirrors_rewrite_whole_prefixes(mirrors: str, text: str, expected: str) -> None:
    settings = Settings.from_env({"STORAGE_MIRRORS": mirrors})
    assert uri.apply_mirrors(text, settings.mirrors) == expected


# --- paths and filters ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/abs", "../x", "a/../../x", "a/..", "", ".", "a\0b", "x" * 256])
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(UnsafePath):
        safe_path("s3://b", path)


@pytest.mark.parametrize(
    ("path", "expected"), [("a//b", "a/b"), ("./a", "a"), ("a/b/", "a/b/"), ("…/ü", "…/ü")]
)
def test_odd_paths_are_normalised(path: str, expected: str) -> None:
    assert safe_path("s3://b", path) == expected


def test_filters_follow_fnmatch_on_the_whole_path() -> None:
    chosen = Filter(allow=("*.bin", "config.json"), ignore=("*/old/*",))
    wanted = [p for p in ("a.bin", "x/y.bin", "x/old/z.bin", "config.json", "x/config.json", "n")
              if chosen.wants(p)]  # fmt: skip
    assert wanted == ["a.bin", "x/y.bin", "config.json"]


# --- settings ------------------------------------------------------------------------------------


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_env({"STORAGE_CONCURRENCY": "0", "STORAGE_PART_BYTES": "1", "LOG_LEVEL": "x"})
    assert [problem.split("=")[0] for problem in caught.value.problems] == [
        "STORAGE_CONCURRENCY", "STORAGE_PART_BYTES", "LOG_LEVEL",
    ]  # fmt: skip


def test_encrypted_models_are_refused_and_not_left_encrypted() -> None:
    with pytest.raises(InvalidSettings, match="CONFIDENTIAL_ENABLED"):
        Settings.from_env({"CONFIDENTIAL_ENABLED": "true"})
    assert Settings.from_env({"CONFIDENTIAL_ENABLED": "false"}).attempts == 8


def test_kserves_number_of_attempts_is_understood() -> None:
    assert Settings.from_env({"S3_MAX_ATTEMPTS": "3"}).attempts == 3
    assert Settings.from_env({"S3_MAX_ATTEMPTS": "3", "STORAGE_ATTEMPTS": "5"}).attempts == 5


def test_kserve_names_are_understood_and_ours_win() -> None:
    environ = {"S3_CONNECT_TIMEOUT": "3", "S3_READ_TIMEOUT": "4", "STORAGE_STALL_SECONDS": "5"}
    settings = Settings.from_env(environ)
    assert (settings.connect_timeout_s, settings.stall_s) == (3, 5)
    patterns = Settings.from_env({"STORAGE_ALLOW_PATTERNS": '["a,b", "c"]'})
    assert patterns.allow_patterns == ("a,b", "c")
    assert Settings.from_env({"STORAGE_IGNORE_PATTERNS": "a, b"}).ignore_patterns == ("a", "b")


def test_secrets_are_not_in_a_repr() -> None:
    settings = Settings.from_env({"AWS_SECRET_ACCESS_KEY": "hush", "http_proxy": "http://u:hush@p"})
    assert "hush" not in repr(settings)
    assert "hush" not in repr(s3_sign.Credentials("id", "hush"))


@pytest.mark.parametrize(
    ("text", "value"), [("512Mi", 512 << 20), ("2Gi", 2 << 30), ("500M", 500_000_000), ("7", 7)]
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


# --- checksums -----------------------------------------------------------------------------------


def test_crcs_of_parts_join_to_the_crc_of_the_whole() -> None:
    rng = random.Random(1)
    for _ in range(50):
        parts = [rng.randbytes(rng.choice((0, 1, 7, 1000, 4096))) for _ in range(5)]
        joined = 0
        for part in parts:
            joined = digest.combine_crc32(joined, zlib.crc32(part), len(part))
        assert joined == zlib.crc32(b"".join(parts))


def test_the_best_known_checksum_is_chosen() -> None:
    assert digest.choose({"md5": "1", "crc32": "2"}, "auto") == ("crc32", "2")
    assert digest.choose({"md5": "1", "sha256": "3"}, "auto") == ("sha256", "3")
    assert digest.choose({"unheard-of": "1"}, "auto") is None
    assert digest.choose({"md5": "1"}, "size") is None
    assert digest.choose({"md5": "1", "sha256": "3"}, "size") == ("sha256", "3")


def test_multipart_etags_whatever_the_pieces() -> None:
    data = random.Random(4).randbytes(2500)
    md5s = b"".join(hashlib.md5(data[at : at + 1000]).digest() for at in (0, 1000, 2000))
    expected = f"{hashlib.md5(md5s).hexdigest()}-3"
    for step in (1, 7, 999, 1000, 1001, 2500):
        hasher = digest.new_for(f"{digest.MD5_OF_PARTS}1000", 0)
        assert hasher is not None
        for at in range(0, len(data), step):
            hasher.update(data[at : at + step])
        assert hasher.hexdigest() == expected
    assert digest.choose({f"{digest.MD5_OF_PARTS}1000": "x", "crc32": "y"}, "full") == (
        "crc32", "y",
    )  # fmt: skip


def test_git_blob_names(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello\n")
    assert digest.of_file(tmp_path / "f", "gitsha1") == "ce013625030ba8dba906f756967f9e9ca394464a"


# --- S3 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "query", "token"),
    [
        ("a/b.bin", {}, ""),
        ("spaces and/ünïcode+plus=eq&amp;", {}, "session-token"),
        ("a//b/./c/../d~e-f_g", {}, ""),
        ("", {"list-type": "2", "prefix": "a b/+&=", "continuation-token": "x/y=="}, "t"),
    ],
)
def test_signatures_equal_botocores(key: str, query: dict[str, str], token: str) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as BotoCredentials

    now = 1_780_000_000.0
    host, path = "bucket.s3.eu-west-1.amazonaws.com", "/" + s3_sign.quote_key(key)
    text = s3_sign.query_string(query)
    signer = s3_sign.Signer("eu-west-1")
    ours = signer.sign(
        "GET", host, path, text, {"x-amz-checksum-mode": "ENABLED"},
        s3_sign.Credentials("AKID", "secret", token), now,
    )  # fmt: skip
    request = AWSRequest("GET", f"https://{host}{path}" + (f"?{text}" if text else ""))
    request.headers["x-amz-checksum-mode"] = "ENABLED"
    request.headers["X-Amz-Content-SHA256"] = s3_sign.EMPTY_SHA256
    request.context["timestamp"] = ours["x-amz-date"]
    reference = S3SigV4Auth(BotoCredentials("AKID", "secret", token or None), "s3", "eu-west-1")
    request.context["payload_signing_enabled"] = True
    if token:
        request.headers["X-Amz-Security-Token"] = token
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    canonical = reference.canonical_request(request)
    signature = reference.signature(reference.string_to_sign(request, canonical), request)
    assert ours["Authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("", True)),
        ({"AWS_ENDPOINT_URL": "http://minio:9000/"}, ("http://minio:9000", True)),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"}, ("http://minio:9000", True)),
        ({"S3_ENDPOINT": "minio:9000"}, ("https://minio:9000", True)),
        ({"AWS_ENDPOINT_URL": "https://s3.amazonaws.com"}, ("", True)),
        ({"AWS_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com/"}, ("", True)),
        (
            {"AWS_ENDPOINT_URL": "https://b.vpce-1a.s3.eu-west-1.vpce.amazonaws.com"},
            ("https://b.vpce-1a.s3.eu-west-1.vpce.amazonaws.com", True),
        ),
        (
            {"AWS_ENDPOINT_URL": "https://s3-fips.us-gov-west-1.amazonaws.com"},
            ("https://s3-fips.us-gov-west-1.amazonaws.com", True),
        ),
        ({"S3_VERIFY_SSL": "0", "AWS_CA_BUNDLE": "/nowhere"}, ("", False)),
        ({"AWS_ENDPOINT_URL": "http://m", "S3_VERIFY_SSL": "0"}, ("http://m", False)),
    ],
)
def test_s3_settings(environ: dict[str, str], expected: tuple[str, bool]) -> None:
    settings = s3.S3Settings.from_env(environ)
    assert (settings.endpoint, settings.tls.verify) == expected
    if "west-1" in environ.get("AWS_ENDPOINT_URL", ""):
        assert settings.amazon
        assert settings.region in ("eu-west-1", "us-gov-west-1")


def test_a_listing_is_parsed_whatever_its_keys() -> None:
    body = b"""<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
    <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
    <NextContinuationToken>t==</NextContinuationToken>
    <Contents><Key>a+b/%C3%BC%26</Key><Size>7</Size><ETag>&quot;x&quot;</ETag></Contents>
    <Contents><Key>c</Key><Size>0</Size></Contents></ListBucketResult>"""
    page = s3_xml.Page.parse(body, "s3://b")
    assert page.objects == [("a b/ü&", 7, '"x"'), ("c", 0, "")]
    assert page.token == "t=="


@pytest.mark.parametrize(
    "body",
    [
        b"not xml",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>",
        b"<L><Contents><Key>a</Key><Size>many</Size></Contents></L>",
    ],
)
def test_a_broken_listing_is_a_transient_error(body: bytes) -> None:
    with pytest.raises(TransferFailed):
        s3_xml.Page.parse(body, "s3://b")


# --- other providers' grammar --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://org/model", ("org/model", "main", "")),
        ("hf://org/model:v1.0", ("org/model", "v1.0", "")),
        ("hf://org/model:abc/onnx", ("org/model", "abc", "onnx")),
    ],
)
def test_hub_uris(text: str, expected: tuple[str, str, str]) -> None:
    assert hf.parse_repository(uri.parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://acct.blob.core.windows.net/c/a/b?sv=1&sig=x",
         ("https://acct.blob.core.windows.net", "acct", "c", "a/b", "sv=1&sig=x")),
        ("abfss://c@acct.dfs.core.windows.net/a%20b",
         ("https://acct.blob.core.windows.net", "acct", "c", "a b", "")),
        ("azure://acct/c/a", ("https://acct.blob.core.windows.net", "acct", "c", "a", "")),
    ],
)  # fmt: skip
def test_azure_uris(text: str, expected: tuple[str, ...]) -> None:
    place = azure.locate(uri.parse(text), {})
    assert (place.endpoint, place.account, place.container, place.path, place.sas) == expected


def test_docker_credentials(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auths": {"reg:5000": {"auth": "dTpw"}}}')
    environ = {"KSERVE_OCI_DOCKER_CONFIG": str(tmp_path / "config.json")}
    assert oci.docker_credentials(environ, "reg:5000") == "dTpw"
    assert oci.docker_credentials(environ, "other") == ""


@pytest.mark.parametrize(
    ("text", "url", "ref", "directory"),
    [
        ("git+https://h/t/repo.git@v1.0", "https://h/t/repo.git", "v1.0", ""),
        ("git+https://h/repo@feature/x#sub/dir", "https://h/repo", "feature/x", "sub/dir"),
        ("https://user:pw@h/repo.git", "https://h/repo.git", "", ""),
    ],
)
def test_git_uris(text: str, url: str, ref: str, directory: str) -> None:
    assert git.locate(uri.parse(text)) == (url, ref, directory)


# --- retries -------------------------------------------------------------------------------------


class Waits(retry.Control):
    def __init__(self, attempts: int) -> None:
        super().__init__(attempts=attempts, back_off_s=1.0, back_off_max_s=4.0)
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_waits_grow_with_jitter_and_end() -> None:
    control = Waits(6)
    policy = retry.Retry(control)
    error = TransferFailed("x", "y")
    for _ in range(5):
        policy.failed(error)
    with pytest.raises(TransferFailed):
        policy.failed(error)
    for waited, step in zip(control.waits, [1, 2, 4, 4, 4], strict=True):
        assert step / 2 <= waited <= step


def test_progress_starts_the_count_again_but_not_for_ever() -> None:
    policy = retry.Retry(Waits(2))
    error = TransferFailed("x", "y")
    for _ in range(2 * retry.TOTAL_ATTEMPTS_FACTOR - 1):
        policy.failed(error, progressed=True)
    with pytest.raises(TransferFailed):
        policy.failed(error, progressed=True)


def test_final_errors_are_raised_at_once_and_relocations_do_not_wait() -> None:
    control = Waits(3)
    policy = retry.Retry(control)
    for _ in range(retry.MAX_RELOCATIONS):
        policy.failed(Relocated("x", "there"))
    assert control.waits == []
    with pytest.raises(Relocated):
        policy.failed(Relocated("x", "there"))
    with pytest.raises(Corrupt):
        retry.Retry(control).failed(Corrupt("x", "md5", "1", "2"))


def test_throttling_holds_everybody_back() -> None:
    control = Waits(3)
    retry.Retry(control).failed(Throttled("x", "429", wait_s=7))
    assert 6.5 < control.waits[0] < 10
    control.gate()
    assert len(control.waits) == 2  # another thread waits too


def test_retry_after_zero_is_not_taken_literally() -> None:
    control = Waits(3)
    retry.Retry(control).failed(Throttled("x", "429", wait_s=0))
    assert control.waits[0] >= 0.45


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [({"retry-after": "3"}, 3, 3), ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 0)],
)
def test_retry_after_in_both_forms(headers: dict[str, str], low: float, high: float) -> None:
    value = retry.retry_after_s(headers)
    assert value is not None
    assert low <= value <= high
    assert retry.retry_after_s({"retry-after": "soon"}) is None


def test_every_error_has_an_exit_code_and_one_line() -> None:
    def below(kind: type[StorageError]) -> set[type[StorageError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    assert {kind.exit_code for kind in below(StorageError)} == {1, 2}
    assert all(kind.__doc__ or kind.__mro__ for kind in below(StorageError))
    assert "\n" not in str(Corrupt("x", "md5", "1", "2"))


def test_identity_of_pinned_content() -> None:
    digest_hex = hashlib.sha256(b"x").hexdigest()
    assert uri.parse(f"s3://bucket/x#sha256={digest_hex}").sha256 == digest_hex


@given(st.binary(max_size=200), st.binary(max_size=300))
def test_sha256_and_its_hmac_are_the_librarys(key: bytes, message: bytes) -> None:
    assert sha256.hexdigest(message) == hashlib.sha256(message).hexdigest()
    assert sha256.hmac(key, message) == hmac.new(key, message, hashlib.sha256).digest()


@pytest.mark.parametrize(
    ("missing", "step", "streams", "want"),
    [
        (range(64), 8 * MIB, 2, [(at, 4) for at in range(0, 60, 4)] + [(60, 2), (62, 1), (63, 1)]),
        (range(7), 8 * MIB, 8, [(index, 1) for index in range(7)]),
        (range(9), 8 * MIB, 4, [(0, 2), *((index, 1) for index in range(2, 9))]),
        (range(20), 64 * MIB, 2, [(index, 1) for index in range(20)]),
        ([0, 1, 4, 5, 6, 9], 16 * MIB, 1, [(0, 2), (4, 2), (6, 1), (9, 1)]),
        ([3], 16 * MIB, 8, [(3, 1)]),
    ],
)
def test_runs_cover_what_is_missing(
    missing: list[int], step: int, streams: int, want: list[tuple[int, int]]
) -> None:
    assert parts.runs(list(missing), step, streams) == want


def test_a_checksum_that_is_no_base64_fits_nothing() -> None:
    assert s3._hex("3q2+7w==") == "deadbeef"
    assert s3._hex("!") == "!"


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "hidden/one"}, "s3://b/m"),
        ({"HF_TOKEN": "hidden/one"}, "hf://a/b"),
        ({"example.com-headers": '{"Authorization": "Token hidden/one"}'}, "https://example.com/m"),
        ({"HEADERS": "X-Key: hidden/one\nX-B: b"}, "webhdfs://n:1/m"),
        (
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=hidden/one;"},
            "azure://a/c",
        ),
        ({"https_proxy": "http://u:hidden%2Fone@proxy:80"}, "s3://b/m"),
        ({}, "https://u:hidden%2Fone@example.com/m"),
        ({}, "https://hidden%2Fone@example.com/m"),
        ({}, "https://example.com/m?sig=hidden%2Fone"),
        ({"GIT_USERNAME": "u", "GIT_PASSWORD": "hidden/one"}, "https://example.com/m.git"),
    ],
)
def test_every_secret_is_known_in_every_form(environ: dict[str, str], source: str) -> None:
    secrets = redaction.secrets_of(environ, [source])
    plain = base64.b64encode(b"hidden/one").decode()
    text = f"a hidden/one b hidden%2Fone c {plain} d Basic dTpoaWRkZW4vb25l e"
    assert redaction.scrub(text, secrets) == "a … b … c … d Basic … e"


def test_names_and_short_values_are_left_readable() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/token",
               "AWS_SECRET_ACCESS_KEY": "abc"}  # fmt: skip
    text = "AKIDEXAMPLE /var/token abcdef"
    assert redaction.scrub(text, redaction.secrets_of(environ, ["s3://b/k"])) == text


@pytest.mark.parametrize("name", ["a?b.bin", "a#b.bin", "a%b.bin"])
def test_file_uris_take_names_as_they_are(name: str) -> None:
    assert uri.parse(f"file:///models/{name}").path == f"/models/{name}"
    assert uri.parse("file:///m%20x").path == "/m x"


def test_a_pattern_that_is_a_directory_means_what_is_in_it() -> None:
    chosen = Filter(("1/",), ("1/old/",))
    wanted = ["1/a", "1/b/c", "1/old/a", "2/a", "1"]
    assert [path for path in wanted if chosen.wants(path)] == ["1/a", "1/b/c"]


def test_the_storage_spec_needs_a_bucket_for_its_placeholder_only(tmp_path: Path) -> None:
    settings = Settings.from_env({"STORAGE_CONFIG": '{"type": "s3", "access_key_id": "a"}'})
    assert settings.environ["AWS_ACCESS_KEY_ID"] == "a"
    with pytest.raises(InvalidUri, match="needs `bucket`"):
        destinations.plan([("<scheme-placeholder>://m", tmp_path / "m")], settings)


def test_hdfs_headers_and_keys_of_a_storage_spec() -> None:
    spec = {"type": "webhdfs", "HEADERS": {"a": "b"}, "TLS_SKIP_VERIFY": True}
    settings = Settings.from_env({"STORAGE_CONFIG": json.dumps(spec)})
    assert settings.environ["HEADERS"] == '{"a": "b"}'
    with pytest.raises(InvalidSettings, match="TLS_KEY: expected base64"):
        Settings.from_env({"STORAGE_CONFIG": '{"type": "hdfs", "TLS_KEY": "not base64!"}'})


def test_kserves_webhook_may_name_the_directory_of_another_bundle(tmp_path: Path) -> None:
    environ = {"CA_BUNDLE_CONFIGMAP_NAME": "c", "CA_BUNDLE_VOLUME_MOUNT_POINT": str(tmp_path)}
    with pytest.raises(InvalidSettings, match=r"cabundle\.crt"):
        Settings.from_env(environ)
    assert Settings.from_env({**environ, "AWS_CA_BUNDLE": "/x/s3.crt"}).ca_bundle == ""


def test_a_destination_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DestinationError, match=r"/file is a file"):
        destinations.plan([("s3://b/m", tmp_path / "file" / "a" / "b")], Settings())
