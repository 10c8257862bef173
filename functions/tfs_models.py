"""TensorFlow Serving's ModelService: which versions there are, and which are to be served.

The models are those the server was started with. A new configuration must name exactly these, as
it replaces the old one; what it can change is their version policy and labels, which
`--version-policy` and `--param label.NAME=N` set at start. All workers of this server follow;
another pod, or this one after a sleep, has what its manifest says.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from . import grpc_server, tfs, tfs_rest
from .errors import InvalidRequest, NotSupported, StatusError
from .grpc_server import Method
from .tfs_grpc import SERVICES, Precondition, told

if TYPE_CHECKING:
    from .repository import Repository

PLATFORM = "tensorflow"


class ModelService:
    """GetModelStatus, HandleReloadConfigRequest."""

    def __init__(self, repository: "Repository") -> None:
        self.repository = repository
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> dict[str, Method]:
        found = {
            "GetModelStatus": grpc_server.coroutine(self.status, tfs.GetModelStatusRequest, told),
            "HandleReloadConfigRequest": grpc_server.coroutine(
                self.reload, tfs.ReloadConfigRequest, told
            ),
        }
        return {f"{SERVICES}.ModelService/{name}": method for name, method in found.items()}

    async def status(self, request: Any) -> Any:
        response = tfs.GetModelStatusResponse()
        spec = request.model_spec
        version = str(spec.version.value) if spec.HasField("version") else ""
        if not spec.name:
            raise InvalidRequest("Missing ModelSpec")
        entry = self.repository.entries.get(spec.name)
        if entry is None:
            raise StatusError(404, f"Could not find any versions of model {spec.name}")
        for number, status in tfs_rest.statuses(entry, version):
            found = response.model_version_status.add(version=number, state=status.state)
            found.status.error_code = 2 if status.error else 0
            found.status.error_message = status.error
        return response

    async def reload(self, request: Any) -> Any:
        # Done to its end even if the caller goes: half of it would leave the workers different.
        task = asyncio.get_running_loop().create_task(self._reload(request.config))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
        return tfs.ReloadConfigResponse(status=tfs.StatusProto(error_code=0))

    async def _reload(self, config: Any) -> None:
        async with self._reloading:
            await self.repository.configure(self._changes(config))

    def _changes(self, config: Any) -> dict[str, dict[str, Any]]:
        """Policy and labels for every model; all of it is checked before any of it is done.
        Raises InvalidRequest, Precondition, NotSupported."""
        if config.WhichOneof("config") != "model_config_list":
            raise NotSupported("only a model_config_list can be loaded")
        listed = list(config.model_config_list.config)
        names = [one.name for one in listed]
        if len(set(names)) != len(names):
            raise InvalidRequest("Illegal to list model more than once in the configuration")
        served = {
            name: entry.model
            for name, entry in self.repository.entries.items()
            if hasattr(entry.model, "reconfigure")
        }
        if set(names) != set(served):
            raise Precondition(
                f"the configuration must list the models of this server: {', '.join(served)}; it"
                f" lists {', '.join(names) or 'none'}. Models are chosen when the server starts,"
                " or with the repository API of V2"
            )
        changes = {}
        for one in listed:
            model: Any = served[one.name]
            if one.model_platform and one.model_platform != PLATFORM:
                raise Precondition(f"the platform of {one.name} is {PLATFORM} and stays it")
            labels = dict(one.version_labels)
            missing = [label for label, n in labels.items() if not model.is_available(n)]
            if missing:
                raise Precondition(
                    f"label {missing[0]} of {one.name} would point to version"
                    f" {labels[missing[0]]}, which is not available"
                )
            changes[one.name] = {"policy": _policy(one.model_version_policy), "labels": labels}
        return changes


def _policy(policy: Any) -> str:
    """The policy as `--version-policy` takes it. Raises InvalidRequest."""
    chosen = policy.WhichOneof("policy_choice")
    if chosen == "all":
        return "all"
    if chosen == "specific":
        if not policy.specific.versions:
            raise InvalidRequest("a specific version policy must list versions")
        return "specific:" + ",".join(map(str, policy.specific.versions))
    return f"latest:{policy.latest.num_versions or 1}"
