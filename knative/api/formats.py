"""Model formats and protocols: which we serve ourselves, and KServe's defaults per format."""

PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")
"""Values of `protocolVersion` that KServe knows."""

FRAMEWORKS = {
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "tensorflow": "tensorflow",
    "pytorch": "pytorch",
    "onnx": "onnx",
    "triton": "triton",
    "pmml": "pmml",
    "paddle": "paddle",
    "huggingface": "huggingface",
}
"""The old per-framework field of a predictor -> the model format it stands for."""

OWN_RUNTIMES = (
    "pytorch",
    "sklearn",
    "xgboost",
    "lightgbm",
    "onnx",
    "mlflow",
    "tensorflow",
    "python",
)
"""Formats that `python -m functions --runtime …` serves."""

V2_BY_DEFAULT = frozenset({"triton", "onnx", "huggingface", "vllm", "tensorrt"})
"""Formats whose default protocol in KServe is v2 (spec/kserve_sdk 5, "Selection")."""
