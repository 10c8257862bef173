"""Every setting of the model server, read once from flags and environment.

A flag wins over its variable, a variable over the default. All problems are collected and reported
together. This is the only module of the unit that reads the environment.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import options as o
from .errors import ConfigurationError

RUNTIMES = (
    "python",
    "pytorch",
    "sklearn",
    "xgboost",
    "lightgbm",
    "onnx",
    "mlflow",
    "tensorflow",
    "huggingface",
)

OPTIONS: tuple[o.Option, ...] = (
    o.Option(
        name="model_name",
        env="MODEL_NAME",
        parse=o.model_name,
        default="model",
        help="name under which the model is served",
    ),
    o.Option(
        name="model_dir",
        env="MODEL_DIR",
        parse=o.text,
        default="",
        help="directory with the model's artifacts",
    ),
    o.Option(
        name="runtime",
        env="FUNCTIONS_RUNTIME",
        parse=o.choice(*RUNTIMES),
        default="",
        help="how to load the artifacts; unset: detected from them",
    ),
    o.Option(
        name="model_class",
        env="FUNCTIONS_MODEL_CLASS",
        parse=o.text,
        default="",
        help="module:Class, package.module.Class or file.py:Class of a Python model or transformer",
    ),
    o.Option(
        name="param",
        env="FUNCTIONS_PARAMS",
        default=(),
        repeat=True,
        parse=o.named(o.text, "KEY=VALUE"),
        help="keyword argument for the Python class, or parameter of the runtime",
    ),
    o.Option(
        name="model",
        env="FUNCTIONS_MODELS",
        default=(),
        repeat=True,
        parse=o.named(o.text, "NAME=DIRECTORY or NAME=RUNTIME:DIRECTORY"),
        help="one more model in this server, NAME=DIRECTORY or NAME=RUNTIME:DIRECTORY",
    ),
    o.Option(
        name="repository",
        env="FUNCTIONS_REPOSITORY",
        parse=o.text,
        default="",
        help=(
            "directory of model directories: all are served, later ones can be loaded through"
            " the V2 repository API"
        ),
    ),
    o.Option(
        name="protocol",
        env="FUNCTIONS_PROTOCOL",
        default=("v1", "v2"),
        parse=o.choices("v1", "v2", "tensorflow", "seldon", "grpc-v2", "grpc-v1"),
        help=(
            "protocols to serve; grpc-v1 is TensorFlow Serving's, seldon its Python wrapper's"
            " REST API"
        ),
    ),
    o.Option(
        name="host",
        env="FUNCTIONS_HOST",
        parse=o.text,
        default="0.0.0.0",  # noqa: S104 - a container's listener
        help="address to listen on",
    ),
    o.Option(
        name="port",
        env="PORT",
        parse=o.whole(0, 65535),
        default=8080,
        help="HTTP port (gRPC's, if only gRPC is served); 0 lets the system choose",
    ),
    o.Option(
        name="grpc_port",
        env="FUNCTIONS_GRPC_PORT",
        parse=o.whole(0, 65535),
        default=8081,
        help="gRPC port when HTTP is served too",
    ),
    o.Option(
        name="metrics_port",
        env="FUNCTIONS_METRICS_PORT",
        parse=o.whole(-1, 65535),
        default=-1,
        help=(
            "port of /metrics and /readyz for scrapers (besides the main port); -1: none, 0:"
            " chosen by the system"
        ),
    ),
    o.Option(
        name="predictor_host",
        env="FUNCTIONS_PREDICTOR_HOST",
        parse=o.text,
        default="",
        help="host[:port] or URL of the predictor behind this transformer",
    ),
    o.Option(
        name="predictor_protocol",
        env="FUNCTIONS_PREDICTOR_PROTOCOL",
        parse=o.choice("v1", "v2", "grpc-v2"),
        default="v1",
        help="protocol spoken to the predictor",
    ),
    o.Option(
        name="predictor_timeout_s",
        env="FUNCTIONS_PREDICTOR_TIMEOUT_S",
        parse=o.number(0.001, 86400),
        default=60.0,
        help="seconds the predictor may take",
    ),
    o.Option(
        name="predictor_retries",
        env="FUNCTIONS_PREDICTOR_RETRIES",
        parse=o.whole(0, 10),
        default=1,
        help="further tries when the predictor refused the connection or answered 503",
    ),
    o.Option(
        name="storage_uri",
        env="STORAGE_URI",
        parse=o.text,
        default="",
        help="fetched into --model-dir before loading when that directory is empty",
    ),
    o.Option(
        name="workers",
        env="FUNCTIONS_WORKERS",
        parse=o.whole(1, 256),
        default=1,
        help="processes sharing the port, each with the model",
    ),
    o.Option(
        name="preload",
        env="FUNCTIONS_PRELOAD",
        parse=o.boolean,
        default=False,
        help="load before forking the workers, which then share the model's memory",
    ),
    o.Option(
        name="threads",
        env="FUNCTIONS_THREADS",
        parse=o.whole(0, 1024),
        default=0,
        help="model calls at once in one process; 0: chosen by the runtime",
    ),
    o.Option(
        name="cpu_threads",
        env="FUNCTIONS_CPU_THREADS",
        parse=o.whole(0, 1024),
        default=0,
        help="threads a numeric library may use for one call; 0: the container's CPU quota",
    ),
    o.Option(
        name="max_body_bytes",
        env="FUNCTIONS_MAX_BODY_BYTES",
        parse=o.byte_size,
        default=256 << 20,
        help="largest request body (and gRPC message)",
    ),
    o.Option(
        name="max_concurrency",
        env="FUNCTIONS_MAX_CONCURRENCY",
        parse=o.whole(0, 1_000_000),
        default=1000,
        help="requests in progress or waiting before 503 with Retry-After; 0: no limit",
    ),
    o.Option(
        name="timeout_s",
        env="FUNCTIONS_TIMEOUT_S",
        parse=o.number(0, 86400),
        default=300.0,
        help="seconds one model call may take before 504; 0: no limit",
    ),
    o.Option(
        name="drain_s",
        env="FUNCTIONS_DRAIN_S",
        parse=o.number(0, 3600),
        default=30.0,
        help="seconds that requests in progress get after SIGTERM",
    ),
    o.Option(
        name="max_batch_size",
        env="FUNCTIONS_MAX_BATCH_SIZE",
        parse=o.whole(1, 65536),
        default=1,
        help="instances joined into one model call; 1 turns batching off",
    ),
    o.Option(
        name="max_batch_latency_ms",
        env="FUNCTIONS_MAX_BATCH_LATENCY_MS",
        parse=o.number(0, 60000),
        default=5.0,
        help="longest wait for a batch to fill; 0 joins only what already waits",
    ),
    o.Option(
        name="logger_url",
        env="FUNCTIONS_LOGGER_URL",
        parse=o.url,
        default="",
        help="where request and response bodies are sent as CloudEvents",
    ),
    o.Option(
        name="logger_mode",
        env="FUNCTIONS_LOGGER_MODE",
        parse=o.choice("all", "request", "response"),
        default="all",
        help="which bodies are sent to --logger-url",
    ),
    o.Option(
        name="allow_pickle",
        env="FUNCTIONS_ALLOW_PICKLE",
        parse=o.boolean,
        default=True,
        help=(
            "load formats that can run code while loading (pickle, joblib, .pt, mlflow python"
            " models)"
        ),
    ),
    o.Option(
        name="warmup",
        env="FUNCTIONS_WARMUP",
        parse=o.boolean,
        default=True,
        help="send the artifact's warm-up requests before readiness",
    ),
    o.Option(
        name="version_policy",
        env="FUNCTIONS_VERSION_POLICY",
        parse=o.text,
        default="latest:1",
        help="tensorflow: latest:N, all, or specific:1,2",
    ),
    o.Option(
        name="poll_s",
        env="FUNCTIONS_POLL_S",
        parse=o.number(-1, 86400),
        default=1.0,
        help="tensorflow: seconds between looks for new version directories; 0: once, -1: never",
    ),
    o.Option(
        name="ce_type",
        env="CE_TYPE",
        parse=o.text,
        default="io.kserve.inference.response",
        help="type of reply CloudEvents",
    ),
    o.Option(
        name="ce_source",
        env="CE_SOURCE",
        parse=o.text,
        default="",
        help="source of reply CloudEvents; unset: io.kserve.inference.MODEL",
    ),
    o.Option(
        name="ce_merge",
        env="CE_MERGE",
        parse=o.boolean,
        default=False,
        help="copy the request event's attributes (not id and time) to the reply",
    ),
    o.Option(
        name="log_level",
        env="FUNCTIONS_LOG_LEVEL",
        parse=o.choice("DEBUG", "INFO", "WARNING", "ERROR"),
        default="INFO",
        help="least severe log line written",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See `OPTIONS` for the meaning, unit and default of each field."""

    model_name: str = "model"
    model_dir: str = ""
    runtime: str = ""
    model_class: str = ""
    param: tuple[tuple[str, Any], ...] = ()
    model: tuple[tuple[str, str], ...] = ()
    repository: str = ""
    protocol: tuple[str, ...] = ("v1", "v2")
    host: str = "0.0.0.0"  # noqa: S104
    port: int = 8080
    grpc_port: int = 8081
    metrics_port: int = -1
    predictor_host: str = ""
    predictor_protocol: str = "v1"
    predictor_timeout_s: float = 60.0
    predictor_retries: int = 1
    storage_uri: str = ""
    workers: int = 1
    preload: bool = False
    threads: int = 0
    cpu_threads: int = 0
    max_body_bytes: int = 256 << 20
    max_concurrency: int = 1000
    timeout_s: float = 300.0
    drain_s: float = 30.0
    max_batch_size: int = 1
    max_batch_latency_ms: float = 5.0
    logger_url: str = ""
    logger_mode: str = "all"
    allow_pickle: bool = True
    warmup: bool = True
    version_policy: str = "latest:1"
    poll_s: float = 1.0
    ce_type: str = "io.kserve.inference.response"
    ce_source: str = ""
    ce_merge: bool = False
    log_level: str = "INFO"
    shared_dir: str = ""
    """Directory that the workers of this server share (metrics); set by the server, not by
    users."""
    service: str = ""
    """Knative's K_SERVICE: names this server in logs and logged events. Empty outside Knative."""
    namespace: str = ""
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """The environment for child processes (the storage initializer); never logged."""

    @property
    def grpc_only_port(self) -> int:
        """The main port when only gRPC is served: Knative routes to one port. Otherwise 0."""
        return self.port if all(p.startswith("grpc") for p in self.protocol) else 0

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, argv: Sequence[str] = ()
    ) -> "Settings":
        """Read flags and environment. Raises ConfigurationError with every problem."""
        environ = os.environ if environ is None else environ
        flags = _parse_flags(argv)
        values: dict[str, Any] = {}
        problems: list[str] = []
        for option in OPTIONS:
            try:
                values[option.name] = _read(option, flags.get(option.name), environ)
            except _Problem as problem:
                problems.append(str(problem))
        if "PREDICTIVE_UNIT_PARAMETERS" in environ:
            try:
                values["param"] = (
                    *_seldon_parameters(environ["PREDICTIVE_UNIT_PARAMETERS"]),
                    *values.get("param", ()),
                )
            except ValueError as exc:
                problems.append(f"PREDICTIVE_UNIT_PARAMETERS: {exc}")
        if not problems:
            problems.extend(_check_together(values))
        if problems:
            raise ConfigurationError(problems)
        return cls(
            **values,
            service=environ.get("K_SERVICE", ""),
            namespace=environ.get("POD_NAMESPACE", ""),
            environ=dict(environ),
        )


class _Problem(ValueError):
    pass


def _read(option: o.Option, flag: Any, environ: Mapping[str, str]) -> Any:
    if flag is not None:
        source, raw = option.flag, flag
    elif environ.get(option.env):
        source, raw = option.env, environ[option.env]
        if option.repeat:
            raw = [part.strip() for part in raw.split(",") if part.strip()]
    else:
        return option.default
    try:
        if option.repeat:
            return tuple(option.parse(item) for item in raw)
        return option.parse(raw)
    except ValueError as exc:
        raise _Problem(f"{source}={raw!r}: expected {exc}") from None


def _check_together(values: Mapping[str, Any]) -> list[str]:
    """Rules over several settings."""
    problems = []
    has_model = (
        values["model_dir"] or values["model_class"] or values["model"] or values["repository"]
    )
    if not has_model and not values["predictor_host"]:
        problems.append(
            "nothing to serve: give --model-dir (with --runtime), --model-class, --model or"
            " --repository"
        )
    if values["storage_uri"] and not values["model_dir"]:
        problems.append("STORAGE_URI is set but --model-dir is not: say where to put the artifacts")
    if {"v1", "tensorflow"} <= set(values["protocol"]):
        problems.append("--protocol: v1 and tensorflow share their paths; choose one of them")
    if values["preload"] and values["runtime"] in {"tensorflow"}:
        problems.append(
            "--preload: TensorFlow cannot be forked once loaded; use --workers without it"
        )
    return problems


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m functions`; `--model_name` is accepted for `--model-name`."""
    parser = argparse.ArgumentParser(
        prog="python -m functions",
        description="Serve models over KServe V1, V2 (Open Inference) and TensorFlow Serving.",
        epilog="Each flag can also be given as the environment variable named with it.",
        allow_abbrev=False,
    )
    for option in OPTIONS:
        parser.add_argument(
            option.flag,
            dest=option.name,
            action="append" if option.repeat else "store",
            help=f"{option.help} [{option.env}]".replace("%", "%%"),
            metavar=option.name.upper(),
        )
    return parser


def _parse_flags(argv: Sequence[str]) -> dict[str, Any]:
    """KServe spells its flags with underscores; both are read."""
    normal = []
    for argument in argv:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            flag = flag.replace("_", "-")
        normal.append(flag + equals + value)
    return vars(build_parser().parse_args(normal))


_SELDON_CASTS: dict[str, Callable[[str], Any]] = {
    "INT": int,
    "FLOAT": float,
    "DOUBLE": float,
    "STRING": str,
    "BOOL": o.boolean,
}


def _seldon_parameters(raw: str) -> list[tuple[str, Any]]:
    """Seldon's `[{"name":…,"value":…,"type":"INT|FLOAT|DOUBLE|STRING|BOOL"}]`. Raises
    ValueError."""
    expectation = 'expected a JSON list of {"name", "value", "type"}'
    try:
        entries = json.loads(raw)
    except json.JSONDecodeError as exc:
        raise ValueError(f"{expectation}: {exc}") from None
    parameters: list[tuple[str, Any]] = []
    if not isinstance(entries, list):
        raise ValueError(expectation)
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ValueError(expectation)
        kind = str(entry.get("type", "STRING")).upper()
        if kind not in _SELDON_CASTS:
            raise ValueError(
                f"parameter {entry['name']!r}: type {kind} is not one of INT, FLOAT, DOUBLE,"
                " STRING, BOOL"
            )
        try:
            parameters.append((entry["name"], _SELDON_CASTS[kind](str(entry.get("value", "")))))
        except ValueError:
            raise ValueError(
                f"parameter {entry['name']!r}: {entry.get('value')!r} is no {kind}"
            ) from None
    return parameters


def fail_usage(problems: Sequence[str]) -> int:
    """Print every problem, return the exit code of bad configuration."""
    for problem in problems:
        sys.stderr.write(f"functions: {problem}\n")
    return 2
