"""Write SavedModels y = x / 2 + K as versions K. Run by `.venvs/tensorflow`.

argv: base directory, K...
"""

import sys

import tensorflow as tf


class HalfPlus(tf.Module):
    def __init__(self, plus):
        super().__init__()
        self.a = tf.Variable(0.5)
        self.b = tf.Variable(float(plus))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x):
        return {"y": self.a * x + self.b}

    def parsed(self, inputs):
        return tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs):
        return {"outputs": self.a * self.parsed(inputs) + self.b}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        return {"scores": self.a * self.parsed(inputs) + self.b}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="tag"),
            tf.TensorSpec([None, 2], tf.float32, name="signal"),
        ]
    )
    def two(self, tag, signal):
        return {"tag_bytes": tag, "sum": tf.reduce_sum(signal, 1)}


for version in sys.argv[2:]:
    model = HalfPlus(int(version))
    signatures = {
        "serving_default": model.serve,
        "regress_x_to_y": model.regress,
        "classify_x_to_y": model.classify,
        "two": model.two,
    }
    tf.saved_model.save(model, f"{sys.argv[1]}/{version}", signatures=signatures)
