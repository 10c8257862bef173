"""Applying compiled objects: server-side apply in order, canaries resolved, leftovers pruned."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from knative import keys
from knative.cluster import traffic
from knative.cluster.client import MANAGED, OWN_MANAGERS, Api, Applied
from knative.cluster.errors import Conflict, NotFound

JSON = Any
Object = dict[str, JSON]


class Outcome(StrEnum):
    """What happened to one object, in kubectl's words."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions:
    """Choices of one apply."""

    dry_run: bool = False
    """Ask the server, admission included, but store nothing."""
    force: bool = False
    """Take over fields that other tools own."""
    set_name: str = ""
    """Label everything as belonging to this set; what prune goes by."""
    prune: bool = False
    """Delete objects of the set that are not in the input."""


Say = Callable[[str, Object, Outcome], None]
"""Called with (kind, object, outcome) for each object, as it happens."""


def apply(api: Api, objects: Sequence[Object], options: ApplyOptions, say: Say) -> list[Object]:
    """Apply all objects in order; returns them as the cluster stored them."""
    stored: list[Object] = []
    for item in objects:
        wanted = labelled(item, options.set_name)
        live = find(api, wanted)
        wanted = resolved(api, wanted, live)
        applied = _apply(api, wanted, options)
        stored.append(applied.data)
        say(item["kind"], applied.data, _outcome(live, applied.data))
    if options.prune:
        _prune(api, objects, options, say)
    return stored


def resolved(api: Api, item: Object, live: Object | None) -> Object:
    """The object with what only the cluster knows: the other side of a canary."""
    return traffic.with_canary(item, live, lambda o: api.apply(o, dry_run=True, force=True).data)


def _apply(api: Api, item: Object, options: ApplyOptions) -> Applied:
    """Server-side apply; traffic that `turnout rollout` moved is ours to take back."""
    try:
        return api.apply(item, dry_run=options.dry_run, force=options.force)
    except Conflict as error:
        if not error.managers or not error.managers <= OWN_MANAGERS:
            raise
        return api.apply(item, dry_run=options.dry_run, force=True)


def find(api: Api, item: Mapping[str, JSON]) -> Object | None:
    """The live object of the same kind and name, or None."""
    try:
        return api.get(item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])
    except NotFound as error:
        if "not installed" in str(error):
            raise
        return None


def labelled(item: Object, set_name: str) -> Object:
    """The object with the label of its set; itself without one."""
    if not set_name:
        return item
    wanted = copy.deepcopy(item)
    wanted["metadata"].setdefault("labels", {})[keys.APPLY_SET] = set_name
    return wanted


def _outcome(live: Object | None, stored: Object) -> Outcome:
    if live is None:
        return Outcome.CREATED
    before, after = comparable(live), comparable(stored)
    return Outcome.UNCHANGED if before == after else Outcome.CONFIGURED


_SERVER_SIDE = (
    "managedFields",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "selfLink",
)
_BOOKKEEPING = (
    "serving.knative.dev/creator",
    "serving.knative.dev/lastModifier",
    keys.LAST_APPLIED,
)


def comparable(item: Mapping[str, JSON]) -> Object:
    """An object without what only the server writes."""
    metadata = {k: v for k, v in item["metadata"].items() if k not in _SERVER_SIDE}
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {k: v for k, v in annotations.items() if k not in _BOOKKEEPING}
    return {**{k: v for k, v in item.items() if k != "status"}, "metadata": metadata}


def _prune(api: Api, objects: Iterable[Object], options: ApplyOptions, say: Say) -> None:
    kept = {(o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]) for o in objects}
    for namespace in sorted({namespace for _, namespace, _ in kept}):
        for item in of_set(api, namespace, options.set_name):
            key = (item["kind"], namespace, item["metadata"]["name"])
            if key not in kept:
                api.delete(*key, dry_run=options.dry_run)
                say(item["kind"], item, Outcome.DELETED)


def of_set(api: Api, namespace: str, set_name: str) -> list[Object]:
    """All objects of a set, those that call others first (the order to delete in)."""
    selector = (
        f"{keys.APPLY_SET}={set_name}"
        if set_name
        else f"{keys.MANAGED_BY}={keys.MANAGED_BY_TURNOUT}"
    )
    found: list[Object] = []
    for kind in MANAGED:
        try:
            items = api.items(kind, namespace, selector)
        except NotFound:  # Eventing is optional
            continue
        found += [{**item, "kind": kind} for item in items]
    return found
