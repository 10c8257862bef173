"""Trains a digit classifier on scikit-learn's 1,797 handwritten digits, in a second or two, and
writes what the example needs: `model/model.joblib`, `labels/labels.txt`, and digits the model has
not seen as PNG files and request bodies, in `requests/`.

    python examples/mnist-transformer/train.py [FOLDER]
"""

import base64
import io
import json
import sys
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

PIXELS = 112
"""Side of the pictures: fourteen times the data set's eight pixels."""

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write(folder: Path) -> float:
    """Train, write model, labels and requests; returns the accuracy on unseen digits."""
    digits = load_digits()
    seen, unseen, labels, truth = train_test_split(
        digits.data / 16, digits.target, test_size=0.25, random_state=0
    )
    model = LogisticRegression(max_iter=1000).fit(seen, labels)
    for name in ("model", "labels", "requests"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    joblib.dump(model, folder / "model" / "model.joblib")
    (folder / "labels" / "labels.txt").write_text("\n".join(NAMES) + "\n")
    sure = model.predict_proba(unseen).max(axis=1) > 0.9
    right = model.predict(unseen) == truth
    for digit in range(10):
        index = int(np.flatnonzero(right & sure & (truth == digit))[0])
        png = picture(unseen[index].reshape(8, 8))
        (folder / "requests" / f"{digit}.png").write_bytes(png)
        body = {"instances": [{"image": {"b64": base64.b64encode(png).decode()}}]}
        (folder / "requests" / f"{digit}.json").write_text(json.dumps(body))
    return float(right.mean())


def picture(ink: np.ndarray) -> bytes:
    """A PNG: dark ink on white paper."""
    pixels = 255 - np.clip(ink * 255, 0, 255)
    image = Image.fromarray(pixels.astype(np.uint8))
    buffer = io.BytesIO()
    image.resize((PIXELS, PIXELS), Image.Resampling.NEAREST).save(buffer, "png")
    return buffer.getvalue()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    print(f"accuracy on unseen digits: {write(target):.3f}; wrote {target}")
