"""What the server needs of a loaded model, whatever library or user code is behind it.

A runtime's `load` returns a `ServedModel`. The server calls `v1` and `v2` on it, on the event loop
(`inline` and async models) or on a model thread, and never two at once on more than `threads`
threads. No numpy here: payloads are passed through as they are.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import NotSupported

if TYPE_CHECKING:
    from .execution import Runner
    from .health import Health
    from .inference import InferRequest, InferResponse

STAGES = ("queue", "preprocess", "predict", "postprocess", "explain")


class Call:
    """One request on its way through a model: what hooks may see and change."""

    __slots__ = (
        "context", "deadline", "give_up", "headers", "holds_thread", "payload", "request_id",
        "response_headers", "stage", "status", "timings",
    )  # fmt: skip

    def __init__(self, headers: dict[str, str], request_id: str = "") -> None:
        self.headers = headers
        """Request headers, lower-case names; mutable and shared by the hooks of one request."""
        self.response_headers: dict[str, str] = {}
        """Headers that user code adds to the answer."""
        self.request_id = request_id
        self.status = 0
        """HTTP status chosen by user code (TorchServe's `set_response_status`); 0 is none."""
        self.payload: Any = None
        """The decoded request, kept where the answer depends on it (V2)."""
        self.timings: dict[str, float] = {}
        """Stage -> seconds spent; see `STAGES`."""
        self.stage = ""
        """The hook that is running or ran last; errors name it."""
        self.deadline = 0.0
        """When the caller stops waiting (`time.monotonic`), where its protocol says so by itself
        (gRPC); 0: look into `headers`."""
        self.holds_thread = False
        """A model thread waits for this call, which must not ask for another one."""
        self.context: Any = None
        """The `functions.Context` of this request, made when a hook asks for it."""
        self.give_up: Callable[[], object] | None = None
        """How to end its work, while that can be done; set by whoever has it at the moment."""

    def abandon(self) -> None:
        """Nobody waits for the answer any more: what can end of its work does."""
        if self.give_up is not None:
            self.give_up()

    def spent(self, stage: str, since: float) -> None:
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - since


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, V2 datatype and shape of an input or output; -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    ranked: bool = True
    """False when the model does not declare its rank: every shape is let through."""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(slots=True, kw_only=True)
class ModelInfo:
    """What metadata endpoints tell about a model."""

    platform: str
    versions: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    properties: dict[str, Any] = field(default_factory=dict)


class ServedModel:
    """Base of every loaded model. Subclasses override what they can do."""

    info: ModelInfo
    threads: int = 1
    """Calls that may run at once in this process."""
    inline: bool = False
    """Calls are library code of bounded, measured duration: they may run on the event loop."""
    is_async: bool = False
    """`v1` and `v2` return awaitables that never block."""
    batches: bool = False
    """Several requests may be joined along the first dimension."""
    health: Health | None = None
    """Where its readiness is up to its own code, too, once it is loaded."""
    runner: Runner | None = None
    """The runner of this model's calls, set by the server before the first one; warm-up requests
    run without."""

    def v1(self, verb: str, payload: Any, call: Call) -> Any | Awaitable[Any]:
        """A V1 body (dict with `instances` or `inputs`, or bytes) -> the answer's body."""
        raise NotSupported(f"this model does not support V1 {verb}")

    def v2(self, request: InferRequest, call: Call) -> InferResponse | Awaitable[InferResponse]:
        raise NotSupported("this model does not support V2 inference")

    def artifact_file(self, name: str) -> Path | None:
        """A file at the top of the model's own (unpacked) artifact, if it has one."""
        return None

    def close(self) -> None:
        """Give back memory, threads and temporary files. Called once, after the last call
        returned."""


class Item:
    """One request's share of a joined call: what `prepare` made of it, and what `run` answered."""

    __slots__ = ("call", "count", "data", "error", "key", "kind", "output", "payload")

    def __init__(
        self, kind: str, payload: Any, call: Call, *, count: int, key: Any, data: Any
    ) -> None:
        self.kind = kind
        """`predict`, `explain` (V1) or `infer` (V2)."""
        self.payload = payload
        self.call = call
        self.count = count
        """Instances in it: its length along the first dimension."""
        self.key = key
        """Only items with equal keys may be joined; None is never joined."""
        self.data = data
        self.output: Any = None
        self.error: BaseException | None = None


class JoinableModel(ServedModel):
    """A model that can answer several requests with one call: prepare each, run all, answer
    each."""

    batches = True

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        """Check and convert one request. Raises InvalidRequest."""
        raise NotImplementedError

    def run(self, items: list[Item]) -> None:
        """One model call for items with equal keys; sets `output` of each, in the same order."""
        raise NotImplementedError

    def answer(self, item: Item) -> Any:
        """The V1 body or InferResponse for one item."""
        raise NotImplementedError

    def v1(self, verb: str, payload: Any, call: Call) -> Any:
        return self.one(verb, payload, call)

    def v2(self, request: InferRequest, call: Call) -> Any:
        return self.one("infer", request, call)

    def one(self, kind: str, payload: Any, call: Call) -> Any:
        item = self.prepare(kind, payload, call)
        since = time.perf_counter()
        self.run([item])
        call.timings["predict"] = time.perf_counter() - since
        return self.answer(item)


def lower_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
