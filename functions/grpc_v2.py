"""`inference.GRPCInferenceService` and the standard health service over the repository's models.

Statuses follow the table in our notes on KServe's gRPC, without its defects: readiness is checked,
load and unload answer, a requested output that is not there is INVALID_ARGUMENT.
"""

from typing import TYPE_CHECKING, Any

from . import __version__, grpc_server, oip
from .codec_grpc import GrpcBody, GrpcCodec, GrpcRoute
from .engine import Engine
from .errors import LoadFailed, ModelNotReady
from .grpc_server import Method, ServerCall
from .grpc_status import Status
from .model import Call

if TYPE_CHECKING:
    from .repository import Repository


class InferenceService:
    """One method per RPC, found by name."""

    def __init__(self, repository: "Repository", engine: Engine) -> None:
        self.repository = repository
        self.engine = engine
        self.codec = GrpcCodec(repository.settings)

    def methods(self) -> dict[str, Method]:
        found = {
            name: grpc_server.coroutine(getattr(self, name), getattr(oip, f"{name}Request"))
            for name in oip.METHODS
            if name != "ModelInfer"
        }
        found["ModelInfer"] = Method(self.infer)
        return {f"{oip.SERVICE}/{name}": method for name, method in found.items()}

    async def ServerLive(self, request: Any) -> Any:
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any) -> Any:
        return oip.ServerReadyResponse(ready=await self.repository.is_ready())

    async def ModelReady(self, request: Any) -> Any:
        try:
            await self.repository.checked_entry(request.name, request.version)
        except ModelNotReady:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any) -> Any:
        return oip.ServerMetadataResponse(
            name="turnout", version=__version__, extensions=["model_repository"]
        )

    async def ModelMetadata(self, request: Any) -> Any:
        entry = self.repository.entry(request.name)
        if request.version:
            self.repository.ready_entry(request.name, request.version)
        response = oip.ModelMetadataResponse(name=entry.name)
        if entry.model is not None:
            info = entry.model.info
            response.platform = info.platform
            response.versions.extend(info.versions)
            for target, specs in ((response.inputs, info.inputs), (response.outputs, info.outputs)):
                for spec in specs:
                    target.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return response

    def infer(self, call: ServerCall, data: memoryview) -> None:
        try:
            body = GrpcBody(data)
        except ValueError as exc:
            call.fail(Status.INVALID_ARGUMENT, f"the request is no ModelInferRequest: {exc}")
            return
        request = body.message
        model, version = request.model_name, request.model_version
        grpc_server.execute(
            self.engine,
            lambda: self.repository.ready_entry(model, version),
            self.codec,
            GrpcRoute(model, version),
            body,
            len(data),
            call,
            Call(call.metadata(), request.id),
        )

    # --- repository ----------------------------------------------------------------------------

    async def RepositoryIndex(self, request: Any) -> Any:
        response = oip.RepositoryIndexResponse()
        for entry in self.repository.index():
            if not request.ready or entry["state"] == "READY":
                response.models.add(**entry)
        return response

    async def RepositoryModelLoad(self, request: Any) -> Any:
        name = request.triton_model_name or request.model_name
        try:
            await self.repository.load(name)
        except LoadFailed as error:
            raise ModelNotReady(name, f"it could not be loaded: {error}") from error
        return oip.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def RepositoryModelUnload(self, request: Any) -> Any:
        name = request.triton_model_name or request.model_name
        self.repository.unload(name)
        await self.repository.settled(name)  # in every worker
        return oip.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)


class _HealthMessage:
    """Hand-encoded: one enum field; what was asked does not matter."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    FromString = classmethod(lambda cls, data: cls())

    def SerializeToString(self) -> bytes:
        return self.data


class HealthService:
    """`grpc.health.v1.Health/Check`, for Kubernetes' gRPC probes."""

    SERVING = _HealthMessage(b"\x08\x01")
    NOT_SERVING = _HealthMessage(b"\x08\x02")

    def __init__(self, repository: "Repository") -> None:
        self.repository = repository

    def methods(self) -> dict[str, Method]:
        return {"grpc.health.v1.Health/Check": grpc_server.coroutine(self.check, _HealthMessage)}

    async def check(self, request: Any) -> Any:
        return self.SERVING if await self.repository.is_ready() else self.NOT_SERVING
