"""KServe's InferenceRESTClient (V1, V2 JSON and binary) and gRPC client.

argv: HTTP port, gRPC port.
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main() -> None:
    base = f"http://127.0.0.1:{sys.argv[1]}"
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await v1.is_model_ready(base, "echo")
    assert await v1.infer(base, {"instances": [1, 2]}, model_name="echo") == {"predictions": [1, 2]}
    v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await v2.is_server_live(base)
    assert await v2.is_server_ready(base)
    assert await v2.is_model_ready(base, "echo")
    array = np.random.default_rng(0).random((2, 3), dtype=np.float32)
    for binary in (False, True):
        tensor = InferInput("x", [2, 3], "FP32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        request = InferRequest("echo", [tensor], request_id="7")
        response = await v2.infer(base, request, model_name="echo")
        assert response.id == "7", response.id
        assert np.allclose(response.outputs[0].as_numpy(), array)
    client = InferenceGRPCClient(f"127.0.0.1:{sys.argv[2]}")
    assert await client.is_server_ready()
    assert await client.is_model_ready("echo")
    tensor = InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(array, binary_data=True)
    response = await client.infer(InferRequest("echo", [tensor], request_id="8"))
    assert response.id == "8"
    assert np.allclose(response.outputs[0].as_numpy(), array)
    print("ok")


asyncio.run(main())
