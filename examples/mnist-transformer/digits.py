"""Picture in, digit out, as code of one's own: KServe's hooks, nothing of ours imported.

Before: `{"instances": [{"image": {"b64": PNG}}]}` becomes one V2 tensor of 64 numbers a picture,
from 0 (paper) to 1 (ink). After: ten scores become the best digits. `context` is a dict of this
request.
"""

import base64
import binascii
import io
from typing import Any

import numpy as np
from PIL import Image

SIDE = 8
MAX_PIXELS = 4_000_000


class NotADigit(Exception):
    """The client's fault: the server answers this status and the text."""

    status_code = 400


class Digits:
    def __init__(self, best: str = "1") -> None:
        self.best = int(best)

    def preprocess(self, payload: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
        rows = [read(instance) for instance in payload["instances"]]
        context["pictures"] = len(rows)
        return {"inputs": [{"name": "input-0", "datatype": "FP32", "data": np.stack(rows)}]}

    def postprocess(self, answer: Any, context: dict[str, Any]) -> dict[str, Any]:
        scores = answer.outputs[0].as_numpy()
        ranked = np.argsort(-scores, axis=1)[:, : self.best]
        return {
            "predictions": [
                [{"digit": int(n), "score": float(row[n])} for n in best]
                for row, best in zip(scores, ranked, strict=True)
            ],
            "pictures": context["pictures"],
        }


def read(instance: Any) -> np.ndarray:
    """64 numbers of one picture."""
    try:
        raw = base64.b64decode(instance["image"]["b64"], validate=True)
        image = Image.open(io.BytesIO(raw), formats=["png", "jpeg"])
        if image.width * image.height > MAX_PIXELS:
            raise NotADigit(f"the picture has more than {MAX_PIXELS} pixels")
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except (KeyError, TypeError):
        raise NotADigit('each instance must be {"image": {"b64": BASE64}}') from None
    except (binascii.Error, OSError, SyntaxError, ValueError) as error:
        raise NotADigit(f"not a picture: {error}") from None
    return 1 - np.asarray(small, dtype=np.float32).ravel() / 255
