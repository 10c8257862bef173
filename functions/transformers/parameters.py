"""Every parameter of the ready-made transformers: name, parser, default and its sentence.

`docs/ready-made-transformers.md` prints these tables (a test compares them).
"""

from collections.abc import Mapping

from functions import options as o
from functions.wire import v2

from .parsers import Parameter, Size, color, fraction, numbers, renames, size, template

_NUMERIC = tuple(name for name in v2.ITEM_BYTES if name not in ("BYTES", "BOOL", "BF16"))
PRESETS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": ((0.1307,), (0.3081,)),
}
"""Means and standard deviations of training sets, for pixels from 0 to 1."""

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
        parse=o.choice(*PRESETS),
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
