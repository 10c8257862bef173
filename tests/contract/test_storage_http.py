"""The unit against an HTTP server that stalls, resets, lies and throttles."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import random
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes_storage import FaultyServer, faulty_server, initialize, tree
from tests.listening import serving

DATA = random.Random(7).randbytes(3_000_000)
SMALL_PARTS = {"STORAGE_PART_BYTES": "256Ki", "STORAGE_CONCURRENCY": "4"}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


def message(stderr: str) -> str:
    return str(json.loads(stderr.strip().splitlines()[-1])["message"])


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([], id="well-behaved"),
        pytest.param(["reset:1000"] * 5, id="resets"),
        pytest.param(["close:70000"] * 5, id="closes-early"),
        pytest.param(["status:503", "status:500", "status:502"] * 2, id="5xx"),
        pytest.param(["status:429:0", "status:503:0"] * 3, id="throttled"),
        pytest.param(["longer"] * 2, id="content-length-too-long"),
        pytest.param(["whole"] * 3, id="ranges-ignored-at-times"),
    ],
)
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
def test_transient_faults_are_survived_and_the_bytes_are_exact(
    server: FaultyServer, tmp_path: Path, faults: list[str], ranges: bool
) -> None:
    server.add("/model.bin", DATA, faults=faults, ranges=ranges)
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=SMALL_PARTS)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"model.bin": DATA}


def test_a_break_is_resumed_at_the_byte_that_was_reached(
    server: FaultyServer, tmp_path: Path
) -> None:
    server.add("/model.bin", DATA, faults=["close:200000", "close:300000"])
    done = initialize(f"{server.url}/model.bin", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    starts = [wanted for path, wanted, _ in server.requests]
    assert starts == ["bytes=0-0", "", "bytes=200000-", "bytes=500000-"]


def test_a_stall_is_noticed_and_resumed(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", DATA, faults=["stall:100000"])
    environ = {"STORAGE_STALL_SECONDS": "0.5"}
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ, timeout_s=20)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"model.bin": DATA}


def test_a_trickle_counts_as_a_stall(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", DATA, every="trickle")
    environ = {"STORAGE_STALL_SECONDS": "0.5", "STORAGE_ATTEMPTS": "1", "STORAGE_MIN_SPEED": "1Ki"}
    began = time.monotonic()
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ, timeout_s=50)
    assert done.returncode == 1
    assert time.monotonic() - began < 40
    assert not (tmp_path / "m").exists()


def test_what_never_works_is_one_clear_line(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", DATA, faults=["status:503"] * 50)
    log = tmp_path / "termination-log"
    log.touch()
    environ = {
        "STORAGE_ATTEMPTS": "3",
        "STORAGE_BACKOFF_MAX_SECONDS": "0.05",
        "STORAGE_TERMINATION_LOG": str(log),
    }
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert "answered 503" in message(done.stderr)
    assert log.read_text() == message(done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["termination-log"]  # nothing is left
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()


def test_retry_after_is_respected(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", DATA, faults=["status:429:1"])
    began = time.monotonic()
    done = initialize(f"{server.url}/model.bin", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began >= 1.0


def test_a_503_storm_over_many_ranges_is_survived(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", DATA, faults=["status:503"] * 25)
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=SMALL_PARTS)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"model.bin": DATA}


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
def test_a_wrong_checksum_is_fetched_again_then_refused(
    server: FaultyServer, tmp_path: Path, ranges: bool
) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    file = server.add("/model.bin", DATA, faults=["corrupt"], ranges=ranges)
    uri = f"{server.url}/model.bin#sha256={digest}"
    done = initialize(uri, tmp_path / "m", environ=SMALL_PARTS)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"model.bin": DATA}
    file.data = DATA[:-1] + b"?"
    done = initialize(uri, tmp_path / "n", environ=SMALL_PARTS)
    assert done.returncode == 1
    assert "sha256 is" in message(done.stderr)
    assert not (tmp_path / "n").exists()


def test_a_digest_header_is_verified(server: FaultyServer, tmp_path: Path) -> None:
    import base64

    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    server.add("/model.bin", DATA, headers={"Digest": f"SHA-256={wrong}"})
    done = initialize(f"{server.url}/model.bin", tmp_path / "m")
    assert done.returncode == 1
    assert "sha256 is" in message(done.stderr)


def test_an_object_that_changes_meanwhile_is_never_mixed(
    server: FaultyServer, tmp_path: Path
) -> None:
    """The first run breaks for good; then the object is another one of the same size."""
    file = server.add("/model.bin", DATA, faults=["", ""] + ["status:404"] * 20)
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=SMALL_PARTS)
    assert done.returncode == 1
    file.data, file.faults = random.Random(8).randbytes(len(DATA)), []
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=SMALL_PARTS)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"model.bin": file.data}


def test_a_rerun_resumes_with_the_missing_ranges_only(server: FaultyServer, tmp_path: Path) -> None:
    file = server.add("/model.bin", DATA, faults=["close:1000000"] + ["status:403"] * 20)
    environ = {"STORAGE_PART_BYTES": "256Ki", "STORAGE_CONCURRENCY": "1"}
    assert initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ).returncode == 1
    file.faults = []
    server.requests.clear()
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"model.bin": DATA}
    # The probe, then everything after the three parts that were there.
    assert [wanted for _, wanted, _ in server.requests] == [
        "bytes=0-0", f"bytes={3 << 18}-{len(DATA) - 1}",
    ]  # fmt: skip


def test_redirects_are_followed_and_credentials_stay_home(tmp_path: Path) -> None:
    with faulty_server() as origin, faulty_server() as elsewhere:
        elsewhere.add("/cdn/blob", DATA, faults=["status:403"])  # the signed address expires once
        origin.add("/model.bin", b"", redirect=f"{elsewhere.url}/cdn/blob")
        environ = {"127.0.0.1-headers": '{"Authorization": "Bearer top-secret"}', **SMALL_PARTS}
        done = initialize(f"{origin.url}/model.bin", tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "m") == {"model.bin": DATA}
        assert {auth for _, _, auth in origin.requests} == {"Bearer top-secret"}
        assert {auth for _, _, auth in elsewhere.requests} == {""}
        assert "top-secret" not in done.stderr


def test_userinfo_becomes_basic_authorization_and_is_not_printed(
    server: FaultyServer, tmp_path: Path
) -> None:
    server.add("/model.bin?token=hush", DATA)
    uri = f"{server.url}/model.bin?token=hush".replace("http://", "http://ann:pa55word@")
    done = initialize(uri, tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert server.requests[0][2] == "Basic YW5uOnBhNTV3b3Jk"
    marker = (tmp_path / "m" / ".turnout-storage.json").read_text()
    for secret in ("pa55word", "hush"):
        assert secret not in done.stderr + marker


def test_an_empty_file_is_a_file(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", b"")
    done = initialize(f"{server.url}/model.bin", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") == {"model.bin": b""}


def test_a_complete_destination_survives_an_unreachable_source(tmp_path: Path) -> None:
    with faulty_server() as server:
        server.add("/model.bin", DATA)
        uri = f"{server.url}/model.bin"
        assert initialize(uri, tmp_path / "m").returncode == 0
    done = initialize(uri, tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert "cannot be reached, keeping it" in done.stderr


def test_a_changed_source_is_noticed_and_only_then_fetched(
    server: FaultyServer, tmp_path: Path
) -> None:
    file = server.add("/model.bin", DATA)
    uri = f"{server.url}/model.bin"
    assert initialize(uri, tmp_path / "m").returncode == 0
    server.requests.clear()
    assert initialize(uri, tmp_path / "m").returncode == 0
    assert [wanted for _, wanted, _ in server.requests] == ["bytes=0-0"]
    file.data = b"newer"
    assert initialize(uri, tmp_path / "m").returncode == 0
    assert tree(tmp_path / "m") == {"model.bin": b"newer"}


def test_the_deadline_ends_a_stalled_run(server: FaultyServer, tmp_path: Path) -> None:
    server.add("/model.bin", DATA, every="stall:10")
    environ = {"STORAGE_DEADLINE_SECONDS": "1"}
    began = time.monotonic()
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 1
    assert "not done after 1 s" in message(done.stderr)
    assert time.monotonic() - began < 15


def test_a_proxy_is_used_except_for_no_proxy(server: FaultyServer, tmp_path: Path) -> None:
    server.add("http://models.example/model.bin", DATA)  # absolute form, as proxies get it
    environ = {"http_proxy": server.url, "no_proxy": "127.0.0.1"}
    done = initialize("http://models.example/model.bin", tmp_path / "m", environ=environ)
    assert done.returncode == 0, done.stderr
    server.add("/direct.bin", b"direct")
    done = initialize(f"{server.url}/direct.bin", tmp_path / "n", environ=environ)
    assert done.returncode == 0, done.stderr


def test_single_archives_are_unpacked_but_not_mar(server: FaultyServer, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("model/weights.bin")
        info.size = len(DATA)
        tar.addfile(info, io.BytesIO(DATA))
    server.add("/model.tar.gz", packed.getvalue())
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("handler.py", "pass")
    server.add("/model.zip", zipped.getvalue())
    server.add("/model.mar", zipped.getvalue())
    server.add("/model.pkl.gz", gzip.compress(b"pickle"))
    pairs = []
    for name in ("model.tar.gz", "model.zip", "model.mar", "model.pkl.gz"):
        pairs += [f"{server.url}/{name}", tmp_path / name]
    done = initialize(*pairs)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "model.tar.gz") == {"model/weights.bin": DATA}
    assert tree(tmp_path / "model.zip") == {"handler.py": b"pass"}
    assert list(tree(tmp_path / "model.mar")) == ["model.mar"]
    assert list(tree(tmp_path / "model.pkl.gz")) == ["model.pkl.gz"]
    server.requests.clear()
    done = initialize(*pairs)
    assert {wanted for _, wanted, _ in server.requests} == {"bytes=0-0"}


def test_usage_and_settings_errors_exit_2(tmp_path: Path) -> None:
    assert initialize().returncode == 2
    assert initialize("s3://bucket/x").returncode == 2
    done = initialize("ftp://host/x", tmp_path / "m")
    assert done.returncode == 2
    assert "unknown scheme ftp://" in done.stderr
    environ = {"STORAGE_CONCURRENCY": "lots", "STORAGE_VERIFY": "maybe"}
    done = initialize(tmp_path, tmp_path / "m", environ=environ)
    assert done.returncode == 2
    assert "STORAGE_CONCURRENCY='lots'" in done.stderr
    assert "STORAGE_VERIFY='maybe'" in done.stderr
    assert initialize("--help").returncode == 0


def test_https_with_a_private_authority(tmp_path: Path) -> None:
    import ssl

    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "model.bin").write_bytes(DATA)

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=os.fspath(tmp_path / "www"))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass

    web = Server(("localhost", 0), Handler)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    with serving(web):
        uri = f"https://localhost:{web.server_port}/model.bin"
        done = initialize(uri, tmp_path / "m")
        assert done.returncode == 1
        assert "certificate of localhost is not trusted" in message(done.stderr)
        environ = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        done = initialize(uri, tmp_path / "m", environ=environ)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "m") == {"model.bin": DATA}


def test_a_change_under_parallel_ranges_is_listed_again_and_never_mixed(
    server: FaultyServer, tmp_path: Path
) -> None:
    """The object is replaced by one of the same size while eight ranges are under way."""

    file = server.add("/model.bin", DATA, faults=[""] * 5 + ["stall:1000"])
    newer = random.Random(9).randbytes(len(DATA))

    def replace() -> None:
        deadline = time.monotonic() + 10
        while len(server.requests) < 7 and time.monotonic() < deadline:
            time.sleep(0.002)
        file.data = newer
        server.released.set()

    swap = threading.Thread(target=replace)
    swap.start()
    environ = {**SMALL_PARTS, "STORAGE_STALL_SECONDS": "1"}
    done = initialize(f"{server.url}/model.bin", tmp_path / "m", environ=environ)
    swap.join()
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "m") in ({"model.bin": newer}, {"model.bin": DATA})


def test_a_body_compressed_against_our_wish_is_refused(
    server: FaultyServer, tmp_path: Path
) -> None:
    """Kept as it came it would be a damaged model; a .tar.gz that is declared so is what it is."""
    server.add("/config.json", DATA[:1000], headers={"Content-Encoding": "gzip"})
    done = initialize(f"{server.url}/config.json", tmp_path / "m")
    assert done.returncode == 1
    assert "gzip-compressed although asked for the plain bytes" in message(done.stderr)
    server.add("/weights.bin.gz", DATA[:1000], headers={"Content-Encoding": "x-gzip"})
    done = initialize(f"{server.url}/weights.bin.gz", tmp_path / "m")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("host", ["a..b", "x." + "a" * 70 + ".de", "\u00ff..de"])
def test_a_host_that_cannot_be_one_is_a_usage_error(
    server: FaultyServer, tmp_path: Path, host: str
) -> None:
    done = initialize(f"http://{host}/model.bin", tmp_path / "m")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "no host name can be" in message(done.stderr)
    server.add("/moved.bin", DATA, redirect=f"http://{host}/model.bin")
    done = initialize(f"{server.url}/moved.bin", tmp_path / "m")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_local_source_that_is_no_file_is_named(tmp_path: Path, kind: str) -> None:
    source = Path("/dev/null") if kind == "device" else tmp_path / "pipe"
    if kind == "pipe":
        os.mkfifo(source)
    done = initialize(source, tmp_path / "m")
    assert done.returncode == 1
    assert "neither a regular file nor a directory" in message(done.stderr)


class _Endless(http.server.BaseHTTPRequestHandler):
    """A body without length or end."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(65536))


def test_a_body_without_an_end_stops_at_the_limit(tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Endless)
    server.daemon_threads = True
    server.block_on_close = False
    with serving(server):
        url = f"http://127.0.0.1:{server.server_port}/model.bin"
        done = initialize(url, tmp_path / "m", environ={"STORAGE_MAX_BYTES": "8Mi"})
    assert done.returncode == 1
    assert "STORAGE_MAX_BYTES" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "m").exists()
