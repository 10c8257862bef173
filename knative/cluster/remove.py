"""Deleting what was applied: callers before callees, until it is really gone."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from knative import errors
from knative.cluster.client import Api
from knative.cluster.errors import NotFound

JSON = Any
Object = dict[str, JSON]


def delete(
    api: Api,
    objects: Sequence[Object],
    *,
    dry_run: bool,
    say: Callable[[Object, bool], None],
) -> list[Object]:
    """Delete objects in reverse order of applying; `say` gets each with whether it was there."""
    gone: list[Object] = []
    for item in reversed(objects):
        metadata = item["metadata"]
        try:
            api.delete(item["kind"], metadata["namespace"], metadata["name"], dry_run=dry_run)
        except NotFound:
            say(item, False)
            continue
        gone.append(item)
        say(item, True)
    return gone


def wait_gone(
    api: Api,
    objects: Sequence[Object],
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the objects, and the pods of Services among them, do not exist any more."""
    deadline = clock() + timeout_s
    left = list(objects)
    while True:
        left = [item for item in left if _exists(api, item)]
        if not left:
            return
        if clock() >= deadline:
            names = ", ".join(f"{o['kind']} {o['metadata']['name']}" for o in left)
            raise errors.TryAgain(f"still there after {timeout_s:g} s: {names}")
        sleep(0.5)


def _exists(api: Api, item: Object) -> bool:
    metadata = item["metadata"]
    try:
        api.get(item["kind"], metadata["namespace"], metadata["name"])
        return True
    except NotFound:
        pass
    if item["kind"] != "Service":
        return False
    selector = f"serving.knative.dev/service={metadata['name']}"
    return bool(api.items("Pod", metadata["namespace"], selector))
