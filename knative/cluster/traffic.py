"""Traffic splits of a Service: canaries resolved against the cluster, roll-outs and roll-backs.
Pure.

A canary is two targets: the latest revision with N percent, and the revision that was ready before
with the
rest and the tag `prev`.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from knative import errors, keys

JSON = Any
Object = dict[str, JSON]

STEPS = (10, 50, 100)
"""Percentages of `turnout rollout NAME --step`."""


def with_canary(item: Object, live: Object | None, dry_run: Callable[[Object], Object]) -> Object:
    """The object with `spec.traffic` for its canary annotation, or unchanged if it has none.

    `dry_run` asks the server what the object would become, to see whether it makes a new revision.
    """
    annotations = item["metadata"].get("annotations") or {}
    percent = annotations.get(keys.CANARY_PERCENT)
    if item["kind"] != "Service" or live is None:
        return item
    if percent is None:
        return _without_canary(item, live)
    if dry_run(item)["spec"]["template"] == live["spec"]["template"]:
        stable = _previous(live)
    else:
        stable = (live.get("status") or {}).get("latestReadyRevisionName") or ""
    if not stable:
        return item
    result = copy.deepcopy(item)
    result["spec"]["traffic"] = split(stable, int(percent))
    return result


def _without_canary(item: Object, live: Object) -> Object:
    """A manifest without a canary ends the one that runs: everything to the latest revision.

    Said out loud, because traffic that a roll-out moved would stay as it is otherwise.
    """
    ours = keys.UNIT in (item["metadata"].get("labels") or {})
    if not ours or item["spec"].get("traffic") or share(live) == 100:
        return item
    result = copy.deepcopy(item)
    result["spec"]["traffic"] = split("", 100)
    return result


def split(stable: str, percent: int) -> list[Object]:
    """The latest revision gets `percent`, `stable` the rest."""
    if percent >= 100:
        return [{"latestRevision": True, "percent": 100}]
    return [
        {"latestRevision": True, "percent": percent},
        {"revisionName": stable, "percent": 100 - percent, "tag": "prev"},
    ]


def _previous(live: Mapping[str, JSON]) -> str:
    """The revision that gets what the latest does not."""
    for target in (live.get("spec") or {}).get("traffic") or []:
        if target.get("revisionName"):
            return str(target["revisionName"])
    return ""


def share(live: Mapping[str, JSON]) -> int:
    """Percentage of the latest revision now."""
    targets = (live.get("spec") or {}).get("traffic") or []
    if not targets:
        return 100
    return sum(t.get("percent") or 0 for t in targets if t.get("latestRevision"))


def next_step(live: Mapping[str, JSON]) -> int:
    """The next of STEPS above the present share."""
    return next((step for step in STEPS if step > share(live)), 100)


def rolled(live: Mapping[str, JSON], percent: int) -> list[Object]:
    """Traffic with `percent` for the latest revision. Raises UsageError if there is no other
    revision."""
    if percent >= 100:
        return split("", 100)
    stable = _previous(live)
    if not stable:
        name = live["metadata"]["name"]
        raise errors.UsageError(
            f"{name} has no canary: all its traffic goes to the latest revision. Set"
            " predictor.canaryTrafficPercent and apply, or name a revision with --revision"
        )
    return split(stable, percent)


def rolled_back(live: Mapping[str, JSON]) -> list[Object]:
    """Everything to the revision before; the latest keeps a URL of its own under the tag
    `failed`."""
    stable = _previous(live)
    if not stable:
        raise errors.UsageError(f"{live['metadata']['name']} has no canary to roll back")
    return [
        {"revisionName": stable, "percent": 100, "tag": "prev"},
        {"latestRevision": True, "percent": 0, "tag": "failed"},
    ]
