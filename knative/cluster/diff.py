"""What an apply would change, as a unified diff of YAML: live object against the server's dry
run."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from knative import emit
from knative.cluster.apply import comparable, find, resolved
from knative.cluster.client import Api

JSON = Any
Object = dict[str, JSON]


def diff(api: Api, objects: Sequence[Object]) -> Iterator[str]:
    """Diff lines of every object that would change; nothing for the others."""
    for item in objects:
        live = find(api, item)
        merged = api.apply(resolved(api, item, live), dry_run=True, force=True).data
        name = f"{item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}"
        before = _text(live) if live is not None else []
        yield from difflib.unified_diff(
            before, _text(merged), f"live {name}", f"new {name}", lineterm=""
        )


def _text(item: Object) -> list[str]:
    shown = emit.ordered(comparable(item))
    if item["kind"] == "Secret":
        for group in ("data", "stringData"):
            if isinstance(shown.get(group), dict):
                shown[group] = {key: _hidden(value) for key, value in shown[group].items()}
    return emit.to_yaml([shown]).splitlines()


def _hidden(value: object) -> str:
    """A secret value shows only whether it changed."""
    import hashlib

    return f"(sha256 {hashlib.sha256(str(value).encode()).hexdigest()[:12]})"
