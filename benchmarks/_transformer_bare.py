"""The least that a gRPC call of a tensor can cost in Python: grpcio alone, nothing around it.

python -m benchmarks._transformer_bare serve PORT
    a grpc.aio server that answers ModelInfer with the tensors of the request
python -m benchmarks._transformer_bare call PORT SIDE SECONDS
    one grpc.aio client, one call after the other; prints the median in microseconds
"""

import statistics
import sys
import time
from typing import Any

import grpc
import grpc.aio
import numpy as np
import uvloop

from functions import oip

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
METHOD = f"/{oip.SERVICE}/ModelInfer"


async def echo(request: Any, context: Any) -> Any:
    answer = oip.ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    answer.raw_output_contents.extend(request.raw_input_contents)
    return answer


async def serve(port: int) -> None:
    server = grpc.aio.server(options=OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(
        echo, oip.ModelInferRequest.FromString, oip.ModelInferResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(oip.SERVICE, {"ModelInfer": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def request(side: int) -> Any:
    array = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    message = oip.ModelInferRequest(model_name="m", id="1")
    message.inputs.add(name="x", datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return message


async def call(port: int, side: int, seconds: float) -> None:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
    infer = channel.unary_unary(
        METHOD, oip.ModelInferRequest.SerializeToString, oip.ModelInferResponse.FromString
    )
    message = request(side)
    for _ in range(20):
        await infer(message)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 20:
        since = time.perf_counter()
        await infer(message)
        times.append(time.perf_counter() - since)
    print(statistics.median(times) * 1e6)
    await channel.close()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve(int(sys.argv[2])))
    else:
        uvloop.run(call(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
