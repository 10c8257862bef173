"""The orchestrator's URLs (spec/seldon 2.4): a path and a method to what is wanted.

The ingress prefix `/seldon/<namespace>/<deployment>` (or `/seldon/<deployment>`) may be there.
"""

import re
from dataclasses import dataclass
from typing import Final

from router_fn.seldon.graph import Deployment, Protocol


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request is for. `node` is the node or model that the path names."""

    what: str
    """predict, feedback, ready, live, node_status, graph_metadata, node_metadata, openapi, doc,
    metrics, options."""
    node: str = ""


_ALWAYS: Final = (
    ("GET", r"/ready|/readyz|/healthz", "ready"),
    ("GET", r"/live|/livez", "live"),
    ("GET", r"/prometheus|/metrics", "metrics"),
)
_BY_PROTOCOL: Final[dict[Protocol, tuple[tuple[str, str, str], ...]]] = {
    "seldon": (
        # Also a node's own paths, so that a whole graph can be a node of another one.
        ("POST", r"/api/v(?:1\.0|0\.1)/predictions|/predict", "predict"),
        ("POST", r"/api/v(?:1\.0|0\.1)/feedback|/send-feedback", "feedback"),
        ("GET", r"/api/v1\.0/(?:health/)?status", "ready"),
        ("GET", r"/api/v(?:1\.0|0\.1)/status/(?P<node>[^/]+)", "node_status"),
        ("GET", r"/api/v1\.0/metadata|/metadata", "graph_metadata"),
        ("GET", r"/api/v(?:1\.0|0\.1)/metadata/(?P<node>[^/]+)", "node_metadata"),
        ("GET", r"/api/v(?:1\.0|0\.1)/doc/seldon\.json", "openapi"),
        ("GET", r"/api/v(?:1\.0|0\.1)/doc/?", "doc"),
    ),
    "tensorflow": (
        ("POST", r"/v1/models(?:/(?P<node>[^/:]+)/?)?/?:predict", "predict"),
        ("GET", r"/v1/models/(?P<node>[^/:]+)", "node_status"),
        ("GET", r"/v1/models/(?P<node>[^/:]+)/metadata", "node_metadata"),
        ("POST", r"/api/v1\.0/feedback", "feedback"),
    ),
    "v2": (
        ("POST", r"/v2/models(?:/(?P<node>[^/]+))?/infer", "predict"),
        ("GET", r"/v2/models/(?P<node>[^/]+)", "node_metadata"),
        ("GET", r"/v2/models/(?P<node>[^/]+)/ready", "node_status"),
        ("GET", r"/v2/health/ready", "ready"),
        ("GET", r"/v2/health/live", "live"),
        ("POST", r"/api/v1\.0/feedback", "feedback"),
    ),
}


class Paths:
    """The URLs of one deployment. `find` remembers what it found."""

    def __init__(self, deployment: Deployment) -> None:
        rules = _ALWAYS + _BY_PROTOCOL[deployment.protocol]
        self._rules = [(method, re.compile(path), what) for method, path, what in rules]
        name, namespace = re.escape(deployment.name), re.escape(deployment.namespace)
        self._prefix = re.compile(rf"/seldon/(?:{namespace}/)?{name}(?=/)")

    def find(self, method: str, path: str) -> Wanted | int:
        """What is wanted, or 404 or 405."""
        prefix = self._prefix.match(path)
        if prefix is not None:
            path = path[prefix.end() :]
        known = False
        for wanted_method, pattern, what in self._rules:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            known = True
            if method == wanted_method or (method == "HEAD" and wanted_method == "GET"):
                return Wanted(what, found.groupdict().get("node") or "")
            if method == "OPTIONS":
                return Wanted("options")
        return 405 if known else 404
