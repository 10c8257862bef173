"""Every parameter of the ready-made transformers: name, parser, default and its sentence.

`docs/ready-made-transformers.md` prints these tables (a test compares them). Values come as text
from `--param` or as JSON from a configuration file; both go through the same parsers.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from functions import options as o
from functions.errors import ConfigurationError
from functions.wire import v2


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a transformer."""

    name: str
    parse: o.Parser
    default: Any
    help: str
    shown: str = ""
    """The default as the documentation prints it, where it is not the value itself."""


@dataclass(frozen=True, slots=True)
class Size:
    """`256` is the shorter side (`height` is 0), `28x32` is exactly HEIGHT x WIDTH."""

    side: int = 0
    height: int = 0
    width: int = 0

    def __bool__(self) -> bool:
        return bool(self.side or self.height)


_NUMERIC = tuple(name for name in v2.ITEM_BYTES if name not in ("BYTES", "BOOL", "BF16"))
_PRESETS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": ((0.1307,), (0.3081,)),
}
"""Means and standard deviations of training sets, for pixels from 0 to 1."""

_MAX_SIDE = 16384
_DOCUMENT = re.compile(r"\s*(?:\{\s*[\"}]|\[|\")")
"""What a JSON document begins with; `{$.x}` and `{request.x}` are placeholders."""


def size(value: str) -> Size:
    """Raises ValueError."""
    expectation = f"SIDE or HEIGHTxWIDTH in pixels, 1 to {_MAX_SIDE}"
    parts = value.lower().split("x")
    if not all(part.isdecimal() and 1 <= int(part) <= _MAX_SIDE for part in parts):
        raise ValueError(expectation)
    if len(parts) == 1:
        return Size(side=int(parts[0]))
    if len(parts) == 2:
        return Size(height=int(parts[0]), width=int(parts[1]))
    raise ValueError(expectation)


def fraction(value: str) -> float:
    """`0.5`, or `1/255`. Raises ValueError."""
    above, slash, below = value.partition("/")
    try:
        found = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise ValueError("a number or a fraction such as 1/255") from None
    if found != found or found in (float("inf"), float("-inf")):
        raise ValueError("a finite number")
    return found


def numbers(value: str) -> tuple[float, ...]:
    """Comma-separated. Raises ValueError."""
    try:
        return tuple(fraction(part.strip()) for part in value.split(","))
    except ValueError:
        raise ValueError("numbers separated by commas, one or one a channel") from None


def color(value: str) -> str:
    """`#rrggbb`, `white` or `black`. Raises ValueError."""
    named = {"white": "#ffffff", "black": "#000000"}.get(value.lower(), value.lower())
    digits = named.removeprefix("#")
    if len(digits) != 6 or any(digit not in "0123456789abcdef" for digit in digits):
        raise ValueError("white, black or #rrggbb")
    return f"#{digits}"


def template(value: str) -> Any:
    """A JSON document whose strings may hold placeholders; a bare text is one such string. Raises
    ValueError."""
    if _DOCUMENT.match(value) is None:
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"a JSON document ({error})") from None


def renames(*allowed: str) -> o.Parser:
    """`NAME` or `NAME:AS`, comma-separated -> ((name, as), …)."""

    def parse(value: str) -> tuple[tuple[str, str], ...]:
        pairs = [part.strip().partition(":") for part in value.split(",") if part.strip()]
        found = tuple((name, given or name) for name, _, given in pairs)
        names = [name for name, _ in found]
        if not found or len(set(names)) != len(names) or any(n not in allowed for n in names):
            raise ValueError(f"NAME or NAME:AS out of {', '.join(allowed)}, comma-separated")
        return found

    return parse


_PAYLOAD = (
    Parameter(
        name="field",
        parse=o.text,
        default="",
        help="member of a V1 instance (name of a V2 input) that holds it; unset: found",
    ),
)

_ANSWER = (
    Parameter(
        name="labels",
        parse=o.text,
        default="",
        help=(
            "file with the labels, relative to the model directory: one a line, a JSON list, or a"
            " JSON object (also `config.json` with `id2label`); answers become labels"
        ),
    ),
    Parameter(
        name="top_k",
        parse=o.whole(0, 10_000),
        default=0,
        shown="5 with labels",
        help="how many of the best classes are answered, with their scores",
    ),
    Parameter(
        name="softmax",
        parse=o.boolean,
        default=False,
        help="the predictor answers logits: turn them into probabilities",
    ),
    Parameter(
        name="output",
        parse=o.text,
        default="",
        help="V2 output, or member of a V1 prediction, with the scores; unset: the first",
    ),
)

IMAGE = (
    *_PAYLOAD,
    Parameter(
        name="resize",
        parse=size,
        default=Size(),
        help="`256`: the shorter side, the other in proportion; `28x32`: exactly HEIGHTxWIDTH",
    ),
    Parameter(
        name="crop",
        parse=size,
        default=Size(),
        help="the middle, `224` (a square) or `HEIGHTxWIDTH`, after resizing",
    ),
    Parameter(
        name="interpolation",
        parse=o.choice("nearest", "bilinear", "bicubic", "box", "lanczos"),
        default="bilinear",
        help="how pixels are resampled",
    ),
    Parameter(
        name="channels",
        parse=o.choice("1", "3", "4"),
        default="3",
        help="1 (grey), 3 (colour) or 4 (with alpha)",
    ),
    Parameter(
        name="order", parse=o.choice("rgb", "bgr"), default="rgb", help="order of the colours"
    ),
    Parameter(
        name="background",
        parse=color,
        default="",
        help="what shows through transparent pixels (`white`, `#rrggbb`); unset: alpha is dropped",
    ),
    Parameter(
        name="orient",
        parse=o.boolean,
        default=True,
        help="turn photographs upright as their EXIF data says",
    ),
    Parameter(name="invert", parse=o.boolean, default=False, help="dark becomes light"),
    Parameter(
        name="scale",
        parse=fraction,
        default=None,
        shown="`1/255`; `1` for whole-number types",
        help="factor on pixels of 0 to 255, before `mean` and `std`",
    ),
    Parameter(
        name="mean", parse=numbers, default=(), help="subtracted, one number or one a channel"
    ),
    Parameter(
        name="std", parse=numbers, default=(), help="divided by, one number or one a channel"
    ),
    Parameter(
        name="normalize",
        parse=o.choice(*_PRESETS),
        default="",
        help="`mean` and `std` of a training set: imagenet or mnist",
    ),
    Parameter(
        name="layout",
        parse=o.choice("nchw", "nhwc", "nhw", "flat"),
        default="nchw",
        help="axes of the tensor; `nhw` for one channel, `flat` is one row of numbers an image",
    ),
    Parameter(
        name="dtype", parse=o.choice(*_NUMERIC), default="FP32", help="V2 datatype of the tensor"
    ),
    Parameter(
        name="input",
        parse=o.text,
        default="input-0",
        help="name of the tensor, for V2 and gRPC predictors",
    ),
    Parameter(
        name="instance_key",
        parse=o.text,
        default="",
        help="for V1 predictors: each instance becomes an object with the numbers as this member",
    ),
    Parameter(
        name="formats",
        parse=o.choices("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm"),
        default=("png", "jpeg", "webp", "gif", "bmp"),
        shown="`png,jpeg,webp,gif,bmp`",
        help="formats that are decoded (also: tiff, ppm); others are refused",
    ),
    Parameter(
        name="max_bytes",
        parse=o.byte_size,
        default=20 << 20,
        shown="`20Mi`",
        help="largest encoded image",
    ),
    Parameter(
        name="max_pixels",
        parse=o.whole(1, 1 << 31),
        default=50_000_000,
        help="most pixels of an image, looked up in its head before anything is decoded",
    ),
    Parameter(
        name="max_request_pixels",
        parse=o.whole(1, 1 << 40),
        default=200_000_000,
        help="most pixels of all images of a request together, before and after resizing",
    ),
    Parameter(
        name="max_images", parse=o.whole(1, 65536), default=128, help="most images of a request"
    ),
    *_ANSWER,
)

TOKENIZE = (
    *_PAYLOAD,
    Parameter(
        name="tokenizer",
        parse=o.text,
        default="",
        shown="the model directory",
        help="`tokenizer.json` or its directory, relative to the model directory",
    ),
    Parameter(
        name="max_length",
        parse=o.whole(1, 1_000_000),
        default=512,
        help="most tokens of a text, special ones included",
    ),
    Parameter(
        name="truncation",
        parse=o.boolean,
        default=True,
        help="cut longer texts; false: refuse them",
    ),
    Parameter(
        name="padding",
        parse=o.choice("longest", "max_length", "none"),
        default="longest",
        help="make the texts of a request equally long: as its longest, as `max_length`, or not",
    ),
    Parameter(
        name="pad_token",
        parse=o.text,
        default="",
        shown="the tokenizer's own",
        help="token that fills",
    ),
    Parameter(
        name="tensors",
        parse=renames("input_ids", "attention_mask", "token_type_ids"),
        default=(("input_ids", "input_ids"), ("attention_mask", "attention_mask")),
        shown="`input_ids,attention_mask`",
        help="what the predictor gets, also `token_type_ids`; `input_ids:INPUT__0` renames",
    ),
    Parameter(
        name="dtype",
        parse=o.choice("INT64", "INT32"),
        default="INT64",
        help="V2 datatype of the tensors",
    ),
    Parameter(
        name="max_bytes",
        parse=o.byte_size,
        default=1 << 20,
        shown="`1Mi`",
        help="largest text, in UTF-8",
    ),
    Parameter(
        name="max_texts", parse=o.whole(1, 65536), default=1024, help="most texts of a request"
    ),
    *_ANSWER,
)

JSON = (
    Parameter(
        name="request",
        parse=template,
        default=None,
        shown="the request itself",
        help="body for the predictor; `{$.path}` and `{request.path}` look into the request",
    ),
    Parameter(
        name="answer",
        parse=template,
        default=None,
        shown="the predictor's answer itself",
        help=(
            "body for the client; `{$.path}` and `{answer.path}` look into the predictor's answer,"
            " `{request.path}` into the request"
        ),
    ),
)

TABLES: Mapping[str, tuple[Parameter, ...]] = {"image": IMAGE, "tokenize": TOKENIZE, "json": JSON}


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
        values["mean"], values["std"] = _PRESETS[values["normalize"]]
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
