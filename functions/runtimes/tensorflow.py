"""The `tensorflow` runtime: SavedModels from a base directory of numbered versions.

New versions are loaded beside the old ones, and the old ones go only when a new one serves
(availability-preserving). A version that cannot be loaded goes to END with its error and is tried
again when its directory changes, or after a while; the others serve on.
"""

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functions import cpu, heap
from functions.errors import InvalidRequest, LoadFailed, NoArtifact, StatusError
from functions.inference import InferRequest
from functions.model import Call, Item, ModelInfo, ServedModel, TensorSpec
from functions.wire import tensorflow as wire

from .graph import Array, GraphModel
from .versions import Policy, Settling, scan

if TYPE_CHECKING:
    from functions.settings import Settings

logger = logging.getLogger(__name__)

RETRY_S = 30
"""A version that could not be loaded is tried again after this time, then after twice as long."""
MAX_RETRY_S = 600

DATATYPES = {
    "DT_FLOAT": "FP32", "DT_DOUBLE": "FP64", "DT_INT32": "INT32", "DT_UINT8": "UINT8",
    "DT_INT16": "INT16", "DT_INT8": "INT8", "DT_STRING": "BYTES", "DT_INT64": "INT64",
    "DT_BOOL": "BOOL", "DT_UINT16": "UINT16", "DT_HALF": "FP16", "DT_UINT32": "UINT32",
    "DT_UINT64": "UINT64", "DT_BFLOAT16": "BF16",
}  # fmt: skip


def reason(text: str) -> str:
    """The one line of an error of TensorFlow's that says what is wrong."""
    lines = [line.strip() for line in text.splitlines()]
    if lines[:1] == ["Graph execution error:"]:  # then where, a stack, what, and the node
        frames = ("Graph execution", "Detected at", "<stack", "File ", "[[{{")
        lines = [line for line in lines if line and not line.startswith(frames)][-1:] or lines
    return lines[0][:1000] if lines else ""


class Signature:
    """One signature of a loaded version: names, types and the function."""

    __slots__ = ("definition", "function", "inputs", "name", "outputs")

    def __init__(self, name: str, definition: Any, function: Any, types: Any) -> None:
        self.name = name
        self.definition = definition
        """TensorFlow's SignatureDef message."""
        self.function = function
        self.inputs = _specs(definition.inputs, types)
        self.outputs = _specs(definition.outputs, types)


def _specs(infos: Any, types: Any) -> dict[str, TensorSpec]:
    return {
        alias: TensorSpec(
            name=alias,
            datatype=DATATYPES.get(types.DataType.Name(info.dtype), ""),
            shape=tuple(dim.size for dim in info.tensor_shape.dim),
            ranked=not info.tensor_shape.unknown_rank,
        )
        for alias, info in sorted(infos.items())
    }


class Version:
    """One loaded SavedModel."""

    def __init__(self, number: int, directory: Path) -> None:
        import tensorflow as tf
        from tensorflow.core.framework import types_pb2
        from tensorflow.core.protobuf import saved_model_pb2

        self.number = number
        graph = saved_model_pb2.SavedModel()
        graph.ParseFromString((directory / "saved_model.pb").read_bytes())
        serving = [g for g in graph.meta_graphs if "serve" in g.meta_info_def.tags]
        if not serving:
            raise LoadFailed(f"{directory} has no graph with the tag 'serve'")
        self._tf = tf
        self._model = tf.saved_model.load(str(directory), tags=["serve"])
        self.signatures = {
            name: Signature(name, serving[0].signature_def[name], function, types_pb2)
            for name, function in self._model.signatures.items()
        }

    def signature(self, name: str) -> Signature:
        """Raises StatusError (FAILED_PRECONDITION is 400 over REST)."""
        found = self.signatures.get(name)
        if found is None:
            raise StatusError(400, f'Serving signature name: "{name}" not found in signature def')
        return found

    def run(self, signature: Signature, inputs: dict[str, Array]) -> dict[str, Array]:
        """Raises InvalidRequest for what the graph refuses."""
        tf = self._tf
        try:
            fed = {name: tf.constant(array) for name, array in inputs.items()}
            outputs = signature.function(**fed)
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as exc:
            raise InvalidRequest(reason(str(exc))) from exc
        except tf.errors.OpError as exc:
            status = wire.HTTP_STATUS.get(exc.error_code, 500)
            raise StatusError(status, reason(exc.message)) from exc
        return {name: _array(outputs[name].numpy()) for name in signature.outputs}


def _array(value: Any) -> Array:
    """A tensor's value; of rank 0 TensorFlow gives a plain scalar, which may be bytes."""
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, bytes):
        return np.asarray(value)
    text = np.empty((), dtype=object)  # numpy's own bytes would lose zeros at the end
    text[()] = value
    return text


class Status:
    """State of one version, as GetModelStatus tells it."""

    __slots__ = ("error", "retry_at", "state", "tries")

    def __init__(self) -> None:
        self.state = wire.START
        self.error = ""
        self.tries = 0
        self.retry_at = 0.0
        """`time.monotonic()` from which on a version that failed is tried again."""


class TensorFlowModel(GraphModel):
    """All versions of one model. Predictions of V1 and V2 use the default signature."""

    def __init__(self, name: str, base: Path, settings: "Settings") -> None:
        self.name = name
        self.base = base
        self.threads = settings.threads or cpu.library_threads(settings)
        self._policy = Policy.parse(settings.version_policy)
        self._settling = Settling()
        self._lock = threading.Lock()
        self._settled: set[int] = set()
        self._versions: dict[int, Version] = {}
        self.statuses: dict[int, Status] = {}
        self.labels: dict[str, int] = {}
        for key, value in settings.param:
            if str(key).startswith("label."):
                if not str(value).isdecimal():
                    raise LoadFailed(f"--param {key}={value}: a label's value is a version number")
                self.labels[str(key)[6:]] = int(value)
        self._stop = threading.Event()
        self.info = ModelInfo(platform="tensorflow_savedmodel")
        self._first_load()
        if settings.poll_s > 0:
            thread = threading.Thread(
                target=self._watch, args=(settings.poll_s,), name=f"versions-{name}", daemon=True
            )
            thread.start()

    # --- versions ------------------------------------------------------------------------------

    def _first_load(self) -> None:
        present = scan(self.base)
        if not present:
            raise NoArtifact(
                f"{self.base} has neither saved_model.pb nor version directories (1, 2, …)"
            )
        complete = self._settling.complete(present)
        self.reconcile(settled=complete or set(present))
        for number in sorted(complete, reverse=True):
            # Rather an older version than none: this process may be the first after a sleep.
            if self._versions or self._policy.kind != "latest":
                break
            if number not in self.statuses:
                self._load(number, present[number])
        self._describe()
        if not self._versions:
            errors = "; ".join(
                f"version {n}: {s.error}" for n, s in self.statuses.items() if s.error
            )
            raise LoadFailed(f"no version of {self.name} could be loaded: {errors}")

    def _watch(self, poll_s: float) -> None:
        while not self._stop.wait(poll_s):
            try:
                present = scan(self.base)
                self.reconcile(settled=self._settling.settled(present))
            except OSError as exc:
                logger.warning("%s cannot be looked at: %s", self.base, exc)

    def reconcile(self, settled: set[int]) -> None:
        """Load what the policy wants and is settled, then unload what it does not want any more."""
        with self._lock:
            present = scan(self.base)
            self._settled = settled
            for number, status in self.statuses.items():
                if number not in settled:
                    status.retry_at = 0.0  # it is another one now, or gone
            usable = [
                n
                for n in present
                if n in settled or n in self._versions or self._failed(n, settled)
            ]
            wanted = self._policy.choose(usable)
            for number in sorted(wanted - set(self._versions), reverse=True):
                if not self._failed(number, settled):
                    self._load(number, present[number])
            served = wanted & set(self._versions)
            if served or not wanted:
                if not present:
                    return  # an emptied base keeps what serves: half a copy must not stop service
                for number in sorted(set(self._versions) - wanted):
                    self._unload(number)
            self._describe()

    def _failed(self, number: int, settled: set[int]) -> bool:
        """It has been tried as it is now, in vain, and it is not yet time to try again."""
        status = self.statuses.get(number)
        if status is None or not status.error or number not in settled:
            return False
        return time.monotonic() < status.retry_at

    def _load(self, number: int, directory: Path) -> None:
        status = self.statuses.setdefault(number, Status())
        status.state, status.error = wire.LOADING, ""
        try:
            loaded = Version(number, directory)
        except (
            Exception
        ) as exc:  # TensorFlow raises from a dozen hierarchies; any means "not loadable"
            status.state, status.error = wire.END, f"{type(exc).__name__}: {str(exc)[:500]}"
            status.retry_at = time.monotonic() + min(RETRY_S << status.tries, MAX_RETRY_S)
            status.tries = min(status.tries + 1, 10)
            logger.error("version %d of %s cannot be loaded", number, self.name, exc_info=exc)
            return
        self._versions = {**self._versions, number: loaded}
        status.state, status.tries = wire.AVAILABLE, 0
        logger.info("version %d of %s is available", number, self.name)

    def _unload(self, number: int) -> None:
        # Calls under way hold their Version; it goes when the last of them returns.
        self._versions = {n: v for n, v in self._versions.items() if n != number}
        heap.unloading()
        self.statuses[number].state = wire.END
        logger.info("version %d of %s is unloaded", number, self.name)

    def _describe(self) -> None:
        if not self._versions:
            return
        latest = self._versions[max(self._versions)]
        default = latest.signatures.get("serving_default") or next(
            iter(latest.signatures.values()), None
        )
        self.info = ModelInfo(
            platform="tensorflow_savedmodel",
            versions=tuple(str(n) for n in sorted(self._versions, reverse=True)),
            inputs=tuple(default.inputs.values()) if default else (),
            outputs=tuple(default.outputs.values()) if default else (),
        )

    def is_available(self, version: int) -> bool:
        return version in self._versions

    def reconfigure(self, policy: str, labels: dict[str, int]) -> None:
        """Another version policy and other labels; returns when what they ask for is loaded."""
        self._policy = Policy.parse(policy)
        self.labels = labels
        self.reconcile(self._settled)

    def pick(self, version: str = "", label: str = "") -> Version:
        """The version a request names, the latest when none. Raises StatusError (404, 400 for a
        label)."""
        versions = self._versions
        if label:
            if label not in self.labels or self.labels[label] not in versions:
                raise StatusError(400, f"Unrecognized servable version label: {label}")
            return versions[self.labels[label]]
        if version:
            number = int(version) if version.isdecimal() else -1
            if number not in versions:
                raise StatusError(
                    404, f"Servable not found for request: Specific({self.name}, {version})"
                )
            return versions[number]
        if not versions:
            raise StatusError(404, f"Servable not found for request: Latest({self.name})")
        return versions[max(versions)]

    # --- V1 and V2 over the default signature --------------------------------------------------

    def prepare(self, kind: str, payload: Any, call: Call) -> Item:
        item = super().prepare(kind, payload, call)
        if kind == "infer":
            request: InferRequest = payload
            if request.model_version and item.key is not None:
                item.key = (request.model_version, *item.key)
        return item

    def run(self, items: list[Item]) -> None:
        first = items[0]
        wanted = first.payload.model_version if first.kind == "infer" else ""
        version = self.pick(wanted)
        signature = version.signature("serving_default")
        joined = first.data
        if len(items) > 1:
            joined = {n: np.concatenate([i.data[n] for i in items]) for n in first.data}
        outputs = version.run(signature, joined)
        if len(items) == 1:
            first.output = outputs
            return
        at = 0
        for item in items:
            item.output = {name: array[at : at + item.count] for name, array in outputs.items()}
            at += item.count

    def close(self) -> None:
        self._stop.set()


def build(name: str, directory: Path, settings: "Settings") -> ServedModel:
    import tensorflow as tf

    threads = cpu.library_threads(settings)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        logger.info("TensorFlow is in use already: its thread counts stay as they are")
    return TensorFlowModel(name, directory, settings)
