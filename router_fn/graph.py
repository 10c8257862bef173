"""The graph as the user wrote it: frozen types, and the parser that fills them.

The grammar is KServe's InferenceGraph `spec` (spec.kserve.io v1alpha1) plus Turnout's extensions,
all listed in docs/graph.md. Pure data: no I/O, nothing executed here. `parse` collects every
problem instead of stopping at the first; what needs the whole graph (cycles, weights, conditions)
is in `graph_checks`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from router_fn.errors import GraphError, Problem
from router_fn.reader import Reader, kind_of

RouterType = Literal["Sequence", "Switch", "Ensemble", "Splitter"]
ROUTER_TYPES: tuple[RouterType, ...] = ("Sequence", "Switch", "Ensemble", "Splitter")
ROOT = "root"
P = TypeVar("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often and how patiently a failed call is repeated (connect errors, 502, 503, 504)."""

    attempts: int
    """Repetitions after the first try."""
    initial_ms: int = 100
    """First pause; doubled each time, with full jitter."""
    max_ms: int = 10_000
    """Longest pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A copy of the step's requests for somebody else, whose answers nobody reads."""

    url: str
    percent: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Answers kept by request body."""

    ttl_s: float
    max_entries: int = 1024
    max_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticky:
    """What makes two requests take the same branch of a Splitter."""

    source: Literal["header", "cookie"]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Combiner:
    """How an Ensemble makes one answer of many; options are the combiner's own."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    name: str = ""
    node_name: str = ""
    service_name: str = ""
    service_url: str = ""
    data: str = ""
    condition: str = ""
    weight: int | None = None
    hard: bool = False
    map_predictions: bool = False
    map_outputs: bool = False
    pick: str = ""
    """JSONPath into the body chosen by `data`; empty: the whole of it."""
    default: bool = False
    unmet: Literal["", "Skip", "Stop"] = ""
    timeout_s: float | None = None
    retries: Retries | None = None
    hedge_after_ms: int | None = None
    tolerate_errors: bool = False
    mirror: Mirror | None = None
    cache: Cache | None = None
    stream: Literal["Auto", "Always", "Never"] = "Auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    router_type: RouterType
    steps: tuple[Step, ...] = ()
    unmet: Literal["Skip", "Stop"] = "Stop"
    combiner: Combiner | None = None
    collect: bool = False
    judge: Literal["$request", "$response"] = "$request"
    sticky: Sticky | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterTimeouts:
    """KServe's `routerTimeouts`, in seconds; the defaults are KServe's, None is no limit."""

    server_read_s: float | None = 60.0
    server_write_s: float | None = 60.0
    server_idle_s: float | None = 180.0
    service_client_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    nodes: Mapping[str, Node]
    timeouts: RouterTimeouts = RouterTimeouts()
    prewarm: Literal["sure", "all", "none"] = "sure"
    propagate_headers: tuple[str, ...] | None = None
    """None: the environment's PROPAGATE_HEADERS decides."""
    propagate_ignore_case: bool = False
    return_headers: tuple[str, ...] = ()
    timeout_s: float | None = None
    max_body_bytes: int | None = None
    max_concurrency: int | None = None
    server_timing: bool = False
    pick_data: bool = False
    """`data: $response.predictions` picks; without it KServe's rule holds (anything but `$response`
    is the input)."""


_IGNORED_SPEC_FIELDS = frozenset(
    {
        "resources",
        "affinity",
        "timeout",
        "minReplicas",
        "maxReplicas",
        "scaleTarget",
        "scaleMetric",
        "tolerations",
        "nodeSelector",
        "nodeName",
        "serviceAccountName",
    }
)
"""Known to KServe's controller, which passes them on in the router's JSON; not the router's
business."""


def read(spec: object) -> tuple[Graph, list[Problem]]:
    """The graph, as far as it could be understood, and every problem met on the way."""
    problems: list[Problem] = []
    reader = Reader(spec, "", problems)
    nodes: dict[str, Node] = {}
    raw_nodes = reader.take("nodes")
    if raw_nodes is None:
        reader.error("nodes", "is missing")
    elif not isinstance(raw_nodes, Mapping):
        reader.error("nodes", f"must be an object, not {kind_of(raw_nodes)}")
    else:
        for name, raw in raw_nodes.items():
            nodes[str(name)] = _read_node(Reader(raw, f"nodes.{name}", problems))
    propagate, ignore_case = _read_propagate(reader)
    graph = Graph(
        nodes=nodes,
        timeouts=_read_timeouts(reader),
        prewarm=cast("Any", reader.word("prewarm", ("sure", "all", "none"), "sure")),
        propagate_headers=propagate,
        propagate_ignore_case=ignore_case,
        return_headers=reader.texts("returnHeaders") or (),
        timeout_s=reader.number("timeoutSeconds", above=True),
        max_body_bytes=reader.whole("maxBodyBytes"),
        max_concurrency=reader.whole("maxConcurrency", minimum=1),
        server_timing=reader.flag("serverTiming"),
        pick_data=reader.flag("pickData"),
    )
    reader.finish(_IGNORED_SPEC_FIELDS)
    return graph, problems


def read_and_check(spec: object, *, resolved: bool = True) -> tuple[Graph, list[Problem]]:
    """The graph and every problem of it, errors and warnings. Run it only if there is no error."""
    from router_fn import graph_checks

    graph, problems = read(spec)
    return graph, problems + graph_checks.check_graph(graph, resolved=resolved)


def parse(spec: object) -> Graph:
    """The graph of a valid spec (as parsed JSON). Raises GraphError with all errors."""
    graph, problems = read_and_check(spec)
    errors = [problem for problem in problems if problem[0] == "error"]
    if errors:
        raise GraphError(errors)
    return graph


def check(spec: Mapping[str, Any], *, resolved: bool = True) -> list[Problem]:
    """Every problem of a spec, errors and warnings, in document order.

    `resolved=False` is the compiler's view: a serviceName need not have its URL yet.
    """
    return read_and_check(spec, resolved=resolved)[1]


def _read_timeouts(spec: Reader) -> RouterTimeouts:
    raw = spec.take("routerTimeouts")
    if raw is None:
        return RouterTimeouts()
    reader = Reader(raw, "routerTimeouts", spec.problems)
    default = RouterTimeouts()

    def seconds(name: str, unset: float | None) -> float | None:
        given = reader.number(name)
        return unset if given is None else given or None  # zero is no limit, as to Go's server

    read = seconds("serverRead", default.server_read_s)
    timeouts = RouterTimeouts(
        server_read_s=read,
        server_write_s=seconds("serverWrite", default.server_write_s),
        # Go's server takes the limit on reading where the one on idleness is zero
        server_idle_s=seconds("serverIdle", default.server_idle_s) or read,
        service_client_s=seconds("serviceClient", None),
    )
    reader.finish()
    return timeouts


def _read_propagate(spec: Reader) -> tuple[tuple[str, ...] | None, bool]:
    raw = spec.fields.get("propagateHeaders")
    if not isinstance(raw, Mapping):
        return spec.texts("propagateHeaders"), False
    spec.known.add("propagateHeaders")
    reader = Reader(raw, "propagateHeaders", spec.problems)
    patterns, ignore_case = reader.texts("patterns"), reader.flag("ignoreCase")
    reader.finish()
    return patterns or (), ignore_case


def _read_node(reader: Reader) -> Node:
    raw_steps = reader.take("steps")
    steps: list[Step] = []
    if raw_steps is not None and not isinstance(raw_steps, list | tuple):
        reader.error("steps", f"must be a list, not {kind_of(raw_steps)}")
    else:
        for index, raw in enumerate(raw_steps or ()):
            steps.append(_read_step(Reader(raw, f"{reader.path}.steps[{index}]", reader.problems)))
    if not reader.text("routerType") and reader.fields:
        reader.error("routerType", f"is missing, must be one of {', '.join(ROUTER_TYPES)}")
    node = Node(
        router_type=cast("RouterType", reader.word("routerType", ROUTER_TYPES, "Sequence")),
        steps=tuple(steps),
        unmet=cast("Any", reader.word("unmet", ("Skip", "Stop"), "Stop")),
        combiner=_read_combiner(reader),
        collect=reader.flag("collect"),
        judge=cast("Any", reader.word("judge", ("$request", "$response"), "$request")),
        sticky=_read_part(reader, "stickyBy", _read_sticky),
    )
    reader.finish()
    return node


def _read_part(parent: Reader, name: str, read_it: Callable[[Reader], P | None]) -> P | None:
    """Read the object in a field with its own reader; None when the field is absent."""
    raw = parent.take(name)
    if raw is None:
        return None
    reader = Reader(raw, f"{parent.path}.{name}", parent.problems)
    if not isinstance(raw, Mapping):
        return None
    part = read_it(reader)
    reader.finish()
    return part


def _read_step(reader: Reader) -> Step:
    step = Step(
        name=reader.text("name"),
        node_name=reader.text("nodeName"),
        service_name=reader.text("serviceName"),
        service_url=reader.text("serviceUrl"),
        data=reader.text("data"),
        condition=reader.text("condition"),
        weight=reader.whole("weight", minimum=0, maximum=100),
        hard=reader.word("dependency", ("Soft", "Hard"), "Soft") == "Hard",
        map_predictions=reader.flag("mapPredictionsToInstances"),
        map_outputs=reader.flag("mapOutputsToInputs"),
        pick=reader.text("pick"),
        default=reader.flag("default"),
        unmet=cast("Any", reader.word("unmet", ("Skip", "Stop"), "")),
        timeout_s=reader.number("timeoutSeconds", above=True),
        retries=_read_retries(reader),
        hedge_after_ms=reader.whole("hedgeAfterMs", minimum=1),
        tolerate_errors=reader.word("tolerate", ("Errors",), "") == "Errors",
        mirror=_read_part(reader, "mirror", _read_mirror),
        cache=_read_part(reader, "cache", _read_cache),
        stream=cast("Any", reader.word("stream", ("Auto", "Always", "Never"), "Auto")),
    )
    reader.finish()
    return step


def _read_retries(step: Reader) -> Retries | None:
    raw = step.fields.get("retries")
    if not isinstance(raw, Mapping):
        attempts = step.whole("retries", maximum=10)
        return Retries(attempts=attempts) if attempts else None

    def read_it(reader: Reader) -> Retries:
        return Retries(
            attempts=reader.whole("attempts", minimum=1, maximum=10) or 1,
            initial_ms=reader.whole("initialMs", minimum=1, maximum=60_000) or 100,
            max_ms=reader.whole("maxMs", minimum=1, maximum=300_000) or 10_000,
        )

    return _read_part(step, "retries", read_it)


def _read_mirror(reader: Reader) -> Mirror | None:
    url = reader.text("serviceUrl")
    percent = reader.number("percent", maximum=100)
    if not url:
        reader.error("serviceUrl", "is missing: where do the copies go?")
        return None
    return Mirror(url=url, percent=100.0 if percent is None else percent)


def _read_cache(reader: Reader) -> Cache | None:
    ttl = reader.number("ttlSeconds", above=True)
    if ttl is None:
        if "ttlSeconds" not in reader.fields:
            reader.error("ttlSeconds", "is missing: how long is an answer good for?")
        return None
    return Cache(
        ttl_s=ttl,
        max_entries=reader.whole("maxEntries", minimum=1) or 1024,
        max_bytes=reader.whole("maxBytes", minimum=1) or 16 << 20,
    )


def _read_sticky(reader: Reader) -> Sticky | None:
    header, cookie = reader.text("header"), reader.text("cookie")
    if bool(header) == bool(cookie):
        reader.error("", "needs either header or cookie")
        return None
    return Sticky(source="header" if header else "cookie", name=header or cookie)


def _read_combiner(node: Reader) -> Combiner | None:
    raw = node.take("combiner")
    if raw is None:
        return None
    if isinstance(raw, str):
        return Combiner(name=raw)
    if isinstance(raw, Mapping) and isinstance(raw.get("name"), str):
        return Combiner(name=raw["name"], options={k: v for k, v in raw.items() if k != "name"})
    node.error("combiner", "must be a name, or an object with a name and its options")
    return None
