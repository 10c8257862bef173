"""Writes mnist-transformer's classifier as a Triton model repository:
`REPOSITORY/mnist-triton/config.pbtxt` and `1/model.onnx`, which answers logits.

    python examples/triton-transformer/export.py MODEL.JOBLIB REPOSITORY
"""

import sys
from pathlib import Path

import joblib
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NAME = "mnist-triton"
CONFIG = f"""\
name: "{NAME}"
backend: "onnxruntime"
max_batch_size: 64
input [{{ name: "INPUT__0", data_type: TYPE_FP32, dims: [ 64 ] }}]
output [{{ name: "OUTPUT__0", data_type: TYPE_FP32, dims: [ 10 ] }}]
dynamic_batching {{ }}
"""


def write(model: Path, repository: Path) -> Path:
    """One matrix product and a bias, as the classifier has them."""
    trained = joblib.load(model)
    weights = [
        numpy_helper.from_array(trained.coef_.T.astype(np.float32), "weights"),
        numpy_helper.from_array(trained.intercept_.astype(np.float32), "bias"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["INPUT__0", "weights", "bias"], ["OUTPUT__0"])],
        NAME,
        [helper.make_tensor_value_info("INPUT__0", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("OUTPUT__0", TensorProto.FLOAT, ["n", 10])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8  # for the older runtimes in Triton's images
    onnx.checker.check_model(made)
    folder = repository / NAME
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    onnx.save(made, folder / "1" / "model.onnx")
    return folder


if __name__ == "__main__":
    print(f"wrote {write(Path(sys.argv[1]), Path(sys.argv[2]))}")
