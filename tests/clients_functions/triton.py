"""tritonclient over HTTP (JSON and binary) and gRPC. Exit 0 when all is well.

argv: HTTP port, gRPC port.
"""

import sys

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

SAMPLES = {
    "BOOL": np.array([True, False]),
    "INT8": np.array([-1, 2], dtype=np.int8),
    "INT16": np.array([-300], dtype=np.int16),
    "INT32": np.arange(6, dtype=np.int32).reshape(2, 3),
    "INT64": np.arange(6).reshape(2, 3),
    "UINT8": np.arange(6, dtype=np.uint8),
    "UINT16": np.array([65535], dtype=np.uint16),
    "UINT32": np.array([1], dtype=np.uint32),
    "UINT64": np.array([2**63], dtype=np.uint64),
    "FP16": np.arange(4, dtype=np.float16),
    "FP32": np.random.default_rng(0).random((2, 3), dtype=np.float32),
    "FP64": np.array([0.1]),
    "BYTES": np.array([b"a\xff", b""], dtype=object),
}


def refused(call, status):
    try:
        call()
    except InferenceServerException as error:
        found, details = str(error.status()), str(error)
    else:
        found, details = "no error", ""
    assert status in found, (found, details)


def check(module, client, *, http):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert not client.is_model_ready("nope") if http else True
    client.get_server_metadata()
    client.get_model_metadata("echo")
    assert client.get_model_repository_index()
    for datatype, array in SAMPLES.items():
        modes = (True, False) if http and datatype not in ("FP16", "BYTES") else (True,)
        for binary in modes:
            sent = module.InferInput("x", list(array.shape), datatype)
            options = {"binary_data": binary} if http else {}
            sent.set_data_from_numpy(array, **options)
            wanted = module.InferRequestedOutput("x", **options)
            result = client.infer("echo", [sent], outputs=[wanted], request_id="7")
            assert (result.as_numpy("x") == array).all(), datatype
            response = result.get_response()
            assert (response["id"] if http else response.id) == "7"
    one = module.InferInput("x", [2], "INT64")
    one.set_data_from_numpy(np.arange(2))
    for algorithm in ("gzip", "deflate") if http else ():
        both = {f"{way}_compression_algorithm": algorithm for way in ("request", "response")}
        assert (client.infer("echo", [one], **both).as_numpy("x") == np.arange(2)).all()
    refused(lambda: client.infer("nope", [one]), "404" if http else "NOT_FOUND")
    unknown = [module.InferRequestedOutput("zzz")]
    refused(
        lambda: client.infer("echo", [one], outputs=unknown), "400" if http else "INVALID_ARGUMENT"
    )
    client.unload_model("echo")
    assert not client.is_model_ready("echo")
    refused(lambda: client.infer("echo", [one]), "503" if http else "UNAVAILABLE")
    client.load_model("echo")
    assert client.is_model_ready("echo")


check(http_client, http_client.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}"), http=True)
check(grpc_client, grpc_client.InferenceServerClient(f"127.0.0.1:{sys.argv[2]}"), http=False)
print("ok")
