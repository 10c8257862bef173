"""What each image really installs: the dependency closure of its extras, from installed metadata.

A new transitive dependency is somebody's decision, not a surprise: it shows up here as a diff.
"""

from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CLOSURES = {
    "router": {"gunicorn", "msgspec", "uvloop"},
    "cli": {"pyyaml"},
    "s3": {"boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"},
    "functions": {
        "blinker", "click", "flask", "gunicorn", "itsdangerous", "jinja2",
        "markupsafe", "orjson", "uvloop", "werkzeug",
    },
}  # fmt: skip


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
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": wanted}):
                continue
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
