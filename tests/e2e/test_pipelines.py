"""Both example pipelines on real photographs: the tutorial's requests, answers and mistakes."""

import base64
import concurrent.futures
import io
import json

import pytest

from tests.e2e import local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
CATS = {"tabby", "tiger_cat", "Persian_cat", "Siamese_cat", "Egyptian_cat"}


def _ask(engine: local.Up, graph: str, *pictures: bytes) -> list[object]:
    status, answer, _ = engine.post(graph, local.instances(*pictures))
    assert status == 200, answer
    assert list(answer) == ["predictions"]
    predictions = answer["predictions"]
    assert isinstance(predictions, list)
    return predictions


def _first(prediction: object) -> str:
    """The likeliest label of a top five, whose probabilities must fall and be probabilities."""
    assert isinstance(prediction, dict)
    values = list(prediction.values())
    assert len(values) == 5
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] <= values[0] <= 1
    return str(next(iter(prediction)))


def test_a_cat_takes_the_animal_branch_with_a_cat_first(engine: local.Up) -> None:
    (prediction,) = _ask(engine, "animal-plant-pipeline", local.photograph(local.CHELSEA))
    assert _first(prediction) in CATS


def test_a_flower_takes_the_plant_branch(engine: local.Up) -> None:
    (prediction,) = _ask(engine, "animal-plant-pipeline", local.photograph(local.FLOWER))
    assert _first(prediction) == "daisy"


def test_a_temple_is_neither(engine: local.Up) -> None:
    """Both conditions unmet: the first model's answer is the pipeline's."""
    temple = local.photograph(local.TEMPLE)
    assert _ask(engine, "animal-plant-pipeline", temple) == ["neither"]


def test_a_cat_is_answered_by_the_first_model_alone(engine: local.Up) -> None:
    cat = local.photograph(local.CHELSEA)
    assert _ask(engine, "dog-breed-pipeline", cat) == ["It's a cat!"]


def test_what_looks_like_a_dog_gets_five_breeds(engine: local.Up) -> None:
    """No photograph of a dog comes with the packages; a horse's silhouette passes for one."""
    (prediction,) = _ask(engine, "dog-breed-pipeline", local.photograph(local.HORSE))
    assert _first(prediction) == "Mexican_hairless"


@pytest.mark.parametrize(
    ("name", "graph", "answer"),
    [
        ("cat.json", "dog-breed-pipeline", "It's a cat!"),
        ("dog.json", "dog-breed-pipeline", "Labrador_retriever"),
        ("cat.json", "animal-plant-pipeline", "tabby"),
        ("dog.json", "animal-plant-pipeline", "Labrador_retriever"),
    ],
)
def test_the_tutorials_request_bodies(engine: local.Up, name: str, graph: str, answer: str) -> None:
    body = local.tutorial(name)
    if body is None:
        pytest.skip("KServe's tutorial bodies are not beside this checkout")
    # As the tutorial posts it: curl -d, without a content type of its own.
    status, reply, _ = engine.post(
        graph, body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert status == 200, reply
    (prediction,) = reply["predictions"]
    if isinstance(prediction, str):
        assert prediction == answer
    else:
        assert _first(prediction) == answer
        if answer == "Labrador_retriever":
            assert prediction[answer] == pytest.approx(0.93, abs=0.01)


def test_every_model_answers_on_its_own(engine: local.Up) -> None:
    flower = local.instances(local.photograph(local.FLOWER))
    for model, expected in (("animal-plant", ["plant"]), ("cat-dog-classifier", None)):
        status, answer, _ = engine.post(model, flower, path=f"/v1/models/{model}:predict")
        assert status == 200, answer
        if expected:
            assert answer == {"predictions": expected}
        else:
            assert answer == {"predictions": ["neither a cat nor a dog"]}


def test_several_pictures_are_answered_one_each_and_the_first_chooses_the_path(
    engine: local.Up,
) -> None:
    cat, flower = local.photograph(local.CHELSEA), local.photograph(local.FLOWER)
    predictions = _ask(engine, "animal-plant-pipeline", cat, flower)
    assert len(predictions) == 2
    assert _first(predictions[0]) in CATS
    assert isinstance(predictions[1], dict)
    assert "bee" in predictions[1]  # the animal branch looks for animals only


def test_requests_at_the_same_time_get_their_own_answers(engine: local.Up) -> None:
    cat = local.instances(local.photograph(local.CHELSEA))
    flower = local.instances(local.photograph(local.FLOWER))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda body: engine.post("animal-plant-pipeline", body), [cat, flower] * 8)
        )
    assert [status for status, _, _ in answers] == [200] * 16
    firsts = [_first(answer["predictions"][0]) for _, answer, _ in answers]
    assert set(firsts[0::2]) == {"tiger_cat"}
    assert set(firsts[1::2]) == {"daisy"}


def _truncated_jpeg() -> str:
    flower = local.photograph(local.FLOWER)
    return base64.b64encode(flower[: len(flower) // 3]).decode()


def _bomb() -> str:
    """A PNG of a few hundred kilobytes that would take 300 MB decoded."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(
            json.dumps({"instances": [{"data": base64.b64encode(b"just text").decode()}]}),
            "not an image",
            id="not an image",
        ),
        pytest.param('{"instances": [{"data": "%%%"}]}', "not base64", id="not base64"),
        pytest.param('{"instances": [{"image": "x"}]}', "no picture", id="wrong key"),
        pytest.param(
            json.dumps({"instances": [{"data": _truncated_jpeg()}]}), "damaged", id="cut off"
        ),
        pytest.param('{"instances": [{"data": ', "", id="broken JSON"),
        pytest.param('{"pictures": []}', "instances", id="no instances"),
        pytest.param('{"instances": "x"}', "instances", id="instances is no list"),
        pytest.param("", "", id="empty body"),
    ],
)
@pytest.mark.parametrize("graph", ["animal-plant-pipeline", "dog-breed-pipeline"])
def test_the_clients_mistakes_reach_the_client_as_400(
    engine: local.Up, graph: str, body: str, message: str
) -> None:
    status, answer, _ = engine.post(graph, body.encode())
    assert status == 400, answer
    text = json.dumps(answer)
    assert message in text
    assert "Traceback" not in text
    assert "error" in answer


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(engine: local.Up) -> None:
    body = json.dumps({"instances": [{"data": _bomb()}]}).encode()
    status, answer, _ = engine.post("dog-breed-pipeline", body)
    assert status == 400, answer
    assert "10000 x 10000 pixels" in json.dumps(answer)


def test_an_unknown_service_is_404_and_says_what_there_is(engine: local.Up) -> None:
    status, answer, _ = engine.post("no-such-pipeline", b"{}")
    assert status == 404
    assert "dog-breed-pipeline" in json.dumps(answer)
