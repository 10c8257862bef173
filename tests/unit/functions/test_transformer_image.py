"""The `image` transformer's hooks on real pictures, good and bad."""

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from functions import transformers
from functions.errors import ConfigurationError, InvalidRequest, LoadFailed
from functions.inference import InferRequest, InferResponse, Tensor

HERE = Path(__file__).parent


def make(directory: Path = HERE, protocol: str = "v1", **params: Any) -> Any:
    chosen = transformers.plan("image", "", list(params.items()))
    place = transformers.Place(
        model_name="m", directory=directory, predictor_protocol=protocol, predictor="p:80"
    )
    return transformers.build(chosen, place)


def encoded(pixels: Any, form: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def before(transformer: Any, payload: Any) -> Any:
    return transformer.preprocess(payload, {})


COLOUR = noise(20, 30, 3)
PNG = encoded(COLOUR)


# --- what comes out


def test_the_default_is_what_most_networks_take() -> None:
    rows = before(make(), {"instances": [{"data": b64(PNG)}]})["instances"]
    assert rows.dtype == np.float32
    assert rows.shape == (1, 3, 20, 30)
    assert np.allclose(rows[0], COLOUR.transpose(2, 0, 1) / 255, atol=1e-7)


def test_imagenet_preprocessing_is_torchvisions_arithmetic() -> None:
    transformer = make(resize="16", crop="12", normalize="imagenet")
    rows = before(transformer, {"instances": [b64(PNG)]})["instances"]
    small = Image.fromarray(COLOUR).resize((24, 16), Image.Resampling.BILINEAR)
    cut = np.asarray(small.crop((6, 2, 18, 14)), dtype=np.float64) / 255
    expected = (cut - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(rows[0], expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("params", "shape", "dtype"),
    [
        ({"layout": "nhwc"}, (1, 20, 30, 3), np.float32),
        ({"layout": "nhw", "channels": "1"}, (1, 20, 30), np.float32),
        ({"layout": "flat", "channels": 1}, (1, 600), np.float32),
        ({"channels": "4"}, (1, 4, 20, 30), np.float32),
        ({"resize": "8x9"}, (1, 3, 8, 9), np.float32),
        ({"resize": "10"}, (1, 3, 10, 15), np.float32),
        ({"crop": "4x6"}, (1, 3, 4, 6), np.float32),
        ({"dtype": "UINT8"}, (1, 3, 20, 30), np.uint8),
        ({"dtype": "FP16"}, (1, 3, 20, 30), np.float16),
        ({"dtype": "FP64", "mean": [0.5], "std": "2"}, (1, 3, 20, 30), np.float64),
    ],
)
def test_layouts_and_types(params: dict[str, Any], shape: tuple[int, ...], dtype: Any) -> None:
    request = before(make(protocol="v2", **params), {"instances": [b64(PNG)]})
    array = request.inputs[0].as_numpy()
    assert (array.shape, array.dtype) == (shape, dtype)


def test_numbers_are_as_configured() -> None:
    pixels = noise(2, 2, 3)
    payload = {"instances": [b64(encoded(pixels))]}
    whole = before(make(layout="nhwc", dtype="UINT8", order="bgr", invert="true"), payload)
    assert (whole["instances"][0] == 255 - pixels[..., ::-1]).all()
    scaled = before(make(layout="nhwc", dtype="INT8", mean="128", scale="1"), payload)
    assert (scaled["instances"][0] == pixels.astype(int) - 128).all()
    limited = before(make(layout="nhwc", dtype="INT8"), payload)
    assert (limited["instances"][0] == np.minimum(pixels, 127)).all()


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (noise(5, 6), {"form": "png"}),
        (Image.fromarray(noise(5, 6, 4)), {"form": "png"}),
        (Image.fromarray(noise(5, 6, 2)), {"form": "png"}),
        (Image.fromarray(noise(5, 6, 3)).convert("P"), {"form": "gif"}),
        (Image.fromarray(noise(5, 6) > 99), {"form": "png"}),
        (Image.fromarray(noise(5, 6, 3)).convert("CMYK"), {"form": "jpeg"}),
        (noise(5, 6, 3), {"form": "webp"}),
        (noise(5, 6, 3), {"form": "bmp"}),
    ],
    ids=["grey", "rgba", "grey+alpha", "palette", "bits", "cmyk", "webp", "bmp"],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_kind_of_pixel_becomes_the_configured_channels(
    picture: Any, options: dict[str, str], channels: int
) -> None:
    rows = before(make(channels=channels), {"instances": [b64(encoded(picture, **options))]})
    assert rows["instances"].shape == (1, channels, 5, 6)


def test_sixteen_bits_are_scaled_not_cut() -> None:
    wide = np.array([[0, 65535], [32768, 257]], dtype=np.uint16)
    rows = before(
        make(channels=1, dtype="UINT8", layout="nhw"), {"instances": [b64(encoded(wide))]}
    )["instances"]
    assert rows[0].tolist() == [[0, 255], [128, 1]]


def test_transparency_shows_the_background() -> None:
    clear = np.zeros((1, 2, 4), dtype=np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    payload = {"instances": [b64(encoded(clear))]}
    rows = before(make(background="white", dtype="UINT8", layout="nhwc"), payload)["instances"]
    assert rows[0].tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_photographs_are_turned_upright() -> None:
    picture = Image.fromarray(noise(4, 8, 3))
    exif = picture.getexif()
    exif[0x0112] = 6
    raw = encoded(picture, "jpeg", exif=exif)
    assert before(make(), {"instances": [b64(raw)]})["instances"].shape == (1, 3, 8, 4)
    turned_off = before(make(orient=False), {"instances": [b64(raw)]})["instances"]
    assert turned_off.shape == (1, 3, 4, 8)


# --- how pictures come in


@pytest.mark.parametrize(
    "instance",
    [
        b64(PNG),
        "data:image/png;base64," + b64(PNG),
        base64.encodebytes(PNG).decode(),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        {"b64": b64(PNG)},
        {"image": {"b64": b64(PNG)}},
        {"image_bytes": {"b64": b64(PNG)}, "key": "1"},
        {"data": b64(PNG), "target": 0},
        {"anything": b64(PNG)},
    ],
    ids=str,
)
def test_v1_instances(instance: Any) -> None:
    assert before(make(), {"instances": [instance]})["instances"].shape == (1, 3, 20, 30)


def test_a_named_member_only() -> None:
    transformer = make(field="photo")
    payload = {"instances": [{"photo": b64(PNG), "image": "!"}]}
    assert len(before(transformer, payload)["instances"]) == 1
    for wrong in ([{"image": b64(PNG)}], [b64(PNG)]):
        with pytest.raises(InvalidRequest, match="photo"):
            before(transformer, {"instances": wrong})


def test_a_picture_as_the_body() -> None:
    assert before(make(), PNG)["instances"].shape == (1, 3, 20, 30)


@pytest.mark.parametrize("element", [PNG, b64(PNG), b64(PNG).encode()])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_v2_bytes(element: Any, shape: list[int]) -> None:
    data = np.array([element, element], dtype=object).reshape(shape)
    request = InferRequest("mine", [Tensor("x", data=data)], "id-1", {"p": 1})
    made = before(make(protocol="grpc-v2", input="INPUT__0"), request)
    assert (made.model_name, made.id, made.parameters) == ("mine", "id-1", {"p": 1})
    assert (made.inputs[0].name, made.inputs[0].shape) == ("INPUT__0", [2, 3, 20, 30])


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (8, 9, 4), (5, 8, 9, 3)])
def test_v2_pixels(shape: tuple[int, ...]) -> None:
    request = InferRequest("m", [Tensor("x", data=noise(*shape))])
    count = shape[0] if len(shape) == 4 else 1
    assert before(make(), request)["instances"].shape == (count, 3, 8, 9)


def test_an_instance_key() -> None:
    rows = before(make(instance_key="data"), {"instances": [b64(PNG)] * 2})["instances"]
    assert [set(row) for row in rows] == [{"data"}, {"data"}]


# --- bad input


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"instances": [b64(PNG[:200])]}, "broken"),
        ({"instances": [b64(PNG[:20])]}, "no picture"),
        ({"instances": [b64(b"hello")]}, "no picture of a known format"),
        ({"instances": [b64(bomb(60000, 60000))]}, "more than 50000000 pixels"),
        ({"instances": [b64(bomb(9000, 9000))]}, "more than 50000000 pixels"),
        ({"instances": [b64(bomb(10, 10))]}, "broken"),
        ({"instances": ["%%%"]}, "not base64"),
        ({"instances": ["ü"]}, "not base64"),
        ({"instances": [""]}, "empty"),
        ({"instances": [{"b64": ""}]}, "empty"),
        ({"instances": [None]}, "must be base64"),
        ({"instances": [5]}, "must be base64"),
        ({"instances": [{"b64": 5}]}, "must be base64"),
        ({"instances": [{}]}, "has none of image"),
        ({"instances": [{"x": b64(PNG), "y": 1}]}, "field"),
        ({"instances": []}, "holds no image"),
        ({"instances": [b64(PNG)] * 129}, "more than 128"),
        ({"instances": [b64(PNG), b64(encoded(noise(3, 3)))]}, "different sizes"),
        ({"image": b64(PNG)}, "instances"),
        ([b64(PNG)], "JSON object"),
        (None, "JSON object"),
        (b"", "empty"),
        (b"GIF89a", "no picture"),
        ({"instances": [b64(encoded(noise(9, 9), "tiff"))]}, "known format"),
    ],
)  # fmt: skip
def test_bad_pictures_are_the_clients_fault(payload: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        before(make(), payload)


def test_a_request_of_many_pictures_has_a_limit_too() -> None:
    """At most one picture is in memory at its full size, and the sum is bounded."""
    for params in ({}, {"resize": "4x4"}):
        small = make(max_request_pixels=1500, **params)
        assert len(before(small, {"instances": [b64(PNG)] * 2})["instances"]) == 2
        with pytest.raises(InvalidRequest, match="together more than 1500 pixels"):
            before(small, {"instances": [b64(PNG)] * 3})
    grown = make(max_request_pixels=1500, resize="64x64")
    with pytest.raises(InvalidRequest, match="together"):
        before(grown, {"instances": [b64(PNG)]})
    with pytest.raises(InvalidRequest, match="together"):
        before(grown, InferRequest("m", [Tensor("x", data=noise(2, 30, 30, 3))]))


def test_limits_are_settings() -> None:
    with pytest.raises(InvalidRequest, match="more than 100 pixels"):
        before(make(max_pixels=100), {"instances": [b64(PNG)]})
    with pytest.raises(InvalidRequest, match="larger than 100 bytes"):
        before(make(max_bytes="100"), {"instances": [b64(PNG)]})
    with pytest.raises(InvalidRequest, match="more than 1:"):
        before(make(max_images=1), {"instances": [b64(PNG)] * 2})
    thin = encoded(noise(1, 5000))
    with pytest.raises(InvalidRequest, match="resized image"):
        before(make(resize="224"), {"instances": [b64(thin)]})
    with pytest.raises(InvalidRequest, match="smaller than the 64x64"):
        before(make(crop="64"), {"instances": [b64(PNG)]})
    tiff = encoded(noise(9, 9), "tiff")
    assert len(before(make(formats="tiff"), {"instances": [b64(tiff)]})["instances"]) == 1


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (noise(4, 4, 2), "1, 3 or 4 channels"),
        (noise(4, 4, 5), "1, 3 or 4 channels"),
        (noise(1, 1, 4, 4, 3), "1, 3 or 4 channels"),
        (noise(7), "1, 3 or 4 channels"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.float32), "UINT8"),
        (noise(200, 2, 2, 3), "more than 128"),
    ],
)
def test_bad_pixels(array: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        before(make(), InferRequest("m", [Tensor("x", data=array)]))


def test_a_v2_request_without_the_input() -> None:
    request = InferRequest("m", [Tensor("x", data=np.array([PNG], dtype=object))])
    with pytest.raises(InvalidRequest, match="no input 'image'"):
        before(make(field="image"), request)
    matrix = np.array([[PNG, PNG]], dtype=object)
    with pytest.raises(InvalidRequest, match=r"shape \[n\]"):
        before(make(), InferRequest("m", [Tensor("x", data=matrix)]))


@given(data=st.data())
def test_no_damage_to_a_picture_is_anything_but_an_answer_or_the_clients_fault(
    data: st.DataObject,
) -> None:
    form = data.draw(st.sampled_from(["png", "jpeg", "gif", "webp", "bmp"]))
    raw = bytearray(encoded(noise(12, 9, 3), form))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    transformer = make(resize="8x8", max_pixels=1_000_000)
    try:
        rows = before(transformer, {"instances": [b64(bytes(raw))]})["instances"]
    except InvalidRequest:
        return
    assert rows.shape == (1, 3, 8, 8)


# --- configuration


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"sise": "3"}, "did you mean resize|there is no such parameter"),
        ({"resize": "0"}, "SIDE or HEIGHTxWIDTH"),
        ({"resize": "axb"}, "SIDE or HEIGHTxWIDTH"),
        ({"resize": "1x2x3"}, "SIDE or HEIGHTxWIDTH"),
        ({"channels": "2"}, "one of 1, 3, 4"),
        ({"mean": "0.1,0.2"}, "give one, or one a channel"),
        ({"mean": "a"}, "numbers separated by commas"),
        ({"mean": {"r": 1}}, "a text, a number"),
        ({"std": "0"}, "must not be 0"),
        ({"scale": "1/0"}, "fraction"),
        ({"scale": "nan"}, "finite"),
        ({"normalize": "imagenet", "mean": "1"}, "normalize sets mean and std"),
        ({"normalize": "imagenet", "channels": "1"}, "give one, or one a channel"),
        ({"layout": "nhw"}, "no place for 3 channels"),
        ({"order": "bgr", "channels": "1"}, "means nothing"),
        ({"dtype": "BYTES"}, "one of"),
        ({"formats": "psd"}, "out of"),
        ({"background": "pink"}, "#rrggbb"),
        ({"max_bytes": "-1"}, "number of bytes"),
        ({"max_pixels": "0"}, "whole number"),
    ],
)
def test_wrong_parameters_are_told_before_anything_starts(
    params: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        transformers.plan("image", "", list(params.items()))


def test_all_problems_are_told_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        transformers.plan("image", "", [("resize", "x"), ("dtype", "y"), ("nope", "z")])
    assert len(caught.value.problems) == 3


# --- answers


def after(transformer: Any, result: Any, count: int = 1, *, v2: bool = False) -> Any:
    context: dict[str, Any] = {}
    payload: Any = {"instances": [b64(PNG)] * count}
    if v2:
        payload = InferRequest("m", [Tensor("x", data=np.array([PNG] * count, dtype=object))])
    transformer.preprocess(payload, context)
    return transformer.postprocess(result, context)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("cat\ndog\nfox\n\n")
    return tmp_path


def test_top_labels_with_scores(animals: Path) -> None:
    transformer = make(animals, labels="labels.txt", top_k=2)
    assert after(transformer, {"predictions": [[0.25, 0.75, 0.0]]}) == {
        "predictions": [
            [
                {"label": "dog", "score": 0.75, "index": 1},
                {"label": "cat", "score": 0.25, "index": 0},
            ]
        ]
    }


def test_the_same_for_v2(animals: Path) -> None:
    transformer = make(animals, "v2", labels="labels.txt", top_k=2, softmax=True)
    logits = np.log(np.array([[0.2, 0.7, 0.1]], dtype=np.float32))
    answer = after(transformer, InferResponse("", "", [Tensor("o", data=logits)]), v2=True)
    found = {tensor.name: tensor.as_numpy().tolist() for tensor in answer.outputs}
    assert found["label"] == [["dog", "cat"]]
    assert found["index"] == [[1, 0]]
    assert found["score"] == [pytest.approx([0.7, 0.2])]


@pytest.mark.parametrize("classes", [[1, 2], [1.0, 2.0], [[1], [2]]])
def test_class_indices_get_their_labels(animals: Path, classes: list[Any]) -> None:
    transformer = make(animals, labels="labels.txt")
    assert after(transformer, {"predictions": classes}, 2) == {
        "predictions": [[{"label": "dog", "index": 1}], [{"label": "fox", "index": 2}]]
    }
    v2 = after(transformer, {"predictions": classes}, 2, v2=True)
    assert [tensor.name for tensor in v2.outputs] == ["label", "index"]


def test_a_predictor_that_answers_labels_itself(animals: Path) -> None:
    transformer = make(animals, labels="labels.txt")
    assert after(transformer, {"predictions": ["wolf"]}) == {"predictions": [[{"label": "wolf"}]]}
    output = Tensor("o", data=np.array([b"wolf"], dtype=object))
    answer = after(transformer, InferResponse("", "", [output]), v2=True)
    assert answer.outputs[0].as_numpy().tolist() == [["wolf"]]


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ({"predictions": [[0.1, 0.2, 0.3, 0.4]]}, "4 classes, but the labels file has 3"),
        ({"predictions": [7]}, "class 7, but the labels file ends at 2"),
        ({"predictions": [-1]}, "class -1"),
        ({"predictions": [0.37]}, "no class index"),
        ({"predictions": [1e30]}, "no class index"),
        ({"predictions": [float("nan")]}, "no class index"),
        ({"predictions": [float("-inf")]}, "no class index"),
        ({"predictions": [[0.1, 0.2]] * 2}, "2 rows for 1 instances"),
        ({"predictions": []}, "0 rows for 1"),
        ({"predictions": [[[1.0, 2.0], [3.0, 4.0]]]}, "expected scores"),
        ({"predictions": [[0.1], [0.1, 0.2]]}, "different lengths"),
        ({"outputs": []}, 'no "predictions"'),
        ([1], 'no "predictions"'),
        ("text", 'no "predictions"'),
        (InferResponse("", "", []), "no outputs"),
    ],
)
def test_answers_that_do_not_fit_are_the_predictors_fault(
    animals: Path, result: Any, says: str
) -> None:
    from functions.errors import AnswerUnusable

    with pytest.raises(AnswerUnusable, match=says) as caught:
        after(make(animals, labels="labels.txt"), result)
    assert caught.value.http_status() == 502
    assert "p:80" in str(caught.value)


def test_scores_that_are_no_numbers_come_last() -> None:
    transformer = make(top_k=3)
    rows = np.array([[0.1, np.nan, 0.5]], dtype=np.float32)
    (best,) = after(transformer, InferResponse("", "", [Tensor("o", data=rows)]))["predictions"]
    assert [entry["index"] for entry in best] == [2, 0, 1]
    for odd in (np.inf, np.nan):
        logits = np.array([[odd, 1.0]])
        result = InferResponse("", "", [Tensor("o", data=logits)])
        answer = after(make(softmax=True), result)
        assert len(answer["predictions"][0]) == 2


def test_an_output_that_is_not_there(animals: Path) -> None:
    from functions.errors import AnswerUnusable

    transformer = make(animals, labels="labels.txt", output="scores")
    good = {"predictions": [{"scores": [0.1, 0.9, 0.0], "key": "1"}]}
    assert after(transformer, good)["predictions"][0][0]["label"] == "dog"
    for wrong in (
        {"predictions": [{"other": [1]}]},
        InferResponse("", "", [Tensor("x", data=np.zeros((1, 3)))]),
    ):
        with pytest.raises(AnswerUnusable, match="scores"):
            after(transformer, wrong)


def test_without_labels_the_answer_passes_in_the_callers_protocol() -> None:
    response = InferResponse("", "", [Tensor("o", data=np.array([[1.5, 2.5]]))])
    assert after(make(), response) is response
    assert after(make(), response, v2=True) is response
    v1 = {"predictions": [{"a": 1}]}
    assert after(make(), v1) is v1
    assert after(make(), v1, v2=True).outputs[0].as_numpy().tolist() == ['{"a":1}']


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\n", ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ('{"1": "b", "0": "a"}', ["a", "b"]),
        ('{"0": ["n1", "a"], "1": ["n2", "b"]}', ["a", "b"]),
        ('{"id2label": {"0": "a", "1": "b"}, "x": 1}', ["a", "b"]),
    ],
)
def test_labels_files(tmp_path: Path, text: str, expected: list[str]) -> None:
    from functions.transformers import labels

    (tmp_path / "l").write_text(text)
    assert labels.read(tmp_path / "l") == expected


@pytest.mark.parametrize("text", ["", "\n\n", "{", '{"a": "b"}', '{"0": "a", "2": "b"}', "[]"])
def test_bad_labels_files(tmp_path: Path, text: str) -> None:
    from functions.transformers import labels

    (tmp_path / "l").write_text(text)
    with pytest.raises(LoadFailed, match="labels file"):
        labels.read(tmp_path / "l")


@given(
    rows=st.lists(
        st.lists(
            st.one_of(st.integers(-99, 99), st.floats(width=32), st.text(), st.none()), max_size=5
        ),
        min_size=1,
        max_size=4,
    ),
    count=st.integers(1, 3),
)
def test_no_answer_of_a_predictor_breaks_it(rows: Any, count: int) -> None:
    from functions.errors import AnswerUnusable

    transformer = make(top_k=2, softmax=True)
    for result in ({"predictions": rows}, {"predictions": [row[0] if row else 0 for row in rows]}):
        try:
            found = after(transformer, result, count)
        except AnswerUnusable:
            continue
        assert len(found["predictions"]) == count
        json.dumps(found)
