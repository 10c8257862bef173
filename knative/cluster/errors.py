"""What a cluster can answer, as errors that say what to do.

    TurnoutError
     +- ClusterError          1   the API server refused; the message explains
     |   +- NotFound              no such object, or no such kind (Knative not installed?)
     |   +- Forbidden             RBAC
     |   +- Conflict              somebody else owns a field
     +- ClusterAway          75   unreachable, timed out, throttled: the same command may work later

The kubernetes client's and urllib3's exceptions end in `client.Api.request`.
"""

import re
from collections.abc import Mapping
from typing import Any

from knative import errors

JSON = Any

_OWNER = re.compile(r'conflict with "([^"]+)"')


class ClusterError(errors.TurnoutError):
    """The API server refused a request."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(ClusterError):
    """The object or the kind does not exist."""


class Forbidden(ClusterError):
    """The user may not do this."""


class Conflict(ClusterError):
    """Another field manager owns a field with another value."""

    managers: frozenset[str] = frozenset()
    """Who owns the fields; empty when the server did not say."""


class ClusterAway(errors.TryAgain):
    """The API server cannot be reached or is overloaded."""


def from_status(method: str, path: str, code: int, body: JSON) -> errors.TurnoutError:
    """The error for an API answer of 400 and above; `body` is the `Status` object or text."""
    status: Mapping[str, JSON] = body if isinstance(body, Mapping) else {}
    message = str(status.get("message") or body or "no message").strip()
    if code == 401:
        return ClusterError(
            f"not logged in to the cluster ({message}); renew the credentials of this context",
            status=code,
        )
    if code == 403:
        return Forbidden(_forbidden(message), status=code)
    if code == 404:
        return NotFound(_missing(path, message), status=code)
    if code == 409:
        conflict = Conflict(_conflict(status, message), status=code)
        conflict.managers = frozenset(_OWNER.findall(str(status.get("details"))))
        return conflict
    if code == 422:
        return ClusterError(_invalid(status, message), status=code)
    if code in (429, 503, 504):
        return ClusterAway(f"the API server is busy or starting: {message}")
    return ClusterError(f"{method} {path}: the API server answered {code}: {message}", status=code)


def _forbidden(message: str) -> str:
    """Admission webhooks answer 403 too; RBAC messages begin with the resource in quotes."""
    if "admission webhook" in message:
        return f"refused by the cluster's admission: {message}"
    return (
        f"not allowed: {message}\n"
        "  ask an administrator for a role like this:\n"
        "  kubectl create role turnout --verb=get,list,watch,create,patch,delete"
        " --resource=services.serving.knative.dev"
    )


def _missing(path: str, message: str) -> str:
    for group, name in (
        ("serving.knative.dev", "Knative Serving"),
        ("eventing.knative.dev", "Knative Eventing"),
        ("sources.knative.dev", "Knative Eventing's sources"),
    ):
        if f"/apis/{group}/" in path and "not find the requested resource" in message:
            return (
                f"{name} is not installed in this cluster (no {group} API); see `turnout preflight`"
            )
    return message


def _conflict(status: Mapping[str, JSON], message: str) -> str:
    causes = (status.get("details") or {}).get("causes") or []
    lines = [
        f"  {cause.get('field', '?')}: {cause.get('message', '')}"
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    ]
    if not lines:
        return f"conflict: {message}; the object changed meanwhile, run the command again"
    return (
        "another tool owns fields of this object:\n"
        + "\n".join(lines)
        + "\n  --force-conflicts takes them over"
    )


def _invalid(status: Mapping[str, JSON], message: str) -> str:
    causes = (status.get("details") or {}).get("causes") or []
    lines = [f"  {c.get('field', '?')}: {c.get('message', '')}" for c in causes]
    return "the cluster finds it invalid:\n" + ("\n".join(lines) if lines else f"  {message}")
