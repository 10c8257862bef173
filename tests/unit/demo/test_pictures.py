"""The demo's photographs, and the request made of one."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from knative import errors
from knative.demo import pictures


@pytest.mark.parametrize("find", [pictures.cat, pictures.flower, pictures.temple, pictures.horse])
def test_every_photograph_is_there(find: Callable[[], pictures.Picture]) -> None:
    picture = find()
    assert picture.path.stat().st_size > 1000
    assert picture.origin in {"scikit-image", "scikit-learn"}


def test_the_request_is_that_of_kserves_tutorial(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG...")
    picture = pictures.Picture(title="x", path=path, origin="here")
    (row,) = json.loads(picture.request_body())["instances"]
    assert list(row) == ["data"]
    assert base64.b64decode(row["data"]) == b"\x89PNG..."


def test_a_missing_package_is_named_with_the_remedy() -> None:
    with pytest.raises(errors.TurnoutError, match=r"scikit-nothing.*pip install 'turnout\[demo\]'"):
        pictures._installed("no_such_package", "scikit-nothing", "a.png")
