"""Waiting for Services to become ready, with what each one is doing meanwhile.

One list request per namespace and turn, pods only for namespaces with unready Services; polling,
because
a watch that breaks in the middle of a deployment helps nobody.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from knative import errors
from knative.cluster import state
from knative.cluster.client import Api
from knative.cluster.errors import ClusterAway, ClusterError, NotFound

JSON = Any
Object = dict[str, JSON]
Key = tuple[str, str]
"""(namespace, name)."""

POLL_S = 1.0
"""Between two looks."""

FAILED_FOR_S = 10.0
"""A Service must say Ready=False this long before we believe it: controllers pass through False."""

LOG_LINES = 15
"""Lines of a failed container's log that are shown."""


@dataclass(slots=True)
class Progress:
    """One Service on its way."""

    name: str
    ready: bool = False
    failed: str = ""
    """Why it will not become ready; empty while there is hope."""
    text: str = "waiting for the controller"
    """What it is doing, in a few words."""
    false_since: float | None = None
    log: list[str] = field(default_factory=list)


Show = Callable[[Mapping[Key, Progress]], None]
"""Called after each look."""


def wait(
    api: Api,
    services: Sequence[Key],
    *,
    timeout_s: float,
    show: Show,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[Key, Progress]:
    """Wait until all are ready or have failed. Raises TryAgain at the timeout, saying who is
    missing."""
    progress = {key: Progress(name=key[1]) for key in services}
    deadline = clock() + timeout_s
    while True:
        _look(api, progress, clock())
        show(progress)
        open_ = [p for p in progress.values() if not p.ready and not p.failed]
        if not open_:
            return progress
        if clock() >= deadline:
            lines = "\n".join(f"  {p.name}: {p.text}" for p in open_)
            raise errors.TryAgain(f"not ready after {timeout_s:g} s:\n{lines}")
        sleep(POLL_S)


def _look(api: Api, progress: dict[Key, Progress], now: float) -> None:
    open_ = {key for key, p in progress.items() if not p.ready and not p.failed}
    for namespace in sorted({ns for ns, _ in open_}):
        try:
            live = {i["metadata"]["name"]: i for i in api.items("Service", namespace)}
            waiting = [n for ns, n in open_ if ns == namespace and not _done(live.get(n))]
            pods = _pods(api, namespace, waiting)
        except ClusterAway as error:  # one bad turn is not the end of a deployment
            for key in open_:
                progress[key].text = str(error)
            continue
        for key in open_:
            if key[0] == namespace:
                _judge(api, progress[key], live.get(key[1]), pods.get(key[1], []), now)


def _done(item: Object | None) -> bool:
    return item is not None and state.is_ready(item)


def _pods(api: Api, namespace: str, names: Sequence[str]) -> dict[str, list[Object]]:
    """Pods by Service; empty where we may not look at pods."""
    if not names:
        return {}
    label = "serving.knative.dev/service"
    found: dict[str, list[Object]] = {}
    try:
        pods = api.items("Pod", namespace, label)
    except ClusterError:
        return {}
    for pod in pods:
        found.setdefault((pod["metadata"].get("labels") or {}).get(label, ""), []).append(pod)
    return found


def _judge(
    api: Api, progress: Progress, item: Object | None, pods: list[Object], now: float
) -> None:
    if item is None:
        progress.text = "is not there (deleted meanwhile?)"
        return
    if _done(item):
        progress.ready = True
        progress.text = (item.get("status") or {}).get("url") or "ready"
        return
    status = item.get("status") or {}
    revision = status.get("latestCreatedRevisionName") or ""
    mine = [
        p for p in pods if (p["metadata"].get("labels") or {}).get(_REVISION) in (revision, None)
    ]
    progress.text = _doing(item, revision, mine)
    said = state.condition(item)
    if state.is_current(item) and said.status == "False":
        progress.false_since = now if progress.false_since is None else progress.false_since
        if now - progress.false_since >= FAILED_FOR_S:
            progress.failed = said.message or said.reason or "failed"
            progress.log = _log(api, mine)
    else:
        progress.false_since = None


_REVISION = "serving.knative.dev/revision"


def _doing(item: Object, revision: str, pods: list[Object]) -> str:
    said = state.condition(item)
    if not revision:
        return said.message or "waiting for the controller"
    if pods:
        newest = max(pods, key=lambda p: p["metadata"].get("creationTimestamp") or "")
        return f"{revision}: {state.pod_reason(newest)}"
    return f"{revision}: {said.message or said.reason or 'no pod yet'}"


def _log(api: Api, pods: list[Object]) -> list[str]:
    """The end of the log of the container that failed, if it can be had."""
    culprit = state.failed_container(pods)
    if culprit is None:
        return []
    pod, container = culprit
    namespace = pods[0]["metadata"]["namespace"]
    path = f"api/v1/namespaces/{namespace}/pods/{pod}/log"
    for previous in ("false", "true"):
        query = {"container": container, "tailLines": str(LOG_LINES), "previous": previous}
        try:
            lines = api.text(path, query).splitlines()
        except (ClusterError, NotFound):
            continue
        if lines:
            return [f"{container}: {line}" for line in lines]
    return []
