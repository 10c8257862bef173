"""Node semantics in tables: KServe's rules (spec 2.3) and our extensions, without sockets."""

from typing import Any

import pytest

from router_fn.errors import NoRouteMatched, RequestFailed, UpstreamError
from tests.unit.router_fn.script import Script, build, node, outcome, refused, run, step

DOG = '[@this].#(predictions.0=="dog")'
DOG_BODY = b'{"predictions":["dog"]}'
CAT_BODY = b'{"predictions":["cat"]}'

SEQUENCES: list[tuple[str, list[dict[str, Any]], dict[str, Any], tuple[int, bytes], list[tuple[str, bytes]]]] = [
    ("one step", [step("a")], {"a": b"[1]"}, (200, b"[1]"), [("a", b"{}")]),
    ("no steps return the input", [], {}, (200, b"{}"), []),
    ("the request by default, the answer on demand", [step("a"), step("b"), step("c", data="$response")],
     {"a": b"A", "b": b"B", "c": b"C"}, (200, b"C"), [("a", b"{}"), ("b", b"{}"), ("c", b"B")]),
    ("only the exact word", [step("a"), step("b", data="$RESPONSE"), step("c", data="$response.predictions")],
     {"a": b"A"}, (200, b"{}"), [("a", b"{}"), ("b", b"{}"), ("c", b"{}")]),
    ("the first step has no answer to take", [step("a", data="$response")], {}, (200, b"{}"), [("a", b"{}")]),
    ("a Soft failure goes on", [step("a"), step("b", data="$response")], {"a": (404, b"no")}, (200, b"no"),
     [("a", b"{}"), ("b", b"no")]),
    ("a Hard failure ends it", [step("a", dependency="Hard"), step("b")], {"a": (300, b"no")}, (300, b"no"), [("a", b"{}")]),
    ("299 is good", [step("a", dependency="Hard"), step("b")], {"a": (299, b"")}, (200, b"{}"), [("a", b"{}"), ("b", b"{}")]),
    ("the last failure is the answer", [step("a"), step("b")], {"b": (503, b"e")}, (503, b"e"), [("a", b"{}"), ("b", b"{}")]),
    ("a met condition", [step("a"), step("b", condition=DOG)], {"a": DOG_BODY, "b": b"breed"}, (200, b"breed"),
     [("a", b"{}"), ("b", b"{}")]),
    ("an unmet condition ends with status 200", [step("a"), step("b", condition=DOG), step("c")], {"a": (404, CAT_BODY)},
     (200, CAT_BODY), [("a", b"{}")]),
    ("unmet: Skip goes on", [step("a"), step("b", condition=DOG, unmet="Skip"), step("c", data="$response")], {"a": CAT_BODY},
     (200, CAT_BODY), [("a", b"{}"), ("c", CAT_BODY)]),
    ("predictions become instances", [step("a", mapPredictionsToInstances=True)], {}, (200, b"{}"), [("a", b"{}")]),
    ("tolerated errors are 502", [step("a", tolerate="Errors", dependency="Hard"), step("b")], {"a": refused()},
     (502, b'{"error": "Failed to process request", "cause": "cannot connect: Connection refused"}'), [("a", b"{}")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "answers", "wanted", "calls"),
    [row[1:] for row in SEQUENCES],
    ids=[r[0] for r in SEQUENCES],
)
def test_sequence(
    steps: list[dict[str, Any]],
    answers: dict[str, Any],
    wanted: tuple[int, bytes],
    calls: list[tuple[str, bytes]],
) -> None:
    script = Script(answers)
    assert outcome(build(node("Sequence", *steps)), script) == wanted
    assert script.calls == calls


@pytest.mark.parametrize("answer", [b"not json", b"", b"[1,2"])
def test_a_condition_on_what_is_not_json_is_an_error(answer: bytes) -> None:
    made = build(node("Sequence", step("a"), step("b", condition=DOG)))
    with pytest.raises(RequestFailed, match="invalid response"):
        outcome(made, Script({"a": answer}))
    with pytest.raises(RequestFailed, match="invalid response"):
        outcome(build(node("Sequence", step("b", condition=DOG))), Script({}), DOG_BODY)


def test_an_error_ends_the_graph_whatever_the_dependency() -> None:
    script = Script({"a": refused()})
    with pytest.raises(UpstreamError):
        outcome(build(node("Sequence", step("a", dependency="Soft"), step("b"))), script)
    assert [name for name, _ in script.calls] == ["a"]


@pytest.mark.parametrize(
    ("body", "branch"), [(b'{"a":1}', "a"), (b'{"b":null}', "b"), (b'{"a":0,"b":0}', "a")]
)
def test_switch_takes_the_first_that_holds(body: bytes, branch: str) -> None:
    script = Script({})
    switch = node(
        "Switch",
        step("x"),
        step("a", condition="a"),
        step("b", condition="b"),
        step("c", condition="a"),
    )
    assert outcome(build(switch), script, body) == (200, body)
    assert script.calls == [(branch, body)]


@pytest.mark.parametrize("body", [b"{}", b"text", b"", b'{"a":1'])
def test_switch_without_a_match_is_404_at_the_root_and_500_below(body: bytes) -> None:
    switch = node("Switch", step("a", condition="a"))
    with pytest.raises(NoRouteMatched) as caught:
        outcome(build(switch), Script({}), body)
    assert caught.value.status == 404
    with pytest.raises(NoRouteMatched) as caught:
        outcome(
            build(node("Sequence", step("node:sw", dependency="Soft")), sw=switch), Script({}), body
        )
    assert caught.value.status == 500


def test_switch_default_and_judging_the_previous_answer() -> None:
    switch = node(
        "Switch", step("dog", condition=DOG), step("rest", default=True), judge="$response"
    )
    made = build(node("Sequence", step("a"), step("node:sw")), sw=switch)
    for answer, branch in ((DOG_BODY, "dog"), (CAT_BODY, "rest"), (b"text", "rest")):
        script = Script({"a": answer})
        outcome(made, script, b"photo")
        assert script.calls == [("a", b"photo"), (branch, b"photo")]
    alone = Script({})
    outcome(build(switch), alone, DOG_BODY)
    assert alone.calls == [("dog", DOG_BODY)]


@pytest.mark.parametrize(
    ("at", "branch"),
    [(0.0, "a"), (0.199, "a"), (0.2, "b"), (0.499, "b"), (0.5, "c"), (0.9999, "c")],
)
def test_splitter_cuts_at_the_cumulated_weights(at: float, branch: str) -> None:
    steps = (
        step("a", weight=20),
        step("zero", weight=0),
        step("b", weight=30),
        step("c", weight=50),
    )
    script = Script({}, draws=[at])
    outcome(build(node("Splitter", *steps)), script)
    assert script.calls == [(branch, b"{}")]


def test_a_sticky_splitter_asks_chance_only_when_it_cannot_tell_the_client() -> None:
    made = build(
        node("Splitter", step("a", weight=50), step("b", weight=50), stickyBy={"header": "X-User"})
    )
    script = Script({}, draws=[0.1])
    script.stuck_at = 0.9
    outcome(made, script)
    script.stuck_at = None
    outcome(made, script)
    assert [name for name, _ in script.calls] == ["b", "a"]


class TestEnsemble:
    def test_members_keep_their_text_and_order(self) -> None:
        script = Script({"a": b'{"x": 1.0}', "b": None, "c": b"null"})
        fiber = run(
            build(node("Ensemble", step("a", name="z"), step("b"), step("c", name="a"))), script
        )
        assert fiber.pending
        script.answer("b", (404, b'{"e":12345678901234567890}'))
        assert fiber.result().body == b'{"z":{"x": 1.0},"1":{"e":12345678901234567890},"a":null}'
        assert fiber.result().status == 200

    @pytest.mark.parametrize("answer", [b"[1]", b'"x"', b"1", b"text", b""])
    def test_a_member_that_is_no_object_fails_everything_at_once(self, answer: bytes) -> None:
        script = Script({"a": None, "b": (503, answer)})
        fiber = run(build(node("Ensemble", step("a"), step("b"))), script)
        with pytest.raises(RequestFailed, match="no JSON object"):
            fiber.result()
        assert script.cancelled == ["a"]

    def test_a_hard_failure_counts_in_step_order(self) -> None:
        made = build(
            node("Ensemble", step("a", dependency="Hard"), step("b", dependency="Hard"), step("c"))
        )
        script = Script({"a": None, "b": (503, b'{"b":1}'), "c": None})
        fiber = run(made, script)
        assert fiber.pending
        script.answer("a", (500, b'{"a":1}'))
        assert (fiber.result().status, fiber.result().body) == (500, b'{"a":1}')
        assert script.cancelled == ["c"]

    def test_an_error_does_not_wait_for_its_turn(self) -> None:
        script = Script({"a": None, "b": refused()})
        fiber = run(build(node("Ensemble", step("a"), step("b"))), script)
        with pytest.raises(UpstreamError):
            fiber.result()

    def test_a_tolerated_error_is_a_member(self) -> None:
        script = Script({"a": refused(), "b": b"{}"})
        status, body = outcome(
            build(node("Ensemble", step("a", tolerate="Errors"), step("b"))), script
        )
        assert status == 200
        assert body.startswith(b'{"0":{"error"')

    def test_cancelling_cancels_every_member(self) -> None:
        script = Script({"a": None, "b": None})
        run(
            build(node("Ensemble", step("a"), step("node:n")), n=node("Sequence", step("b"))),
            script,
        ).cancel()
        assert sorted(script.cancelled) == ["a", "b"]

    def test_combiners_see_good_answers_only(self) -> None:
        script = Script(
            {"a": b'{"predictions":[1]}', "b": (500, b"broken"), "c": b'{"predictions":[3]}'}
        )
        made = build(node("Ensemble", step("a"), step("b"), step("c"), combiner="mean"))
        assert b"2" in outcome(made, script)[1]
        script = Script({"a": (500, b"x"), "b": (503, b"y"), "c": (500, b"z")})
        assert outcome(made, script) == (500, b"x")

    def test_first_takes_the_first_good_answer(self) -> None:
        made = build(node("Ensemble", step("a"), step("b"), step("c"), combiner="first"))
        script = Script({"a": None, "b": (500, b"{}"), "c": None})
        fiber = run(made, script)
        script.answer("c", b'{"c":1}')
        assert fiber.result().body == b'{"c":1}'
        assert script.cancelled == ["a"]
        assert outcome(made, Script({"a": (404, b"1"), "b": refused(), "c": refused()})) == (
            404,
            b"1",
        )
        with pytest.raises(UpstreamError):
            outcome(made, Script({"a": refused(), "b": refused(), "c": refused()}))


def test_collect_needs_json_members() -> None:
    made = build(node("Sequence", step("a"), step("b", name="last"), collect=True))
    assert outcome(made, Script({"a": b'"x"', "b": (404, b"[1.0]")})) == (
        200,
        b'{"0":"x","last":[1.0]}',
    )


def test_a_node_may_be_used_many_times_and_deeply() -> None:
    nodes = {
        f"n{i}": node("Sequence", step(f"node:n{i + 1}"), step(f"node:n{i + 1}")) for i in range(6)
    }
    script = Script({})
    assert outcome(
        build(node("Sequence", step("node:n0")), n6=node("Sequence", step("a")), **nodes), script
    ) == (200, b"{}")
    assert len(script.calls) == 64


def test_cancelling_a_sequence_cancels_its_call_and_starts_nothing_more() -> None:
    script = Script({"a": None})
    fiber = run(build(node("Sequence", step("a"), step("b"))), script)
    fiber.cancel()
    assert (script.cancelled, len(script.calls)) == (["a"], 1)
