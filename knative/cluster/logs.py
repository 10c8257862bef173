"""Logs of a Service's pods in a cluster."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from knative import errors
from knative.cluster import state
from knative.cluster.client import Api

JSON = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One container of one pod."""

    pod: str
    container: str


def sources(api: Api, namespace: str, name: str, *, container: str = "") -> list[Source]:
    """Containers of the newest pod of a Service, init containers first, Knative's own left out."""
    api.get("Service", namespace, name)  # a clear error for a name that does not exist
    pods = api.items("Pod", namespace, f"serving.knative.dev/service={name}")
    if not pods:
        raise errors.TurnoutError(
            f"{name} has no pod now: it is scaled to zero, or not started yet"
        )
    newest = max(pods, key=lambda p: p["metadata"].get("creationTimestamp") or "")
    spec = newest["spec"]
    names = [c["name"] for c in [*(spec.get("initContainers") or []), *spec["containers"]]]
    chosen = (
        [n for n in names if n == container]
        if container
        else [n for n in names if n != "queue-proxy"]
    )
    if not chosen:
        raise errors.UsageError(f"{name} has no container {container}; it has {', '.join(names)}")
    return [Source(pod=newest["metadata"]["name"], container=c) for c in chosen]


def read(
    api: Api, namespace: str, source: Source, *, tail: int, previous: bool = False
) -> list[str]:
    """The last lines of a container; empty if it has not started."""
    query = {"container": source.container, "tailLines": str(tail)}
    if previous:
        query["previous"] = "true"
    try:
        return api.text(_path(namespace, source), query).splitlines()
    except errors.TurnoutError as error:
        if "waiting to start" in str(error) or "not found" in str(error):
            return []
        raise


def follow(api: Api, namespace: str, source: Source, *, tail: int) -> Iterator[str]:
    """Lines as they come, until the container ends."""
    query = {"container": source.container, "tailLines": str(tail), "follow": "true"}
    yield from api.stream(_path(namespace, source), query)


def _path(namespace: str, source: Source) -> str:
    return f"api/v1/namespaces/{namespace}/pods/{source.pod}/log"


def describe(pod: Mapping[str, JSON]) -> str:
    """What a pod is doing."""
    return state.pod_reason(pod)
