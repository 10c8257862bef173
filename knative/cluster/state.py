"""Reading what a cluster says about a Knative Service: conditions, traffic, pods. Pure
functions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

JSON = Any


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of an object."""

    status: str
    """True, False or Unknown; Unknown also when it is missing."""
    reason: str = ""
    message: str = ""


def condition(item: Mapping[str, JSON], kind: str = "Ready") -> Condition:
    """A condition by type."""
    for found in (item.get("status") or {}).get("conditions") or []:
        if found.get("type") == kind:
            return Condition(
                str(found.get("status") or "Unknown"),
                str(found.get("reason") or ""),
                str(found.get("message") or ""),
            )
    return Condition("Unknown")


def is_current(item: Mapping[str, JSON]) -> bool:
    """Whether the controller has seen the latest spec."""
    status = item.get("status") or {}
    return bool(status.get("observedGeneration") == item["metadata"].get("generation"))


def is_ready(item: Mapping[str, JSON]) -> bool:
    """Ready, and about the latest spec."""
    return is_current(item) and condition(item).status == "True"


def age(item: Mapping[str, JSON], now: datetime) -> str:
    """Age as kubectl prints it: `42s`, `5m`, `3h`, `12d`."""
    text = item["metadata"].get("creationTimestamp")
    if not text:
        return "-"
    seconds = max(
        0, int((now - datetime.fromisoformat(text.replace("Z", "+00:00"))).total_seconds())
    )
    for limit, unit, size in ((120, "s", 1), (7200, "m", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def traffic(item: Mapping[str, JSON]) -> str:
    """`100% pets-00002` or `10% pets-00003, 90% pets-00002 (prev)`."""
    parts: list[str] = []
    for target in (item.get("status") or {}).get("traffic") or []:
        tag = f" ({target['tag']})" if target.get("tag") else ""
        parts.append(f"{target.get('percent') or 0}% {target.get('revisionName', '?')}{tag}")
    return ", ".join(parts) or "-"


def pod_reason(pod: Mapping[str, JSON]) -> str:
    """What a pod is doing, in a few words: scheduling, init container, image pull, crash,
    running."""
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return "stopping"
    for found in status.get("conditions") or []:
        if found.get("type") == "PodScheduled" and found.get("status") == "False":
            return f"not scheduled: {found.get('message') or found.get('reason')}"
    for group in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(group) or []:
            said = _container(container, init=group.startswith("init"))
            if said:
                return said
    return str(status.get("phase") or "Unknown").lower()


def _container(status: Mapping[str, JSON], *, init: bool) -> str:
    """Why this container keeps the pod from being ready; empty if it does not."""
    state = status.get("state") or {}
    name = status.get("name", "?")
    waiting, ended = state.get("waiting"), state.get("terminated")
    running = state.get("running") is not None
    if waiting and waiting.get("reason") not in (None, "PodInitializing"):
        message = waiting.get("message") or ""
        return f"{name}: {waiting['reason']}" + (f" ({message})" if message else "")
    if ended and ended.get("exitCode"):
        message = (ended.get("message") or "").strip().splitlines()
        return f"{name}: exit code {ended['exitCode']}" + (f": {message[-1]}" if message else "")
    if init and running:
        return f"{name} is running"
    if not init and running and not status.get("ready"):
        return f"{name} is starting"
    return ""


def failed_container(pods: Iterable[Mapping[str, JSON]]) -> tuple[str, str] | None:
    """(pod, container) of the first container that failed, for showing its log."""
    for pod in pods:
        status = pod.get("status") or {}
        for group in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(group) or []:
                for key in ("state", "lastState"):
                    ended = (container.get(key) or {}).get("terminated")
                    if ended and ended.get("exitCode"):
                        return pod["metadata"]["name"], container["name"]
    return None
