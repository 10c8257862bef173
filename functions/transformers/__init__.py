"""Ready-made transformers: what stands around a predictor without anybody writing code.

`image`, `tokenize` and `json` are configured by parameters (`--param`, or a file or JSON text given
as `--transformer-config`). Each becomes an object with the same two hooks as a user's class,
`preprocess` and `postprocess`, so the server runs it like one. Parameters are checked before the
server starts; numpy, Pillow and tokenizers are imported when the object is built.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions.errors import ConfigurationError, MissingExtra

from . import config, values

KINDS: Mapping[str, str] = {"image": "image", "tokenize": "tokenize", "json": "templated"}
"""Kind -> module of this package with `build(values, place) -> an object with hooks`."""

_EXTRAS = {
    "image": "transformer-image",
    "tokenize": "transformer-tokenize",
    "json": "transformer-json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a transformer runs: its name, its files, and what its predictor speaks."""

    model_name: str
    directory: Path
    predictor_protocol: str = "auto"
    predictor: str = "its host"
    """How error texts name the predictor."""

    def file(self, name: str) -> Path:
        """A file named in a parameter: relative to the model directory."""
        return self.directory / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A kind and its checked parameters."""

    kind: str
    values: Mapping[str, Any]


def plan(kind: str, config_text: str, given: Sequence[tuple[str, Any]]) -> Plan:
    """Check a configuration; `given` (from `--param`) wins over the file. Raises
    ConfigurationError with every problem."""
    chosen = config.read(config_text) if config_text else {}
    kind = kind or str(chosen.get("transformer", ""))
    if kind not in KINDS:
        raise ConfigurationError(
            [f"--transformer: expected one of {', '.join(KINDS)}, got {kind or 'nothing'!r}"]
        )
    if chosen.get("transformer", kind) != kind:
        raise ConfigurationError(
            [f"--transformer is {kind}, but --transformer-config is for {chosen['transformer']}"]
        )
    chosen.pop("transformer", None)
    return Plan(kind=kind, values=values.read(kind, {**chosen, **dict(given)}))


def missing_files(chosen: Plan, directory: str) -> list[str]:
    """Files that the parameters name and that are not there: one sentence each."""
    named = {name: chosen.values.get(name) for name in ("labels", "tokenizer")}
    return [
        f"--transformer {chosen.kind}: {name}={value}: there is no {Path(directory, value)}"
        for name, value in named.items()
        if value and not Path(directory, value).exists()
    ]


def build(chosen: Plan, place: Place) -> Any:
    """The object with hooks. Raises LoadFailed (MissingExtra when a library is not installed)."""
    try:
        module = importlib.import_module(f"{__name__}.{KINDS[chosen.kind]}")
        return module.build(chosen.values, place)
    except ModuleNotFoundError as exc:
        if exc.name and not exc.name.startswith("functions"):
            raise MissingExtra(exc.name, _EXTRAS[chosen.kind]) from exc
        raise
