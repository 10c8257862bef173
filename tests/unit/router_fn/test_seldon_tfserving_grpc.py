"""SeldonMessages to TensorFlow Serving's gRPC Predict and back."""

import base64
import json
from typing import Any

import pytest

from router_fn.seldon import tfserving_grpc as conversion
from router_fn.seldon.messages import SeldonError
from router_fn.seldon.protos import MESSAGES

BOTH = {"signature_name": "predict_images", "model_input": "images", "model_output": "scores"}


def signature(**inputs: int) -> Any:
    """A SignatureDef with inputs of these types, and one output."""
    made = MESSAGES["SignatureDefMap"]().signature_def["s"]
    for name, dtype in inputs.items():
        made.inputs[name].dtype = dtype
    made.outputs["scores"].dtype = 1
    return made


def asked(message: Any, parameters: Any = BOTH) -> conversion.Asked:
    return conversion.Asked(json.dumps(message).encode(), "mnist", parameters)


def sent(message: Any, parameters: Any = BOTH, known: Any = None) -> Any:
    """The PredictRequest of a SeldonMessage."""
    text = conversion.request_of(asked(message, parameters), known)
    return MESSAGES["PredictRequest"].FromString(text)


def reply(**outputs: list[float]) -> bytes:
    response = MESSAGES["PredictResponse"]()
    for name, values in outputs.items():
        response.outputs[name].dtype = 1
        response.outputs[name].tensor_shape.dim.add(size=len(values))
        response.outputs[name].float_val.extend(values)
    return bytes(response.SerializeToString())


def test_a_tftensor_is_copied_as_it_is() -> None:
    content = base64.b64encode(bytes(range(8))).decode()
    tensor = {"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "1"}, {"size": "2"}]},
              "tensorContent": content}  # fmt: skip
    message = {"data": {"names": ["a", "b"], "tftensor": tensor}}
    assert not asked(message).needs_signature
    request = sent(message)
    assert request.model_spec.name == "mnist"
    assert request.model_spec.signature_name == "predict_images"
    assert list(request.inputs) == ["images"]
    assert request.inputs["images"].tensor_content == bytes(range(8))
    assert [d.size for d in request.inputs["images"].tensor_shape.dim] == [1, 2]


@pytest.mark.parametrize(
    "data",
    [{"ndarray": [[1, 2], [3, 4]]}, {"tensor": {"shape": [2, 2], "values": [1, 2, 3, 4]}}],
)
@pytest.mark.parametrize(
    ("dtype", "field", "values"),
    [
        (0, "float_val", [1, 2, 3, 4]),  # unknown: as the original always did
        (1, "float_val", [1, 2, 3, 4]),
        (2, "double_val", [1, 2, 3, 4]),
        (3, "int_val", [1, 2, 3, 4]),
        (9, "int64_val", [1, 2, 3, 4]),
        (19, "half_val", [15360, 16384, 16896, 17408]),
        (23, "uint64_val", [1, 2, 3, 4]),
    ],
)
def test_numbers_become_what_the_signature_takes(
    data: Any, dtype: int, field: str, values: list[int]
) -> None:
    known = signature(images=dtype) if dtype else None
    tensor = sent({"data": data}, BOTH, known).inputs["images"]
    assert tensor.dtype == (dtype or 1)
    assert list(getattr(tensor, field)) == values
    assert [d.size for d in tensor.tensor_shape.dim] == [2, 2]


def test_texts_and_truths() -> None:
    assert sent({"data": {"ndarray": ["a", "ü"]}}).inputs["images"].string_val == [
        b"a",
        "ü".encode(),
    ]
    tensor = sent({"data": {"ndarray": [True, False]}}, BOTH, signature(images=10)).inputs["images"]
    assert list(tensor.bool_val) == [True, False]


def test_the_only_input_and_output_need_no_names() -> None:
    message = {"data": {"ndarray": [1]}}
    assert asked(message, {}).needs_signature
    request = sent(message, {}, signature(x=1))
    assert (list(request.inputs), request.model_spec.signature_name) == (["x"], "serving_default")
    answer = json.loads(conversion.answer_of(asked(message, {}), reply(scores=[0.5]), signature()))
    assert answer["data"]["tftensor"]["floatVal"] == [0.5]
    with pytest.raises(SeldonError, match="inputs are a, b: say which by model_input"):
        sent(message, {}, signature(a=1, b=1))


def test_the_answer_is_the_named_output_and_nothing_else() -> None:
    message = {"data": {"ndarray": [[1]]}, "meta": {"puid": "p1", "tags": {"t": 1}, "routing": {}}}
    answer = json.loads(conversion.answer_of(asked(message), reply(scores=[0.25], other=[1.0])))
    assert answer == {
        "data": {
            "tftensor": {
                "dtype": "DT_FLOAT",
                "tensorShape": {"dim": [{"size": "1"}]},
                "floatVal": [0.25],
            }
        },
        "meta": {"puid": "p1", "tags": {"t": 1}},
    }
    with pytest.raises(SeldonError, match="no output 'scores'; it has other"):
        conversion.answer_of(asked(message), reply(other=[1.0]))
    with pytest.raises(SeldonError) as caught:
        conversion.answer_of(asked(message), b"\xff\xff")
    assert caught.value.status == 502


def test_custom_data_is_a_packed_request_and_a_packed_answer() -> None:
    name = "type.googleapis.com/tensorflow.serving.PredictRequest"
    spec = {"name": "m", "signatureName": "s", "version": "7"}
    tensor = {"dtype": "DT_INT32", "intVal": [3]}
    message = {"customData": {"@type": name, "modelSpec": spec, "inputs": {"a": tensor}}}
    assert not asked(message).needs_signature
    request = sent(message)
    assert (request.model_spec.name, request.model_spec.version.value) == ("m", 7)
    assert list(request.inputs["a"].int_val) == [3]
    answer = json.loads(conversion.answer_of(asked(message), reply(a=[1.0], b=[2.0])))
    assert answer["customData"]["@type"].endswith("tensorflow.serving.PredictResponse")
    assert set(answer["customData"]["outputs"]) == {"a", "b"}


@pytest.mark.parametrize(
    "message",
    [
        [],
        {},
        {"strData": "x"},
        {"binData": "eA=="},
        {"jsonData": {"inputs": [1]}},
        {"data": {}},
        {"data": {"ndarray": [[1], [2, 3]]}},
        {"data": {"ndarray": [[1], 2]}},
        {"data": {"ndarray": [None]}},
        {"data": {"ndarray": [{"a": 1}]}},
        {"data": {"ndarray": [1, "x"]}},
        {"data": {"ndarray": 3}},
        {"data": {"tensor": {"shape": [2], "values": [1]}}},
        {"data": {"tensor": {"shape": [-1], "values": [1]}}},
        {"customData": {"@type": "type.googleapis.com/tensorflow.serving.PredictResponse"}},
        {"customData": {"@type": "type.googleapis.com/unknown.Type"}},
        {"customData": {}},
    ],
)
def test_what_cannot_be_converted_is_the_clients_fault(message: Any) -> None:
    with pytest.raises(SeldonError) as caught:
        sent(message)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("value", "dtype"), [(1.5, 3), (-1, 23), (300, 0x7FFF), (1e300, 9), (2, 10)]
)
def test_numbers_that_the_model_cannot_take(value: float, dtype: int) -> None:
    with pytest.raises(SeldonError) as caught:
        sent({"data": {"ndarray": [value]}}, BOTH, signature(images=min(dtype, 24)))
    assert caught.value.status == 400


def test_the_signature_comes_from_the_models_metadata() -> None:
    request = MESSAGES["GetModelMetadataRequest"].FromString(conversion.metadata_request("mnist"))
    assert (request.model_spec.name, list(request.metadata_field)) == ("mnist", ["signature_def"])
    known = MESSAGES["SignatureDefMap"]()
    known.signature_def["s"].inputs["x"].dtype = 3
    response = MESSAGES["GetModelMetadataResponse"]()
    response.metadata["signature_def"].value = known.SerializeToString()
    found = conversion.signature_of("s", response.SerializeToString())
    assert found.inputs["x"].dtype == 3
    with pytest.raises(SeldonError, match="no signature 't'; it has s"):
        conversion.signature_of("t", response.SerializeToString())
