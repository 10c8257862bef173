"""From a picture in a request to ImageNet class probabilities: what the example handlers share.

Travels inside every `.mar` as an extra file next to the architecture (`efficientnet_lite0.py`),
the labels (`labels.txt`) and the model's own `groups.json`. Imports nothing of Turnout's, so the
archives run unchanged on stock TorchServe.
"""

import base64
import binascii
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from efficientnet_lite0 import EfficientNetLite0
from PIL import Image, ImageOps, UnidentifiedImageError

SIDE = 224  # pixels; the resolution the weights were trained at
MARGIN = 32  # EfficientNet's own evaluation crop: the centre 224/256 of the shorter side
MEAN, SCALE = 127.0, 128.0
MAX_PIXELS = 64_000_000  # a decoded picture takes 3 bytes a pixel; beyond this it is refused unread
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# TorchServe turns its own PredictionException into the status it names. It is loaded there anyway;
# elsewhere any exception with `message` and `error_code` will do.
_torchserve = sys.modules.get("ts.utils.util")
_Base: type[Exception] = getattr(_torchserve, "PredictionException", Exception)


class BadPicture(_Base):  # type: ignore[misc, valid-type]
    """The request is the client's mistake: answered with status 400 and this message."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)
        self.message = message
        self.error_code = 400

    def __str__(self) -> str:
        return self.message


class Network:
    """The network with its weights and labels, loaded once.

    `labels[i]` names class i of the 1,000; `groups` maps a group's name to its class indices.
    """

    def __init__(self, context: Any) -> None:
        """`context` is TorchServe's: of it, the model directory and the manifest are used."""
        folder = Path(context.system_properties["model_dir"])
        weights = folder / context.manifest["model"]["serializedFile"]
        # Built without storage, then given the mapped file's: nothing is initialised or copied.
        with torch.device("meta"):
            self._model = EfficientNetLite0()
        state = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
        self._model.load_state_dict(state, assign=True)
        self._model.eval()
        self.labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
        ranges = json.loads((folder / "groups.json").read_text(encoding="utf-8"))
        self.groups = {
            name: [index for first, last in spans for index in range(first, last + 1)]
            for name, spans in ranges.items()
        }

    def probabilities(self, rows: list[Any]) -> list[list[float]]:
        """One list of 1,000 probabilities per request row; `BadPicture` if a row holds none."""
        if not rows:
            return []
        batch = np.stack([_to_tensor(_picture(row, index)) for index, row in enumerate(rows)])
        with torch.inference_mode():
            return self._model(torch.from_numpy(batch)).softmax(dim=1).tolist()


def _picture(row: Any, index: int) -> Image.Image:
    """The picture of one row: `{"data": X}` or `{"body": X}`, X base64 text or the file's bytes."""
    where = f"instances[{index}]"
    content = row.get("data") or row.get("body") if isinstance(row, dict) else row
    if isinstance(content, dict):  # {"data": {"b64": "..."}}, the TensorFlow spelling
        content = content.get("b64")
    if isinstance(content, str):
        try:
            text = content.partition("base64,")[2] or content  # data:image/png;base64,...
            content = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise BadPicture(f"{where}.data is not base64") from None
    if not isinstance(content, (bytes, bytearray)):
        raise BadPicture(f'{where} has no picture: expected {{"data": "<base64 JPEG or PNG>"}}')
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        if picture.width * picture.height > MAX_PIXELS:
            raise BadPicture(
                f"{where}.data has {picture.width} x {picture.height} pixels;"
                f" the limit is {MAX_PIXELS:,}"
            )
        # Phones store photographs sideways and say so in the EXIF block.
        return ImageOps.exif_transpose(picture).convert("RGB")
    except BadPicture:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError):
        kinds = ", ".join(FORMATS)
        raise BadPicture(f"{where}.data is not an image this model reads ({kinds})") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # a damaged or cut-off file
        raise BadPicture(f"{where}.data is a damaged image: {error}") from None


def _to_tensor(picture: Image.Image) -> np.ndarray:
    """Centre crop, 224 x 224, (x - 127) / 128: float32 of shape (3, 224, 224)."""
    side = max(1, min(picture.size) * SIDE // (SIDE + MARGIN))
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    pixels = (np.asarray(square, dtype=np.float32) - MEAN) / SCALE
    return pixels.transpose(2, 0, 1)


NOISE = 0.01
"""Probabilities below this are left out of a group's sum. Training smears some probability over all
classes; summed over 398 animals against 28 plants, that smear alone would decide many pictures."""


def decide(probabilities: list[float], groups: dict[str, list[int]]) -> str | None:
    """The group with the largest sum of probabilities; None if everything else weighs more."""
    clear = [p if p >= NOISE else 0.0 for p in probabilities]
    sums = {name: sum(clear[index] for index in indices) for name, indices in groups.items()}
    best = max(sums, key=sums.__getitem__)
    rest = sum(clear) - sum(sums.values())
    return best if sums[best] > 0 and sums[best] >= rest else None


def top(
    probabilities: list[float], indices: list[int], labels: list[str], count: int = 5
) -> dict[str, float]:
    """The `count` likeliest of `indices` as label -> probability, likeliest first.

    The probabilities are the network's over all 1,000 classes, so they say how sure it is; they do
    not add up to one.
    """
    best = sorted(indices, key=lambda index: -probabilities[index])[:count]
    return {labels[index]: round(probabilities[index], 6) for index in best}
