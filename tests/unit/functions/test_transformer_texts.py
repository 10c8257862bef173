"""The `tokenize` and `json` transformers' hooks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions import transformers
from functions.errors import AnswerUnusable, ConfigurationError, InvalidRequest, LoadFailed
from functions.inference import InferRequest, InferResponse, Tensor

WORDS = ["the", "cat", "sat", "on", "mat", "dog", "ran", "a", "big", "red", "house", "is", "my"]


def save_tokenizer(directory: Path, *, pad: str = "[PAD]") -> Path:
    """A real tokenizer in the library's own format: words, with BERT's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = [pad, "[UNK]", "[CLS]", "[SEP]"] if pad else ["[UNK]", "[CLS]", "[SEP]"]
    ids = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def make(kind: str, directory: Path, protocol: str = "v1", config: str = "", **params: Any) -> Any:
    chosen = transformers.plan(kind, config, list(params.items()))
    place = transformers.Place(
        model_name="m", directory=directory, predictor_protocol=protocol, predictor="p:80"
    )
    return transformers.build(chosen, place)


# --- tokenize


def test_rows_for_a_v1_predictor(home: Path) -> None:
    made = make("tokenize", home).preprocess({"instances": ["the cat", "the big red dog"]}, {})
    assert made == {
        "instances": [
            {"input_ids": [2, 4, 5, 3, 0, 0], "attention_mask": [1, 1, 1, 1, 0, 0]},
            {"input_ids": [2, 4, 12, 13, 9, 3], "attention_mask": [1, 1, 1, 1, 1, 1]},
        ]
    }


def test_tensors_for_a_v2_predictor(home: Path) -> None:
    tensors = "input_ids:INPUT__0,token_type_ids"
    transformer = make(
        "tokenize", home, "v2", tensors=tensors, dtype="INT32", padding="max_length", max_length=4
    )
    request = InferRequest(
        "m", [Tensor("text", data=np.array([b"the cat sat on the mat"], dtype=object))], "7"
    )
    made = transformer.preprocess(request, {})
    found = {t.name: (t.datatype, t.as_numpy().tolist()) for t in made.inputs}
    assert made.id == "7"
    assert found == {
        "INPUT__0": ("INT32", [[2, 4, 5, 3]]),
        "token_type_ids": ("INT32", [[0, 0, 0, 0]]),
    }


@pytest.mark.parametrize(
    "payload",
    [
        {"instances": ["is my"]},
        {"instances": [{"text": "is my"}]},
        {"instances": [{"data": "is my", "text_pair": 1}]},
        {"inputs": ["is my"]},
        b"is my",
    ],
)
def test_how_texts_come_in(home: Path, payload: Any) -> None:
    made = make("tokenize", home).preprocess(payload, {})
    assert made["instances"][0]["input_ids"] == [2, 15, 16, 3]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"instances": []}, "holds no text"),
        ({"instances": [""]}, "empty"),
        ({"instances": ["  \n"]}, "empty"),
        ({"instances": [5]}, "must be a text, not int"),
        ({"instances": [None]}, "must be a text"),
        ({"instances": [["a"]]}, "must be a text, not list"),
        ({"instances": [{}]}, "has none of text"),
        ({"instances": ["a" * (10 << 20)]}, "more than 1048576"),
        (b"a" * (10 << 20), "more than 1048576"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "empty"),
        ({"instances": ["a"] * 1025}, "more than 1024"),
        ({"instances": ["\ud800"]}, "surrogate"),
        ({"text": "a"}, "instances"),
    ],
    ids=range(14),
)
def test_bad_texts_are_the_clients_fault(home: Path, payload: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        make("tokenize", home).preprocess(payload, {})


def test_texts_that_do_not_fit(home: Path) -> None:
    strict = make("tokenize", home, truncation=False, max_length=5)
    with pytest.raises(InvalidRequest, match="has 8 tokens, more than 5"):
        strict.preprocess({"instances": ["the cat sat on the mat"]}, {})
    ragged = make("tokenize", home, "grpc-v2", padding="none")
    two = InferRequest("m", [Tensor("x", data=np.array(["a", "a cat"], dtype=object))])
    with pytest.raises(InvalidRequest, match="different numbers of tokens"):
        ragged.preprocess(two, {})
    numbers = InferRequest("m", [Tensor("x", data=np.array([1, 2]))])
    with pytest.raises(InvalidRequest, match="must be a text"):
        ragged.preprocess(numbers, {})


def test_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="no tokenizer at"):
        make("tokenize", tmp_path / "nothing")
    with pytest.raises(LoadFailed, match=r"no tokenizer(\.json|:)"):
        make("tokenize", tmp_path)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(LoadFailed, match="is no tokenizer"):
        make("tokenize", tmp_path, tokenizer="broken.json")
    with pytest.raises(LoadFailed, match="no room beside the 2 special"):
        make("tokenize", save_tokenizer(tmp_path / "good"), max_length=2)
    assert make("tokenize", tmp_path / "good", max_length=3)
    without = save_tokenizer(tmp_path / "without", pad="")
    with pytest.raises(LoadFailed, match="pad_token=TOKEN"):
        make("tokenize", without)
    assert make("tokenize", without, padding="none")
    assert make("tokenize", without, pad_token="[SEP]")
    assert make("tokenize", save_tokenizer(tmp_path / "roberta", pad="<pad>"))


def test_labels_of_the_answer(home: Path) -> None:
    (home / "config.json").write_text('{"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}')
    transformer = make("tokenize", home, labels="config.json", softmax=True, top_k=1)
    context: dict[str, Any] = {}
    transformer.preprocess({"instances": ["a cat"]}, context)
    answer = transformer.postprocess({"predictions": [[0.0, 0.0]]}, context)
    assert answer == {"predictions": [[{"label": "NEGATIVE", "score": 0.5, "index": 0}]]}


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"tensors": "ids"}, "out of input_ids"),
        ({"tensors": "input_ids,input_ids"}, "out of"),
        ({"tensors": "input_ids:x,attention_mask:x"}, "the same name"),
        ({"dtype": "FP32"}, "one of INT64, INT32"),
        ({"max_length": "0"}, "whole number"),
        ({"padding": "left"}, "one of longest"),
    ],
)
def test_wrong_tokenize_parameters(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        transformers.plan("tokenize", "", list(params.items()))


@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=4))
def test_any_text_is_tokenised_or_refused(home: Path, texts: list[str]) -> None:
    transformer = make("tokenize", home, "v2", max_length=8)
    try:
        made = transformer.preprocess({"instances": texts}, {})
    except InvalidRequest:
        return
    shapes = {tuple(tensor.shape) for tensor in made.inputs}
    assert len(shapes) == 1
    assert next(iter(shapes))[0] == len(texts)


# --- json

ROWS = {
    "id": "r1",
    "rows": [{"f": [1.5, 2], "w": 1}, {"f": [3, 4], "w": 9}],
    "text": "hello",
}


def test_templates_make_both_bodies() -> None:
    transformer = make(
        "json",
        Path(),
        request='{"instances": "{$.rows[*].f}", "signature": "{request.text}-{$.id}"}',
        answer='{"id": "{request.id}", "best": "{$.predictions[0]}", "all": "{$.predictions}"}',
    )
    context: dict[str, Any] = {}
    assert transformer.preprocess(ROWS, context) == {
        "instances": [[1.5, 2], [3, 4]],
        "signature": "hello-r1",
    }
    assert transformer.postprocess({"predictions": [7, 8]}, context) == {
        "id": "r1",
        "best": 7,
        "all": [7, 8],
    }


def test_a_bare_pick_and_a_filter() -> None:
    transformer = make("json", Path(), answer="{$.predictions[?(@.p > 0.5)].label}")
    context: dict[str, Any] = {}
    assert transformer.preprocess(ROWS, context) is ROWS
    answer = {"predictions": [{"label": "a", "p": 0.9}, {"label": "b", "p": 0.1}]}
    assert transformer.postprocess(answer, context) == ["a"]


def test_from_v1_to_v2_and_back() -> None:
    transformer = make(
        "json",
        Path(),
        "v2",
        request=json.dumps(
            {
                "inputs": [
                    {"name": "x", "data": "{$.rows[*].f}"},
                    {"name": "n", "datatype": "INT32", "shape": [1, 2], "data": "{$.rows[*].w}"},
                    {"name": "t", "datatype": "BYTES", "data": ["{$.text}"]},
                ]
            }
        ),
        answer='{"first": "{$.outputs[0].data[0]}", "n": "{$.outputs[0].shape}"}',
    )
    context: dict[str, Any] = {}
    made = transformer.preprocess(ROWS, context)
    found = {t.name: (t.datatype, t.shape, t.as_numpy().tolist()) for t in made.inputs}
    assert found == {
        "x": ("FP32", [2, 2], [[1.5, 2.0], [3.0, 4.0]]),
        "n": ("INT32", [1, 2], [[1, 9]]),
        "t": ("BYTES", [1], ["hello"]),
    }
    response = InferResponse("", "m", [Tensor("o", data=np.array([[5, 6]]))])
    assert transformer.postprocess(response, context) == {"first": [5, 6], "n": [1, 2]}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"outputs": [{"name": "a", "data": "{$.predictions}"}]}', {"a": [1, 2]}),
        ('{"a": "{$.predictions}", "b": "{$.predictions[0]}"}', {"a": [1, 2], "b": [1]}),
        ("{$.predictions}", {"output-0": [1, 2]}),
    ],
)
def test_from_v2_to_v1_and_back(answer: str, expected: dict[str, Any]) -> None:
    transformer = make("json", Path(), request='{"instances": "{$.inputs[0].data}"}', answer=answer)
    context: dict[str, Any] = {}
    request = InferRequest("m", [Tensor("x", [2, 1], "INT64", [3, 4])])
    assert transformer.preprocess(request, context) == {"instances": [[3], [4]]}
    made = transformer.postprocess({"predictions": [1, 2]}, context)
    assert {t.name: t.as_numpy().tolist() for t in made.outputs} == expected


@pytest.mark.parametrize("protocol", ["v1", "auto"])
def test_rows_called_inputs_are_no_v2_request(protocol: str) -> None:
    transformer = make("json", Path(), protocol, request='{"inputs": "{$.rows[*].f}"}')
    assert transformer.preprocess(ROWS, {}) == {"inputs": [[1.5, 2], [3, 4]]}
    tensors = make("json", Path(), protocol, request='{"inputs": [{"data": "{$.rows[*].w}"}]}')
    made = tensors.preprocess(ROWS, {})
    assert isinstance(made, InferRequest) == (protocol == "auto")


@pytest.mark.parametrize("value", [None, 5, "text", True])
def test_a_body_that_is_no_document_is_the_clients_fault(value: Any) -> None:
    transformer = make("json", Path(), request="{$.x}")
    with pytest.raises(InvalidRequest, match="neither an object nor a list"):
        transformer.preprocess({"x": value}, {})


def test_a_request_that_does_not_fit_is_the_clients_fault() -> None:
    transformer = make("json", Path(), "v2", request='{"inputs": [{"data": "{$.rows}"}]}')
    for payload, says in (
        ({"other": 1}, "finds nothing in the request"),
        ({"rows": [[1], [2, 3]]}, "makes no tensor"),
        ({"rows": [{"a": 1}]}, "makes no tensor"),
        (b"{", "Unrecognized request format"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            transformer.preprocess(payload, {})


@pytest.mark.parametrize(
    ("answer", "result", "says"),
    [
        ("{$.predictions[0]}", {"predictions": []}, "finds nothing in the answer"),
        ("{$.predictions[0].label}", {"predictions": [1]}, "finds nothing"),
        ("{$.x}", [1], "finds nothing"),
        ("{$.x}", {"x": None}, "nothing but null"),
    ],
)
def test_an_answer_that_does_not_fit_is_the_predictors_fault(
    answer: str, result: Any, says: str
) -> None:
    transformer = make("json", Path(), answer=answer)
    context: dict[str, Any] = {}
    transformer.preprocess({"instances": [1]}, context)
    with pytest.raises(AnswerUnusable, match=says):
        transformer.postprocess(result, context)


@pytest.mark.parametrize("answer", ["{request.nope}", "{request['nope'][0]}", "{request.a[0].b}"])
def test_what_an_answer_takes_from_the_request_must_be_there_first(answer: str) -> None:
    transformer = make("json", Path(), answer={"a": [answer], "b": "{$.x}"})
    with pytest.raises(InvalidRequest, match="finds nothing in the request"):
        transformer.preprocess({"instances": [1]}, {})


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "give request, answer or both"),
        ({"request": "{$.a[}"}, "request: .*not a JSONPath"),
        ({"request": "{$.a"}, "is not closed"),
        ({"answer": "{nope.x}"}, "must start with"),
        ({"request": "{answer.x}"}, "must start with"),
        ({"request": '{"a": }'}, "a JSON document"),
        ({"request": {"instances": ["$.a"]}}, r"write \{\$\.a\}"),
        ({"answer": "$['a'][0]"}, "stays this very text"),
        ({"answer": {"a": ["{$.b[?(@.c =~ 'x+')]}"]}}, "=~ and sub"),
    ],
)
def test_wrong_templates_are_told_before_anything_starts(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        transformers.plan("json", "", list(params.items()))


# --- configuration files


def test_configuration_files(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("transformer: image\nresize: 28x28\nmean: [0.1, 0.2, 0.3]\n")
    (tmp_path / "c.json").write_text('{"resize": 8, "channels": 1}')
    plan = transformers.plan("", str(tmp_path / "c.yaml"), [("resize", "4")])
    assert (plan.kind, plan.values["mean"]) == ("image", (0.1, 0.2, 0.3))
    assert plan.values["resize"].side == 4
    plan = transformers.plan("image", str(tmp_path / "c.json"), [])
    assert (plan.values["channels"], plan.values["resize"].side) == (1, 8)
    inline = transformers.plan("", '{"transformer": "json", "answer": {"a": 1}}', [])
    assert inline.values["answer"] == {"a": 1}


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("", "", "expected one of image, tokenize, json"),
        ("", "{}", "expected one of image"),
        ("image", '{"transformer": "json"}', "is for json"),
        ("image", "{", "is not JSON"),
        ("image", "nowhere.yaml", "cannot be read"),
        ("image", "broken.yaml", "is not YAML"),
        ("image", "list.yaml", "must be a mapping"),
        ("image", "binary.json", "cannot be read"),
        ("image", '{"a": 1}', "no such parameter"),
        ("image", '{"scale": null}', "a text, a number"),
    ],
)
def test_bad_configuration_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, text: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text("a: [")
    Path("list.yaml").write_text("- a\n")
    Path("binary.json").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=says):
        transformers.plan(kind, text, [])
