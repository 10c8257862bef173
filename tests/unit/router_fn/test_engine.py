"""Node semantics, driven by a scripted context: no sockets, no clock but a counted one.

Section numbers are those of the KServe graph specification the router follows (2.3); what is
Turnout's own says so.
"""

import json
from typing import Any

import pytest

from router_fn import engine, graph, plan
from router_fn.errors import NoRouteMatched, RequestFailed, UpstreamError
from router_fn.fibers import Fiber, Wait
from router_fn.replies import Reply

Answer = tuple[int, Any] | Exception


class Pause(Wait[None]):
    """A timer that the test lets run out."""


class World:
    """A context that answers from a script, and remembers what was asked of it.

    `script` maps a URL's path to an answer, or to a list of answers used one after the other (the
    last one again and again). A path in `held` is answered only by `release`.
    """

    def __init__(
        self, script: dict[str, Any], held: tuple[str, ...] = (), draw: float = 0.0
    ) -> None:
        self.script = {path: list(a) if isinstance(a, list) else [a] for path, a in script.items()}
        self.held = held
        self.waiting: dict[str, list[Wait[Reply]]] = {}
        self.calls: list[tuple[str, bytes]] = []
        self.tails: list[str] = []
        self.mirrored: list[tuple[str, bytes]] = []
        self.counted: list[str] = []
        self.woken: list[str] = []
        self.pauses: list[tuple[float, Pause]] = []
        self.drawn = draw
        self.clock = 0.0
        self.deadline = float("inf")
        self.sticky_value: float | None = None

    def call(self, leaf: engine.Leaf, body: bytes, tail: bool, /) -> Wait[Reply]:
        wait: Wait[Reply] = Wait()
        path = "/" + leaf.url.rpartition("/")[2]
        self.calls.append((path, body))
        if tail:
            self.tails.append(path)
        if path in self.held:
            self.waiting.setdefault(path, []).append(wait)
        else:
            self._answer(path, wait)
        return wait

    def _answer(self, path: str, wait: Wait[Reply]) -> None:
        answers = self.script[path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            wait.fail(answer)
        else:
            status, body = answer
            wait.resolve(
                Reply(status, body if isinstance(body, bytes) else json.dumps(body).encode())
            )

    def release(self, path: str) -> None:
        self._answer(path, self.waiting[path].pop(0))

    def pause(self, seconds: float, /) -> Wait[None]:
        pause = Pause()
        self.pauses.append((seconds, pause))
        return pause

    def run_out(self) -> None:
        """The oldest timer that still matters runs out."""
        seconds, pause = next(one for one in self.pauses if one[1].pending)
        self.clock += seconds
        pause.resolve(None)

    def now(self) -> float:
        return self.clock

    def left(self) -> float:
        return self.deadline - self.clock

    def mirror(self, leaf: engine.Leaf, body: bytes, step: engine.StepPlan, /) -> None:
        self.mirrored.append((leaf.url, body))

    def count(self, what: str, step: engine.StepPlan, /) -> None:
        self.counted.append(f"{what} {step.key}")

    def draw(self) -> float:
        return self.drawn

    def sticky(self, node: engine.SplitterPlan, /) -> float | None:
        return self.sticky_value

    def wake(self, node: engine.NodePlan, /) -> None:
        self.woken.append(node.name)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.calls]


def step(path: str, **fields: Any) -> dict[str, Any]:
    """A step to a service, or to a node when `path` has no slash."""
    target = {"serviceUrl": f"http://up{path}"} if path.startswith("/") else {"nodeName": path}
    return {**target, **fields}


def node(kind: str, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"routerType": kind, "steps": list(steps), **fields}


def build(root: dict[str, Any], _spec: dict[str, Any] | None = None, **nodes: Any) -> plan.Plan:
    spec = {"nodes": {"root": root, **nodes}, **(_spec or {})}
    return plan.build(graph.parse(spec), lambda url, step: url)


def start(built: plan.Plan, world: World, body: bytes = b'{"in":1}') -> Fiber[Reply]:
    return Fiber(built.root.run(world, body, None, True))


def run(built: plan.Plan, world: World, body: bytes = b'{"in":1}') -> tuple[int, bytes]:
    fiber = start(built, world, body)
    assert not fiber.pending
    reply = fiber.result()
    return reply.status, reply.body


REFUSED = UpstreamError("connection refused", kind="connect", retryable=True)
IN = b'{"in":1}'


# --- Sequence ------------------------------------------------------------------------------------


def test_a_step_gets_the_nodes_input_unless_it_asks_for_the_response() -> None:
    world = World({"/a": (200, b'{"x": 1.0}'), "/b": (200, {}), "/c": (200, {"end": 1})})
    built = build(
        node("Sequence", step("/a", data="$response"), step("/b", data="$response"), step("/c"))
    )
    assert run(built, world) == (200, b'{"end": 1}')
    assert world.calls == [("/a", IN), ("/b", b'{"x": 1.0}'), ("/c", IN)]


def test_other_data_values_mean_the_input() -> None:
    world = World({"/a": (200, {"p": 1}), "/b": (200, {})})
    run(build(node("Sequence", step("/a"), step("/b", data="$response.p"))), world)
    assert world.calls[1] == ("/b", IN)


def test_picking_needs_the_flag_of_the_graph() -> None:
    world = World({"/a": (200, b'{"p": [1.50]}'), "/b": (200, {})})
    built = build(
        node("Sequence", step("/a"), step("/b", data="$response.p[0]")), {"pickData": True}
    )
    run(built, world)
    assert world.calls[1] == ("/b", b"1.50")


def test_picking_what_is_not_there_fails_the_request() -> None:
    world = World({"/a": (200, b'{"q": 1}'), "/b": (200, {})})
    built = build(node("Sequence", step("/a"), step("/b", data="$response", pick="$.p")))
    with pytest.raises(RequestFailed, match="nothing at"):
        run(built, world)


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"mapPredictionsToInstances": True}, b'{"instances":[1, 2.0]}'),
        ({"mapOutputsToInputs": True}, b'{"inputs":[{"a":1}]}'),
        ({"pick": "$.predictions"}, b"[1, 2.0]"),
    ],
)
def test_reshaping(fields: dict[str, Any], sent: bytes) -> None:
    answer = b'{"id": 1, "predictions":[1, 2.0], "outputs":[{"a":1}]}'
    world = World({"/a": (200, answer), "/b": (200, {})})
    run(build(node("Sequence", step("/a"), step("/b", data="$response", **fields))), world)
    assert world.calls[1] == ("/b", sent)


@pytest.mark.parametrize("hard", [True, False])
def test_hard_stops_at_a_bad_answer_soft_goes_on(hard: bool) -> None:
    world = World({"/a": (404, b"gone"), "/b": (200, b"b")})
    built = build(
        node(
            "Sequence",
            step("/a", dependency="Hard" if hard else "Soft"),
            step("/b", data="$response"),
        )
    )
    assert run(built, world) == ((404, b"gone") if hard else (200, b"b"))
    assert world.calls[1:] == ([] if hard else [("/b", b"gone")])


@pytest.mark.parametrize("status", [200, 204, 299])
def test_any_2xx_satisfies_hard(status: int) -> None:
    world = World({"/a": (status, b""), "/b": (200, b"b")})
    assert run(build(node("Sequence", step("/a", dependency="Hard"), step("/b"))), world)[1] == b"b"


def test_an_error_ends_the_graph_soft_or_not() -> None:
    world = World({"/a": REFUSED, "/b": (200, b"b")})
    with pytest.raises(UpstreamError) as caught:
        run(build(node("Sequence", step("/a", dependency="Soft"), step("/b"))), world)
    assert caught.value.status == 500
    assert world.paths == ["/a"]


def test_tolerated_errors_become_an_answer() -> None:  # ours
    world = World({"/a": UpstreamError("broken", kind="closed"), "/b": (200, b"b")})
    built = build(node("Sequence", step("/a", tolerate="Errors"), step("/b", data="$response")))
    assert run(built, world) == (200, b"b")
    assert json.loads(world.calls[1][1])["cause"] == "broken"


def test_a_condition_looks_at_the_previous_answer() -> None:
    world = World({"/a": (200, {"kind": "cat"}), "/b": (200, b"b")})
    built = build(node("Sequence", step("/a"), step("/b", condition="[@this].#(kind==cat)")))
    assert run(built, world) == (200, b"b")


def test_an_unmet_condition_ends_the_sequence_with_200() -> None:
    world = World({"/a": (404, b'{"kind": "dog"}'), "/b": (200, b"b"), "/c": (200, b"c")})
    built = build(
        node("Sequence", step("/a"), step("/b", condition="[@this].#(kind==cat)"), step("/c"))
    )
    assert run(built, world) == (200, b'{"kind": "dog"}')
    assert world.paths == ["/a"]


@pytest.mark.parametrize("where", ["node", "step"])
def test_an_unmet_condition_may_skip_its_step_only(where: str) -> None:  # ours
    world = World({"/a": (200, b'{"kind":"dog"}'), "/b": (200, b"b"), "/c": (200, b"c")})
    on_node, on_step = ({"unmet": "Skip"}, {}) if where == "node" else ({}, {"unmet": "Skip"})
    built = build(
        node(
            "Sequence",
            step("/a"),
            step("/b", condition="[@this].#(kind==cat)", **on_step),
            step("/c", data="$response"),
            **on_node,
        )
    )
    assert run(built, world) == (200, b"c")
    assert world.calls[1] == ("/c", b'{"kind":"dog"}')


@pytest.mark.parametrize("answer", [b"text", b"", b'{"a":NaN}'])
def test_a_condition_on_what_is_not_json_fails_the_request(answer: bytes) -> None:
    world = World({"/a": (200, answer), "/b": (200, b"b")})
    with pytest.raises(RequestFailed, match="invalid response"):
        run(build(node("Sequence", step("/a"), step("/b", condition="@this"))), world)


def test_a_condition_on_the_first_step_has_nothing_to_look_at() -> None:
    with pytest.raises(RequestFailed, match="invalid response"):
        run(build(node("Sequence", step("/a", condition="@this"))), World({}))


def test_an_empty_sequence_returns_its_input() -> None:  # a deliberate deviation
    assert run(build(node("Sequence")), World({})) == (200, IN)


def test_collecting_the_answers_of_all_steps() -> None:  # ours
    world = World({"/a": (200, b'{"x": 1.0}'), "/b": (200, b"[2]")})
    built = build(node("Sequence", step("/a", name="first"), step("/b"), collect=True))
    assert run(built, world) == (200, b'{"first":{"x": 1.0},"1":[2]}')


def test_only_the_last_answer_may_be_streamed() -> None:
    world = World({"/a": (200, b"1"), "/b": (200, b"2")})
    run(build(node("Sequence", step("/a"), step("/b"))), world)
    assert world.tails == ["/b"]
    world = World({"/a": (200, b"1"), "/b": (200, b"2")})
    run(build(node("Sequence", step("/a"), step("/b"), collect=True)), world)
    assert world.tails == []


# --- Switch --------------------------------------------------------------------------------------

BY_KIND = node(
    "Switch",
    step("/cat", condition="[@this].#(kind==cat)"),
    step("/dog", condition="[@this].#(kind==dog)"),
    step("/any", condition="kind"),
)
PETS = {"/cat": (200, b"c"), "/dog": (418, b"d"), "/any": (200, b"a"), "/else": (200, b"e")}


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"kind":"cat"}', (200, b"c")),
        (b'{"kind":"dog"}', (418, b"d")),
        (b'{"kind":null}', (200, b"a")),
        (b'{"kin\\u0064":"dog"}', (418, b"d")),
        (b'{"kind":"cat","kind":"dog"}', (200, b"c")),
    ],
)
def test_the_first_condition_that_holds_wins(body: bytes, outcome: tuple[int, bytes]) -> None:
    world = World(PETS)
    assert run(build(BY_KIND), world, body) == outcome
    assert world.calls[0][1] == body


@pytest.mark.parametrize("body", [b"{}", b"", b"text", b'{"kind":', b"[1]"])
def test_no_match_is_an_error_of_its_own_in_the_root(body: bytes) -> None:
    with pytest.raises(NoRouteMatched) as caught:
        run(build(BY_KIND), World(PETS), body)
    assert caught.value.status == 404


def test_below_the_root_no_match_is_500() -> None:
    with pytest.raises(NoRouteMatched) as caught:
        run(build(node("Sequence", step("pets")), pets=BY_KIND), World(PETS), b"{}")
    assert caught.value.status == 500


@pytest.mark.parametrize("body", [b"{}", b"text", b""])
def test_a_default_step_takes_the_rest(body: bytes) -> None:  # ours
    root = node("Switch", step("/else", default=True), *BY_KIND["steps"])
    assert run(build(root), World(PETS), body) == (200, b"e")
    assert run(build(root), World(PETS), b'{"kind":"cat"}') == (200, b"c")


def test_an_empty_condition_matches_an_empty_key() -> None:
    built = build(node("Switch", step("/cat", condition="")))
    assert run(built, World(PETS), b'{"":1}') == (200, b"c")


def test_a_switch_may_judge_the_previous_answer_and_forward_the_request() -> None:  # ours
    world = World({**PETS, "/look": (200, {"kind": "dog"})})
    built = build(
        node("Sequence", step("/look"), step("pets")), pets={**BY_KIND, "judge": "$response"}
    )
    assert run(built, world) == (418, b"d")
    assert world.calls[1] == ("/dog", IN)


# --- Splitter ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "path"),
    [(0.0, "/a"), (0.1999, "/a"), (0.2, "/b"), (0.4999, "/b"), (0.5, "/c"), (0.9999, "/c")],
)
def test_weights_divide_the_draw(draw: float, path: str) -> None:
    world = World({"/a": (200, b""), "/b": (200, b""), "/c": (200, b"")}, draw=draw)
    root = node(
        "Splitter",
        step("/a", weight=20),
        step("/zero", weight=0),
        step("/b", weight=30),
        step("/c", weight=50),
    )
    run(build(root), world)
    assert world.paths == [path]


def test_a_sticky_client_keeps_its_branch() -> None:  # ours
    root = node(
        "Splitter", step("/a", weight=50), step("/b", weight=50), stickyBy={"header": "X-User"}
    )
    for value, path in ((0.1, "/a"), (0.9, "/b"), (None, "/b")):
        world = World({"/a": (200, b""), "/b": (200, b"")}, draw=0.7)
        world.sticky_value = value
        run(build(root), world)
        assert world.paths == [path]


# --- Ensemble ------------------------------------------------------------------------------------


def test_members_are_called_at_once_and_put_in_step_order() -> None:
    world = World(
        {"/b": (200, b'{"b": 1.0}'), "/c": (200, b" null\n"), "/a": (200, b'{"a":1}')},
        held=("/b", "/c", "/a"),
    )
    built = build(node("Ensemble", step("/b", name="b"), step("/c"), step("/a", name="a")))
    fiber = start(built, world)
    assert world.calls == [("/b", IN), ("/c", IN), ("/a", IN)]
    assert world.tails == []
    for path in ("/a", "/c", "/b"):
        assert fiber.pending
        world.release(path)
    assert fiber.result().body == b'{"b":{"b": 1.0},"1":null,"a":{"a":1}}'
    assert fiber.result().status == 200


@pytest.mark.parametrize("answer", [b"[1]", b'"s"', b"12", b"", b"text"])
def test_a_member_that_is_no_object_fails_the_graph(answer: bytes) -> None:
    world = World({"/a": (500, answer), "/b": (200, {})})
    with pytest.raises(RequestFailed, match="no JSON object"):
        run(build(node("Ensemble", step("/a"), step("/b"))), world)


def test_a_member_that_is_done_at_once_is_looked_at_like_others() -> None:
    spec = {
        "nodes": {
            "root": {
                "routerType": "Ensemble",
                "steps": [{"serviceUrl": "http://m.test/a"}, {"nodeName": "echo"}],
            },
            "echo": {"routerType": "Sequence"},
        }
    }
    made = plan.build(graph.parse(spec), lambda url, step: url)
    for world in (World({"/a": (200, {})}), World({"/a": (200, {})}, held=("/a",))):
        fiber = Fiber(made.root.run(world, b"no JSON", None, True))
        assert fiber.is_error
        assert "no JSON object" in str(fiber.error)


def test_soft_failures_are_members_like_others() -> None:
    world = World({"/a": (500, {"e": 1}), "/b": (404, {"e": 2})})
    built = build(node("Ensemble", step("/a", name="a"), step("/b", name="b")))
    assert run(built, world) == (200, b'{"a":{"e": 1},"b":{"e": 2}}')


def test_the_first_hard_failure_in_step_order_is_the_answer() -> None:
    script = {"/a": (200, {}), "/b": (503, {"b": 1}), "/c": (500, {"c": 1})}
    world = World(script, held=("/a", "/b", "/c"))
    built = build(
        node("Ensemble", step("/a"), step("/b", dependency="Hard"), step("/c", dependency="Hard"))
    )
    fiber = start(built, world)
    world.release("/c")
    world.release("/b")
    assert fiber.pending  # the slow first member is waited for
    world.release("/a")
    assert (fiber.result().status, fiber.result().body) == (503, b'{"b": 1}')


def test_an_error_of_any_member_ends_it_at_once_and_cancels_the_others() -> None:
    world = World({"/a": (200, {}), "/b": REFUSED}, held=("/a", "/b"))
    fiber = start(build(node("Ensemble", step("/a"), step("/b"))), world)
    other = world.waiting["/a"][0]
    world.release("/b")
    assert fiber.is_error
    assert not other.pending


def test_an_empty_ensemble_is_an_empty_object() -> None:
    assert run(build(node("Ensemble")), World({})) == (200, b"{}")


@pytest.mark.parametrize(
    ("combiner", "body"),
    [
        ("mean", b'{"predictions":[2.0]}'),
        ("max", b'{"predictions":[3]}'),
        ("merge", b'{"a":{"predictions": [1]},"b":{"predictions": [3]}}'),
        ({"name": "weighted", "weights": {"a": 3, "b": 1}}, b'{"predictions":[1.5]}'),
    ],
)
def test_combiners(combiner: Any, body: bytes) -> None:  # ours
    world = World({"/a": (200, {"predictions": [1]}), "/b": (200, {"predictions": [3]})})
    built = build(node("Ensemble", step("/a", name="a"), step("/b", name="b"), combiner=combiner))
    assert run(built, world) == (200, body)


def test_the_weights_of_the_steps_are_the_weights_of_the_combiner() -> None:
    world = World({"/a": (200, {"predictions": [1]}), "/b": (200, {"predictions": [3]})})
    root = node("Ensemble", step("/a", weight=75), step("/b", weight=25), combiner="weighted")
    assert run(build(root), world) == (200, b'{"predictions":[1.5]}')


def test_combiners_leave_failed_soft_members_out() -> None:
    world = World({"/a": (500, b"down"), "/b": (200, {"predictions": [3]})})
    built = build(node("Ensemble", step("/a"), step("/b"), combiner="mean"))
    assert run(built, world) == (200, b'{"predictions":[3]}')


def test_answers_that_cannot_be_combined_fail_the_request() -> None:
    world = World({"/a": (200, {"predictions": [1, 2]}), "/b": (200, {"predictions": [3]})})
    with pytest.raises(RequestFailed, match="cannot be combined"):
        run(build(node("Ensemble", step("/a"), step("/b"), combiner="mean")), world)


def test_first_takes_the_first_good_answer_and_cancels_the_rest() -> None:
    world = World(
        {"/a": (200, b"a"), "/b": (500, b"b"), "/c": (200, b"c")}, held=("/a", "/b", "/c")
    )
    fiber = start(
        build(node("Ensemble", step("/a"), step("/b"), step("/c"), combiner="first")), world
    )
    other = world.waiting["/a"][0]
    world.release("/b")
    assert fiber.pending
    world.release("/c")
    assert fiber.result().body == b"c"
    assert not other.pending


# --- nested nodes --------------------------------------------------------------------------------


def test_a_nested_answer_is_judged_by_the_parent_step() -> None:
    inner = node("Sequence", step("/a"))
    for dependency, outcome in (("Hard", (404, b"x")), ("Soft", (200, b"b"))):
        world = World({"/a": (404, b"x"), "/b": (200, b"b")})
        root = node("Sequence", step("inner", dependency=dependency), step("/b"))
        assert run(build(root, inner=inner), world) == outcome


def test_a_nested_node_gets_the_chosen_input() -> None:
    world = World({"/a": (200, b'{"predictions":[1]}'), "/b": (200, b"b")})
    root = node(
        "Sequence",
        step("/a"),
        step("inner", data="$response", mapPredictionsToInstances=True),
    )
    run(build(root, inner=node("Sequence", step("/b"))), world)
    assert world.calls[1] == ("/b", b'{"instances":[1]}')


def test_an_ensemble_of_failures_satisfies_a_hard_step() -> None:
    world = World({"/a": (500, {"e": 1}), "/b": (200, b"b")})
    root = node("Sequence", step("inner", dependency="Hard"), step("/b"))
    assert run(build(root, inner=node("Ensemble", step("/a"))), world) == (200, b"b")


def test_a_node_may_be_used_more_than_once() -> None:
    world = World({"/a": [(200, b"1"), (200, b"2")]})
    root = node("Sequence", step("inner"), step("inner", data="$response"))
    assert run(build(root, inner=node("Sequence", step("/a"))), world) == (200, b"2")


# --- policies (ours) -----------------------------------------------------------------------------


def _drive(fiber: Fiber[Reply], world: World) -> Reply:
    while fiber.pending:
        world.run_out()
    return fiber.result()


@pytest.mark.parametrize("failure", [(503, b"asleep"), REFUSED])
def test_retries_back_off_until_it_works(failure: Answer) -> None:
    world = World({"/a": [failure, failure, (200, b"ok")]}, draw=1.0)
    fiber = start(build(node("Sequence", step("/a", retries=3))), world)
    assert _drive(fiber, world).body == b"ok"
    assert [seconds for seconds, _ in world.pauses] == [0.1, 0.2]
    assert world.counted == ["retries 0", "retries 0"]


def test_after_the_last_retry_the_failure_stands() -> None:
    world = World({"/a": (503, b"asleep")}, draw=1.0)
    fiber = start(build(node("Sequence", step("/a", retries={"attempts": 2, "maxMs": 150}))), world)
    assert _drive(fiber, world).status == 503
    assert world.paths == ["/a"] * 3
    assert [seconds for seconds, _ in world.pauses] == [0.1, 0.15]


@pytest.mark.parametrize(
    "failure", [(500, b"bug"), (404, b""), UpstreamError("timeout", kind="timeout")]
)
def test_what_repeating_cannot_help_is_not_repeated(failure: Answer) -> None:
    world = World({"/a": failure})
    start(build(node("Sequence", step("/a", retries=3))), world)
    assert world.paths == ["/a"]


def test_no_retry_beyond_the_deadline() -> None:
    world = World({"/a": (503, b"asleep")}, draw=1.0)
    world.deadline = 0.25
    fiber = start(build(node("Sequence", step("/a", retries=10))), world)
    assert _drive(fiber, world).status == 503
    assert world.paths == ["/a", "/a"]


def test_a_slow_answer_is_hedged_and_the_quicker_one_wins() -> None:
    world = World({"/a": [(200, b"second"), (200, b"first")]}, held=("/a",))
    fiber = start(build(node("Sequence", step("/a", hedgeAfterMs=50))), world)
    assert world.paths == ["/a"]
    world.run_out()
    assert world.paths == ["/a", "/a"]
    slow, quick = world.waiting["/a"]
    world.waiting["/a"] = [quick]
    world.release("/a")
    assert fiber.result().body == b"second"
    assert not slow.pending
    assert world.counted == ["hedges 0"]


def test_a_quick_answer_is_not_hedged() -> None:
    world = World({"/a": (200, b"ok")})
    assert run(build(node("Sequence", step("/a", hedgeAfterMs=50))), world) == (200, b"ok")
    assert world.paths == ["/a"]
    assert not world.pauses[0][1].pending


def test_a_mirror_gets_its_share_of_copies() -> None:
    root = node("Sequence", step("/a", mirror={"serviceUrl": "http://shadow/", "percent": 30}))
    for draw, copies in ((0.29, [("http://shadow/", IN)]), (0.3, [])):
        world = World({"/a": (200, b"ok")}, draw=draw)
        assert run(build(root), world) == (200, b"ok")
        assert world.mirrored == copies


def test_a_cached_answer_spares_the_call_until_it_expires() -> None:
    built = build(node("Sequence", step("/a", cache={"ttlSeconds": 10})))
    world = World({"/a": [(200, b"1"), (200, b"2")]})
    assert run(built, world) == (200, b"1")
    assert run(built, world) == (200, b"1")
    assert run(built, world, b"other") == (200, b"2")
    assert world.counted == ["cache_hits 0"]
    world.clock = 10.0
    assert run(built, world) == (200, b"2")


def test_bad_answers_are_not_cached_and_the_cache_is_bounded() -> None:
    built = build(node("Sequence", step("/a", cache={"ttlSeconds": 10, "maxEntries": 2})))
    world = World({"/a": [(500, b"1"), (200, b"2"), (200, b"3"), (200, b"4"), (200, b"5")]})
    bodies = [run(built, world, body)[1] for body in (b"x", b"x", b"y", b"z", b"x")]
    assert bodies == [b"1", b"2", b"3", b"4", b"5"]


def test_a_nested_node_may_have_a_time_limit() -> None:
    world = World({"/a": (200, b"late")}, held=("/a",))
    root = node("Sequence", step("inner", timeoutSeconds=2))
    fiber = start(build(root, inner=node("Sequence", step("/a"))), world)
    assert world.pauses[0][0] == 2
    world.run_out()
    with pytest.raises(UpstreamError, match="within 2 s"):
        fiber.result()
    assert not world.waiting["/a"][0].pending


# --- giving up -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "root",
    [
        node("Sequence", step("/a"), step("/b")),
        node("Ensemble", step("/a"), step("/b")),
        node("Switch", step("/a", default=True)),
        node("Splitter", step("/a", weight=100)),
        node("Sequence", step("/a", retries=2, hedgeAfterMs=10)),
        node("Ensemble", step("inner"), step("/b"), combiner="first"),
    ],
    ids=lambda root: root["routerType"],
)
def test_giving_a_request_up_gives_up_its_calls(root: dict[str, Any]) -> None:
    world = World({"/a": (200, {}), "/b": (200, {})}, held=("/a", "/b"))
    used = "inner" in str(root)
    built = build(root, inner=node("Sequence", step("/a"))) if used else build(root)
    fiber = start(built, world)
    waits = [wait for waits in world.waiting.values() for wait in waits]
    assert waits
    fiber.cancel()
    assert not any(wait.pending for wait in waits)


def test_a_step_without_a_usable_url_fails_only_when_called() -> None:
    spec = {"nodes": {"root": node("Sequence", {"serviceUrl": "http://a b/"})}}
    made = plan.build(graph.read(spec)[0], lambda url, step: url)
    assert made.leaves[0].target is None
    assert "malformed host" in made.leaves[0].problem
