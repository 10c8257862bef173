"""The example handlers' shared part: deciding between groups, the top five, what is refused."""

import base64
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def imagenet() -> Iterator[ModuleType]:
    """The module as an unpacked archive offers it: its folder on the path, by its bare name."""
    sys.path.insert(0, str(EXAMPLES / "imagenet"))
    try:
        import imagenet

        yield imagenet
    finally:
        sys.path.remove(str(EXAMPLES / "imagenet"))
        for name in ("imagenet", "efficientnet_lite0"):
            sys.modules.pop(name, None)


def _row(image_format: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Any:
    from PIL import Image

    stream = io.BytesIO()
    Image.new(mode, size).save(stream, image_format)
    return {"data": base64.b64encode(stream.getvalue()).decode()}


GROUPS = {"animal": [0, 1, 2, 3], "plant": [4, 5]}


@pytest.mark.parametrize(
    ("probabilities", "answer"),
    [
        pytest.param([0.6, 0.1, 0, 0, 0.2, 0, 0.1], "animal", id="larger sum"),
        pytest.param([0.3, 0, 0, 0, 0.2, 0.2, 0.3], "plant", id="two that add up"),
        pytest.param([0.1, 0, 0, 0, 0, 0, 0.9], None, id="something else weighs more"),
        pytest.param([0.009, 0.009, 0.009, 0.009, 0.02, 0, 0], "plant", id="noise does not add up"),
        pytest.param([0.001] * 7, None, id="nothing is clear"),
    ],
)
def test_the_group_with_the_largest_clear_sum_decides(
    imagenet: ModuleType, probabilities: list[float], answer: str | None
) -> None:
    assert imagenet.decide(probabilities, GROUPS) == answer


def test_top_answers_the_likeliest_of_the_group_in_order(imagenet: ModuleType) -> None:
    answer = imagenet.top([0.1, 0.5, 0.2, 0.05, 0.15], [0, 1, 2, 3], list("abcde"), count=3)
    assert list(answer.items()) == [("b", 0.5), ("c", 0.2), ("a", 0.1)]


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_common_formats_become_one_tensor_shape(
    imagenet: ModuleType, image_format: str, mode: str
) -> None:
    picture = imagenet._picture(_row(image_format, mode=mode), 0)
    tensor = imagenet._to_tensor(picture)
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype.name == "float32"
    assert abs(tensor.mean() + 127 / 128) < 0.02  # a black picture


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2)])
def test_odd_shapes_are_cropped_not_refused(imagenet: ModuleType, size: tuple[int, int]) -> None:
    tensor = imagenet._to_tensor(imagenet._picture(_row(size=size), 0))
    assert tensor.shape == (3, 224, 224)


def test_base64_may_be_wrapped_in_lines_or_a_data_url(imagenet: ModuleType) -> None:
    text = _row()["data"]
    lines = "\n".join(text[start : start + 20] for start in range(0, len(text), 20))
    for data in (lines, f"data:image/png;base64,{text}", {"b64": text}, base64.b64decode(text)):
        assert imagenet._picture({"data": data}, 0).size == (40, 30)
    assert imagenet._picture({"body": base64.b64decode(text)}, 0).size == (40, 30)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "instances[7] has no picture"),
        ({"data": None}, "has no picture"),
        ({"data": 5}, "has no picture"),
        ({"data": []}, "has no picture"),
        ({"data": {"base64": "x"}}, "has no picture"),
        (5, "has no picture"),
        (None, "has no picture"),
        ({"data": "!!!"}, "instances[7].data is not base64"),
        ({"data": "äöü"}, "is not base64"),
        ({"data": "aGVsbG8="}, "is not an image this model reads (JPEG, PNG"),
        ({"data": base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()}, "image"),
        ({"data": base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(60)).decode()}, "image"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_a_picture_is_the_clients_mistake(
    imagenet: ModuleType, row: object, message: str
) -> None:
    with pytest.raises(imagenet.BadPicture) as caught:
        imagenet._picture(row, 7)
    assert message in str(caught.value)
    assert caught.value.error_code == 400


def test_a_cut_off_file_is_named_damaged(imagenet: ModuleType) -> None:
    whole = base64.b64decode(_row("JPEG", size=(400, 300))["data"])
    row = {"data": base64.b64encode(whole[: len(whole) // 2]).decode()}
    with pytest.raises(imagenet.BadPicture, match="damaged"):
        imagenet._picture(row, 0)


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(
    imagenet: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "MAX_PIXELS", 100)
    with pytest.raises(imagenet.BadPicture, match="40 x 30 pixels; the limit is 100"):
        imagenet._picture(_row(), 0)


def test_on_torchserve_the_error_is_its_own_exception_class(imagenet: ModuleType) -> None:
    """TorchServe answers 400 only for its PredictionException; checked in a fresh process."""
    import subprocess

    code = (
        "import sys, types\n"
        "ts = types.ModuleType('ts.utils.util')\n"
        "class PredictionException(Exception):\n"
        "    def __init__(self, message, error_code=500):\n"
        "        raise AssertionError('not called')\n"
        "ts.PredictionException = PredictionException\n"
        "sys.modules['ts.utils.util'] = ts\n"
        "import imagenet\n"
        "error = imagenet.BadPicture('no')\n"
        "assert isinstance(error, PredictionException)\n"
        "assert (error.message, error.error_code, str(error)) == ('no', 400, 'no')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=EXAMPLES / "imagenet",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_class_groups_are_inside_the_labels_and_do_not_overlap() -> None:
    import json

    labels = (EXAMPLES / "imagenet" / "labels.txt").read_text().splitlines()
    assert len(labels) == len(set(labels)) == 1000
    for path in EXAMPLES.glob("*/models/*/groups.json"):
        indices = [
            index
            for spans in json.loads(path.read_text()).values()
            for first, last in spans
            for index in range(first, last + 1)
        ]
        assert len(indices) == len(set(indices)), path
        assert set(indices) <= set(range(1000)), path
    breeds = json.loads(
        (EXAMPLES / "dog-breed/models/dog-breed-classifier/groups.json").read_text()
    )
    ((first, last),) = breeds["dog"]
    assert last - first + 1 == 118
    assert (labels[first], labels[last]) == ("Chihuahua", "Mexican_hairless")
