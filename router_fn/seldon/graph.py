"""A SeldonDeployment's predictors as the router gets them: frozen types, parser, checks.

Fields are Seldon's own (spec/seldon 1.2, 1.3); the compiler adds to each node where its service is.
`read` collects every problem, with paths like `predictors[0].graph.children[1].implementation`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from router_fn.errors import GraphError, Problem
from router_fn.urls import parse_url

KIND: Final = "SeldonDeployment"
Protocol = Literal["seldon", "tensorflow", "v2"]

_PROTOCOLS: Final[dict[str, Protocol]] = {
    "": "seldon",
    "seldon": "seldon",
    "tensorflow": "tensorflow",
    "v2": "v2",
    "kfserving": "v2",
}
_TYPES: Final = ("MODEL", "ROUTER", "COMBINER", "TRANSFORMER", "OUTPUT_TRANSFORMER", "UNKNOWN_TYPE")
_METHODS: Final = ("TRANSFORM_INPUT", "TRANSFORM_OUTPUT", "ROUTE", "AGGREGATE", "SEND_FEEDBACK")
BUILT_IN: Final = ("RANDOM_ABTEST", "SIMPLE_ROUTER", "SIMPLE_MODEL", "AVERAGE_COMBINER")
_OF_TYPE: Final = {
    "MODEL": frozenset({"PREDICT", "SEND_FEEDBACK"}),
    "TRANSFORMER": frozenset({"TRANSFORM_INPUT"}),
    "OUTPUT_TRANSFORMER": frozenset({"TRANSFORM_OUTPUT"}),
    "ROUTER": frozenset({"ROUTE", "SEND_FEEDBACK"}),
    "COMBINER": frozenset({"AGGREGATE"}),
}
MAX_DEPTH: Final = 64
LOG_QUEUE: Final = 10_000
LOG_MODES: Final = ("all", "request", "response")
_IGNORED: Final = frozenset(
    ("modelUri", "serviceAccountName", "envSecretRefName", "storageInitializerImage")
)
_UNIT_FIELDS: Final = (
    *("name", "type", "implementation", "methods", "parameters", "children", "endpoint"),
    *("serviceUrl", "image", "serverProtocol", "modelName", "health", "logger"),
)


_PREDICTOR_FIELDS: Final = (
    *("name", "traffic", "shadow", "labels", "annotations", "nodes", "graph"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A node of the graph (Seldon's PredictiveUnit)."""

    name: str
    type: str
    implementation: str
    methods: frozenset[str]
    """What it does: PREDICT, TRANSFORM_INPUT, TRANSFORM_OUTPUT, ROUTE, AGGREGATE, SEND_FEEDBACK."""
    service_url: str = ""
    """Base URL of its service, without a path; empty for built-in units and mere joints."""
    image: str = ""
    server_protocol: Literal["", "tensorflow"] = ""
    model_name: str = ""
    health: str = ""
    """How a node in the router's own pod is asked whether it is ready: a path, tcp or grpc. Empty:
    a service of its own, which may sleep, and is not asked."""
    log_url: str = ""
    """Where the node's payloads are logged; empty: nowhere."""
    log_mode: str = ""
    """all, request or response."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    children: tuple["Unit", ...] = ()

    @property
    def built_in(self) -> bool:
        return self.implementation in BUILT_IN

    @property
    def is_grpc(self) -> bool:
        """Called over gRPC."""
        return self.service_url.startswith(("grpc://", "grpcs://"))

    def walk(self) -> Iterator["Unit"]:
        """This unit and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    name: str
    root: Unit
    traffic: int = 100
    """Percent of the requests; a shadow's: percent of the requests copied to it."""
    shadow: bool = False
    version: str = ""
    nodes: frozenset[str] = frozenset()
    """Names that its answers may carry: those of the graph, or what a predictor with a router of
    its own has behind that."""
    remote: bool = False
    """It has a router of its own: its root is that router's Service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    name: str
    namespace: str
    protocol: Protocol
    predictors: tuple[Predictor, ...]
    timeout_s: float | None = None
    """Of each call of a node."""
    log_queue: int = LOG_QUEUE
    """Payload events that may wait."""


def is_seldon(spec: object) -> bool:
    """Whether a graph in JSON is one of these rather than an InferenceGraph."""
    return isinstance(spec, Mapping) and spec.get("kind") == KIND


def read(spec: object, *, resolved: bool = True) -> tuple[Deployment, list[Problem]]:
    """The deployment as far as it could be understood, and every problem of it."""
    reader = _Reader(resolved)
    return reader.deployment(spec), reader.problems


def check(spec: object, *, resolved: bool = True) -> list[Problem]:
    """Every problem. `resolved=False`: the services' URLs are not known yet."""
    return read(spec, resolved=resolved)[1]


def parse(spec: object) -> Deployment:
    """A valid deployment. Raises GraphError with all problems."""
    deployment, problems = read(spec)
    errors = [problem for problem in problems if problem[0] == "error"]
    if errors:
        raise GraphError(errors)
    return deployment


class _Reader:
    def __init__(self, resolved: bool) -> None:
        self.resolved = resolved
        self.problems: list[Problem] = []
        self.protocol: Protocol = "seldon"

    def error(self, path: str, message: str) -> None:
        self.problems.append(("error", path, message))

    def fields(self, value: object, path: str) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        self.error(path, "must be an object")
        return {}

    def text(self, fields: Mapping[str, Any], name: str, path: str) -> str:
        value = fields.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.error(_join(path, name), "must be a string")
            return ""
        return value

    def percent(self, fields: Mapping[str, Any], path: str, default: int) -> int:
        value = fields.get("traffic")
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
            self.error(_join(path, "traffic"), "must be a whole number from 0 to 100")
            return default
        return value

    def items(self, fields: Mapping[str, Any], name: str, path: str) -> Sequence[Any]:
        value = fields.get(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            self.error(_join(path, name), "must be a list")
            return ()
        return value

    def unknown(self, fields: Mapping[str, Any], known: Sequence[str], path: str) -> None:
        for name in fields:
            if name not in known and name not in _IGNORED:
                self.error(_join(path, str(name)), "is not a known field")

    # --- the parts --------------------------------------------------------------------------

    def deployment(self, spec: object) -> Deployment:
        fields = self.fields(spec, "")
        self.unknown(
            fields,
            ("kind", "name", "namespace", "protocol", "timeoutMs", "logQueueSize", "predictors"),
            "",
        )
        protocol = self.text(fields, "protocol", "")
        self.protocol = _PROTOCOLS.get(protocol, "seldon")
        if protocol not in _PROTOCOLS:
            self.error("protocol", f"is {protocol!r}, must be seldon, tensorflow or v2")
        timeout = fields.get("timeoutMs") or 0
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0:
            self.error("timeoutMs", "must be a number of milliseconds")
            timeout = 0
        predictors = tuple(
            self.predictor(raw, f"predictors[{index}]")
            for index, raw in enumerate(self.items(fields, "predictors", ""))
        )
        if not fields.get("name"):
            self.error("name", "is missing")
        self.check_traffic(predictors)
        return Deployment(
            name=self.text(fields, "name", ""),
            namespace=self.text(fields, "namespace", "") or "default",
            protocol=_PROTOCOLS.get(protocol, "seldon"),
            predictors=predictors,
            timeout_s=timeout / 1000 if timeout else None,
            log_queue=self.log_queue(fields),
        )

    def check_traffic(self, predictors: Sequence[Predictor]) -> None:
        names = [predictor.name for predictor in predictors]
        for name in {name for name in names if names.count(name) > 1}:
            self.error("predictors", f"has two predictors called {name!r}")
        live = [predictor for predictor in predictors if not predictor.shadow]
        if not live:
            self.error("predictors", "needs at least one predictor that is no shadow")
        elif len(live) > 1 and (total := sum(one.traffic for one in live)) != 100:
            self.error("predictors", f"the sum of traffic is {total}, must be 100")
        if len(predictors) - len(live) > 1:
            self.error("predictors", "has more than one shadow")

    def predictor(self, raw: object, path: str) -> Predictor:
        fields = self.fields(raw, path)
        self.unknown(fields, _PREDICTOR_FIELDS, path)
        name = self.text(fields, "name", path)
        if not name:
            self.error(_join(path, "name"), "is missing")
        labels = fields.get("labels")
        shadow = fields.get("shadow") is True
        if not isinstance(fields.get("shadow", False), bool):
            self.error(_join(path, "shadow"), "must be true or false")
        if fields.get("graph") is None:
            self.error(_join(path, "graph"), "is missing")
        root = self.unit(fields.get("graph") or {}, _join(path, "graph"), 0)
        names = [unit.name for unit in root.walk()]
        for twice in sorted({one for one in names if one and names.count(one) > 1}):
            self.error(_join(path, "graph"), f"has two nodes called {twice!r}")
        traffic = self.percent(fields, path, 0 if shadow else 100)
        return Predictor(
            name=name,
            root=root,
            traffic=traffic or 100 if shadow else traffic,
            shadow=shadow,
            version=str(labels.get("version", name)) if isinstance(labels, Mapping) else name,
            nodes=frozenset(names) | frozenset(map(str, self.items(fields, "nodes", path))),
            remote=bool(fields.get("nodes")),
        )

    def unit(self, raw: object, path: str, depth: int) -> Unit:
        fields = self.fields(raw, path)
        self.unknown(fields, _UNIT_FIELDS, path)
        name = self.text(fields, "name", path)
        if not name:
            self.error(_join(path, "name"), "is missing")
        children: tuple[Unit, ...] = ()
        if depth >= MAX_DEPTH:
            self.error(path, f"is nested more than {MAX_DEPTH} deep")
        else:
            children = tuple(
                self.unit(child, f"{path}.children[{index}]", depth + 1)
                for index, child in enumerate(self.items(fields, "children", path))
            )
        kind, implementation, methods = self.duties(fields, path)
        server_protocol = self.text(fields, "serverProtocol", path)
        if server_protocol not in ("", "seldon", "tensorflow"):
            self.error(_join(path, "serverProtocol"), "must be seldon or tensorflow")
        log_url, log_mode = self.logger(fields, path)
        unit = Unit(
            name=name,
            log_url=log_url,
            log_mode=log_mode,
            type=kind,
            implementation=implementation,
            methods=methods,
            service_url=self.service(fields, path),
            image=self.text(fields, "image", path),
            server_protocol="tensorflow" if server_protocol == "tensorflow" else "",
            model_name=self.text(fields, "modelName", path) or name,
            health=self.health(fields, path),
            parameters=self.parameters(fields, path),
            children=children,
        )
        self.check_unit(unit, path)
        return unit

    def duties(self, fields: Mapping[str, Any], path: str) -> tuple[str, str, frozenset[str]]:
        """Type, implementation and what the unit does, after Seldon's defaulting (1.4)."""
        kind = self.text(fields, "type", path)
        implementation = self.text(fields, "implementation", path)
        if implementation == "UNKNOWN_IMPLEMENTATION":
            implementation = ""
        given = self.items(fields, "methods", path)
        methods = {m for m in given if isinstance(m, str)}
        for method in (m for m in given if not isinstance(m, str) or m not in _METHODS):
            self.error(_join(path, "methods"), f"{method!r} is none of {', '.join(_METHODS)}")
        if kind and kind not in _TYPES:
            self.error(_join(path, "type"), f"is {kind!r}, must be one of {', '.join(_TYPES)}")
        if not kind and not methods and not implementation:
            kind = "MODEL"
        if implementation and implementation not in BUILT_IN:
            kind = "MODEL"  # a prepackaged server
        if kind == "UNKNOWN_TYPE" and not methods:
            self.error(path, "has type UNKNOWN_TYPE and no methods: it would do nothing")
        built_in = {
            "RANDOM_ABTEST": {"ROUTE"},
            "SIMPLE_ROUTER": {"ROUTE"},
            "SIMPLE_MODEL": {"PREDICT"},
            "AVERAGE_COMBINER": {"AGGREGATE"},
        }.get(implementation)
        if built_in is not None:
            return kind, implementation, frozenset(built_in)
        return kind, implementation, frozenset(methods) | _OF_TYPE.get(kind, frozenset())

    def service(self, fields: Mapping[str, Any], path: str) -> str:
        url = self.text(fields, "serviceUrl", path)
        endpoint = fields.get("endpoint")
        if not url and isinstance(endpoint, Mapping) and endpoint.get("service_host"):
            grpc = endpoint.get("type") == "GRPC"
            known = endpoint.get("grpcPort" if grpc else "httpPort")
            port = known or endpoint.get("service_port") or (9500 if grpc else 9000)
            url = f"{'grpc' if grpc else 'http'}://{endpoint['service_host']}:{port}"
        if url:
            try:
                parse_url(url)
            except ValueError as error:
                self.error(_join(path, "serviceUrl"), str(error))
                return ""
        return url.rstrip("/")

    def log_queue(self, fields: Mapping[str, Any]) -> int:
        given = fields.get("logQueueSize")
        if given is None:
            return LOG_QUEUE
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            self.error("logQueueSize", "must be a number of events, at least 1")
            return LOG_QUEUE
        return given

    def logger(self, fields: Mapping[str, Any], path: str) -> tuple[str, str]:
        """(URL, mode) of a node's payload log, ("", "") without one."""
        if fields.get("logger") is None:
            return "", ""
        given = self.fields(fields["logger"], _join(path, "logger"))
        here = _join(path, "logger")
        self.unknown(given, ("url", "mode"), here)
        url, mode = self.text(given, "url", here), self.text(given, "mode", here)
        if mode not in LOG_MODES:
            self.error(_join(here, "mode"), f"is {mode!r}, must be one of {', '.join(LOG_MODES)}")
        try:
            if not parse_url(url).scheme.startswith("http"):
                raise ValueError(f"{url!r} must start with http:// or https://")
        except ValueError as error:
            if url or self.resolved:
                self.error(_join(here, "url"), str(error))
            return "", ""
        return url, mode

    def health(self, fields: Mapping[str, Any], path: str) -> str:
        given = self.text(fields, "health", path)
        if given and given not in ("tcp", "grpc") and not given.startswith("/"):
            self.error(_join(path, "health"), "must be a path, tcp or grpc")
        return given

    def parameters(self, fields: Mapping[str, Any], path: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for index, raw in enumerate(self.items(fields, "parameters", path)):
            where = f"{path}.parameters[{index}]"
            one = self.fields(raw, where)
            try:
                values[str(one.get("name", ""))] = _parameter(one)
            except (ValueError, TypeError):
                shown = json.dumps(one.get("value"))
                self.error(where, f"the value {shown} is no {one.get('type')}")
        return values

    def check_unit(self, unit: Unit, path: str) -> None:
        called = unit.methods and not unit.built_in
        if called and not unit.service_url and self.resolved:
            self.error(path, f"node {unit.name!r} has no serviceUrl: where is it called?")
        calls = unit.methods & {"ROUTE", "AGGREGATE"} and not unit.built_in
        if calls and unit.is_grpc and self.protocol == "tensorflow":
            self.error(
                path,
                f"node {unit.name!r}: routers and combiners of the tensorflow protocol are called"
                " over REST only",
            )
        if "ROUTE" in unit.methods and not unit.children:
            self.error(path, f"{unit.name!r} is a router without children")
        if "AGGREGATE" in unit.methods and not unit.children:
            self.error(path, f"{unit.name!r} is a combiner without children")
        if unit.implementation == "RANDOM_ABTEST":
            if len(unit.children) != 2:
                self.error(path, "RANDOM_ABTEST needs exactly two children")
            ratio = unit.parameters.get("ratioA", 0.5)
            if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
                self.error(path, "ratioA must be a number from 0 to 1")


def _parameter(raw: Mapping[str, Any]) -> Any:
    """A parameter's value, by its type. Raises ValueError or TypeError."""
    text, kind = raw.get("value"), raw.get("type", "STRING")
    if kind == "INT":
        return int(cast("str", text))
    if kind in ("FLOAT", "DOUBLE"):
        return float(cast("str", text))
    if kind == "BOOL":
        word = str(text).lower()
        if word not in ("true", "false", "1", "0"):
            raise ValueError
        return word in ("true", "1")
    if kind != "STRING":
        raise ValueError
    return str(text)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
