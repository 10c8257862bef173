"""MLServer's types and codecs, over plain HTTP. Exit 0 when all is well.

argv: HTTP port.
"""

import json
import sys
import urllib.request

import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec, NumpyRequestCodec, StringCodec
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexResponse,
)

BASE = f"http://127.0.0.1:{sys.argv[1]}"


def call(path, body=None):
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(BASE + path, body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def infer(request):
    body = request.model_dump_json(exclude_none=True).encode()
    # As in MLServer's examples, where what was not set is null.
    nulls = json.dumps(request.dict(), default=bytes.decode).encode()
    assert b"null" in nulls
    assert call("/v2/models/echo/infer", nulls)
    answer = InferenceResponse.model_validate_json(call("/v2/models/echo/infer", body))
    assert answer.model_name == "echo"
    return answer


for array in (
    np.random.default_rng(0).random((2, 3)),
    np.arange(6, dtype=np.int64).reshape(3, 2),
    np.arange(40000, dtype=np.float32).reshape(4, 100, 100),
    np.array([[True], [False]]),
):
    sent = InferenceRequest(id="7", inputs=[NumpyCodec.encode_input("x", array)])
    answer = infer(sent)
    assert answer.id == "7"
    found = NumpyCodec.decode_output(answer.outputs[0])
    assert found.dtype == array.dtype, (found.dtype, array.dtype)
    assert (found == array).all()
    whole = NumpyRequestCodec.encode_request(array)
    assert (NumpyRequestCodec.decode_response(infer(whole)) == array).all()

texts = ["ä", "", "two words"]
answer = infer(InferenceRequest(inputs=[StringCodec.encode_input("x", texts)]))
assert StringCodec.decode_output(answer.outputs[0]) == texts

blobs = [b"\xff\x00", b"abc"]
answer = infer(InferenceRequest(inputs=[Base64Codec.encode_input("x", blobs, use_bytes=False)]))
assert Base64Codec.decode_output(answer.outputs[0]) == blobs

MetadataServerResponse.model_validate_json(call("/v2"))
assert MetadataModelResponse.model_validate_json(call("/v2/models/echo")).name == "echo"
index = RepositoryIndexResponse.model_validate_json(call("/v2/repository/index", b"{}"))
assert [(entry.name, str(entry.state).rpartition(".")[2]) for entry in index.root] == [
    ("echo", "READY")
]
call("/v2/repository/models/echo/unload", b"{}")
index = RepositoryIndexResponse.model_validate_json(call("/v2/repository/index", b""))
assert [str(entry.state).rpartition(".")[2] for entry in index.root] == ["UNAVAILABLE"]
print("ok")
