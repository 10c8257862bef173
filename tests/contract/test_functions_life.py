"""From start to drain: readiness, failures to load, exit codes, workers, fetching, limits."""

import collections
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.fakes_functions import serving, wait_until, write_model

GATED = """
import os, time
class Gated:
    def __init__(self, gate, name="m"):
        self.gate = gate
    def load(self):
        while not os.path.exists(self.gate):
            time.sleep(0.02)
    def predict(self, payload, headers=None):
        if payload.get("hold"):
            open(payload["hold"], "w").close()
            while not os.path.exists(payload["until"]):
                time.sleep(0.02)
        if payload.get("die"):
            os.kill(os.getpid(), 9)
        return {"predictions": payload["instances"], "pid": os.getpid()}
"""


def test_the_listener_is_there_before_the_model_and_says_so(tmp_path: Path) -> None:
    directory, gate = write_model(tmp_path / "m", GATED), tmp_path / "gate"
    with serving("--model-dir", str(directory), "--param", f"gate={gate}", ready=False) as server:
        assert wait_until(lambda: server.get("/readyz"), "an answer").status == 503
        assert server.get("/livez").status == 200
        reply = server.post("/v1/models/model:predict", {"instances": [1]})
        assert (reply.status, reply.error) == (503, "Model with name model is not ready: loading")
        assert reply.headers["retry-after"] == "1"
        assert server.get("/v1/models/model").status == 503
        assert server.get("/v1/models").json() == {"models": ["model"]}
        gate.touch()
        server.wait_ready()
        assert server.post("/v1/models/model:predict", {"instances": [1]}).status == 200


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "class M:\n  def load(self): raise RuntimeError('weights are gone')\n  def"
            " predict(self, x): return x",
            "RuntimeError: weights are gone",
        ),
        (
            "class M:\n  def load(self): return False\n  def predict(self, x): return x",
            "load() returned False",
        ),
        ("def not_a_hook(): pass", "neither a class nor functions with a hook"),
        (
            "class A:\n  def predict(self, x): return x\nclass B:\n  def predict(self, x):"
            " return x",
            "several model classes",
        ),
        ("import no_such_module_here", "no_such_module_here"),
        (
            "class M:\n  def __init__(self, depth): pass\n  def predict(self, x): return x",
            "--param depth=VALUE",
        ),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_process_with_1(
    tmp_path: Path, source: str, reason: str
) -> None:
    directory = write_model(tmp_path, source)
    with serving("--model-dir", str(directory), "--runtime", "python", ready=False) as server:
        assert server.wait_exit() == 1
        assert "model model failed to load:" in server.lines[-1]
        assert reason in server.lines[-1]
        assert server.logged("exception")


def test_a_worker_that_dies_while_loading_is_not_started_for_ever(tmp_path: Path) -> None:
    directory = write_model(tmp_path, "import os\nos._exit(7)\n")
    with serving("--model-dir", str(directory), ready=False) as server:
        assert server.wait_exit() == 1
        assert "its workers died before they were ready" in server.lines[-1]


@pytest.mark.parametrize(
    ("arguments", "environ", "texts"),
    [
        ([], {}, ["nothing to serve"]),
        (
            ["--model-dir", "/x", "--workers", "0"],
            {},
            ["--workers='0': expected a whole number from 1 to 256"],
        ),
        (
            ["--model-dir", "/x"],
            {"PORT": "http", "FUNCTIONS_TIMEOUT_S": "soon"},
            ["PORT='http'", "FUNCTIONS_TIMEOUT_S='soon'"],
        ),
        (["--model-dir", "/x", "--protocol", "v3"], {}, ["--protocol='v3'", "v1, v2"]),
        (["--model-dir", "/x", "--protocol", "v1,tensorflow"], {}, ["share their paths"]),
        (["--no-such-flag"], {}, ["--no-such-flag"]),
    ],
)
def test_bad_configuration_is_exit_2_with_every_problem(
    arguments: list[str], environ: dict[str, str], texts: list[str]
) -> None:
    with serving(*arguments, environ=environ, ready=False) as server:
        assert server.wait_exit() == 2
        for text in texts:
            assert text in "\n".join(server.lines)
        assert "Traceback" not in "\n".join(server.lines)


def test_a_port_in_use_is_said_at_once(tmp_path: Path) -> None:
    directory = write_model(tmp_path, "class M:\n  def predict(self, x): return x\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with serving("--model-dir", str(directory), environ={"PORT": port}, ready=False) as server:
            assert server.wait_exit() == 1
            assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in server.lines[-1]


def test_empty_and_unknown_model_directories_are_told_apart(tmp_path: Path) -> None:
    for content, reason in (([], "nothing there"), (["a.xyz"], "a.xyz")):
        directory = tmp_path / (content[0] if content else "empty")
        directory.mkdir()
        for name in content:
            (directory / name).touch()
        with serving("--model-dir", str(directory), ready=False) as server:
            assert server.wait_exit() == 1
            assert "no known model format" in server.lines[-1]
            assert reason in server.lines[-1]


def test_sigterm_lets_requests_finish_and_exits_0(tmp_path: Path) -> None:
    directory, held, until = (
        write_model(tmp_path / "m", GATED),
        tmp_path / "held",
        tmp_path / "until",
    )
    (tmp_path / "gate").touch()
    with serving("--model-dir", str(directory), "--param", f"gate={tmp_path / 'gate'}") as server:
        replies: list[int] = []
        body = {"instances": [1], "hold": str(held), "until": str(until)}
        caller = threading.Thread(
            target=lambda: replies.append(server.post("/v1/models/model:predict", body).status)
        )
        caller.start()
        wait_until(held.exists, "the call")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.logged("message", "draining"), "the drain")
        until.touch()
        caller.join(20)
        assert replies == [200]
        assert server.wait_exit() == 0


def test_a_killed_worker_is_replaced_and_readiness_tells_the_truth(tmp_path: Path) -> None:
    directory, gate = write_model(tmp_path / "m", GATED), tmp_path / "gate"
    gate.touch()
    with serving("--model-dir", str(directory), "--param", f"gate={gate}") as server:
        first = server.post("/v1/models/model:predict", {"instances": []}).json()["pid"]
        gate.unlink()  # the next worker's model does not get ready yet
        with pytest.raises(OSError, match=r".*"):
            server.post("/v1/models/model:predict", {"instances": [], "die": 1})
        assert wait_until(lambda: server.get("/readyz", timeout=5).status, "an answer") == 503
        gate.touch()
        server.wait_ready()
        assert server.post("/v1/models/model:predict", {"instances": []}).json()["pid"] != first


def test_over_the_concurrency_limit_is_503_with_retry_after(tmp_path: Path) -> None:
    directory, held, until = (
        write_model(tmp_path / "m", GATED),
        tmp_path / "held",
        tmp_path / "until",
    )
    (tmp_path / "gate").touch()
    arguments = [
        "--model-dir",
        str(directory),
        "--param",
        f"gate={tmp_path / 'gate'}",
        "--max-concurrency",
        "1",
    ]
    with serving(*arguments) as server:
        body = {"instances": [1], "hold": str(held), "until": str(until)}
        caller = threading.Thread(target=server.post, args=("/v1/models/model:predict", body))
        caller.start()
        wait_until(held.exists, "the call")
        reply = server.post("/v1/models/model:predict", {"instances": [1]})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert b'protocol="v1",code="503"} 1' in server.get("/metrics").body
        until.touch()
        caller.join(20)


def test_workers_share_the_port_and_their_metrics(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", GATED)
    (tmp_path / "gate").touch()
    arguments = [
        "--model-dir",
        str(directory),
        "--param",
        f"gate={tmp_path / 'gate'}",
        "--workers",
        "2",
        "--metrics-port",
        "0",
    ]
    with serving(*arguments) as server:
        wait_until(lambda: len(server.logged("message", "ready")) == 2, "both workers")
        for _ in range(20):
            assert server.post("/v1/models/model:predict", {"instances": [1]}).status == 200
        metrics_port = server.ports[1]
        line = b'turnout_requests_total{model_name="model",protocol="v1",code="200"} 20'
        wait_until(
            lambda: line in server.get("/metrics", port=metrics_port).body, "the sum over both"
        )
        assert server.get("/readyz", port=metrics_port).status == 200
        assert (
            server.post("/v1/models/model:predict", {"instances": [1]}, port=metrics_port).status
            == 404
        )


def test_connections_are_shared_and_a_worker_that_loads_gets_none(tmp_path: Path) -> None:
    directory, gate = write_model(tmp_path / "m", GATED), tmp_path / "gate"
    gate.touch()
    arguments = ["--model-dir", str(directory), "--param", f"gate={gate}", "--workers", "2"]
    with serving(*arguments) as server, contextlib.ExitStack() as stack:
        wait_until(lambda: len(server.logged("message", "ready")) == 2, "both workers")
        predict = "/v1/models/model:predict"

        def keep_alive() -> int:
            """The worker that a connection which stays open has come to."""
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            stack.callback(connection.close)
            connection.request("POST", predict, b'{"instances": []}')
            return int(json.loads(connection.getresponse().read())["pid"])

        by_worker = collections.Counter(keep_alive() for _ in range(16))
        assert len(by_worker) == 2
        assert min(by_worker.values()) >= 4, by_worker
        gate.unlink()  # the killed worker's successor does not get ready
        before = set(server.children())
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.post(predict, {"instances": [], "die": 1})
        wait_until(lambda: len(set(server.children()) - before) == 1, "the successor")
        for _ in range(30):
            assert server.post(predict, {"instances": []}).status == 200
            assert server.get("/readyz").status == 200
        gate.touch()
        wait_until(lambda: len(server.logged("message", "ready")) == 3, "the successor's model")


def test_what_is_loaded_and_unloaded_is_so_in_every_worker(tmp_path: Path) -> None:
    source = "def predict(body):\n    return {'predictions': [1]}\n"
    for name in ("one", "two"):
        write_model(tmp_path / name, source)
    with serving("--repository", str(tmp_path), "--workers", "2") as server:
        wait_until(lambda: len(server.logged("message", "ready")) == 2, "both workers")

        def statuses(name: str) -> set[int]:
            path = f"/v1/models/{name}:predict"
            return {server.post(path, {"instances": [1]}).status for _ in range(16)}

        assert server.post("/v2/repository/models/one/unload").status == 200
        assert statuses("one") == {503}
        write_model(tmp_path / "later", source)
        write_model(tmp_path / "broken", "raise RuntimeError('broken on purpose')")
        assert server.post("/v2/repository/models/later/load").status == 200
        assert statuses("later") == {200}
        assert server.post("/v2/repository/models/broken/load").status == 503
        killed = server.children()[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(server.logged("message", "ready")) == 3, "the successor")
        assert killed not in server.children()
        assert [statuses(name) for name in ("one", "two", "later")] == [{503}, {200}, {200}]
        assert server.post("/v2/repository/models/one/load").status == 200
        assert statuses("one") == {200}
        line = b'turnout_model_ready{model_name="later"} 2'
        wait_until(lambda: line in server.get("/metrics").body, "the sum over both")


def test_an_empty_model_directory_is_fetched_from_storage_uri(tmp_path: Path) -> None:
    source = write_model(
        tmp_path / "source",
        "class M:\n  def predict(self, x): return {'predictions': ['fetched']}\n",
    )
    target = tmp_path / "target"
    environ = {"STORAGE_URI": f"file://{source}"}
    with serving("--model-dir", str(target), "--runtime", "python", environ=environ) as server:
        assert server.post("/v1/models/model:predict", {"instances": []}).json() == {
            "predictions": ["fetched"]
        }


def test_a_fetch_that_fails_says_what_the_initializer_said(tmp_path: Path) -> None:
    environ = {"STORAGE_URI": f"file://{tmp_path}/missing"}
    with serving(
        "--model-dir", str(tmp_path / "t"), "--runtime", "python", environ=environ, ready=False
    ) as server:
        assert server.wait_exit() == 1
        assert "could not be fetched" in server.lines[-1]
        assert "missing" in server.lines[-1]


def test_importing_functions_is_light() -> None:
    import subprocess

    heavy = ("numpy", "flask", "grpc", "orjson", "requests")
    code = f"import sys, functions; print([m for m in sys.modules if m.split('.')[0] in {heavy}])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.strip() == "[]"


WILD = """
import os, signal, sys, time
class Wild:
    ASYNCpredict(self, payload, headers=None):
        do = payload.get("do")
        if do == "come back" and os.fork() == 0:
            open(payload["note"], "w").write(str(os.getpid()))
        if do == "raise" and os.fork() == 0:
            open(payload["note"], "w").write(str(os.getpid()))
            raise ValueError("in the child")
        if do == "terminate":
            child = os.fork()
            if child == 0:
                time.sleep(60)
            os.kill(child, signal.SIGTERM)
            return {"predictions": [os.waitpid(child, 0)[1]]}
        if do == "signals":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if do == "end":
            raise {"exit": SystemExit(3), "key": KeyboardInterrupt(), "gen": GeneratorExit()}[
                payload["how"]
            ]
        return {"predictions": [os.getpid()]}
"""


def is_alive(pid: int) -> bool:
    """Running, that is: neither gone nor a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("kind", ["def ", "async def "])
def test_hooks_that_fork_end_or_take_the_signals_do_no_harm(tmp_path: Path, kind: str) -> None:
    directory = write_model(tmp_path / "m", WILD.replace("ASYNC", kind))
    predict = "/v1/models/model:predict"
    with serving("--model-dir", str(directory)) as server:
        own = server.post(predict, {}).json()
        for do in ("come back", "raise"):
            note = tmp_path / do
            assert server.post(predict, {"do": do, "note": str(note)}).json() == own
            wait_until(lambda note=note: note.exists() and note.read_text(), "the child")
            wait_until(lambda note=note: not is_alive(int(note.read_text())), "its end")
        assert server.logged("logger", "functions.forks")
        ended = server.post(predict, {"do": "terminate"}).json()["predictions"]
        assert ended == [signal.SIGTERM]  # as multiprocessing ends its processes
        for how in ("exit", "key", "gen"):
            assert server.post(predict, {"do": "end", "how": how}, timeout=20).status == 500
        if kind == "async def ":  # on the main thread, where it is allowed
            assert server.post(predict, {"do": "signals"}).status == 200
            wait_until(
                lambda: [r for r in server.logged("message") if "handlers" in r["message"]],
                "the handlers' return",
            )
        assert server.post(predict, {}).json() == own
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit(20) == 0


def test_a_thread_that_never_returns_does_not_hold_the_process(tmp_path: Path) -> None:
    source = """
import threading
def predict(body):
    def pieces():
        yield "first"
        threading.Event().wait()
    return pieces()
"""
    directory = write_model(tmp_path / "m", source)
    with (
        serving("--model-dir", str(directory), "--drain-s", "0.2") as server,
        socket.create_connection(("127.0.0.1", server.port), 20) as client,
    ):
        client.sendall(
            b"POST /v1/models/model:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        )
        seen = b""
        while b"first" not in seen:
            seen += client.recv(1000)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit(20) == 0


@pytest.mark.parametrize("code", [3, 4])  # gunicorn's own ones
def test_a_worker_that_user_code_ends_is_replaced_whatever_its_exit_code(
    tmp_path: Path, code: int
) -> None:
    source = f"import os\ndef predict(body): os._exit({code}) if body else None\n"
    directory = write_model(tmp_path / "m", source)
    with serving("--model-dir", str(directory)) as server:
        before = server.children()
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.post("/v1/models/model:predict", {"end": 1})
        wait_until(lambda: server.is_ready() and server.children() != before, "the successor")


def test_a_load_that_takes_signals_or_exits_while_preloading(tmp_path: Path) -> None:
    source = """
import os, signal, sys
class M:
    def load(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if os.path.exists("STOP"):
            sys.exit(0)
    def predict(self, payload): return {"predictions": [os.getpid()]}
"""
    directory = write_model(tmp_path / "m", source.replace("STOP", str(tmp_path / "stop")))
    arguments = ["--model-dir", str(directory), "--preload", "true"]
    with serving(*arguments) as server:
        first = server.post("/v1/models/model:predict", {}).json()["predictions"][0]
        os.kill(first, signal.SIGKILL)  # the master still sees its children end
        wait_until(lambda: len(server.logged("message", "ready")) == 2, "the successor")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit(20) == 0
    (tmp_path / "stop").touch()
    for preload in ("true", "false"):
        with serving("--model-dir", str(directory), "--preload", preload, ready=False) as failing:
            assert failing.wait_exit() == 1
            assert "failed to load" in failing.lines[-1]
