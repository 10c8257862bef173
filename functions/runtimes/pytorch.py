"""The `pytorch` runtime: a `.mar` whose handler runs in this process, TorchScript, or state dict +
code.

TorchServe runs a Java frontend that talks to worker processes, and KServe puts a Python wrapper
before that; here the handler is called directly. The body becomes `data` as TorchServe's `kserve`
envelope makes it: `{"instances": [...]}` -> the list of instances, as they are; the returned list
-> `{"predictions": [...]}`. A body that is no JSON becomes `[{"body": bytes}]`, as in TorchServe's
own API.
"""

import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functions import cpu
from functions.errors import (
    InvalidRequest,
    LoadFailed,
    MissingExtra,
    ModelFailed,
    StatusError,
)
from functions.model import Call, Item, JoinableModel, ModelInfo, ServedModel

from . import mar, torchserve

if TYPE_CHECKING:
    from functions.inference import InferRequest, InferResponse, Tensor
    from functions.settings import Settings

logger = logging.getLogger(__name__)


def limit_threads(settings: "Settings") -> int:
    """Let torch use the container's CPU quota (or the override), and say so in the log."""
    try:
        import torch
    except ImportError as exc:
        raise MissingExtra("torch", "pytorch") from exc
    threads = cpu.library_threads(settings)
    torch.set_num_threads(threads)
    with contextlib.suppress(RuntimeError):  # already fixed by an earlier model of this process
        torch.set_num_interop_threads(1)
    logger.info("torch uses %d threads per call", threads)
    return threads


class HandlerModel(JoinableModel):
    """A TorchServe handler, called in process."""

    def __init__(
        self,
        name: str,
        archive: mar.Archive,
        entry: torchserve.Entry,
        context: torchserve.Context,
    ) -> None:
        self.name = name
        self._archive = archive
        self._entry = entry
        self._context = context
        version = archive.model.get("modelVersion")
        self.info = ModelInfo(platform="pytorch_mar", versions=(str(version),) if version else ())

    def v1(self, verb: str, payload: Any, call: Call) -> Any:
        if isinstance(payload, Mapping):
            instances = payload.get("instances", payload.get("inputs"))
            if not isinstance(instances, list):
                raise InvalidRequest('Expected "instances" to be a list')
            results = self.handle(instances, [call] * len(instances), verb)
            return {"explanations" if verb == "explain" else "predictions": results}
        results = self.handle([{"body": payload}], [call], verb)
        return results[0] if len(results) == 1 else results

    def handle(self, data: list[Any], calls: list[Call], verb: str = "predict") -> list[Any]:
        """One call of the handler for `data`; `calls[i]` is the request that `data[i]` came with.

        Not reentrant: a handler keeps the context of the request it is working on.
        """
        context = self._context
        processors = [self._processor(call, verb) for call in calls]
        context.request_processor = processors or [torchserve.RequestProcessor({})]
        context.request_ids = {index: call.request_id for index, call in enumerate(calls)}
        since = time.perf_counter()
        results = self._entry(data, context)
        for call in dict.fromkeys(calls):
            call.spent(verb, since)
        self._check_status(processors, results)
        for processor, call in zip(processors, calls, strict=True):
            call.response_headers.update(processor.get_response_headers())
        if not isinstance(results, list):
            logger.error(
                "handler of %s returned %s, expected a list", self.name, type(results).__name__
            )
            raise ModelFailed(self.name, calls[0].request_id if calls else "")
        return results

    # --- V2: TorchServe's kservev2 envelope ----------------------------------------------------

    def v2(self, request: "InferRequest", call: Call) -> "InferResponse":
        """Each input is one item of `data`, a dict with name, shape, datatype and data.

        As in TorchServe: BYTES data is its first element, other data a nested list; output i takes
        input i's name and is flat.
        """
        from functions import tensors
        from functions.inference import InferResponse, Tensor, new_id

        results = self.handle([_item_of(t) for t in request.inputs], [call] * len(request.inputs))
        if len(results) != len(request.inputs):
            logger.error(
                "handler of %s answered %d rows to %d", self.name, len(results), len(request.inputs)
            )
            raise ModelFailed(self.name, call.request_id)
        outputs = [
            Tensor(tensor.name, data=tensors.as_array(result).ravel())
            for tensor, result in zip(request.inputs, results, strict=True)
        ]
        version = self.info.versions[0] if self.info.versions else ""
        return InferResponse(request.id or new_id(), request.model_name, outputs, version)

    # --- joined calls --------------------------------------------------------------------------

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        if kind == "infer" or not isinstance(payload, Mapping) or kind != "predict":
            return Item(kind, payload, call, count=1, key=None, data=None)
        instances = payload.get("instances", payload.get("inputs"))
        if not isinstance(instances, list):
            raise InvalidRequest('Expected "instances" to be a list')
        key = "instances" if instances else None
        return Item(kind, payload, call, count=len(instances), key=key, data=instances)

    def run(self, items: list[Item]) -> None:
        if items[0].key is None:
            for item in items:
                item.output = (
                    self.v2(item.payload, item.call)
                    if item.kind == "infer"
                    else self.v1(item.kind, item.payload, item.call)
                )
            return
        rows = [row for item in items for row in item.data]
        calls = [item.call for item in items for _ in item.data]
        results = self.handle(rows, calls)
        if len(items) > 1 and len(results) != len(rows):
            raise ModelFailed(self.name, "")
        at = 0
        for item in items:
            part = results if len(items) == 1 else results[at : at + item.count]
            item.output = {"predictions": part}
            at += item.count

    def answer(self, item: Item) -> Any:
        return item.output

    @staticmethod
    def _processor(call: Call, verb: str) -> torchserve.RequestProcessor:
        headers = {**call.headers, "explain": "True"} if verb == "explain" else call.headers
        return torchserve.RequestProcessor(headers)

    @staticmethod
    def _check_status(processors: list[torchserve.RequestProcessor], results: Any) -> None:
        """A status that the handler set on the context is the answer's status."""
        for index, processor in enumerate(processors):
            if processor.status >= 400:
                text = processor.phrase or ""
                if not text and isinstance(results, list) and index < len(results):
                    text = results[index] if isinstance(results[index], str) else ""
                raise StatusError(processor.status, text or "the handler refused this request")

    def artifact_file(self, name: str) -> Path | None:
        return self._archive.directory / name

    def close(self) -> None:
        self._archive.close()


def _item_of(tensor: "Tensor") -> dict[str, Any]:
    values = tensor.as_numpy()
    data: Any = values.tolist()
    if tensor.datatype == "BYTES":
        flat = values.ravel().tolist()
        data = flat[0] if flat else ""
    return {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype, "data": data}


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    """Load whatever of pytorch is in the directory. Raises LoadFailed."""
    archive_file = mar.find(directory, name)
    if archive_file is not None:
        return _build_mar(name, archive_file, settings)
    limit_threads(settings)
    from . import torch_files

    return torch_files.build(directory, settings.threads or 1)


def _build_mar(name: str, archive_file: Path, settings: "Settings") -> ServedModel:
    limit_threads(settings)
    archive = mar.unpack(archive_file)
    try:
        model = archive.model
        handler = model.get("handler")
        if not isinstance(handler, str) or not handler:
            raise LoadFailed(f"{mar.MANIFEST} names no handler")
        if model.get("requirementsFile"):
            logger.warning(
                "%s brings requirements.txt; nothing is installed at start: install it into the"
                " image",
                archive_file.name,
            )
        context = torchserve.Context(
            name,
            archive.directory,
            archive.manifest,
            torchserve.read_config(archive.directory, model),
        )
        entry, initialize, _ = torchserve.load_entry(handler, archive.directory)
        initialize(context)
    except BaseException:
        archive.close()
        raise
    return HandlerModel(name, archive, entry, context)
