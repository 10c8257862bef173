"""Trains the digit classifier on scikit-learn's 1,797 handwritten digits and writes what the
example needs: `model/model.joblib`, and a few digits as PNG files the model has not seen, in
`pictures/`.

    python examples/digits-s3/train.py [FOLDER]
"""

import sys
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

PIXELS = 112
"""Side of the pictures: fourteen times the data set's eight pixels."""


def write(folder: Path) -> float:
    """Train, write model and pictures; returns the accuracy on unseen digits."""
    digits = load_digits()
    seen, unseen, labels, truth = train_test_split(
        digits.data, digits.target, test_size=0.25, random_state=0
    )
    model = make_pipeline(StandardScaler(), SVC(gamma=0.02, C=10.0))
    model.fit(seen, labels)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    joblib.dump(model, folder / "model" / "model.joblib")
    (folder / "pictures").mkdir(exist_ok=True)
    right = model.predict(unseen) == truth
    for digit in range(10):
        index = int(np.flatnonzero(right & (truth == digit))[0])
        pixels = 255 - np.clip(unseen[index].reshape(8, 8) * 16, 0, 255)  # dark ink, white paper
        image = Image.fromarray(pixels.astype(np.uint8))
        image.resize((PIXELS, PIXELS), Image.Resampling.NEAREST).save(
            folder / "pictures" / f"{digit}.png"
        )
    return float(right.mean())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    print(f"accuracy on unseen digits: {write(target):.3f}; wrote {target}/model and pictures")
