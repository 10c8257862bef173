"""Defaults for pods that ask for an accelerator: slow to start, expensive to duplicate
(spec/knative 7.3)."""

import re
from collections.abc import Mapping
from typing import Any

from knative import keys
from knative.api.resource import Resource
from knative.resources import quantity

JSON = Any

_ACCELERATOR = re.compile(r"(nvidia\.com/mig-.+|habana\.ai/gaudi|google\.com/tpu|.+/gpu)\Z")

START_S = 1800
"""Progress deadline of an accelerator pod: node and image alone often take longer than Knative's
600 s."""

RETENTION = "5m"
"""How long the last accelerator pod stays after traffic ends; starting one again takes minutes."""

_FETCH_BYTES_S = 20 * 2**20
"""Cautious speed of a model download, for deadlines only."""

DEFAULT_DEADLINE_S = 600
"""Knative's own progress deadline."""


def asks(container: Mapping[str, JSON]) -> bool:
    """Whether a container's resources name an accelerator."""
    resources = container.get("resources") or {}
    wanted = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return any(_ACCELERATOR.match(name) and str(count) != "0" for name, count in wanted.items())


def annotations(resource: Resource, container: Mapping[str, JSON]) -> dict[str, str]:
    """Template annotations: a progress deadline that fits the model, and accelerator scaling."""
    deadline_s = DEFAULT_DEADLINE_S
    size = resource.annotations.get(keys.MODEL_SIZE)
    if size and (parsed := quantity.parse(size)) is not None:
        deadline_s = max(deadline_s, 120 + int(parsed / _FETCH_BYTES_S))
    result: dict[str, str] = {}
    if asks(container):
        deadline_s = max(deadline_s + DEFAULT_DEADLINE_S, START_S)
        result[keys.TARGET_UTILIZATION] = "100"
        result[keys.RETENTION] = RETENTION
    if deadline_s != DEFAULT_DEADLINE_S:
        result[keys.PROGRESS_DEADLINE] = f"{deadline_s}s"
    return result


def pod(container: Mapping[str, JSON]) -> dict[str, JSON]:
    """Pod-level defaults: the longest timeout that needs no administrator, since a cold start is
    in it."""
    return {"timeout": 600} if asks(container) else {}
