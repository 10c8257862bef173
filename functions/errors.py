"""What can go wrong in the model server, and what each fault means on the wire.

    FunctionsError                    500
    |-- InvalidRequest                400   the client's fault; its text reaches the client
    |   `-- BodyTooLarge              413
    |-- ModelNotFound                 404
    |-- ModelNotReady                 503   loading, failed or unloading
    |-- NotSupported                  501   the model has no such hook, the server no such protocol
    |-- Overloaded                    503   with Retry-After
    |-- ClientGone                    499   nobody waits for the answer: for metrics and logs only
    |-- ModelTimeout                  504   user code did not come back in time
    |-- ModelFailed                   500   user code raised; the client sees a correlation id only
    |-- UpstreamError                 502   transformer -> predictor: refused, broken, unreadable
    |   |-- UpstreamTimeout           504
    |   |-- UpstreamStatus            ...   the predictor's own 4xx/5xx, passed on as it is
    |   `-- AnswerUnusable            502   no such output, fewer labels than classes, ...
    `-- LoadFailed                    exit 1
        |-- NoArtifact / AmbiguousArtifact
        `-- MissingExtra
    ConfigurationError                exit 2, every problem named

Deliberately not wrapped: exceptions of user code on their way to the one place that owns a request
(`faults.classify`), which decides between "the client's fault" and `ModelFailed`.
Statuses are the defaults; a protocol that fixes its own (TensorFlow Serving) maps in its wire
module.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar


class FunctionsError(Exception):
    """Root of everything this unit raises on purpose."""

    status: ClassVar[int] = 500

    def http_status(self) -> int:
        """The HTTP status of this very fault (a class attribute, except for passed-on statuses)."""
        return self.status

    def response_headers(self) -> Mapping[str, str]:
        """Headers that belong to the fault, for example `Retry-After`."""
        return {}


class InvalidRequest(FunctionsError):
    """The request cannot be served as it is. User code may raise it: the text goes to the
    client."""

    status = 400


class BodyTooLarge(InvalidRequest):
    status = 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the request body is larger than this server accepts ({limit_bytes} bytes)"
        )


class ModelNotFound(FunctionsError):
    status = 404

    def __init__(self, name: str, version: str | None = None) -> None:
        self.name = name
        self.version = version
        if version is None:
            super().__init__(f"Model with name {name} does not exist.")
        else:
            super().__init__(f"Model with name {name} has no version {version}.")


class ModelNotReady(FunctionsError):
    status = 503

    def __init__(self, name: str, reason: str = "") -> None:
        self.name = name
        super().__init__(
            f"Model with name {name} is not ready" + (f": {reason}" if reason else ".")
        )

    def response_headers(self) -> Mapping[str, str]:
        return {"retry-after": "1"}


class NotSupported(FunctionsError):
    status = 501


class Overloaded(FunctionsError):
    status = 503

    def __init__(self, what: str, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the server is at its limit: {what}; try again later")

    def response_headers(self) -> Mapping[str, str]:
        return {"retry-after": str(self.retry_after_s)}


class ClientGone(FunctionsError):
    """Whoever asked has gone before there was an answer; nobody is told."""

    status = 499

    def __init__(self) -> None:
        super().__init__("the client has gone")


class ModelTimeout(FunctionsError):
    status = 504

    def __init__(self, name: str, timeout_s: float, stage: str = "") -> None:
        """`stage`: the hook that was running, where it is known."""
        self.name = name
        self.timeout_s = timeout_s
        who = f"{stage} of model {name}" if stage else f"model {name}"
        super().__init__(f"{who} did not answer within {timeout_s:g} s")


class ModelFailed(FunctionsError):
    """User code raised something unexpected. The cause is in the log under `correlation_id`."""

    status = 500

    def __init__(self, name: str, correlation_id: str, stage: str = "") -> None:
        """`stage`: the hook that raised, where it is known."""
        self.correlation_id = correlation_id
        who = f"{stage} of model {name}" if stage else f"model {name}"
        super().__init__(
            f"{who} failed to answer this request; the server's log has the cause"
            f" (correlation id {correlation_id})"
        )


class BadHookResult(FunctionsError):
    """A hook of user code returned what the next stage cannot use; the text says which and what."""

    status = 500


class StatusError(FunctionsError):
    """User code chose a status itself (an exception with an integer 4xx/5xx status attribute)."""

    def __init__(self, status: int, message: str) -> None:
        self._status = status
        super().__init__(message)

    def http_status(self) -> int:
        return self._status


class UpstreamError(FunctionsError):
    status = 502

    def __init__(self, target: str, problem: str) -> None:
        self.target = target
        super().__init__(f"the predictor at {target} {problem}")


class UpstreamTimeout(UpstreamError):
    status = 504

    def __init__(self, target: str, timeout_s: float, whose: str = "") -> None:
        """`whose`: where the limit comes from, when it is not this server's own setting."""
        super().__init__(target, f"did not answer within {timeout_s:.4g} s{whose}")


class UpstreamStatus(UpstreamError):
    """The predictor answered with an error: status (and gRPC code), body and text are passed on
    as they are."""

    def __init__(
        self,
        target: str,
        status: int,
        text: str,
        *,
        body: bytes | None = None,
        content_type: str = "",
        grpc_code: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`body`: the answer's own, None when there is none to pass on (gRPC)."""
        self._status = status
        self.text = text
        self.body = body
        self.content_type = content_type
        self.grpc_code = grpc_code
        """Name of the gRPC status, empty when the predictor speaks HTTP."""
        self._headers = headers or {}
        super().__init__(target, f"answered {grpc_code or status}: {text}")

    def http_status(self) -> int:
        return self._status

    def response_headers(self) -> Mapping[str, str]:
        return self._headers


class AnswerUnusable(UpstreamError):
    """The predictor answered something that a ready-made transformer is not configured for."""

    def __init__(self, target: str, problem: str) -> None:
        super().__init__(target, f"sent an answer that {problem}")


class LoadFailed(FunctionsError):
    """A model could not be loaded. At start this ends the process with exit code 1."""

    status = 503
    exit_code: ClassVar[int] = 1


class NoArtifact(LoadFailed):
    """Nothing in the model directory fits the runtime."""


class AmbiguousArtifact(LoadFailed):
    """Several files or formats fit, and nothing says which is meant."""


class MissingExtra(LoadFailed):
    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"the {extra} runtime needs {library}, which is not installed here:"
            f" pip install 'turnout[functions,{extra}]'"
        )


class ConfigurationError(FunctionsError):
    """Flags or environment are wrong; `problems` has one line each."""

    exit_code: ClassVar[int] = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))
