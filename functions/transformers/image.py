"""`image`: pictures in, labels (or the predictor's own answer) out."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from functions.errors import InvalidRequest

from . import Place, payloads
from .caller import KEY, Caller, is_v2
from .labels import Answers
from .payloads import Array
from .pictures import Pixels, Reader

_MEMBERS = ("image", "b64", "data", "image_bytes", "bytes", "picture")
"""Members of a V1 instance that samples of KServe, TorchServe and TensorFlow Serving use."""


class ImageTransformer:
    """Decode, resize, crop, normalise; label the answer. Keeps nothing between requests."""

    def __init__(self, values: Mapping[str, Any], place: Place) -> None:
        self._values = values
        self._place = place
        self._reader = Reader(values)
        self._pixels = Pixels(values)
        self._answers = Answers(values, place)

    def preprocess(self, payload: Any, context: dict[str, Any]) -> Any:
        """A V1 body, raw image or V2 request -> the predictor's request. Raises InvalidRequest."""
        values = self._values
        found = payloads.items(payload, values["field"], "image", _MEMBERS, values["max_images"])
        if len(found) == 1 and isinstance(found[0], np.ndarray):
            pictures = self._reader.of_array(found[0], values["max_images"])
        else:
            pictures = self._reader.of_values(found)
        caller = context[KEY] = Caller(is_v2(payload), len(pictures))
        batch = self._batch(pictures)
        if caller.wants_v1(self._place.predictor_protocol):
            key = values["instance_key"]
            return {"instances": [{key: row} for row in batch] if key else batch}
        return payloads.to_v2(payload, self._place.model_name, [(values["input"], batch)])

    def _batch(self, pictures: list[Array]) -> Array:
        shapes = {picture.shape for picture in pictures}
        if len(shapes) > 1:
            sizes = ", ".join(sorted(f"{shape[0]}x{shape[1]}" for shape in shapes))
            raise InvalidRequest(
                f"the images have different sizes ({sizes}): send one a request, or configure"
                " resize or crop"
            )
        return self._pixels.to_tensor(np.stack(pictures))

    def postprocess(self, result: Any, context: dict[str, Any]) -> Any:
        """The predictor's answer -> the caller's. Raises AnswerUnusable."""
        return self._answers.of(result, context[KEY])


def build(values: Mapping[str, Any], place: Place) -> ImageTransformer:
    return ImageTransformer(values, place)
