"""Sends pictures to a V2 service over gRPC and prints the labels: BYTES in, labels and scores out.

    python examples/mnist-transformer/ask_grpc.py ADDRESS AUTHORITY MODEL PICTURE...

ADDRESS is where the gateway is (`127.0.0.1:8080`), AUTHORITY the service's host name. Any Open
Inference Protocol client does; `tritonclient` is one. This one uses our messages, `functions.oip`.
"""

import sys
from pathlib import Path
from typing import Any

import grpc

from functions import oip


def ask(
    address: str, authority: str, model: str, *pictures: bytes
) -> list[list[tuple[str, float]]]:
    """The best labels of each picture."""
    request = oip.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(pictures)])
    tensor.contents.bytes_contents.extend(pictures)
    options = [("grpc.default_authority", authority), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        infer = channel.unary_unary(
            f"/{oip.SERVICE}/ModelInfer",
            request_serializer=oip.ModelInferRequest.SerializeToString,
            response_deserializer=oip.ModelInferResponse.FromString,
        )
        answer: Any = infer(request, timeout=120)
    found = {output.name: output for output in answer.outputs}
    count, best = found["label"].shape
    labels = [label.decode() for label in found["label"].contents.bytes_contents]
    contents = found["score"].contents
    scores = list(contents.fp32_contents or contents.fp64_contents)
    pairs = list(zip(labels, scores, strict=True))
    return [pairs[at * best : (at + 1) * best] for at in range(count)]


if __name__ == "__main__":
    where, host, name, *files = sys.argv[1:]
    answers = ask(where, host, name, *(Path(file).read_bytes() for file in files))
    for file, best in zip(files, answers, strict=True):
        print(file, ", ".join(f"{label} {score:.3f}" for label, score in best))
