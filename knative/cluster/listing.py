"""`turnout get`: one row per Service that Turnout compiled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from knative import keys
from knative.cluster import state
from knative.cluster.client import Api
from knative.cluster.errors import ClusterError

JSON = Any

HEADER = ("NAME", "URL", "READY", "AGE", "REPLICAS", "TRAFFIC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One Service."""

    namespace: str
    name: str
    url: str
    ready: str
    """True, False or Unknown."""
    reason: str
    age: str
    replicas: str
    """Running/wanted pods over all routed revisions, `-` when unknown."""
    traffic: str


def rows(
    api: Api, namespace: str, names: Sequence[str], *, everything: bool, now: datetime
) -> list[Row]:
    """Rows of a namespace ("" for all), sorted; `everything` includes Services of other tools."""
    selector = "" if everything or names else f"{keys.MANAGED_BY}={keys.MANAGED_BY_TURNOUT}"
    services = api.items("Service", namespace, selector)
    wanted = [s for s in services if not names or s["metadata"]["name"] in names]
    replicas = _replicas(api, namespace) if wanted else {}
    found = [_row(s, replicas, now) for s in wanted]
    return sorted(found, key=lambda row: (row.namespace, row.name))


def _row(item: Mapping[str, JSON], replicas: Mapping[tuple[str, str], str], now: datetime) -> Row:
    metadata = item["metadata"]
    said = state.condition(item)
    current = state.is_current(item)
    return Row(
        namespace=metadata["namespace"],
        name=metadata["name"],
        url=(item.get("status") or {}).get("url") or "-",
        ready=said.status if current else "Unknown",
        reason=said.reason if said.status != "True" else "",
        age=state.age(item, now),
        replicas=replicas.get((metadata["namespace"], metadata["name"]), "-"),
        traffic=state.traffic(item),
    )


def _replicas(api: Api, namespace: str) -> dict[tuple[str, str], str]:
    """`2/3` per Service from its revisions' status (Knative copies the autoscaler's numbers
    there)."""
    actual: dict[tuple[str, str], int] = {}
    desired: dict[tuple[str, str], int] = {}
    try:
        revisions = api.items("Revision", namespace)
    except ClusterError:
        return {}
    for revision in revisions:
        labels = revision["metadata"].get("labels") or {}
        key = (revision["metadata"]["namespace"], labels.get("serving.knative.dev/service", ""))
        status = revision.get("status") or {}
        actual[key] = actual.get(key, 0) + int(status.get("actualReplicas") or 0)
        desired[key] = desired.get(key, 0) + int(status.get("desiredReplicas") or 0)
    return {key: f"{actual[key]}/{desired[key]}" for key in actual}


def table(found: Sequence[Row], *, namespaces: bool) -> str:
    """Aligned columns with a header."""
    head = ("NAMESPACE", *HEADER) if namespaces else HEADER
    lines = [head]
    for row in found:
        ready = f"{row.ready} ({row.reason})" if row.reason else row.ready
        line = (row.name, row.url, ready, row.age, row.replicas, row.traffic)
        lines.append((row.namespace, *line) if namespaces else line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
