"""Warm-up requests from the artifact, answered before the model is ready.

`warmup.json` at the top of the model directory (or of an archive) is a list of request bodies as
clients send them: V1 (`{"instances": [...]}`) or V2 (`{"inputs": [{"name", "shape", "datatype",
"data"}]}`). First calls compile kernels, fill caches and start threads; this way no client waits
for that. A warm-up request that fails means that the model does not work: loading fails.
"""

import asyncio
import inspect
import json
import logging
import time
from pathlib import Path
from typing import Any

from . import codec_v2
from .errors import LoadFailed
from .model import Call, ServedModel
from .wire import v2

logger = logging.getLogger(__name__)

FILE = "warmup.json"
MAX_REQUESTS = 1000
"""As many as TensorFlow Serving replays."""


def read(file: Path) -> list[dict[str, Any]]:
    """Raises LoadFailed."""
    try:
        bodies = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise LoadFailed(f"{FILE} cannot be read: {exc}") from exc
    if not isinstance(bodies, list) or not all(isinstance(body, dict) for body in bodies):
        raise LoadFailed(f"{FILE} must be a list of request bodies")
    if len(bodies) > MAX_REQUESTS:
        raise LoadFailed(f"{FILE} has {len(bodies)} requests; at most {MAX_REQUESTS} are sent")
    return bodies


def run(name: str, model: ServedModel, directory: Path) -> int:
    """Send every request of the artifact to the model; how many there were. Raises LoadFailed."""
    folder = directory if directory.is_dir() else directory.parent
    candidates = (model.artifact_file(FILE), folder / FILE)
    file = next((path for path in candidates if path is not None and path.is_file()), None)
    if file is None:
        return 0
    bodies = read(file)
    since = time.perf_counter()
    for index, body in enumerate(bodies):
        try:
            result = _call(name, model, body)
            if inspect.isawaitable(result):
                asyncio.run(_await(result))
        except Exception as exc:
            raise LoadFailed(
                f"warm-up request {index} failed: {type(exc).__name__}: {exc}"
            ) from exc
    logger.info("%d warm-up requests took %.3f s", len(bodies), time.perf_counter() - since)
    return len(bodies)


def _call(name: str, model: ServedModel, body: dict[str, Any]) -> Any:
    call = Call({})
    inputs = body.get("inputs")
    if (
        isinstance(inputs, list)
        and inputs
        and isinstance(inputs[0], dict)
        and "datatype" in inputs[0]
    ):
        try:
            request = codec_v2.from_document(body, memoryview(b""), name, "")
        except v2.Malformed as problem:
            raise LoadFailed(str(problem)) from None
        return model.v2(request, call)
    return model.v1("predict", body, call)


async def _await(awaitable: Any) -> Any:
    return await awaitable
