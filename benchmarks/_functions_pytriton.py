"""NVIDIA's PyTriton with the benchmark's models, for comparison; run by the Python of
.venvs/pytriton: FILE HTTP_PORT GRPC_PORT."""

import sys
from typing import Any

import joblib
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

model = joblib.load(sys.argv[1])


@batch
def iris(**inputs: Any) -> dict[str, Any]:
    return {"output-0": model.predict(inputs["input-0"]).reshape(-1, 1)}


@batch
def echo(**inputs: Any) -> dict[str, Any]:
    return inputs


config = TritonConfig(
    http_address="127.0.0.1",
    http_port=int(sys.argv[2]),
    grpc_address="127.0.0.1",
    grpc_port=int(sys.argv[3]),
    allow_metrics=False,
)
with Triton(config=config) as triton:
    # In this order: whoever gets an answer from iris knows that both are there.
    tensor = Tensor(name="x", dtype=np.float32, shape=(3, 224, 224))
    triton.bind(
        model_name="copy",
        infer_func=echo,
        inputs=[tensor],
        outputs=[tensor],
        config=ModelConfig(max_batch_size=1),
    )
    triton.bind(
        model_name="iris",
        infer_func=iris,
        inputs=[Tensor(name="input-0", dtype=np.float32, shape=(4,))],
        outputs=[Tensor(name="output-0", dtype=np.int64, shape=(1,))],
        config=ModelConfig(max_batch_size=64),
    )
    triton.serve()
