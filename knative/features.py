"""Knative feature flags: which ones an output needs, and the exact patch that enables them."""

import json
from collections.abc import Iterable, Mapping

from knative import keys


def needed(flags: Mapping[str, str]) -> list[str]:
    """The flags a stock Knative has off, sorted."""
    return sorted(set(flags) - keys.DEFAULT_ENABLED_FLAGS)


def patch_command(flags: Iterable[str]) -> str:
    """The kubectl command that enables `flags` in the ConfigMap config-features."""
    patch = json.dumps({"data": dict.fromkeys(sorted(flags), "enabled")}, separators=(",", ":"))
    return (
        "kubectl patch configmap config-features --namespace knative-serving"
        f" --type merge --patch '{patch}'"
    )


def advice(flags: Mapping[str, str]) -> str:
    """What to tell the user about an output's flags; empty when a stock Knative takes it."""
    off = needed(flags)
    if not off:
        return ""
    reasons = "\n".join(f"  {flag}  ({flags[flag]})" for flag in off)
    return f"needs Knative feature flags:\n{reasons}\nenable with:\n  {patch_command(off)}"
