"""The router's settings: environment and command line, read once, all problems reported
together."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from functions.wire import container

T = TypeVar("T")

_UNIT_PORT = "PREDICTIVE_UNIT_HTTP_SERVICE_PORT"


class SettingsError(Exception):
    """The configuration is not usable; `problems` name variable, value and expectation."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one router process runs with. Sizes in bytes, times in seconds."""

    graph_spec: Any = field(repr=False)
    """The InferenceGraph `spec` as parsed JSON."""
    check_only: bool = False
    """`--check`: validate, report, exit."""
    strict: bool = False
    """STRICT: refuse to start on warnings too."""
    host: str = ""
    """HOST: address to listen on; empty is all, IPv4 and IPv6."""
    port: int = container.DEFAULT_PORT
    """PORT: as Knative sets it; 0 lets the system choose (then see the log). Beside another router
    in a pod, where there is no PORT, PREDICTIVE_UNIT_HTTP_SERVICE_PORT as for any Seldon node."""
    workers: int = 1
    """WEB_CONCURRENCY: processes; more than one are managed by gunicorn."""
    metrics_port: int | None = None
    """METRICS_PORT: Prometheus and GET /graph; unset: neither, and no cost."""
    grpc_port: int | None = None
    """GRPC_PORT: the same graph over gRPC; unset: none. The number that PORT has: gRPC has
    that port, as Knative wants it for one named h2c, and HTTP one of the system's choice."""
    propagate_headers: str | None = None
    """PROPAGATE_HEADERS: KServe's comma-separated Go patterns; unset or empty: forward nothing."""
    max_head_bytes: int = 65536
    """MAX_HEADER_BYTES of a request; more is 431."""
    max_body_bytes: int = 64 << 20
    """MAX_BODY_BYTES of a request, unless the graph says otherwise; more is 413. 0: no limit."""
    max_response_bytes: int = 64 << 20
    """MAX_RESPONSE_BYTES of one upstream answer; more fails that step."""
    max_connections: int = 16384
    """MAX_CONNECTIONS from clients at once."""
    max_upstream_connections: int = 1024
    """MAX_UPSTREAM_CONNECTIONS per origin; further calls wait."""
    connect_timeout_s: float = 30.0
    """CONNECT_TIMEOUT_SECONDS to an upstream."""
    upstream_idle_s: float = 55.0
    """UPSTREAM_IDLE_SECONDS before a pooled connection is closed."""
    prewarm_after_s: float = 5.0
    """PREWARM_AFTER_SECONDS without an answer, a service counts as possibly asleep."""
    prewarm_timeout_s: float = 120.0
    """PREWARM_TIMEOUT_SECONDS a wake-up call may take."""
    drain_delay_s: float = 1.0
    """DRAIN_DELAY_SECONDS between SIGTERM (readiness 503) and closing the listener: time for load
    balancers to notice. KServe waits 30; Knative's queue-proxy already drains before it signals
    us."""
    drain_timeout_s: float = 30.0
    """DRAIN_TIMEOUT_SECONDS for requests under way; then they are cut off."""
    access_log: bool = False
    """ACCESS_LOG: a line per request, at a tenth of the throughput."""
    cors_origins: str = "*"
    """CORS_ALLOWED_ORIGINS: Access-Control-Allow-Origin of Seldon graphs' answers."""
    cors_headers: str = "*"
    """CORS_ALLOWED_HEADERS: their Access-Control-Allow-Headers."""
    otlp_endpoint: str = ""
    """OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, or OTEL_EXPORTER_OTLP_ENDPOINT + /v1/traces: where spans
    go."""
    trace_ratio: float = 1.0
    """OTEL_TRACES_SAMPLER_ARG: share of traces begun here that are kept; continued ones keep their
    flag."""
    otlp_headers: str = field(default="", repr=False)
    """OTEL_EXPORTER_OTLP_HEADERS: `name=value,...` sent to the collector; may hold a token."""
    service_name: str = "router"
    """OTEL_SERVICE_NAME, else K_SERVICE."""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    """http_proxy, https_proxy, no_proxy (also in capitals): standard meaning, for every upstream
    call."""
    loop: str = "auto"
    """EVENT_LOOP: auto, uvloop or asyncio."""

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, argv: Sequence[str] = ()
    ) -> "Settings":
        """Read everything. Raises SettingsError with all problems; argparse exits by itself (2)."""
        env = os.environ if environ is None else environ
        arguments = _make_parser().parse_args(list(argv))
        problems: list[str] = []
        read = _EnvReader(env, problems)
        endpoint = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
        if not endpoint and env.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            endpoint = env["OTEL_EXPORTER_OTLP_ENDPOINT"].rstrip("/") + "/v1/traces"
        port = read.whole(
            "PORT", read.optional_port(_UNIT_PORT) or container.DEFAULT_PORT, 0, 65535
        )
        grpc_port = read.optional_port("GRPC_PORT")
        settings = cls(
            graph_spec=_read_graph(arguments, env, problems),
            check_only=arguments.check,
            strict=arguments.strict or read.flag("STRICT"),
            host=env.get("HOST", ""),
            port=0 if grpc_port == port else port,
            workers=read.whole("WEB_CONCURRENCY", 1, 1, 256),
            metrics_port=read.optional_port("METRICS_PORT"),
            grpc_port=grpc_port,
            propagate_headers=env.get("PROPAGATE_HEADERS"),
            max_head_bytes=read.whole("MAX_HEADER_BYTES", 65536, 1024, 1 << 20),
            max_body_bytes=read.whole("MAX_BODY_BYTES", 64 << 20, 0, 1 << 40),
            max_response_bytes=read.whole("MAX_RESPONSE_BYTES", 64 << 20, 1, 1 << 40),
            max_connections=read.whole("MAX_CONNECTIONS", 16384, 1, 1 << 20),
            max_upstream_connections=read.whole("MAX_UPSTREAM_CONNECTIONS", 1024, 1, 65536),
            connect_timeout_s=read.seconds("CONNECT_TIMEOUT_SECONDS", 30.0),
            upstream_idle_s=read.seconds("UPSTREAM_IDLE_SECONDS", 55.0),
            prewarm_after_s=read.seconds("PREWARM_AFTER_SECONDS", 5.0),
            prewarm_timeout_s=read.seconds("PREWARM_TIMEOUT_SECONDS", 120.0),
            drain_delay_s=read.seconds("DRAIN_DELAY_SECONDS", 1.0),
            drain_timeout_s=read.seconds("DRAIN_TIMEOUT_SECONDS", 30.0),
            access_log=read.flag("ACCESS_LOG"),
            cors_origins=read.header("CORS_ALLOWED_ORIGINS", "*"),
            cors_headers=read.header("CORS_ALLOWED_HEADERS", "*"),
            otlp_endpoint=endpoint,
            trace_ratio=read.share("OTEL_TRACES_SAMPLER_ARG"),
            otlp_headers=env.get("OTEL_EXPORTER_OTLP_HEADERS", ""),
            service_name=env.get("OTEL_SERVICE_NAME") or env.get("K_SERVICE") or "router",
            http_proxy=env.get("http_proxy") or env.get("HTTP_PROXY") or "",
            https_proxy=env.get("https_proxy") or env.get("HTTPS_PROXY") or "",
            no_proxy=env.get("no_proxy") or env.get("NO_PROXY") or "",
            loop=read.word("EVENT_LOOP", ("auto", "uvloop", "asyncio")),
        )
        if problems:
            raise SettingsError(problems)
        return settings


class _EnvReader:
    def __init__(self, env: Mapping[str, str], problems: list[str]) -> None:
        self._env = env
        self._problems = problems

    def _read(self, name: str, default: T, convert: Callable[[str], T], expectation: str) -> T:
        text = self._env.get(name, "")
        if text == "":
            return default
        try:
            return convert(text)
        except ValueError:
            self._problems.append(f"{name}={text!r}: must be {expectation}")
            return default

    def whole(self, name: str, default: int, minimum: int, maximum: int) -> int:
        def convert(text: str) -> int:
            value = int(text)
            if not minimum <= value <= maximum:
                raise ValueError
            return value

        return self._read(name, default, convert, f"a whole number from {minimum} to {maximum}")

    def optional_port(self, name: str) -> int | None:
        return self.whole(name, 0, 0, 65535) if self._env.get(name) else None

    def seconds(self, name: str, default: float) -> float:
        def convert(text: str) -> float:
            value = float(text)
            if not 0 <= value < 1e7:
                raise ValueError
            return value

        return self._read(name, default, convert, "a number of seconds, 0 or more")

    def share(self, name: str) -> float:
        def convert(text: str) -> float:
            value = float(text)
            if not 0 <= value <= 1:
                raise ValueError
            return value

        return self._read(name, 1.0, convert, "a number from 0 to 1")

    def flag(self, name: str) -> bool:
        words = {"1": True, "true": True, "on": True, "yes": True}
        words |= {"0": False, "false": False, "off": False, "no": False}

        def convert(text: str) -> bool:
            if text.lower() not in words:
                raise ValueError
            return words[text.lower()]

        return self._read(name, False, convert, "true or false")

    def header(self, name: str, default: str) -> str:
        """The value of a header field."""

        def convert(text: str) -> str:
            if not text.isascii() or not text.isprintable():
                raise ValueError
            return text

        return self._read(name, default, convert, "the value of a header, in printable ASCII")

    def word(self, name: str, words: Sequence[str]) -> str:
        def convert(text: str) -> str:
            if text not in words:
                raise ValueError
            return text

        return self._read(name, words[0], convert, "one of " + ", ".join(words))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router_fn",
        description="Serve an inference graph (KServe InferenceGraph spec with resolved URLs).",
        epilog="Everything else is set by environment variables; see docs/graph.md.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--graph-file", metavar="FILE", help="the spec as a JSON file")
    source.add_argument(
        "--graph-json", metavar="JSON", help="the spec itself (default: env GRAPH_JSON)"
    )
    parser.add_argument("--check", action="store_true", help="validate the graph and exit")
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    return parser


def _read_graph(
    arguments: argparse.Namespace, env: Mapping[str, str], problems: list[str]
) -> object:
    if arguments.graph_file is not None:
        where = f"--graph-file {arguments.graph_file}"
        try:
            text = Path(arguments.graph_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{where}: cannot be read: {error}")
            return None
    elif arguments.graph_json is not None:
        where, text = "--graph-json", arguments.graph_json
    elif "GRAPH_JSON" in env:
        where, text = "GRAPH_JSON", env["GRAPH_JSON"]
    else:
        problems.append("no graph: give --graph-file FILE, --graph-json JSON or env GRAPH_JSON")
        return None
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(f"{where}: is not JSON: {error}")
        return None
    # A whole InferenceGraph object is accepted as well: its spec is meant.
    if isinstance(spec, dict) and "nodes" not in spec and isinstance(spec.get("spec"), dict):
        return spec["spec"]
    return spec
