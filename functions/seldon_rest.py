"""Seldon's wrapper API over HTTP: predictions, transforms, route, aggregate, feedback, health,
metadata."""

import asyncio
import json
import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import answers, faults, hooks, jsonio, seldon_body, seldon_metadata, seldon_models
from . import seldon_message as sm
from .answers import JSON, Answer
from .engine import Codec
from .errors import FunctionsError, ModelFailed, NotSupported
from .metrics import Registry
from .model import Call, ServedModel
from .seldon_unit import Identity, Unit, feedback_of, messages_of

logger = logging.getLogger(__name__)

PATHS = {
    "/predict": "predict",
    "/api/v1.0/predictions": "predict",
    "/api/v0.1/predictions": "predict",
    "/send-feedback": "send_feedback",
    "/api/v1.0/feedback": "send_feedback",
    "/api/v0.1/feedback": "send_feedback",
    "/transform-input": "transform_input",
    "/transform-output": "transform_output",
    "/route": "route",
    "/aggregate": "aggregate",
}

READS = {
    "/health/ping": "ping",
    "/health/status": "health",
    "/api/v1.0/health/status": "health",
    "/metadata": "metadata",
    "/api/v1.0/metadata": "metadata",
    "/seldon.json": "openapi",
}
_INGRESS = re.compile(r"^/seldon/[^/]+(/[^/]+)?(?=/api/)")
"""The prefix of Seldon's ingress, `/seldon/NAMESPACE/NAME`: a unit may be a whole deployment."""
_READING = frozenset(READS.values())


def find(method: bytes, path: str, target: bytes) -> tuple[str, bytes] | int | None:
    """(verb, query) of a request; 405 for another method of a path here; None: not our path."""
    query = seldon_body.query_json(target) if b"?" in target else b""
    path = _INGRESS.sub("", path)
    if path in READS:
        return (READS[path], b"") if method in (b"GET", b"HEAD") else 405
    verb = PATHS.get(path)
    if verb is None:
        return None
    if method == b"POST" or (method == b"GET" and (query or not path.startswith("/api/"))):
        return verb, query
    return 405


def refused(status: int, info: str) -> Answer:
    """The wrapper's error body for what is no request to it."""
    return Answer(status, jsonio.dumps(sm.fault(status, info, sm.INTERNAL_ERROR)), JSON)


class SeldonCodec(Codec):
    name = "seldon"
    joins = False

    def __init__(self, settings: Any, registry: Registry | None = None) -> None:
        """`registry` is where what user classes report is collected."""
        super().__init__(settings)
        self._registry = registry
        self._making = threading.Lock()
        self._units: dict[int, tuple[ServedModel, Unit]] = {}
        environ = settings.environ
        self.passes_bytes = environ.get("PAYLOAD_PASSTHROUGH", "").lower() in ("1", "true")

    def decode(self, body: Any, route: Any, call: Call) -> Any:
        if route.verb in _READING:
            return {}
        if self.passes_bytes and route.verb == "predict":
            return bytes(body)
        return seldon_body.parse(bytes(body), route.headers.get("content-type", ""), route.query)

    def apply(self, model: ServedModel, route: Any, payload: Any, call: Call) -> Any:
        if model.is_async:  # Seldon's hooks are synchronous: a thread of their own
            return asyncio.to_thread(self._run, model, route.verb, payload)
        return self._run(model, route.verb, payload)

    def _run(self, model: ServedModel, verb: str, payload: Any) -> Any:
        unit = self.unit(model)
        try:
            if verb == "ping":
                return "pong"
            if verb == "metadata":
                return unit.metadata.read()
            if verb == "openapi":
                from .wire import seldon_openapi

                return seldon_openapi.unit(unit.identity.unit or "model")
            return self.answer(unit, verb, payload)
        except FunctionsError:
            raise
        except Exception as error:
            reason = getattr(error, "reason", None)
            status = faults.own_status(error)
            if status is not None and isinstance(reason, str) and reason:
                text = getattr(error, "message", None) or str(error)
                raise sm.BadResult(str(text), reason, status) from error
            raise

    def answer(self, unit: Unit, verb: str, payload: Any) -> Any:
        """A verb's answer: a JSON object, or what a raw hook returned."""
        raw = unit.raw("health_status" if verb == "health" else verb)
        if raw is None:
            if isinstance(payload, bytes):
                payload = seldon_body.parse(payload)
            return unit.run(verb, payload)
        if verb == "health":
            return _plain(raw())
        if verb == "aggregate":
            messages_of(payload)
        if verb == "send_feedback":
            payload = _feedback_message(payload)
        result = raw(payload)
        if isinstance(result, bytes | str):
            return result
        result = _plain(result)
        unit.harvest(verb, result)
        return result

    def unit(self, model: ServedModel) -> Unit:
        """The unit of a model, made at its first request."""
        known = self._units.get(id(model))
        if known is not None and known[0] is model:
            return known[1]
        with self._making:  # requests come on several threads
            known = self._units.get(id(model))
            if known is None or known[0] is not model:
                unit = unit_of(model, self.settings)
                known = self._units[id(model)] = (model, unit)
                if self._registry is not None:
                    self._registry.user.append(unit.metrics)
        return known[1]

    def encode(self, result: Any, route: Any, call: Call) -> Any:
        if isinstance(result, str):
            return Answer(200, result.encode(), answers.TEXT)
        if isinstance(result, bytes):
            return Answer(200, result, JSON)
        return Answer(status_of(result), dumps(result), JSON)

    def refuse(self, error: FunctionsError) -> Answer:
        status, info, reason = told(error)
        return Answer(
            status, jsonio.dumps(sm.fault(status, info, reason)), JSON, error.response_headers()
        )


def told(error: FunctionsError) -> tuple[int, str, str]:
    """(status, text, reason) of an error; a user's exception tells its own text."""
    status, cause = error.http_status(), error.__cause__
    text = str(error)
    if isinstance(error, ModelFailed) and cause is not None:
        text = str(cause) or type(cause).__name__
    return status, text, str(getattr(error, "reason", ""))


def status_of(message: Any) -> int:
    """The HTTP status that a message's own `status.code` asks for, else 200."""
    status = message.get("status") if isinstance(message, Mapping) else None
    code = status.get("code") if isinstance(status, Mapping) else None
    if isinstance(code, int) and not isinstance(code, bool) and 200 <= code <= 599:
        return code
    return 200


def dumps(message: Any) -> bytes:
    """JSON as Seldon's clients read it: NaN and infinities keep their names."""
    body = jsonio.dumps(message)
    if b"null" not in body:
        return body
    try:
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        return body  # something of numpy's in it


def unit_of(model: ServedModel, settings: Any) -> Unit:
    """The Seldon unit that a loaded model is."""
    environ = settings.environ
    image = environ.get("PREDICTIVE_UNIT_IMAGE", "")
    target = seldon_models.target_of(model, settings)
    if target is None:
        raise NotSupported("this model cannot be served with the seldon protocol")
    init = hooks.find(target, "init_metadata")
    problem = ""
    try:
        found = init() if init is not None else None
    except Exception as exc:
        logger.exception("init_metadata() failed")
        found, problem = None, f"init_metadata() raised {type(exc).__name__}: {exc}"
    directory = Path(settings.model_dir) if settings.model_dir else None
    metadata = seldon_metadata.collect(image, found, directory, environ.get("MODEL_METADATA", ""))
    if problem:
        metadata = seldon_metadata.Metadata({}, problem)
    if metadata.problem:
        logger.error("the metadata is not served: %s", metadata.problem)
    included = environ.get("INCLUDE_METRICS_IN_CLIENT_RESPONSE", "true").lower()
    identity = Identity(
        unit=environ.get("PREDICTIVE_UNIT_ID", ""),
        image=image,
        predictor=environ.get("PREDICTOR_ID", ""),
        deployment=environ.get("SELDON_DEPLOYMENT_ID", ""),
        version=_version(environ.get("PREDICTOR_LABELS", "")),
        returns_metrics=included not in ("false", "0", "no"),
    )
    return Unit(target, identity, metadata)


def _version(labels: str) -> str:
    try:
        found = json.loads(labels or "{}")
    except ValueError:
        return ""
    return str(found.get("version", "")) if isinstance(found, dict) else ""


def _feedback_message(payload: Any) -> Any:
    """`send_feedback_raw` gets a protobuf message also over REST, as with Seldon's wrapper."""
    feedback = feedback_of(payload)
    try:
        from google.protobuf import json_format

        from .seldon_protos import MESSAGES
    except ImportError:
        raise NotSupported("send_feedback_raw needs protobuf: install the extra grpc") from None
    try:
        return json_format.ParseDict(feedback, MESSAGES["Feedback"]())
    except json_format.ParseError as exc:
        raise sm.BadData(f"the feedback cannot be read: {exc}") from None


def _plain(result: Any) -> Any:
    """A raw hook's answer as JSON; protobuf messages become their JSON form."""
    if hasattr(result, "DESCRIPTOR") and hasattr(result, "SerializeToString"):
        from google.protobuf import json_format

        return json_format.MessageToDict(result)
    return result
