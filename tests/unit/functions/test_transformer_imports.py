"""What a ready-made transformer imports, and when: numpy and Pillow only where they are used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from functions import transformers
from functions.errors import MissingExtra

HEAVY = ("numpy", "PIL", "tokenizers", "jsonpath_ng", "yaml", "grpc", "flask")

CHECK = """
import json, sys
from functions.settings import Settings
Settings.from_env({}, json.loads(sys.argv[1]))
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""

SERVE = """
import asyncio, json, sys
from pathlib import Path
from functions import transformers
given = [("request", '{"instances": "{$.rows}"}'), ("answer", "{$.p}")]
plan = transformers.plan("json", "", given)
place = transformers.Place(model_name="m", directory=Path("."), predictor_protocol="v1")
made = transformers.build(plan, place)
context = {}
assert made.preprocess({"rows": [1]}, context) == {"instances": [1]}
assert made.postprocess({"p": 2}, context) == 2
print(json.dumps([name for name in json.loads(sys.argv[2]) if name in sys.modules]))
"""


def imported(script: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(arguments), json.dumps(HEAVY)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--transformer", "image", "--param", "resize=4"], []),
        (["--transformer", "tokenize"], []),
        (["--transformer", "json", "--param", "answer={$.a.b[0]}"], []),
        (["--transformer", "json", "--param", "answer={$.a[*].b}"], ["jsonpath_ng"]),
    ],
)
def test_checking_a_configuration_loads_no_library(
    arguments: list[str], expected: list[str]
) -> None:
    assert imported(CHECK, *arguments, "--predictor-host", "p") == expected


def test_plain_templates_between_v1_neighbours_need_none() -> None:
    assert imported(SERVE) == []


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [("image", "PIL", "transformer-image"), ("tokenize", "tokenizers", "transformer-tokenize")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, module: str, extra: str
) -> None:
    for name in [n for n in sys.modules if n == module or n.startswith((f"{module}.",))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("image", "pictures", "tokenize"):
        monkeypatch.delitem(sys.modules, f"functions.transformers.{name}", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(module), *sys.meta_path])
    (tmp_path / "tokenizer.json").write_text("{}")
    place = transformers.Place(model_name="m", directory=tmp_path)
    with pytest.raises(MissingExtra, match=rf"turnout\[functions,{extra}\]"):
        transformers.build(transformers.plan(kind, "", []), place)


class Missing:
    """An import hook that says a library is not installed."""

    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == self.module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self.module)
