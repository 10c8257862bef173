"""Every setting of the model server, read once from flags and environment.

A flag wins over its variable, a variable over the default. All problems are collected and reported
together. This is the only module of the unit that reads the environment. The table of all settings
is `settings_table.py`.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import kserve_flags
from . import options as o
from .errors import ConfigurationError
from .settings_table import OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See `OPTIONS` for the meaning, unit and default of each field."""

    model_name: str = "model"
    model_dir: str = ""
    runtime: str = ""
    model_class: str = ""
    transformer: str = ""
    transformer_config: str = ""
    param: tuple[tuple[str, Any], ...] = ()
    model: tuple[tuple[str, str], ...] = ()
    repository: str = ""
    protocol: tuple[str, ...] = ("v1", "v2")
    host: str = "0.0.0.0"  # noqa: S104
    port: int = 8080
    grpc_port: int = 8081
    grpc_max_streams: int = 1000
    metrics_port: int = -1
    predictor_host: str = ""
    model_predictor: tuple[tuple[str, str], ...] = ()
    predictor_protocol: str = "auto"
    predictor_binary: bool = True
    predictor_use_ssl: bool = False
    predictor_ca_file: str = ""
    predictor_verify: bool = True
    predictor_timeout_s: float = 60.0
    predictor_wait_s: float = 0.0
    predictor_retries: int = 1
    predictor_wake_s: float = 10.0
    predictor_headers: tuple[str, ...] = ()
    predictor_connections: int = 1024
    storage_uri: str = ""
    workers: int = 1
    preload: bool = False
    threads: int = 0
    cpu_threads: int = 0
    keep_freed_mb: int = 64
    max_body_bytes: int = 256 << 20
    max_concurrency: int = 1000
    timeout_s: float = 300.0
    health_timeout_s: float = 0.9
    drain_s: float = 30.0
    max_batch_size: int = 1
    max_batch_latency_ms: float = 5.0
    logger_url: str = ""
    logger_mode: str = "all"
    allow_pickle: bool = True
    predict_proba: bool = False
    warmup: bool = True
    version_policy: str = "latest:1"
    poll_s: float = 1.0
    ce_type: str = "io.kserve.inference.response"
    ce_source: str = ""
    ce_merge: bool = False
    log_config_file: str = ""
    log_level: str = "INFO"
    shared_dir: str = ""
    """Directory that the workers of this server share (metrics); set by the server, not by
    users."""
    service: str = ""
    """Knative's K_SERVICE: names this server in logs and logged events. Empty outside Knative."""
    namespace: str = ""
    notes: tuple[str, ...] = ()
    """What the log should say of the command line, once logging is configured."""
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """The environment for child processes (the storage initializer); never logged."""

    @property
    def grpc_only_port(self) -> int:
        """The main port when only gRPC is served: Knative routes to one port. Otherwise 0."""
        return self.port if all(p.startswith("grpc") for p in self.protocol) else 0

    @property
    def ready_made(self) -> bool:
        """The model is one of `functions.transformers`."""
        return bool(self.transformer or self.transformer_config)

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
            given = flags.get("predictor_protocol") or environ.get("FUNCTIONS_PREDICTOR_PROTOCOL")
            if not given:
                _read_kserve_protocol(values)
            problems.extend(_check_together(values))
        if problems:
            raise ConfigurationError(problems)
        return cls(
            **values,
            service=environ.get("K_SERVICE", ""),
            namespace=environ.get("POD_NAMESPACE", ""),
            notes=tuple(kserve_flags.notes(flags)),
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


def _read_kserve_protocol(values: dict[str, Any]) -> None:
    """KServe's transformers are started with `--protocol v2`: it means the predictor's protocol.

    That is how a single protocol is read beside --predictor-host, when --predictor-protocol is not
    given. As in KServe, V1 and V2 are served, and gRPC if that is the protocol.
    """
    chosen = values["protocol"]
    behind = values["predictor_host"] or values["model_predictor"]
    if behind and len(chosen) == 1 and chosen[0] in ("v1", "v2", "grpc-v2"):
        values["predictor_protocol"] = chosen[0]
        values["protocol"] = tuple(dict.fromkeys(("v1", "v2", *chosen)))


def _check_together(values: Mapping[str, Any]) -> list[str]:
    """Rules over several settings."""
    problems = []
    has_model = (
        values["model_dir"] or values["model_class"] or values["model"] or values["repository"]
    )
    if not has_model and not values["predictor_host"] and not values["model_predictor"]:
        problems.append(
            "nothing to serve: give --model-dir (with --runtime), --model-class, --model,"
            " --repository or --predictor-host"
        )
    if values["storage_uri"] and not values["model_dir"]:
        problems.append("STORAGE_URI is set but --model-dir is not: say where to put the artifacts")
    if {"v1", "tensorflow"} <= set(values["protocol"]):
        problems.append("--protocol: v1 and tensorflow share their paths; choose one of them")
    if values["preload"] and values["runtime"] in {"tensorflow"}:
        problems.append(
            "--preload: TensorFlow cannot be forked once loaded; use --workers without it"
        )
    if values["predictor_host"] or values["model_predictor"]:
        problems.extend(_check_predictors(values))
    if values["transformer"] or values["transformer_config"]:
        problems.extend(_check_transformer(values))
    return problems


def _check_predictors(values: Mapping[str, Any]) -> list[str]:
    """Every predictor is an address, and nothing said of it contradicts that."""
    from .predictor import target

    problems = []
    given = [("--predictor-host=", values["predictor_host"])] * bool(values["predictor_host"])
    given += [(f"--model-predictor={name}=", host) for name, host in values["model_predictor"]]
    protocol = values["predictor_protocol"]
    for flag, host in given:
        what = f"{flag}{target.shown(host)}"
        try:
            where = target.parse(host)
        except ValueError as exc:
            problems.append(f"{what}: expected {exc}")
            continue
        if target.speaks_grpc(host) and protocol not in ("auto", "grpc-v2"):
            problems.append(f"{what} is gRPC, but the protocol to the predictor is {protocol}")
        if values["predictor_use_ssl"] and host.strip().lower().startswith("http://"):
            problems.append(
                f"{what} is plain HTTP, but --predictor-use-ssl is true: give it as"
                f" https://{where.authority}, or leave that flag out"
            )
    return problems


def _check_transformer(values: Mapping[str, Any]) -> list[str]:
    """A ready-made transformer is checked as far as it can be before anything is loaded."""
    from . import transformers

    problems = []
    if not values["predictor_host"]:
        problems.append("--transformer stands in front of a predictor: give --predictor-host")
    if values["model_class"] or values["runtime"]:
        problems.append("--transformer needs no --model-class or --runtime: give one of them")
    try:
        chosen = transformers.plan(
            values["transformer"], values["transformer_config"], values["param"]
        )
    except ConfigurationError as error:
        return [*problems, *error.problems]
    if not values["storage_uri"]:  # otherwise its files are yet to come
        problems.extend(transformers.missing_files(chosen, values["model_dir"]))
    return problems


_EXAMPLES = """\
examples:
  a model, its runtime found by its files:
    python -m functions --model-name iris --model-dir ./iris
  a transformer of your own, in front of a predictor:
    python -m functions --model-name digits --model-class transformer.py:Digits \\
        --predictor-host digits-predictor.default
  a ready-made transformer, in front of a predictor that speaks gRPC:
    python -m functions --model-name digits --transformer image --param resize=28x28 \\
        --predictor-host triton:8001 --predictor-protocol grpc-v2

Each flag can also be given as the environment variable named with it, and spelled with underscores.
KServe's flags are understood; those without a counterpart have no effect, and the log says so.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m functions`; `--model_name` is accepted for `--model-name`."""
    parser = argparse.ArgumentParser(
        prog="python -m functions",
        usage="python -m functions --model-dir DIR | --model-class FILE.py:CLASS | --repository DIR"
        " | --predictor-host HOST [options]",
        description="Serve models, and transformers in front of other models, over KServe V1, V2"
        " (Open Inference, REST and gRPC), TensorFlow Serving and Seldon.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option in OPTIONS:
        # A flag that is true or false may stand alone: --predictor-use-ssl.
        alone: dict[str, Any] = {"nargs": "?", "const": "true"} if option.parse is o.boolean else {}
        default = f", default {option.shown_default}" if option.shown_default else ""
        parser.add_argument(
            option.flag,
            *(f"--{alias}" for alias in option.aliases),
            dest=option.name,
            action="append" if option.repeat else "store",
            help=f"{option.help} [{option.env}{default}]".replace("%", "%%"),
            metavar=option.name.upper(),
            **alone,
        )
    for flag in kserve_flags.INSTEAD:
        parser.add_argument(
            f"--{flag}",
            dest=kserve_flags.destination(flag),
            nargs="?",
            const="true",
            help=argparse.SUPPRESS,
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
