"""The graph's grammar and its checks: every problem with its path, all at once."""

from typing import Any

import pytest

from router_fn import graph
from router_fn.errors import GraphError

URL = {"serviceUrl": "http://m.test/x"}


def spec(root: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    nodes = fields.pop("nodes", {})
    return {
        "nodes": {"root": root or {"routerType": "Sequence", "steps": [URL]}, **nodes},
        **fields,
    }


def node(kind: str, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"routerType": kind, "steps": list(steps), **fields}


def problems(value: Any, level: str = "error", **options: Any) -> list[str]:
    return [
        f"{path}: {message}"
        for found, path, message in graph.check(value, **options)
        if found == level
    ]


ERRORS: list[tuple[str, Any, str]] = [
    ("no object", [], ": must be an object, not a list"),
    ("no nodes", {}, "nodes: is missing"),
    ("nodes no object", {"nodes": []}, "nodes: must be an object, not a list"),
    (
        "no root",
        {"nodes": {"start": node("Sequence", URL)}},
        "nodes: have no root: a node called root is where requests begin",
    ),
    ("unknown field", spec(tiemout=1), "tiemout: is not a known field; did you mean timeout?"),
    (
        "unknown step field",
        spec(node("Sequence", {**URL, "conditon": "x"})),
        "nodes.root.steps[0].conditon: is not a known field; did you mean condition?",
    ),
    (
        "unknown type",
        spec(node("Parallel", URL)),
        'nodes.root.routerType: is "Parallel", must be one of Sequence, Switch, Ensemble, Splitter',
    ),
    (
        "no type",
        spec({"steps": [URL]}),
        "nodes.root.routerType: is missing, must be one of Sequence, Switch, Ensemble, Splitter",
    ),
    (
        "steps no list",
        spec({"routerType": "Sequence", "steps": {}}),
        "nodes.root.steps: must be a list, not an object",
    ),
    (
        "step no object",
        spec({"routerType": "Sequence", "steps": ["x"]}),
        "nodes.root.steps[0]: must be an object, not a string",
    ),
    (
        "wrong type",
        spec(node("Sequence", {**URL, "condition": 1})),
        "nodes.root.steps[0].condition: must be a string, not a number",
    ),
    (
        "no target",
        spec(node("Sequence", {"name": "x"})),
        "nodes.root.steps[0]: step 'x' has no target: nodeName, serviceName or serviceUrl is "
        "needed",
    ),
    (
        "two targets",
        spec(node("Sequence", {**URL, "nodeName": "root"})),
        "nodes.root.steps[0]: step 0 has more than one target: nodeName and serviceUrl or "
        "serviceName",
    ),
    (
        "dangling",
        spec(node("Sequence", {"nodeName": "gone"})),
        "nodes.root.steps[0].nodeName: step 0 goes to node 'gone', which does not exist",
    ),
    (
        "twins",
        spec(node("Sequence", {**URL, "name": "a"}, {**URL, "name": "a"})),
        "nodes.root: has two steps called 'a'",
    ),
    ("self", spec(node("Sequence", {"nodeName": "root"})), "nodes.root: is a cycle: root -> root"),
    (
        "cycle",
        spec(
            node("Sequence", {"nodeName": "a"}),
            nodes={
                "a": node("Switch", {"nodeName": "b", "condition": "x"}),
                "b": node("Ensemble", {"nodeName": "a"}),
            },
        ),
        "nodes.a: is a cycle: a -> b -> a",
    ),
    (
        "weights missing",
        spec(node("Splitter", {**URL, "weight": 100}, URL)),
        "nodes.root: is a Splitter: every step needs a weight, missing on step 1",
    ),
    (
        "weights do not add up",
        spec(node("Splitter", {**URL, "weight": 80}, {**URL, "weight": 30})),
        "nodes.root: (Splitter 'root'): the sum of weights is 110, must be 100",
    ),
    (
        "no choice",
        spec(node("Splitter")),
        "nodes.root: (Splitter 'root'): the sum of weights is 0, must be 100",
    ),
    (
        "weight out of range",
        spec(node("Splitter", {**URL, "weight": 150})),
        "nodes.root.steps[0].weight: is 150, must be at least 0 and at most 100",
    ),
    (
        "weight no number",
        spec(node("Splitter", {**URL, "weight": "50"})),
        "nodes.root.steps[0].weight: must be a number, not a string",
    ),
    (
        "JSONPath",
        spec(node("Switch", {**URL, "condition": "$["})),
        "nodes.root.steps[0].condition: ",
    ),
    ("pick", spec(node("Sequence", {**URL, "pick": "$["})), "nodes.root.steps[0].pick: "),
    ("combiner", spec(node("Ensemble", URL, combiner="most")), "nodes.root.combiner: "),
    (
        "combiner elsewhere",
        spec(node("Switch", {**URL, "default": True}, combiner="vote")),
        "nodes.root.combiner: belongs to a Ensemble, this is a Switch",
    ),
    (
        "two defaults",
        spec(node("Switch", {**URL, "default": True}, {**URL, "default": True})),
        "nodes.root: has more than one default step",
    ),
    (
        "default with condition",
        spec(node("Switch", {**URL, "default": True, "condition": "a"})),
        "nodes.root.steps[0].condition: step 0 is the default: it has no condition",
    ),
    (
        "default elsewhere",
        spec(node("Sequence", {**URL, "default": True})),
        "nodes.root.steps[0].default: belongs to a Switch, this is a Sequence",
    ),
    (
        "cache on a node",
        spec(
            node("Sequence", {"nodeName": "n", "cache": {"ttlSeconds": 1}}),
            nodes={"n": node("Sequence", URL)},
        ),
        "nodes.root.steps[0].cache: step 0 runs a node: cache needs a serviceUrl",
    ),
    (
        "cache without time",
        spec(node("Sequence", {**URL, "cache": {}})),
        "nodes.root.steps[0].cache.ttlSeconds: is missing: how long is an answer good for?",
    ),
    (
        "retries",
        spec(node("Sequence", {**URL, "retries": 99})),
        "nodes.root.steps[0].retries: is 99, must be at least 0 and at most 10",
    ),
    (
        "retries object",
        spec(node("Sequence", {**URL, "retries": {"attempts": 0}})),
        "nodes.root.steps[0].retries.attempts: is 0, must be at least 1 and at most 10",
    ),
    (
        "mirror",
        spec(node("Sequence", {**URL, "mirror": {"percent": 5}})),
        "nodes.root.steps[0].mirror.serviceUrl: is missing: where do the copies go?",
    ),
    (
        "mirror URL",
        spec(node("Sequence", {**URL, "mirror": {"serviceUrl": "nowhere"}})),
        "nodes.root.steps[0].mirror.serviceUrl: ",
    ),
    (
        "sticky",
        spec(node("Splitter", {**URL, "weight": 100}, stickyBy={"header": "a", "cookie": "b"})),
        "nodes.root.stickyBy: needs either header or cookie",
    ),
    (
        "timeouts",
        spec(routerTimeouts={"serviceClient": -1}),
        "routerTimeouts.serviceClient: is -1, must be at least 0",
    ),
    ("deadline", spec(timeoutSeconds=0), "timeoutSeconds: is 0, must be more than 0"),
    ("headers", spec(propagateHeaders="X"), "propagateHeaders: must be a list of strings"),
    (
        "boolean as number",
        spec(maxConcurrency=True),
        "maxConcurrency: must be a number, not a boolean",
    ),
    ("fraction", spec(maxBodyBytes=1.5), "maxBodyBytes: is 1.5, must be a whole number"),
]


@pytest.mark.parametrize(
    ("value", "wanted"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS]
)
def test_an_error_names_its_place(value: Any, wanted: str) -> None:
    found = problems(value)
    assert any(
        text == wanted or (wanted.endswith(": ") and text.startswith(wanted)) for text in found
    ), found


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(GraphError) as caught:
        graph.parse(spec(node("Parallel", {"conditon": "x"}, {**URL, "weight": -1}), tiemout=1))
    assert len(caught.value.problems) >= 5


WARNINGS: list[tuple[str, Any, str]] = [
    (
        "bad URL",
        spec(node("Sequence", {"serviceUrl": "http://a.{$your-domain}/x"})),
        "malformed host",
    ),
    ("unresolved", spec(node("Sequence", {"serviceName": "m"})), "has no serviceUrl"),
    ("unused node", spec(nodes={"spare": node("Sequence", URL)}), "nodes.spare: is unreachable"),
    ("no condition", spec(node("Switch", URL)), "never matches; set default: true"),
    ("always", spec(node("Switch", {**URL, "condition": "@this"})), "always matches"),
    (
        "never",
        spec(node("Switch", {**URL, "condition": 'target == "blue"'})),
        "comparisons work only inside",
    ),
    (
        "data path",
        spec(node("Sequence", URL, {**URL, "data": "$response.predictions"})),
        "set pickData: true",
    ),
    (
        "cut off",
        spec(
            node(
                "Sequence",
                URL,
                {**URL, "condition": "[@this].#(a==1)"},
                {**URL, "condition": "[@this].#(a==2)"},
            )
        ),
        "Set `unmet: Skip`",
    ),
]


@pytest.mark.parametrize(
    ("value", "wanted"), [row[1:] for row in WARNINGS], ids=[row[0] for row in WARNINGS]
)
def test_a_warning_names_its_remedy(value: Any, wanted: str) -> None:
    assert problems(value) == []
    assert any(wanted in text for text in problems(value, "warning"))


@pytest.mark.parametrize(
    "step",
    [
        {"condition": "[@this].#(a==2)", "data": "$response"},
        {"condition": "[@this].#(a==2)", "unmet": "Skip"},
    ],
)
def test_chained_or_skipping_conditions_are_not_called_cut_off(step: dict[str, Any]) -> None:
    first = {**URL, "condition": "[@this].#(a==1)", "unmet": step.get("unmet", "Stop")}
    assert problems(spec(node("Sequence", URL, first, {**URL, **step})), "warning") == []


def test_the_compiler_sees_urls_and_unused_nodes_as_errors_but_names_as_targets() -> None:
    assert problems(spec(node("Sequence", {"serviceName": "m"})), resolved=False) == []
    assert problems(spec(node("Sequence", {"serviceUrl": "nowhere"})), resolved=False)
    assert problems(spec(nodes={"spare": node("Sequence", URL)}), resolved=False)


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({}, (60, 60, 180, None)),
        ({"serverRead": 0}, (None, 60, 180, None)),
        ({"serverWrite": 0, "serviceClient": 0}, (60, None, 180, None)),
        ({"serverRead": 7, "serverIdle": 0}, (7, 60, 7, None)),
        ({"serverRead": 0, "serverIdle": 0}, (None, 60, None, None)),
        ({"serverRead": 1, "serverWrite": 2, "serverIdle": 3, "serviceClient": 4}, (1, 2, 3, 4)),
    ],
)
def test_timeouts_mean_what_they_mean_to_kserves_server(
    given: dict[str, int], limits: tuple[object, ...]
) -> None:
    read = graph.parse(spec(routerTimeouts=given)).timeouts
    assert limits == (
        read.server_read_s,
        read.server_write_s,
        read.server_idle_s,
        read.service_client_s,
    )


def test_what_kserve_allows_is_allowed() -> None:
    value = {
        "nodes": {
            "root": node(
                "Sequence",
                {"serviceName": "m", **URL, "name": ""},
                {**URL, "name": ""},
                {"nodeName": "n", "dependency": "Soft"},
            ),
            "n": node(
                "Ensemble",
                {
                    **URL,
                    "weight": 1,
                    "condition": "x",
                    "data": "$response",
                    "mapPredictionsToInstances": True,
                },
            ),
        },
        "resources": {},
        "affinity": {},
        "timeout": 5,
        "minReplicas": 0,
        "maxReplicas": 1,
        "scaleTarget": 1,
        "scaleMetric": "rps",
        "tolerations": [],
        "nodeSelector": {},
        "nodeName": "x",
        "serviceAccountName": "y",
        "routerTimeouts": {"serverRead": 1},
    }
    assert graph.check(value) == []


def test_a_deep_graph_is_checked_without_recursion_and_a_too_deep_one_is_refused() -> None:
    def deep(levels: int) -> Any:
        nodes = {f"n{i}": node("Sequence", {"nodeName": f"n{i + 1}"}) for i in range(levels)}
        return spec(
            node("Sequence", {"nodeName": "n0"}),
            nodes={**nodes, f"n{levels}": node("Sequence", URL)},
        )

    assert problems(deep(48)) == []
    assert any("deep" in text for text in problems(deep(3000)))
