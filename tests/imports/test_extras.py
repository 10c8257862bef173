"""What each image really installs: the dependency closure of its extras, from installed metadata.

A new transitive dependency is somebody's decision, not a surprise: it shows up here as a diff.
"""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CLOSURES = {
    "router": {"gunicorn", "msgspec", "uvloop"},
    "cli": {"pyyaml"},
    "transformer-image": {"numpy", "pillow"},
    "transformer-json": {"jsonpath-ng"},
    "s3": {
        "boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3",
        "zlib-ng",
    },
    "functions": {
        "blinker", "click", "flask", "gunicorn", "itsdangerous", "jinja2",
        "markupsafe", "orjson", "pysimdjson", "uvloop", "werkzeug",
    },
}  # fmt: skip


PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def requirements(name: str, extra: str) -> list[Requirement]:
    """What `name[extra]` asks for here; turnout's own from the file, not from a stale install."""
    if name == "turnout":
        lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
        return [Requirement(line) for line in lines]
    found = [Requirement(line) for line in metadata.requires(name) or []]
    return [r for r in found if not r.marker or r.marker.evaluate({"extra": extra})]


def closure(extra: str) -> set[str]:
    """Canonical names of everything `pip install turnout[extra]` brings besides turnout itself."""
    found: set[str] = set()
    todo = [("turnout", extra)]
    seen: set[tuple[str, str]] = set()
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for requirement in requirements(name, wanted):
            dependency = canonicalize_name(requirement.name)
            if dependency != "turnout":
                found.add(dependency)
            todo += [(dependency, more) for more in ("", *requirement.extras)]
    return found


@pytest.mark.parametrize("extra", CLOSURES)
def test_an_extra_brings_exactly_this(extra: str) -> None:
    assert closure(extra) == CLOSURES[extra]


def test_the_base_install_brings_nothing() -> None:
    assert closure("") == set()
