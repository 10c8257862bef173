"""What existing Secrets, servers and users bring along: line breaks, names, redirects, odd answers.

Scripted servers; git through the real `git http-backend`.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.contract.test_storage_providers import (
    ACCOUNT,
    GZIP,
    KEY,
    Answer,
    AzureWire,
    _GitBackend,
    describe,
    digest_of,
    hub,
    layer,
    message,
    scripted,
)
from tests.fakes_storage import initialize, tree
from tests.listening import serving

ONCE = {"STORAGE_ATTEMPTS": "1"}
HEADERS = {"127.0.0.1-headers": '{"Authorization": "Bearer s3cr3t-t0ken"}'}


# --- http ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("attachment; filename*=UTF-8''na%C3%AFve%20model.bin", "naïve model.bin"),
        ("attachment; filename=\"a.bin\"; filename*=UTF-8''b.bin", "b.bin"),
        ('attachment; filename="../../evil.bin"', "evil.bin"),
        ('attachment; filename="..\\\\..\\\\evil.bin"', "evil.bin"),
        ('attachment; filename="a;b.bin"', "a;b.bin"),
        ("attachment; FileName=plain.bin", "plain.bin"),
        ("attachment", "latest"),
    ],
)
def test_a_server_names_its_file(disposition: str, name: str, tmp_path: Path) -> None:
    headers = {"Content-Disposition": disposition}
    with scripted(lambda *_: (200, headers, b"x")) as server:
        done = initialize(f"{server.url}/latest", tmp_path / "d" / "m")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "d" / "m") == {name: b"x"}
    assert not list(tmp_path.glob("*.bin"))


def test_credentials_survive_a_redirect_to_the_same_host_only(tmp_path: Path) -> None:
    def elsewhere(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return 200, {}, b"found"

    def origin(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path == "/here":
            return 302, {"Location": f"http://{headers['host']}/model.bin"}, b""
        if path == "/there":
            return 302, {"Location": f"{far.url.replace('127.0.0.1', 'localhost')}/model.bin"}, b""
        return (200, {}, b"found") if headers.get("authorization") else (401, {}, b"")

    with scripted(elsewhere) as far, scripted(origin) as server:
        uri = server.url.replace("://", "://ann:pa55word@")
        done = initialize(f"{uri}/here", tmp_path / "a")
        assert tree(tmp_path / "a") == {"here": b"found"}, done.stderr
        done = initialize(f"{uri}/there", tmp_path / "b", environ=HEADERS)
        assert tree(tmp_path / "b") == {"there": b"found"}, done.stderr
        assert {auth for *_, auth in far.seen} == {""}
        environ = {**HEADERS, "localhost-headers": '{"Authorization": "Bearer theirs"}'}
        done = initialize(f"{uri}/there", tmp_path / "c", environ=environ)
        assert done.returncode == 0, done.stderr
        assert far.seen[-1][2] == "Bearer theirs"


def test_a_server_that_repeats_its_request_does_not_make_us_print_it(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.touch()

    def echo(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        said = f"no: {path} {headers.get('authorization')} {headers.get('x-key')}"
        return 403, {"Content-Type": "text/plain"}, said.encode()

    given = '{"Authorization": "Basic czNjcjN0OnMzY3IzdA==", "X-Key": "s3cr3t-k3y"}'
    environ = {"127.0.0.1-headers": given, "STORAGE_TERMINATION_LOG": str(log)}
    with scripted(echo) as server:
        uri = f"{server.url}/m.bin?sig=s3cr3t-s1g".replace("://", "://u:s3cr3t-pw@")
        done = initialize(uri, tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert "no: /m.bin" in message(done)
    for text in (done.stderr, log.read_text()):
        assert "s3cr3t" not in text
        assert "czNjcjN0" not in text


@pytest.mark.parametrize(
    "given", ['{"Bad Name\\r\\nX": "s3cr3t"}', '{"Authorization": "s3c\\nr3t"}', '["s3cr3t"]']
)
def test_headers_that_cannot_be_sent_are_named_not_shown(given: str, tmp_path: Path) -> None:
    environ = {"127.0.0.1-headers": given}
    done = initialize("http://127.0.0.1:9/m.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 2
    assert "127.0.0.1-headers: expected" in done.stderr
    assert "r3t" not in done.stderr


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_roots_that_are_none_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_text("not a certificate")
    with scripted(lambda *_: (200, {}, b"")) as server:
        environ = {
            name: str(tmp_path / "roots.pem"), "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_ENDPOINT_URL": server.url.replace("http:", "https:"),
        }  # fmt: skip
        done = initialize("s3://b/m", tmp_path / "m", environ=environ)
    assert done.returncode == 2
    assert "roots.pem: expected a PEM file" in message(done)


# --- secrets with line breaks, answers nobody promised -------------------------------------------


def test_secrets_may_end_with_a_line_break(tmp_path: Path) -> None:
    """`echo TOKEN | base64` in a Secret."""
    wanted = {"STORAGE_ALLOW_PATTERNS": "*.json"}
    with scripted(hub("", private=True)) as server:
        environ = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_secret\n", **wanted}
        done = initialize("hf://org/model", tmp_path / "hf", environ=environ)
        assert done.returncode == 0, done.stderr
    with scripted(AzureWire({"m/x": b"1"}, need="key")) as server:
        environ = {
            "AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={server.url}/{ACCOUNT}",
            "AZURE_STORAGE_ACCESS_KEY": f"{KEY}\n",
        }
        done = initialize(f"azure://{ACCOUNT}/models/m", tmp_path / "az", environ=environ)
        assert done.returncode == 0, done.stderr


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("uri", "answer"),
    [
        ("gs://b/m/", {"items": [{"name": "m/x"}]}),
        ("gs://b/m/", {"items": [{"name": "m/x", "size": "many"}]}),
        ("gs://b/m/", {"items": [{"name": "m/x", "size": "-5"}]}),
        ("gs://b/m/", {"items": None}),
        ("gs://b/m", {}),
        ("oci://{host}/a/m:1", {"layers": [None]}),
        ("oci://{host}/a/m:1", {"layers": [{"digest": DIGEST, "size": "x", "annotations": None}]}),
        ("oci://{host}/a/m:1", {"manifests": [{"platform": None}]}),
        ("oci://{host}/a/m:1", {"manifests": None}),
        ("hf://org/model", {"sha": None}),
    ],
)
def test_answers_of_an_unknown_shape_are_errors_of_the_source(
    uri: str, answer: object, tmp_path: Path
) -> None:
    with scripted(lambda *_: (200, {}, json.dumps(answer).encode())) as server:
        environ = {
            "STORAGE_EMULATOR_HOST": server.url, "HF_ENDPOINT": server.url, **ONCE,
            "KSERVE_OCI_INSECURE_REGISTRY": "true",
        }  # fmt: skip
        uri = uri.format(host=server.url.removeprefix("http://"))
        done = initialize(uri, tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert message(done).startswith(uri)
    assert not (tmp_path / "m").exists()


def test_a_renamed_hub_repository_is_followed(tmp_path: Path) -> None:
    known = hub("")

    def renamed(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if "old/name" in path:
            return 307, {"Location": path.replace("old/name", "org/model")}, b""
        return known(method, path, headers, body)

    with scripted(renamed) as server:
        environ = {"HF_ENDPOINT": server.url, "STORAGE_IGNORE_PATTERNS": "onnx/"}
        done = initialize("hf://old/name", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"config.json": b'{"a": 1}'}


def test_a_registry_that_refuses_every_token_is_asked_once(tmp_path: Path) -> None:
    def registry(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path.startswith("/token"):
            return 200, {}, b'{"token": "t"}'
        realm = f"http://{headers['host']}/token"
        return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="r"'}, b""

    with scripted(registry) as server:
        environ = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
        uri = f"oci://{server.url.removeprefix('http://')}/a/m:1"
        done = initialize(uri, tmp_path / "m", environ=environ)
        assert "access denied (401)" in message(done)
        assert len(server.seen) == 3


def test_directories_that_oras_pushed_are_directories_again(tmp_path: Path) -> None:
    directory = layer({"cats/1/w.bin": b"w", "cats/c.json": b"{}"})
    evil = layer({"../../evil": b"x"})
    title, unpack = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
    manifests = {
        "good": [
            describe(directory, GZIP, **{title: "cats", unpack: "true"}),
            describe(b"note", "text/plain", **{title: "about/README"}),
        ],
        "evil": [describe(evil, GZIP, **{title: "cats", unpack: "true"})],
    }
    blobs = {digest_of(data): data for data in (directory, evil, b"note")}

    def registry(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        name = path.rpartition("/")[2]
        if name in manifests:
            return 200, {}, json.dumps({"layers": manifests[name]}).encode()
        return 200, {}, blobs[name]

    with scripted(registry) as server:
        base = f"oci://{server.url.removeprefix('http://')}/a/m"
        environ = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
        for outcome in ("fetched", "complete"):
            done = initialize(f"{base}:good", tmp_path / "m", environ=environ)
            assert json.loads(done.stderr.splitlines()[-1])["outcome"] == outcome
        wanted = {"cats/1/w.bin": b"w", "cats/c.json": b"{}", "about/README": b"note"}
        assert tree(tmp_path / "m") == wanted
        done = initialize(f"{base}:evil", tmp_path / "n", environ=environ)
        assert done.returncode == 1
        assert "leads out" in message(done)
        environ["STORAGE_UNPACK"] = "false"
        done = initialize(f"{base}:good", tmp_path / "o", environ=environ)
        assert tree(tmp_path / "o") == {"cats": directory, "about/README": b"note"}, done.stderr


# --- Azure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a%2541", "p%20q", "100%25"])
def test_azure_signs_names_that_look_quoted(path: str, tmp_path: Path) -> None:
    blobs = {"a%41/x": b"1", "p q/x": b"1", "100%/x": b"1"}
    with scripted(AzureWire(blobs, need="key")) as server:
        connection = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={server.url}/{ACCOUNT};"
        environ = {"AZURE_STORAGE_CONNECTION_STRING": connection, **ONCE}
        done = initialize(f"azure://{ACCOUNT}/models/{path}", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"x": b"1"}


def test_azure_directories_of_old_clients_are_no_files(tmp_path: Path) -> None:
    def wire(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if "comp=list" in path:
            mark = "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>"
            size = "<Properties><Content-Length>{}</Content-Length></Properties>"
            blobs = (
                f"<Blob><Name>m/a</Name>{size.format(0)}{mark if 'metadata' in path else ''}</Blob>"
                f"<Blob><Name>m/a/b</Name>{size.format(1)}</Blob>"
            )
            return 200, {}, f"<R><Blobs>{blobs}</Blobs><NextMarker/></R>".encode()
        return (200, {}, b"x") if path.endswith("/m/a/b") else (404, {}, b"")

    with scripted(wire) as server:
        environ = {"AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={server.url}"}
        done = initialize("azure://acct/c/m", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"a/b": b"x"}


def test_azure_without_credentials_says_what_to_set(tmp_path: Path) -> None:
    refusal = {"x-ms-error-code": "PublicAccessNotPermitted"}
    with scripted(lambda *_: (409, refusal, b"")) as server:
        environ = {"AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={server.url}"}
        done = initialize("azure://acct/c/m", tmp_path / "m", environ=environ)
    assert "AZURE_STORAGE_ACCESS_KEY" in message(done)
    environ = {"AZURE_CLIENT_ID": "x", "AZURE_TENANT_ID": "t", **ONCE}
    environ["AZURE_FEDERATED_TOKEN_FILE"] = str(tmp_path / "not-mounted")
    done = initialize("azure://acct/c/m", tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert "token is mounted" in message(done)


def test_azure_files_notice_a_change_of_the_same_size(tmp_path: Path) -> None:
    """Also: a directory of a share may be empty and is kept."""
    content = [b"old"]

    def wire(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        name, _, query = path.partition("?")
        if "comp=list" not in query:
            return (200, {}, content[0]) if name == "/s/m/a" else (404, {}, b"")
        file = (
            f"<File><Name>a</Name><Properties><Content-Length>3</Content-Length>"
            f"<Etag>{content[0].decode() if 'ETag' in query else ''}</Etag></Properties></File>"
        )
        entries = f"{file}<Directory><Name>none</Name></Directory>" if name == "/s/m" else ""
        return 200, {}, f"<R><Entries>{entries}</Entries><NextMarker/></R>".encode()

    with scripted(wire) as server:
        environ = {"AZURE_STORAGE_CONNECTION_STRING": f"FileEndpoint={server.url}"}
        for outcome, data in (("fetched", b"old"), ("complete", b"old"), ("fetched", b"new")):
            content[0] = data
            uri = "https://acct.file.core.windows.net/s/m"
            done = initialize(uri, tmp_path / "m", environ=environ)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stderr.splitlines()[-1])["outcome"] == outcome
            assert tree(tmp_path / "m") == {"a": data}
    assert (tmp_path / "m" / "none").is_dir()


# --- HDFS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "path", "environ"),
    [
        ("hdfs:///models/cats", "/models/cats", {}),
        ("hdfs://models/cats", "/models/cats", {}),
        ("hdfs://models/cats", "/srv/models/cats", {"HDFS_ROOTPATH": "/srv/"}),
        ("hdfs:///models/cats", "/models/cats", {"HDFS_ROOTPATH": "/srv"}),
        ("hdfs://namenode:8020/models/cats", "/models/cats", {}),
        ("webhdfs://{host}/models/cats", "/models/cats", {"HDFS_NAMENODE": "http://127.0.0.1:9"}),
        ("<scheme-placeholder>://models/cats", "/models/cats",
         {"STORAGE_CONFIG": '{"type": "webhdfs", "HEADERS": {"X-Who": "ann"}}'}),
    ],
)  # fmt: skip
def test_hdfs_paths(uri: str, path: str, environ: dict[str, str], tmp_path: Path) -> None:
    who = set()

    def namenode(method: str, asked: str, headers: Mapping[str, str], body: bytes) -> Answer:
        name, _, query = asked.removeprefix("/webhdfs/v1").partition("?")
        who.add(headers.get("x-who", ""))
        if name != path:
            return 404, {}, b'{"RemoteException": {"exception": "FileNotFoundException"}}'
        if "op=OPEN" in query:
            return 200, {}, b"meow"
        status = {"type": "FILE", "pathSuffix": "", "length": 4, "modificationTime": 1}
        return 200, {}, json.dumps({"FileStatus": status}).encode()

    with scripted(namenode) as server:
        environ = {"HDFS_NAMENODE": f"{server.url}\n", **ONCE, **environ}
        uri = uri.format(host=server.url.removeprefix("http://"))
        done = initialize(uri, tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"cats": b"meow"}
    assert who == {"ann" if "STORAGE_CONFIG" in environ else ""}


def test_hdfs_without_a_namenode_says_where_it_belongs(tmp_path: Path) -> None:
    done = initialize("hdfs:///models/cats", tmp_path / "m")
    assert done.returncode == 2
    assert "HDFS_NAMENODE" in message(done)


# --- git -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of `repo.git` (annotated tags, symbolic links) and of the empty `new.git`."""
    root = tmp_path_factory.mktemp("git")
    work = root / "work"
    work.mkdir()
    environ = {**os.environ, "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> None:
        base = ["git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run([*base, *arguments], env=environ, capture_output=True, check=True)

    git("init", "-q", "-b", "main")
    (work / "m").mkdir()
    (work / "m" / "a.bin").write_bytes(b"A")
    (work / "link.bin").symlink_to("m/a.bin")
    (work / "latest").symlink_to("m")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "-a", "v1/final", "-m", "annotated")
    for name, target in (("out", "../../etc/passwd"), ("gone", "nothing"), ("round", ".")):
        git("checkout", "-q", "-b", name, "main")
        (work / "x").symlink_to(target)
        git("add", ".")
        git("commit", "-q", "-m", name)
    git("checkout", "-q", "main")
    git("clone", "-q", "--bare", str(work), str(root / "repo.git"))
    git("init", "-q", "--bare", str(root / "new.git"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GitBackend)
    server.root, server.refused = root, False  # type: ignore[attr-defined]
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("form", ["git+{}/repo.git@v1/final", "{}/repo.git@v1/final"])
def test_git_annotated_tags_and_inner_links(repositories: str, form: str, tmp_path: Path) -> None:
    done = initialize(form.format(repositories), tmp_path / "m", environ=ONCE)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"m/a.bin": b"A", "link.bin": b"A", "latest/a.bin": b"A"}


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("repo.git@out", "a symbolic link to '../../etc/passwd'"),
        ("repo.git@gone", "which is not there"),
        ("repo.git@round", "its own parent"),
        ("new.git", "the repository is empty"),
    ],
)
def test_git_trees_that_are_no_model(
    repositories: str, name: str, cause: str, tmp_path: Path
) -> None:
    done = initialize(f"git+{repositories}/{name}", tmp_path / "m", environ=ONCE)
    assert done.returncode == 1
    assert cause in message(done)
    assert not (tmp_path / "m").exists()


def test_a_git_token_may_end_with_a_line_break(repositories: str, tmp_path: Path) -> None:
    environ = {"GIT_USERNAME": "ann", "GIT_PASSWORD": "token\n", **ONCE}
    uri = f"git+{repositories}/private/repo.git"
    done = initialize(uri, tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
