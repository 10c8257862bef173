"""Defaults, precedence, and every problem at once."""

import dataclasses
from pathlib import Path

import pytest

from functions import cpu
from functions.errors import ConfigurationError
from functions.settings import OPTIONS, Settings

DEFAULTS = {
    "model_name": "model",
    "protocol": ("v1", "v2"),
    "port": 8080,
    "grpc_port": 8081,
    "metrics_port": -1,
    "workers": 1,
    "preload": False,
    "threads": 0,
    "cpu_threads": 0,
    "keep_freed_mb": 64,
    "max_body_bytes": 256 << 20,
    "max_concurrency": 1000,
    "timeout_s": 300.0,
    "health_timeout_s": 0.9,
    "drain_s": 30.0,
    "max_batch_size": 1,
    "max_batch_latency_ms": 5.0,
    "allow_pickle": True,
    "predict_proba": False,
    "warmup": True,
    "predictor_timeout_s": 60.0,
    "predictor_retries": 1,
    "version_policy": "latest:1",
    "poll_s": 1.0,
}


def test_defaults() -> None:
    settings = Settings.from_env({}, ["--model-dir", "/m"])
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


def test_the_table_and_the_dataclass_agree() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    for option in OPTIONS:
        assert fields[option.name] == option.default, option.name
        assert option.help


def test_flag_beats_variable_beats_default() -> None:
    assert Settings.from_env({"PORT": "1"}, ["--model-dir", "/m"]).port == 1
    assert Settings.from_env({"PORT": "1"}, ["--model-dir", "/m", "--port", "2"]).port == 2


def test_underscored_flags_and_lists() -> None:
    settings = Settings.from_env(
        {"FUNCTIONS_MODELS": "a=/a, b=onnx:/b"},
        ["--model_name=x", "--model_dir", "/m", "--param", "k=v=w"],
    )
    assert (settings.model_name, settings.param) == ("x", (("k", "v=w"),))
    assert settings.model == (("a", "/a"), ("b", "onnx:/b"))


def test_all_problems_are_reported_together() -> None:
    environ = {
        "PORT": "x",
        "FUNCTIONS_WORKERS": "-1",
        "FUNCTIONS_LOGGER_URL": "ftp://x",
        "PREDICTIVE_UNIT_PARAMETERS": "{",
    }
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ, ["--model-dir", "/m"])
    names = [problem.split("=")[0].split(":")[0] for problem in caught.value.problems]
    assert names == [
        "PORT",
        "FUNCTIONS_WORKERS",
        "FUNCTIONS_LOGGER_URL",
        "PREDICTIVE_UNIT_PARAMETERS",
    ]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("INT", "3", 3),
        ("FLOAT", "0.5", 0.5),
        ("DOUBLE", "1", 1.0),
        ("STRING", "x", "x"),
        ("BOOL", "y", True),
        ("BOOL", "off", False),
    ],
)
def test_seldon_parameters_are_cast(kind: str, value: str, expected: object) -> None:
    raw = f'[{{"name": "p", "value": "{value}", "type": "{kind}"}}]'
    assert Settings.from_env({"PREDICTIVE_UNIT_PARAMETERS": raw}, ["--model-dir", "/m"]).param == (
        ("p", expected),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("64Mi", 64 << 20), ("1G", 10**9), ("2k", 2000), ("3KiB", 3072)],
)
def test_byte_sizes(text: str, expected: int) -> None:
    assert (
        Settings.from_env({}, ["--model-dir", "/m", "--max-body-bytes", text]).max_body_bytes
        == expected
    )


def test_the_documentation_has_every_setting_with_its_default() -> None:
    text = (Path(__file__).parents[3] / "docs" / "model-server.md").read_text(encoding="utf-8")
    for option in OPTIONS:
        assert (
            f"| `{option.flag}` | `{option.env}` | {shown(option.default)} | {option.help} |"
            in text
        )


def shown(default: object) -> str:
    if default in ("", ()):
        return "unset"
    if isinstance(default, tuple):
        return "`" + ",".join(default) + "`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


@pytest.mark.parametrize(
    ("environ", "arguments", "expected"),
    [
        ({"OMP_NUM_THREADS": "1"}, [], 1),
        ({"OMP_NUM_THREADS": "1"}, ["--cpu-threads", "7"], 7),
        ({"OMP_NUM_THREADS": "x", "FUNCTIONS_WORKERS": "256"}, [], 1),
    ],
)
def test_library_threads(environ: dict[str, str], arguments: list[str], expected: int) -> None:
    settings = Settings.from_env(environ, ["--model-dir", "/m", *arguments])
    assert cpu.library_threads(settings) == expected
