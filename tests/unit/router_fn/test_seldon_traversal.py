"""Seldon graphs by script: order of calls, routes, combination, chaining, feedback, failures."""

import json
from typing import Any

import pytest

from router_fn.errors import UpstreamError
from router_fn.fibers import Fiber, Wait
from router_fn.replies import Reply
from router_fn.seldon import graph
from router_fn.seldon.graph import Deployment, Unit
from router_fn.seldon.messages import SeldonError
from router_fn.seldon.traversal import Message, NodeAnswered, Traversal, send_feedback

IN = b'{"data":{"ndarray":[[1]]}}'


class World:
    """Answers by `node/path`, or `node`; what is not scripted answers its own name."""

    def __init__(self, script: dict[str, Any] | None = None, held: tuple[str, ...] = ()) -> None:
        self.script = script or {}
        self.held = held
        self.waits: dict[str, Wait[Reply]] = {}
        self.calls: list[tuple[str, bytes]] = []
        self.drawn = 0.0

    def call(self, unit: Unit, path: str, message: Message, /) -> Wait[Reply]:
        name = unit.name + path
        self.calls.append((name, message.body))
        wait: Wait[Reply] = Wait()
        self.waits[name] = wait
        if unit.name not in self.held:
            self.release(name)
        return wait

    def release(self, name: str) -> None:
        unit = name.partition("/")[0]
        answer = self.script.get(name, self.script.get(unit, (200, {"strData": name})))
        if isinstance(answer, Exception):
            self.waits[name].fail(answer)
            return
        status, body = answer
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.waits[name].resolve(Reply(status, text))

    def draw(self) -> float:
        return self.drawn

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


def unit(
    name: str, kind: str = "MODEL", *children: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    raw = {"name": name, "serviceUrl": f"http://{name}", "children": list(children), **fields}
    return {**raw, "type": kind} if kind else raw


def deploy(root: dict[str, Any], **fields: Any) -> Deployment:
    spec = {"kind": graph.KIND, "name": "d", "predictors": [{"name": "p", "graph": root}], **fields}
    return graph.parse(spec)


def start(
    root: dict[str, Any], world: World, body: bytes = IN, **fields: Any
) -> tuple[Fiber[Message], Traversal]:
    deployment = deploy(root, **fields)
    traversal = Traversal(deployment, world)
    return Fiber(traversal.run(deployment.predictors[0].root, Message(body))), traversal


def run(root: dict[str, Any], world: World, body: bytes = IN, **fields: Any) -> bytes:
    return start(root, world, body, **fields)[0].result().body


# --- order and routes ----------------------------------------------------------------------------


def test_a_model_with_children_is_a_pipeline() -> None:
    world = World()
    assert run(unit("a", "MODEL", unit("b")), world) == b'{"strData": "b/predict"}'
    assert world.calls == [("a/predict", IN), ("b/predict", b'{"strData": "a/predict"}')]


def test_the_order_is_transformer_router_child_combiner_output_transformer() -> None:
    world = World({"r/route": (200, {"data": {"ndarray": [[1]]}})})
    tree = unit(
        "out",
        "OUTPUT_TRANSFORMER",
        unit(
            "in",
            "TRANSFORMER",
            unit("r", "ROUTER", unit("x"), unit("c", "COMBINER", unit("y"), unit("z"))),
        ),
    )
    run(tree, world)
    assert world.names == [
        "in/transform-input",
        "r/route",
        "y/predict",
        "z/predict",
        "c/aggregate",
        "out/transform-output",
    ]
    assert world.calls[1][1] == b'{"strData": "in/transform-input"}'
    assert world.calls[4][1] == b'[{"strData": "y/predict"},{"strData": "z/predict"}]'


def test_transform_input_is_preferred_to_predict() -> None:
    world = World()
    run(unit("a", "MODEL", methods=["TRANSFORM_INPUT", "TRANSFORM_OUTPUT"]), world)
    assert world.names == ["a/transform-input", "a/transform-output"]


def test_without_a_combiner_the_first_child_answers_but_all_are_called() -> None:
    world = World()
    assert run(unit("a", "MODEL", unit("b"), unit("c")), world) == b'{"strData": "b/predict"}'
    assert world.names == ["a/predict", "b/predict", "c/predict"]


@pytest.mark.parametrize(
    ("answer", "called", "route"),
    [
        ({"data": {"ndarray": [[1]]}}, ["y"], 1),
        ({"data": {"ndarray": [0]}}, ["x"], 0),
        ({"data": {"ndarray": 1}}, ["y"], 1),
        ({"data": {"tensor": {"shape": [1, 1], "values": [1.0]}}}, ["y"], 1),
        ({"data": {"tftensor": {"intVal": [1]}}}, ["y"], 1),
        ({"data": {"tftensor": {"int64Val": ["1"]}}}, ["y"], 1),
        ([1], ["y"], 1),
        (1, ["y"], 1),
        ({"data": {"ndarray": [[-1]]}}, ["x", "y"], -1),
        ({"strData": "?"}, ["x", "y"], -1),
        ({"data": {"ndarray": [[-2]]}}, [], -2),
    ],
)
def test_routes(answer: Any, called: list[str], route: int) -> None:
    world = World({"r/route": (200, answer)})
    fiber, traversal = start(unit("r", "ROUTER", unit("x"), unit("y")), world)
    body = fiber.result().body
    assert world.names == ["r/route", *(f"{name}/predict" for name in called)]
    assert traversal.routing["r"] == route
    if not called:
        assert body == IN


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"ndarray": [[2]]}},
        {"data": {"ndarray": [[-3]]}},
        {"data": {"ndarray": [["1x"]]}},
        {"data": {"ndarray": [[0.5]]}},
        {"data": {"ndarray": [[True]]}},
        {"data": {"ndarray": []}},
        {"data": {"ndarray": [{}]}},
        [],
        b"text",
        b"[NaN]",
        b"[1e400]",
    ],
)
def test_a_route_that_leads_nowhere_is_an_error_that_names_the_router(answer: Any) -> None:
    world = World({"r/route": (200, answer)})
    with pytest.raises(SeldonError) as caught:
        run(unit("r", "ROUTER", unit("x"), unit("y")), world)
    assert caught.value.status == 500
    assert caught.value.info.startswith("r: ")
    assert world.names == ["r/route"]


def test_children_are_called_at_once() -> None:
    world = World(held=("x", "y"))
    fiber, _ = start(unit("c", "COMBINER", unit("x"), unit("y")), world)
    assert world.names == ["x/predict", "y/predict"]
    world.release("y/predict")
    assert fiber.pending
    world.release("x/predict")
    assert not fiber.pending


def test_routing_tells_what_was_decided() -> None:
    world = World({"r/route": (200, [1])})
    tree = unit("o", "OUTPUT_TRANSFORMER", unit("r", "ROUTER", unit("x"), unit("y")))
    _, traversal = start(tree, world)
    assert traversal.routing == {"r": 1, "y": -1}


# --- built-ins -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "ROUTER"])
@pytest.mark.parametrize(("draw", "child"), [(0.29, "x"), (0.3, "y")])
def test_random_abtest(kind: str, draw: float, child: str) -> None:
    world = World()
    world.drawn = draw
    parameters = [{"name": "ratioA", "value": "0.3", "type": "FLOAT"}]
    tree = unit(
        "r", kind, unit("x"), unit("y"), implementation="RANDOM_ABTEST", parameters=parameters
    )
    run(tree, world)
    assert world.names == [f"{child}/predict"]


def test_random_abtest_halves_by_default() -> None:
    for draw, child in ((0.49, "x"), (0.5, "y")):
        world = World()
        world.drawn = draw
        run(unit("r", "", unit("x"), unit("y"), implementation="RANDOM_ABTEST"), world)
        assert world.names == [f"{child}/predict"]


def test_simple_router_takes_the_first() -> None:
    world = World()
    run(unit("r", "ROUTER", unit("x"), unit("y"), implementation="SIMPLE_ROUTER"), world)
    assert world.names == ["x/predict"]


def test_simple_model() -> None:
    tree = {"name": "m", "implementation": "SIMPLE_MODEL"}
    answer = json.loads(run(tree, World()))
    assert answer["data"]["tensor"] == {"shape": [1, 3], "values": [0.1, 0.9, 0.5]}
    assert answer["data"]["names"] == ["class0", "class1", "class2"]
    assert len(answer["meta"]["metrics"]) == 3
    assert json.loads(run(tree, World(), b'{"strData":"x"}'))["strData"] == "x"
    with pytest.raises(SeldonError) as caught:
        run(tree, World(), b"text")
    assert caught.value.status == 400


AVERAGE = {"name": "c", "implementation": "AVERAGE_COMBINER", "type": "COMBINER"}


def _average(*answers: Any) -> Any:
    children = [unit(f"m{number}") for number in range(len(answers))]
    script = {f"m{number}": (200, answer) for number, answer in enumerate(answers)}
    return json.loads(run({**AVERAGE, "children": children}, World(script)))


def test_average_combiner_keeps_the_first_answers_kind_names_and_meta() -> None:
    assert _average(
        {"meta": {"tags": {"a": 1}}, "data": {"names": ["p"], "ndarray": [[1, 2], [3, 4]]}},
        {"data": {"tensor": {"shape": [2, 2], "values": [3, 2, 1, 0]}}},
    ) == {"meta": {"tags": {"a": 1}}, "data": {"names": ["p"], "ndarray": [[2, 2], [2, 2]]}}
    assert _average({"data": {"tensor": {"shape": [1, 2], "values": [1, 2]}}}) == {
        "data": {"tensor": {"shape": [1, 2], "values": [1, 2]}}
    }


@pytest.mark.parametrize(
    "second",
    [
        {"data": {"ndarray": [[1]]}},
        {"data": {"ndarray": [[1, 2], [3, 4]]}},
        {"data": {"ndarray": [1, 2]}},
        {"data": {"ndarray": [["a", "b"]]}},
        {"data": {"tensor": {"shape": [1, 3], "values": [1, 2]}}},
        {"data": {"tensor": {"shape": "x", "values": [1, 2]}}},
        {"strData": "x"},
        [1],
        b"text",
    ],
)
def test_average_of_answers_that_do_not_fit_is_an_error(second: Any) -> None:
    with pytest.raises(SeldonError):
        _average({"data": {"ndarray": [[1, 2]]}}, second)


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [201, 204, 400, 418, 500, 503])
def test_an_answer_other_than_200_is_the_answer(status: int) -> None:
    world = World({"a": (status, {"status": {"info": "mine"}})})
    with pytest.raises(NodeAnswered) as caught:
        run(unit("a", "MODEL", unit("b")), world)
    assert caught.value.status == status
    assert json.loads(caught.value.body) == {"status": {"info": "mine"}}
    assert world.names == ["a/predict"]


def test_a_routers_failure_is_told_with_its_status_and_name() -> None:
    world = World({"r": (503, b"down")})
    with pytest.raises(SeldonError) as caught:
        run(unit("r", "ROUTER", unit("x")), world)
    assert caught.value.status == 503
    assert caught.value.info.startswith("r: ")


@pytest.mark.parametrize(("kind", "status"), [("connect", 500), ("timeout", 504), ("garbage", 500)])
def test_transport_failures_name_the_node(kind: str, status: int) -> None:
    world = World({"b": UpstreamError("no luck", kind=kind)})
    with pytest.raises(SeldonError) as caught:
        run(unit("a", "MODEL", unit("b")), world)
    assert (caught.value.status, caught.value.info) == (status, "b: no luck")


def test_of_several_failures_the_lowest_child_is_told_and_the_rest_given_up() -> None:
    script = {"x": (500, b"x"), "y": (501, b"y")}
    world = World(script, held=("x", "y", "z"))
    fiber, _ = start(unit("c", "COMBINER", unit("x"), unit("y"), unit("z")), world)
    world.release("y/predict")
    assert fiber.pending
    world.release("x/predict")
    assert isinstance(fiber.error, NodeAnswered)
    assert fiber.error.status == 500
    assert not world.waits["z/predict"].pending


def test_a_combiner_refuses_what_is_not_json() -> None:
    world = World({"x": (200, b"text")})
    with pytest.raises(SeldonError, match="x answered what is not JSON"):
        run(unit("c", "COMBINER", unit("x"), unit("y")), world)
    assert "c/aggregate" not in world.names


# --- other protocols -----------------------------------------------------------------------------


def test_a_tensorflow_chain() -> None:
    world = World({"a": (200, b'{"predictions": [[1.50]]}'), "b": (200, b'{"outputs": {"y": 1}}')})
    tree = unit("a", "MODEL", unit("b", "MODEL", unit("c")))
    run(tree, world, b'{"instances": [1], "signature_name": "s"}', protocol="tensorflow")
    assert world.calls == [
        ("a/v1/models/a:predict", b'{"instances": [1], "signature_name": "s"}'),
        ("b/v1/models/b:predict", b'{"instances":[[1.50]]}'),
        ("c/v1/models/c:predict", b'{"inputs":{"y": 1}}'),
    ]


@pytest.mark.parametrize("protocol", ["v2", "kfserving"])
def test_a_v2_chain(protocol: str) -> None:
    world = World({"a": (200, b'{"model_name":"a","id":"7","outputs": [{"name":"o"}]}')})
    run(unit("a", "MODEL", unit("b")), world, b'{"inputs": []}', protocol=protocol)
    assert world.calls == [
        ("a/v2/models/a/infer", b'{"inputs": []}'),
        ("b/v2/models/b/infer", b'{"id":"7","inputs":[{"name":"o"}]}'),
    ]


@pytest.mark.parametrize("protocol", ["tensorflow", "v2"])
@pytest.mark.parametrize("body", [b"{}", b"text", b"[1]"])
def test_what_cannot_be_chained_is_an_error(protocol: str, body: bytes) -> None:
    with pytest.raises(SeldonError, match="a: the message needs"):
        run(unit("a"), World(), body, protocol=protocol)


def test_a_tensorflow_server_behind_a_seldon_node() -> None:
    world = World({"tf": (200, {"predictions": [[0.1, 0.9]]})})
    parameters = [{"name": "signature_name", "value": "sig", "type": "STRING"}]
    tree = unit(
        "tf",
        "",
        implementation="TENSORFLOW_SERVER",
        serverProtocol="tensorflow",
        modelName="mnist",
        image="tf:1",
        parameters=parameters,
    )
    answer = json.loads(run(tree, world, b'{"meta":{"puid":"p"},"data":{"ndarray":[[1,2]]}}'))
    assert world.calls == [
        ("tf/v1/models/mnist:predict", b'{"instances":[[1,2]],"signature_name":"sig"}')
    ]
    assert answer == {
        "data": {"names": ["t:0", "t:1"], "ndarray": [[0.1, 0.9]]},
        "meta": {"puid": "p", "requestPath": {"tf": "tf:1"}},
    }


# --- feedback ------------------------------------------------------------------------------------


def _feedback(root: dict[str, Any], routing: Any, world: World) -> bytes | None:
    deployment = deploy(root)
    meta = {"routing": routing} if routing is not None else {}
    body = json.dumps({"response": {"meta": meta}, "reward": 1}).encode()
    fiber = Fiber(send_feedback(Traversal(deployment, world), deployment.predictors[0].root, body))
    assert all(sent == body for _, sent in world.calls)
    return fiber.result()


BANDIT = unit("r", "ROUTER", unit("x"), unit("y", "MODEL", unit("z")))


@pytest.mark.parametrize(
    ("routing", "told"),
    [
        ({"r": 0}, ["x", "r"]),
        ({"r": 1}, ["z", "y", "r"]),
        ({"r": -1}, ["x", "z", "y", "r"]),
        ({"r": -2}, ["r"]),
        (None, ["x", "z", "y", "r"]),
        ({"r": 9}, ["x", "z", "y", "r"]),
        ({"r": "1"}, ["x", "z", "y", "r"]),
        ("nonsense", ["x", "z", "y", "r"]),
    ],
)
def test_feedback_follows_the_route_of_the_answer(routing: Any, told: list[str]) -> None:
    world = World()
    assert _feedback(BANDIT, routing, world) == b'{"strData": "r/send-feedback"}'
    assert sorted(world.names) == sorted(f"{name}/send-feedback" for name in told)
    assert world.names[-1] == "r/send-feedback"


def test_nodes_that_do_not_listen_are_not_told() -> None:
    world = World()
    tree = unit("t", "TRANSFORMER", unit("c", "COMBINER", unit("x"), methods=["SEND_FEEDBACK"]))
    assert _feedback(tree, None, world) is None
    assert world.names == ["x/send-feedback", "c/send-feedback"]
