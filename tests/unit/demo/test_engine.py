"""What the demo reads out of the engine's answers."""

import pytest

from knative import errors
from knative.demo import engine, story

TIMELINE = {
    "created": 100.0,
    "init_started": 100.1,
    "init_ended": 100.5,
    "started": 100.6,
    "ready": 102.7,
    "first_answer": None,
}
ENTRY = {
    "name": "digits",
    "graph": None,
    "revisions": [
        {
            "requests": 3,
            "cold_starts": 1,
            "last_request": 103.0,
            "pods": [{"pids": [7, 8], "timeline": TIMELINE}],
        },
        {"requests": 2, "cold_starts": 0, "last_request": None, "pods": []},
    ],
}


def test_a_service_is_the_sum_of_its_revisions() -> None:
    service = engine._service(ENTRY)
    assert (service.name, service.steps, service.pods, service.pids) == ("digits", (), 1, (7, 8))
    assert (service.requests, service.cold_starts, service.last_request) == (5, 1, 103.0)
    assert service.cold == "model fetched in 0.4 s, server ready 2.1 s after its start"


def test_a_service_at_zero_has_no_pods_and_no_story() -> None:
    service = engine._service({**ENTRY, "revisions": [ENTRY["revisions"][1]]})  # type: ignore[index]
    assert (service.pods, service.pids, service.cold) == (0, (), "")


def test_a_graph_knows_which_services_it_may_call() -> None:
    root = {"steps": [{"serviceName": "a"}, {"nodeName": "inner"}]}
    inner = {"steps": [{"serviceName": "b"}, {"serviceUrl": "http://elsewhere/"}]}
    service = engine._service({**ENTRY, "graph": {"nodes": {"root": root, "inner": inner}}})
    assert service.steps == ("a", "b")


@pytest.mark.parametrize(
    ("timeline", "text"),
    [
        ({}, ""),
        ({"started": 1.0, "ready": 1.25}, "server ready 0.2 s after its start"),
        ({"init_started": 1.0, "init_ended": None, "started": None}, ""),
    ],
)
def test_steps_that_have_not_happened_are_left_out(
    timeline: dict[str, float | None], text: str
) -> None:
    assert engine._cold(timeline) == text


def test_the_first_prediction_is_taken_out_of_the_answer() -> None:
    reply = engine.Reply(status=200, body='{"predictions": ["plant"]}', seconds=0.1)
    assert reply.prediction() == "plant"


@pytest.mark.parametrize("body", ["not json", "{}", '{"predictions": []}', "[]", "null"])
def test_an_answer_without_predictions_is_shown_as_it_came(body: str) -> None:
    with pytest.raises(errors.TurnoutError) as caught:
        engine.Reply(status=502, body=body, seconds=0.1).prediction()
    assert str(caught.value) == f"the graph answered 502: {body}"


@pytest.mark.parametrize(
    ("prediction", "text"),
    [
        ("It's a cat!", "It's a cat!"),
        ({"daisy": 0.3269, "hip": 0.0047}, "daisy 32.7%, hip 0.5%"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_prediction_is_shown_for_a_person(prediction: object, text: str) -> None:
    assert story._shown(prediction) == text
