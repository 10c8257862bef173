"""What can go wrong with a graph or with one request in it.

    RouterError
     +- GraphError           the graph cannot be run; all problems at once            (exit code 2)
     +- RequestFailed        this request fails; `status` is for the root node
         +- NoRouteMatched   404  a Switch found no branch
         +- DeadlineExceeded 504  the graph's own deadline (`timeoutSeconds`) is over
         +- UpstreamError    500  no usable answer from a step: connection, time, or garbage

KServe's rule decides the status the client sees: an error keeps its own status only when it arises
in the root node itself, below that it is 500 (`engine`). Not wrapped: programming errors, which end
one request with 500 and a traceback in the log.
"""

from collections.abc import Sequence

Problem = tuple[str, str, str]
"""(level "error" | "warning", path like `nodes.root.steps[1].condition`, message)."""


class RouterError(Exception):
    """Root of this unit's errors."""


class GraphError(RouterError):
    """The graph cannot be run. `problems` are all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{path}: {message}" for _, path, message in problems))
        self.problems = tuple(problems)


class RequestFailed(RouterError):
    """One request cannot be answered by the graph."""

    status: int = 500
    """What the client gets; the engine overwrites it with 500 on the way out of a nested node."""


class NoRouteMatched(RequestFailed):
    """No condition of a Switch holds, and it has no default (KServe's words, asserted by its
    tests)."""

    status = 404

    def __init__(self) -> None:
        super().__init__("None of the routes matched with the switch condition")


class DeadlineExceeded(RequestFailed):
    """The time that the graph allows for one request is over."""

    status = 504

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the graph's deadline of {seconds:g} s is over")


class UpstreamError(RequestFailed):
    """A step gave no usable answer. `retryable`: repeating it may help and can do no harm twice."""

    def __init__(self, reason: str, *, kind: str, retryable: bool = False) -> None:
        super().__init__(reason)
        self.kind = kind
        """`connect`, `closed`, `timeout`, `garbage`, `too_large`, `redirect`, `url` (metrics
        label)."""
        self.retryable = retryable
