"""`inference.GRPCInferenceService` and the standard health service over the repository's models.

Statuses follow the table in our notes on KServe's gRPC, without its defects: readiness is checked,
load and unload answer, a requested output that is not there is INVALID_ARGUMENT.
"""

import time
from typing import TYPE_CHECKING, Any

import grpc

from . import __version__, faults, grpc_server, oip
from .codec_grpc import GrpcBody, GrpcCodec, GrpcRoute
from .engine import Engine
from .errors import FunctionsError, InvalidRequest, LoadFailed, ModelNotReady
from .model import Call

if TYPE_CHECKING:
    from .repository import Repository


class InferenceService:
    """One coroutine method per RPC, found by name."""

    def __init__(self, repository: "Repository", engine: Engine) -> None:
        self.repository = repository
        self.engine = engine
        self.codec = GrpcCodec(repository.settings)

    def generic_handler(self) -> grpc.GenericRpcHandler:
        methods: dict[str, tuple[grpc_server.Method, Any]] = {
            name: (getattr(self, name), getattr(oip, f"{name}Request")) for name in oip.METHODS
        }
        methods["ModelInfer"] = (self.ModelInfer, None)
        return grpc_server.handler(oip.SERVICE, methods)

    async def ServerLive(self, request: Any, context: Any) -> Any:
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return oip.ServerReadyResponse(ready=self.repository.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        try:
            self.repository.ready_entry(request.name, request.version)
        except ModelNotReady:
            return oip.ModelReadyResponse(ready=False)
        except FunctionsError as error:
            await _abort(context, error)
        return oip.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return oip.ServerMetadataResponse(
            name="turnout", version=__version__, extensions=["model_repository"]
        )

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        try:
            entry = self.repository.entry(request.name)
            if request.version:
                self.repository.ready_entry(request.name, request.version)
        except FunctionsError as error:
            await _abort(context, error)
        response = oip.ModelMetadataResponse(name=entry.name)
        if entry.model is not None:
            info = entry.model.info
            response.platform = info.platform
            response.versions.extend(info.versions)
            for target, specs in ((response.inputs, info.inputs), (response.outputs, info.outputs)):
                for spec in specs:
                    target.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return response

    async def ModelInfer(self, data: bytes, context: Any) -> Any:
        try:
            body = GrpcBody(data)
        except ValueError as exc:
            await _abort(context, InvalidRequest(f"the request is no ModelInferRequest: {exc}"))
        request = body.message
        call = Call(grpc_server.lower_metadata(context), request.id)
        left = context.time_remaining()
        if left is not None:
            call.deadline = time.monotonic() + left
        future, done = grpc_server.answer_to_await(
            lambda error: faults.classify(error, request.model_name, call.request_id, call.stage)
        )

        entry = None
        try:
            entry = self.repository.ready_entry(request.model_name, request.model_version)
            route = GrpcRoute(request.model_name, request.model_version)
            self.engine.execute(entry, self.codec, route, body, body.size(), call, done)
            answer = await future
        except FunctionsError as error:
            if entry is not None:
                entry.metrics.observe("grpc-v2", error.http_status(), call.timings)
            await _abort(context, error)
        assert entry is not None
        entry.metrics.observe("grpc-v2", 200, call.timings)
        return b"".join(answer)

    # --- repository ----------------------------------------------------------------------------

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        response = oip.RepositoryIndexResponse()
        for entry in self.repository.index():
            if not request.ready or entry["state"] == "READY":
                response.models.add(**entry)
        return response

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        name = request.triton_model_name or request.model_name
        try:
            await self.repository.load(name)
        except LoadFailed as error:
            await _abort(context, ModelNotReady(name, f"it could not be loaded: {error}"))
        except FunctionsError as error:
            await _abort(context, error)
        return oip.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        name = request.triton_model_name or request.model_name
        try:
            self.repository.unload(name)
        except FunctionsError as error:
            await _abort(context, error)
        return oip.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)


async def _abort(context: Any, error: FunctionsError) -> None:
    await context.abort(grpc_server.status_of(error), grpc_server.text_of(error))


class HealthService:
    """`grpc.health.v1.Health/Check`, for Kubernetes' gRPC probes. Hand-encoded: one enum field."""

    SERVING = b"\x08\x01"
    NOT_SERVING = b"\x08\x02"

    def __init__(self, repository: "Repository") -> None:
        self.repository = repository

    def generic_handler(self) -> grpc.GenericRpcHandler:
        check = grpc.unary_unary_rpc_method_handler(self.check)  # bytes in, bytes out
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})

    async def check(self, request: bytes, context: Any) -> bytes:
        return self.SERVING if self.repository.ready else self.NOT_SERVING
