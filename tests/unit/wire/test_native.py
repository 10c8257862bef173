"""The compiled twins against the Python they stand for: the same bytes, the same answers.

Both implementations are loaded into this process, side by side; each hypothesis example goes
through both. The suites of the wire and of the router also run once more in pure Python, in a
subprocess.
"""

import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.wire import native

ROOT = Path(__file__).resolve().parents[3]
OURS = ("functions.wire", "router_fn")


def import_all(use_native: bool) -> types.SimpleNamespace:
    """Fresh copies of the modules under test, with or without their compiled twins."""
    kept = {name: module for name, module in sys.modules.items() if name.startswith(OURS)}
    for name in kept:
        del sys.modules[name]
    try:
        importlib.import_module("functions.wire.settings").NATIVE = use_native  # type: ignore[attr-defined]
        names = ("functions.wire.native", "functions.wire.http1", "functions.wire.http1_core",
                 "functions.wire.http1_connection", "router_fn.fibers", "router_fn.replies",
                 "router_fn.calls_core", "router_fn.upstream", "router_fn.pool",
                 "router_fn.gjson.validity", "router_fn.body")  # fmt: skip
        modules = {name.rsplit(".", 1)[1]: importlib.import_module(name) for name in names}
    finally:
        for name in [name for name in sys.modules if name.startswith(OURS)]:
            del sys.modules[name]
        sys.modules.update(kept)
    return types.SimpleNamespace(**modules)


PURE = import_all(use_native=False)
COMPILED = import_all(use_native=True)

needs_native = pytest.mark.skipif(
    COMPILED.native.describe() != "hot path: native",
    reason=f"no compiled twins here: {COMPILED.native.describe()}",
)


class Transport:
    """Keeps what is done to it."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.done.append(b"".join(pieces))

    def is_closing(self) -> bool:
        return "close" in self.done or "abort" in self.done

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return lambda: self.done.append(name)

    def seen(self) -> list[object]:
        """What was done, the written pieces in a row joined and without their dates."""
        out: list[object] = []
        for thing in self.done:
            if isinstance(thing, bytes) and out and isinstance(out[-1], bytes):
                out[-1] += thing
            else:
                out.append(thing)
        return [re.sub(rb"Date: [^\r]*\r\n", b"", x) if isinstance(x, bytes) else x for x in out]


@needs_native
def test_both_are_what_they_say() -> None:
    assert PURE.http1_core.ConnectionCore.__module__ == "functions.wire.http1_core"
    assert COMPILED.http1_core.ConnectionCore.__module__ == "functions.wire._http1"
    assert PURE.fibers.Wait.__module__ == "router_fn.fibers"
    assert COMPILED.fibers.Wait.__module__ == "router_fn._hot"
    assert "switched off" in PURE.native.describe()


# --- the server -----------------------------------------------------------------------------------

REQUESTS = [
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n[]",
    b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nabcd",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n" + b"x" * 999,
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\n{}",
    b"POST /" + b"a" * 600 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\n",
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"boom",
]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    bounds = [0, *places, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds) if a < b]


def converse(modules: Any, pieces: list[bytes], late: bool, end: str) -> object:
    """All a client makes of a server: calls of the handler, what is written, the counters."""
    waiting: list[Any] = []
    calls: list[object] = []

    def answer(exchange: Any) -> None:
        head = exchange.head
        if head.target == b"/x":
            raise ValueError("boom")
        if head.target == b"/c":
            exchange.start(200, b"text/plain")
            exchange.send(exchange.body)
            exchange.finish()
        else:
            exchange.respond(200, exchange.body, b"application/json")
        exchange.respond(500, b"ignored")

    def handler(exchange: Any) -> None:
        calls.append((exchange.head.method, exchange.head.target, exchange.body))
        exchange.on_abort = lambda: calls.append("abort")
        if late:
            waiting.append(exchange)
        else:
            answer(exchange)

    server = modules.http1.Server(
        handler,
        modules.http1.Limits(max_head_bytes=1024, max_body_bytes=500),
        takes_cut_bodies=True,
    )
    transport = Transport()
    connection = modules.http1.Connection(server)
    connection.connection_made(transport)
    for piece in pieces:
        connection.data_received(piece)
        if len(waiting) > 1:
            answer_late(answer, waiting)
    while waiting:
        answer_late(answer, waiting)
    if end == "eof":
        connection.eof_received()
    connection.connection_lost(None)
    while waiting:
        answer_late(answer, waiting)
    return calls, transport.seen(), server.in_flight, len(server.connections), connection.keep_alive


def answer_late(answer: Any, waiting: list[Any]) -> None:
    exchange = waiting.pop(0)
    try:
        answer(exchange)
    except ValueError:
        exchange.respond(500, b"late")


@needs_native
@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.sampled_from(REQUESTS), max_size=6),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.booleans(),
    st.sampled_from(["eof", "lost"]),
    st.booleans(),
)
def test_a_conversation_is_the_same(
    requests: list[bytes], cuts: list[int], late: bool, end: str, whole: bool
) -> None:
    # In packets of whole requests (what the one-packet path is for), or cut anywhere.
    pieces = requests if whole else split(b"".join(requests), cuts)
    assert converse(PURE, pieces, late, end) == converse(COMPILED, pieces, late, end)


def test_a_body_over_the_limit_is_refused_although_its_head_was_seen_before() -> None:
    big = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n" + b"x" * 999
    for modules in (PURE, COMPILED):
        server = modules.http1.Server(
            lambda exchange: exchange.respond(200), modules.http1.Limits(max_body_bytes=500)
        )
        for _ in range(3):
            transport = Transport()
            connection = modules.http1.Connection(server)
            connection.connection_made(transport)
            connection.data_received(big)
            assert b" 413 " in transport.seen()[0]  # type: ignore[operator]


def test_more_heads_than_are_remembered_are_told_apart() -> None:
    for modules in (PURE, COMPILED):
        server = modules.http1.Server(
            lambda exchange: exchange.respond(200, exchange.head.target + b" " + exchange.body)
        )
        transports = [Transport() for _ in range(100)]
        connections = [modules.http1.Connection(server) for _ in transports]
        for connection, transport in zip(connections, transports, strict=True):
            connection.connection_made(transport)
        for turn in range(6):
            for index, connection in enumerate(connections):
                number = (index * 7 + turn // 2 * 31) % 150  # each head twice in a row
                transports[index].done.clear()
                connection.data_received(
                    b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n%d" % (number, turn)
                )
                written = transports[index].seen()[0]
                assert isinstance(written, bytes)
                assert written.endswith(b"\r\n\r\n/%d %d" % (number, turn))
        assert server.in_flight == 0


# --- an upstream's answers ------------------------------------------------------------------------

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nz",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b"y" * 99,
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}extra",
    b"garbage\r\n\r\n",
]


class Receiver:
    inflates = True

    def __init__(self, log: list[object]) -> None:
        self.log = log

    def replied(self, status: int, body: bytes, head: Any) -> None:
        self.log.append((status, body, head.length, head.headers))

    def failed(self, error: Exception) -> None:
        self.log.append(str(error))

    def unsent(self) -> None:
        self.log.append("unsent")

    def wants_stream(self, head: Any) -> bool:
        return False


def fetch(modules: Any, answers: list[tuple[bytes, list[int]]]) -> object:
    """Requests one after the other on one connection, as long as it lives."""
    log: list[object] = []
    pool = modules.pool.Pool(modules.pool.PoolLimits(max_response_bytes=50))
    url = types.SimpleNamespace(origin="http://u", scheme="http")
    origin = pool.origin(url)
    connection = modules.upstream.UpstreamConnection(origin)
    transport = Transport()
    connection.connection_made(transport)
    origin.connections.add(connection)
    for number, (answer, cuts) in enumerate(answers):
        if not connection.alive:
            break
        if connection in origin.idle:
            origin.idle.remove(connection)
        connection.begin(Receiver(log), b"head\r\n\r\n", b"%d" % number)
        for piece in split(answer, cuts):
            if connection.alive:
                connection.data_received(piece)
    idle = len(origin.idle)
    connection.connection_lost(None)
    return log, transport.seen(), idle, len(origin.idle), connection.alive


@needs_native
@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(ANSWERS), st.lists(st.integers(0, 500), max_size=4)), max_size=6
    )
)
def test_answers_of_an_upstream_are_the_same(answers: list[tuple[bytes, list[int]]]) -> None:
    assert fetch(PURE, answers) == fetch(COMPILED, answers)


# --- waits and fibers -----------------------------------------------------------------------------


def drive(modules: Any, steps: list[tuple[str, int]], count: int) -> object:
    """A few fibers over a few waits, which are resolved, failed and cancelled in some order."""
    log: list[object] = []
    waits = [modules.fibers.Wait() for _ in range(count)]

    async def work(name: str, order: list[int]) -> str:
        for index in order:
            try:
                log.append((name, await waits[index]))
            except LookupError as error:
                log.append((name, repr(error)))
            finally:
                log.append((name, "left", index))
        return name

    class Listener:
        def resume(self, wait: Any) -> None:
            log.append(("listener", wait.is_error, wait.pending))

    half = count // 2
    first = modules.fibers.Fiber(work("first", list(range(half))))
    second = modules.fibers.Fiber(work("second", list(range(half, count))))
    outer = modules.fibers.Fiber(_both(first, second))
    outer.attach(Listener())
    for what, index in steps:
        wait = waits[index % count]
        if what == "resolve":
            wait.resolve(index)
        elif what == "fail":
            wait.fail(LookupError(index))
        elif what == "cancel":
            wait.cancel()
        elif what == "detach":
            wait.detach()
        else:
            outer.cancel()
    for fiber in (outer, first, second):
        if not fiber.pending and not fiber.is_error:
            log.append(fiber.result())
        log.append((fiber.pending, fiber.is_error))
        fiber.cancel()
    return log


async def _both(first: Any, second: Any) -> tuple[str, str]:
    return await first, await second


@needs_native
@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["resolve", "resolve", "fail", "cancel", "detach", "give up"]),
            st.integers(0, 9),
        ),
        max_size=14,
    ),
    st.integers(2, 8),
)
def test_fibers_run_the_same_way(steps: list[tuple[str, int]], count: int) -> None:
    assert drive(PURE, steps, count) == drive(COMPILED, steps, count)


@needs_native
def test_a_value_that_looks_like_an_exception_is_a_value() -> None:
    for value in ((1, 2), StopIteration(3), ValueError("x"), None):
        for modules in (PURE, COMPILED):
            wait = modules.fibers.Wait()

            async def work(wait: Any = wait) -> Any:
                return await wait

            fiber = modules.fibers.Fiber(work())
            wait.resolve(value)
            assert fiber.result() is value


@needs_native
def test_cycles_are_collected() -> None:
    import gc
    import weakref

    class Mark:
        pass

    for modules in (PURE, COMPILED):
        mark = Mark()
        gone = weakref.ref(mark)
        wait = modules.fibers.Wait()

        async def work(mark: Any = mark, wait: Any = wait) -> None:
            await wait
            print(mark)

        fiber = modules.fibers.Fiber(work())
        server = modules.http1.Server(lambda exchange: None)
        connection = modules.http1.Connection(server)
        connection.connection_made(Transport())
        connection.data_received(REQUESTS[0])
        connection._exchange.context = (mark, connection)
        del mark, wait, fiber, server, connection, work
        gc.collect()
        assert gone() is None


# --- is it JSON? ----------------------------------------------------------------------------------

SCRAPS = [
    *(b'{ } [ ] , : "a" 1 - 0 01 1.5e+3 . e9 true nul null'.split(b" ")),
    *(b" ", b"\n", b'"', b'"\\u00', b"\\", b"\x00", b"\x1f", b"\xff", b"\xe2\x82\xac"),
    *(b'"abcdefghijklmnopqrstuvwxyz"', b'"0123456789abcde\\n"'),
    *(b"[1, 2,3 , -4.0]", b'{"k":', b"[" * 20),
]


@needs_native
@settings(max_examples=3000, deadline=None)
@given(st.lists(st.sampled_from(SCRAPS), max_size=12).map(b"".join) | st.binary(max_size=60))
def test_json_is_judged_the_same(text: bytes) -> None:
    assert COMPILED.validity.is_valid(text) is PURE.validity.is_valid(text)
    assert COMPILED.body.is_json(text) is PURE.body.is_json(text)
    assert COMPILED.body.is_object_or_null(text) is PURE.body.is_object_or_null(text)


@needs_native
@pytest.mark.parametrize("depth", [9_999, 10_000, 10_001, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_judged_the_same(depth: int, opening: bytes, closing: bytes) -> None:
    text = opening * (depth - 1) + (b"[]" if opening == b"[" else b"{}") + closing * (depth - 1)
    assert COMPILED.validity.is_valid(text) is PURE.validity.is_valid(text) is (depth <= 10_000)


# --- which one runs -------------------------------------------------------------------------------


def described(folder: Path, **environment: str) -> str:
    code = (
        "import functions.wire.http1; from functions.wire import native; print(native.describe())"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=folder, capture_output=True, text=True, check=True, timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), **environment},
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in ("functions/__init__.py", "functions/wire"):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return tmp_path


def test_the_variable_switches_it_off(copied: Path) -> None:
    assert (
        described(copied, TURNOUT_NATIVE="0")
        == "hot path: pure Python (switched off by TURNOUT_NATIVE=0)"
    )


def test_without_a_build_the_python_runs(copied: Path) -> None:
    for built in (copied / "functions/wire").glob("*.so"):
        built.unlink()
    assert described(copied) == "hot path: pure Python (not built)"


@needs_native
def test_a_stale_build_is_not_used(copied: Path) -> None:
    assert described(copied) == "hot path: native"
    with (copied / "functions/wire/_http1.c").open("a") as source:
        source.write("/* changed */\n")
    assert described(copied) == "hot path: pure Python (older than its source: run `make install`)"


@needs_native
def test_without_its_source_a_build_is_used(copied: Path) -> None:
    (copied / "functions/wire/_http1.c").unlink()
    assert described(copied) == "hot path: native"


def test_an_installation_without_a_compiler_succeeds(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    for name in ("setup.py", "functions/wire/native.h", "functions/wire/_http1.c"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "CC": "/nonexistent/cc"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.so"))


@needs_native
@pytest.mark.timeout(400)
@pytest.mark.skipif(native.describe() != "hot path: native", reason="this is the pure run already")
def test_the_suites_pass_in_pure_python_too() -> None:
    units = ("test_engine.py", "test_policies.py", "test_body.py", "test_pool.py")
    suites = [
        *("tests/unit/wire", "--ignore=tests/unit/wire/test_native.py"),
        *(f"tests/unit/router_fn/{name}" for name in units),
        "tests/contract/test_router_semantics.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *suites],
        cwd=ROOT, capture_output=True, text=True, timeout=380,
        env={**os.environ, "TURNOUT_NATIVE": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
