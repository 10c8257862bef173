"""`logger` and `batcher`: KServe runs an agent sidecar for them; our own server does both in
process."""

from typing import TYPE_CHECKING, Any

from knative.api.resource import Resource
from knative.resources import container

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any


def env(
    resource: Resource, context: "Context", component: str, *, ours: bool
) -> list[dict[str, JSON]]:
    """Environment of our server for a component's logger and batcher; an error on other
    containers."""
    fields = resource.spec[component]
    variables: dict[str, str] = {}
    logger, batcher = fields.get("logger"), fields.get("batcher")
    for name, given in (("logger", logger), ("batcher", batcher)):
        if given is not None and not ours:
            context.report(resource).error(
                ("spec", component, name),
                f"{name} needs KServe's agent sidecar or Turnout's own server, which has it built"
                f" in;"
                " this container is neither",
            )
    if logger is not None:
        if not logger.get("url"):
            context.report(resource).error(("spec", component, "logger"), "url is required")
        variables["FUNCTIONS_LOGGER_URL"] = logger.get("url") or ""
        variables["FUNCTIONS_LOGGER_MODE"] = logger.get("mode") or "all"
    if batcher is not None:
        variables["FUNCTIONS_MAX_BATCH_SIZE"] = str(batcher.get("maxBatchSize") or 32)
        variables["FUNCTIONS_MAX_BATCH_LATENCY_MS"] = str(batcher.get("maxLatency") or 5000)
    return container.env(**variables) if ours else []
