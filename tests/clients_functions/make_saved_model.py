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

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="i64"),
            tf.TensorSpec([None], tf.uint64, name="u64"),
            tf.TensorSpec([None], tf.int8, name="i8"),
            tf.TensorSpec([None], tf.bool, name="yes"),
            tf.TensorSpec([None], tf.float64, name="f64"),
        ]
    )
    def types(self, i64, u64, i8, yes, f64):
        return {"i64": i64, "u64": u64, "i8": i8, "yes": yes, "f64": f64}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float16, name="x")])
    def half(self, x):
        return {"y": x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.complex64, name="x")])
    def complex(self, x):
        return {"y": tf.math.real(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def total(self, x):
        return {"sum": tf.reduce_sum(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def uneven(self, x):
        return {"all": x, "first": x[:1]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def label(self, x):
        return {"text": tf.strings.as_string(x), "raw_bytes": tf.strings.as_string(x)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="inputs")])
    def upper(self, inputs):
        return {"text": tf.strings.upper(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classes(self, inputs):
        scores = tf.concat([self.parsed(inputs), 1.0 - self.parsed(inputs)], 1)
        names = tf.tile(tf.constant([["cat", "dog"]]), [tf.shape(scores)[0], 1])
        return {"classes": names, "scores": scores}


for version in sys.argv[2:]:
    model = HalfPlus(int(version))
    signatures = {
        "serving_default": model.serve,
        "regress_x_to_y": model.regress,
        "classify_x_to_y": model.classify,
        "two": model.two,
        "types": model.types,
        "half": model.half,
        "complex": model.complex,
        "total": model.total,
        "uneven": model.uneven,
        "label": model.label,
        "upper": model.upper,
        "classes": model.classes,
    }
    tf.saved_model.save(model, f"{sys.argv[1]}/{version}", signatures=signatures)
