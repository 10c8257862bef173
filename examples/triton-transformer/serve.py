"""Stands in for Triton's container on a machine without containers: NVIDIA's own server, from the
package `nvidia-pytriton`, with the repository's ONNX files.

That package brings the server with its Python backend only, so onnxruntime is called from there;
protocol, batching and scheduling are Triton's. Takes the container's own arguments.

    python serve.py tritonserver --model-store=DIR --grpc-port=N --http-port=N ...
"""

import argparse
import asyncio
import os
import signal
import socket
import sysconfig
from pathlib import Path

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def bind(triton: Triton, folder: Path) -> None:
    """One model of the repository, under its directory's name; its newest version."""
    newest = max(folder.glob("*/model.onnx"), key=lambda file: int(file.parent.name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(newest), options)
    inputs, outputs = session.get_inputs(), session.get_outputs()

    @batch
    def infer(**tensors: np.ndarray) -> list[np.ndarray]:
        return session.run(None, tensors)

    triton.bind(
        model_name=folder.name,
        infer_func=infer,
        inputs=[Tensor(name=i.name, dtype=np.float32, shape=tuple(i.shape[1:])) for i in inputs],
        outputs=[Tensor(name=o.name, dtype=np.float32, shape=tuple(o.shape[1:])) for o in outputs],
        config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher()),
    )


async def relay(port: int, inner: int) -> None:
    """Open the pod's port, now that the models are there: Knative takes the open port for
    readiness, and this server opens its own before it loads them."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", inner)
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await asyncio.start_server(connected, "127.0.0.1", port)
    await stop.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-store", type=Path, required=True)
    parser.add_argument("--grpc-port", type=int, default=9000)
    given, _ = parser.parse_known_args()
    # Triton's backend embeds libpython; it must be this interpreter's, not another of the machine.
    library = [str(sysconfig.get_config_var("LIBDIR")), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, library))
    http, inner = free_port(), free_port()
    config = TritonConfig(
        http_port=http,
        http_address="127.0.0.1",
        grpc_port=inner,
        grpc_address="127.0.0.1",
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        for folder in sorted(given.model_store.iterdir()):
            if any(folder.glob("*/model.onnx")):
                bind(triton, folder)
        triton.run()
        asyncio.run(relay(given.grpc_port, inner))


if __name__ == "__main__":
    main()
