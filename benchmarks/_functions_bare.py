"""The limits that the model server is measured against: hardly anything around the library call.

python -m benchmarks._functions_bare iris MODEL_FILE PORT
    V1 and V2 JSON, one uvloop, no checks
python -m benchmarks._functions_bare echo - PORT
    V2 binary: parse the head, send the bytes back
python -m benchmarks._functions_bare grpc - PORT
    grpcio with a handler that copies contents
"""

import asyncio
import sys
from typing import Any


def iris(file: str) -> Any:
    import joblib
    import numpy as np
    import orjson

    model = joblib.load(file)

    def answer(path: bytes, body: bytes) -> bytes:
        document = orjson.loads(body)
        if path.startswith(b"/v1"):
            rows = model.predict(np.asarray(document["instances"]))
            return orjson.dumps({"predictions": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
        tensor = document["inputs"][0]
        rows = model.predict(np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"]))
        output = {"name": "output-0", "shape": rows.shape, "datatype": "INT64", "data": rows}
        document = {"model_name": "iris", "id": "1", "outputs": [output]}
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)

    return answer


def echo(_: str) -> Any:
    import numpy as np
    import orjson

    def answer(path: bytes, body: bytes, head_length: int = 0) -> bytes:
        end = body.index(b"}]}") + 3
        while body[end : end + 1] == b"}":
            end += 1
        document = orjson.loads(body[:end])
        tensor = document["inputs"][0]
        array = np.frombuffer(body, dtype=np.float32, offset=end).reshape(tensor["shape"])
        output = {**tensor, "parameters": {"binary_data_size": array.nbytes}}
        head = orjson.dumps({"model_name": "echo", "id": "1", "outputs": [output]})
        return head + array.tobytes()

    return answer


def serve(answer: Any, port: int) -> None:
    import httptools
    import uvloop

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.parser = httptools.HttpRequestParser(self)
            self.pieces: list[bytes] = []
            self.path = b""

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_url(self, url: bytes) -> None:
            self.path = url

        def on_body(self, body: bytes) -> None:
            self.pieces.append(body)

        def on_message_complete(self) -> None:
            pieces, self.pieces = self.pieces, []
            body = answer(self.path, pieces[0] if len(pieces) == 1 else b"".join(pieces))
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(run())


def serve_grpc(port: int) -> None:
    import concurrent.futures

    import grpc

    from functions import oip

    def infer(request: Any, _: Any) -> Any:
        answer = oip.ModelInferResponse(model_name=request.model_name, id="1")
        sent = request.inputs[0]
        answer.outputs.add(name=sent.name, datatype=sent.datatype, shape=sent.shape)
        answer.raw_output_contents.append(request.raw_input_contents[0])
        return answer

    method = grpc.unary_unary_rpc_method_handler(
        infer,
        request_deserializer=oip.ModelInferRequest.FromString,
        response_serializer=oip.ModelInferResponse.SerializeToString,
    )
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(oip.SERVICE, {"ModelInfer": method}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    kind, argument, listen = sys.argv[1:4]
    if kind == "grpc":
        serve_grpc(int(listen))
    else:
        serve({"iris": iris, "echo": echo}[kind](argument), int(listen))
