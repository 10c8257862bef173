"""Trains a small Keras network on scikit-learn's 1,797 handwritten digits, in seconds, and writes a
TensorFlow SavedModel with the signature `predict_images` (`images` in, `scores` out), and a
request for either protocol with digits that the model has not seen.

    python examples/tfserving-mnist/train.py [FOLDER]

Needs tensorflow and scikit-learn. The digits have 8 x 8 pixels; they are drawn to MNIST's 28 x 28.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes about instruction sets

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIDE = 28
SHOWN = 3
"""Digits in a request."""


def pictures(digits: np.ndarray) -> np.ndarray:
    """(n, 64) values up to 16 to (n, 784) values up to 1: every pixel thrice, a margin of two."""
    square = digits.reshape(-1, 8, 8) / 16.0
    large = np.kron(square, np.ones((1, 3, 3)))
    return np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(-1, SIDE * SIDE).astype(np.float32)


def write(folder: Path) -> float:
    """Train, write `model/1` and the requests; returns the accuracy on unseen digits."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    seen, unseen, known, truth = train_test_split(
        pictures(digits.data), digits.target, test_size=0.25, random_state=0
    )
    network = keras.Sequential(
        [
            keras.Input((SIDE * SIDE,), name="images"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(seen, known, epochs=20, batch_size=32, verbose=0)

    images = tf.TensorSpec([None, SIDE * SIDE], tf.float32, name="images")
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "predict_images", lambda images: {"scores": network(images)}, input_signature=[images]
    )
    archive.write_out(str(folder / "model" / "1"), verbose=False)

    right = network.predict(unseen, verbose=0).argmax(axis=1) == truth
    chosen = [int(np.flatnonzero(right & (truth == digit))[0]) for digit in range(SHOWN)]
    rows = np.round(unseen[chosen], 3).tolist()
    requests = {
        "seldon.json": {"data": {"ndarray": rows}},
        "tensorflow.json": {"signature_name": "predict_images", "instances": rows},
    }
    for name, request in requests.items():
        (folder / name).write_text(json.dumps(request))
    return float(right.mean())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    print(f"accuracy on unseen digits: {write(target):.3f}; wrote {target}/model and requests")
