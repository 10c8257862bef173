"""Picture in, digit out: what stands before and after the classifier. No SDK, no S3, no globals.

Before: `{"instances": [{"image": {"b64": PNG}}]}` becomes rows of 64 numbers from 0 to 16, as the
classifier was trained on. After: `[5]` becomes `[{"classes": 5}]`, the field the trigger files by.
"""

import base64
import binascii
import io
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

SIDE = 8
LEVELS = 16.0
MAX_PIXELS = 4_000_000


class NotADigit(Exception):
    """The picture cannot be read: the client's fault, so nobody should try again."""

    error_code = 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Digits:
    """KServe's hooks. Nothing is kept between calls: requests run side by side."""

    def preprocess(self, payload: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        return {"instances": [_row(instance) for instance in payload["instances"]]}

    def postprocess(self, response: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        return {"predictions": [{"classes": int(label)} for label in response["predictions"]]}


def _row(instance: Any) -> list[float]:
    """64 numbers of one picture: dark ink on light paper, scaled to eight by eight."""
    try:
        raw = base64.b64decode(instance["image"]["b64"], validate=True)
        image = Image.open(io.BytesIO(raw))
        if image.width * image.height > MAX_PIXELS:
            raise NotADigit(f"the picture has more than {MAX_PIXELS} pixels")
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (KeyError, TypeError) as error:
        raise NotADigit('each instance must be {"image": {"b64": BASE64}}') from error
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError) as error:
        raise NotADigit(f"not a picture: {error}") from error
    ink = (255.0 - np.asarray(small, dtype=np.float64)) / 255.0 * LEVELS
    return [float(value) for value in ink.ravel()]
