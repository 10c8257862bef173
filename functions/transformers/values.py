"""What a user gave for the parameters of a transformer: parsed, checked one by one and together.

Values come as text from `--param` or as JSON from a configuration file; both go through the same
parsers.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any

from functions.errors import ConfigurationError

from .parameters import PRESETS, TABLES
from .parsers import Parameter, template


def read(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of a kind, given or default. Raises ConfigurationError with all problems."""
    table = {parameter.name: parameter for parameter in TABLES[kind]}
    values = {name: parameter.default for name, parameter in table.items()}
    problems: list[str] = []
    for name, value in given.items():
        parameter = table.get(name)
        if parameter is None:
            problems.append(f"{_flag(kind, name)}: {_unknown(name, table)}")
            continue
        try:
            values[name] = _parsed(parameter, value)
        except ValueError as error:
            problems.append(f"{_flag(kind, name)}={value!r}: expected {error}")
    if not problems:
        problems = [f"--transformer {kind}: {problem}" for problem in _CHECKS[kind](values)]
    if problems:
        raise ConfigurationError(problems)
    return values


def _flag(kind: str, name: str) -> str:
    return f"--transformer {kind} --param {name}"


def _unknown(name: str, table: Mapping[str, Parameter]) -> str:
    close = difflib.get_close_matches(name, table, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(table)}"
    return f"there is no such parameter ({hint})"


def _parsed(parameter: Parameter, value: Any) -> Any:
    """JSON values as the text that `--param` would have; templates keep their structure."""
    if parameter.parse is template and not isinstance(value, str):
        return value
    return parameter.parse(_as_text(value))


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(_as_text(item) for item in value)
    if value is None or isinstance(value, Mapping):
        raise ValueError("a text, a number, true, false or a list of them")
    return json.dumps(value)


# --- rules over several parameters


def _check_image(values: dict[str, Any]) -> list[str]:
    problems = []
    channels = int(values["channels"])
    values["channels"] = channels
    if values["normalize"]:
        if values["mean"] or values["std"]:
            problems.append("normalize sets mean and std: give one or the others")
        values["mean"], values["std"] = PRESETS[values["normalize"]]
    for name in ("mean", "std"):
        if len(values[name]) not in (0, 1, channels):
            problems.append(
                f"{name} has {len(values[name])} numbers, channels is {channels}: give one, or one"
                " a channel"
            )
    if any(number == 0 for number in values["std"]):
        problems.append("std must not be 0: pixels are divided by it")
    if values["layout"] == "nhw" and channels != 1:
        problems.append(f"layout nhw has no place for {channels} channels: set channels=1")
    if values["order"] == "bgr" and channels == 1:
        problems.append("order bgr means nothing with channels=1")
    if values["scale"] is None:
        floating = values["dtype"].startswith("FP")
        values["scale"] = 1 / 255 if floating else 1.0
    return problems


def _check_tokenize(values: dict[str, Any]) -> list[str]:
    names = [given for _, given in values["tensors"]]
    if len(set(names)) != len(names):
        return [f"tensors gives two of them the same name: {', '.join(names)}"]
    return []


def _check_json(values: dict[str, Any]) -> list[str]:
    from . import templated

    if values["request"] is None and values["answer"] is None:
        return ["give request, answer or both: without them nothing would be transformed"]
    return templated.problems(values)


_CHECKS: Mapping[str, Callable[[dict[str, Any]], list[str]]] = {
    "image": _check_image,
    "tokenize": _check_tokenize,
    "json": _check_json,
}
