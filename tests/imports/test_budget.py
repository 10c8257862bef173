"""What each entry point loads before it can serve: scale from zero starts with the imports.

Counted in modules, which is deterministic; the time they take is a benchmark, not a test. Counts
are taken above a bare interpreter of the same environment, so that what its `site` adds (not in the
images) does not count, plus the 31 modules a bare interpreter loads by itself.
"""

import json
import subprocess
import sys

import pytest

BARE = 31

HEAVY = (
    "boto3", "botocore", "cloudevents", "flask", "google", "grpc", "jsonpath_ng", "kubernetes",
    "numpy", "requests", "sklearn", "torch", "uvloop", "yaml",
)  # fmt: skip

ROUTER = (
    "import router_fn.__main__, router_fn.server, router_fn.loops; router_fn.loops.loop_factory()"
)
FUNCTIONS = "import functions.__main__, functions.server, functions.serving, functions.app"

BUDGETS = {
    # entry point: (program, modules at most, heavy packages it may load)
    "router_fn ready to listen": (ROUTER, 200, {"uvloop"}),
    "functions before load()": (FUNCTIONS, 388, {"flask", "uvloop"}),
    "storage_initializer file": (
        "import storage_initializer.cli, storage_initializer.fetching, "
        "storage_initializer.providers.local",
        100,
        set(),
    ),
    "storage_initializer http": (
        "import storage_initializer.cli, storage_initializer.fetching, "
        "storage_initializer.providers.http",
        100,
        set(),
    ),
    "storage_initializer s3": (
        "import storage_initializer.cli, storage_initializer.fetching, "
        "storage_initializer.providers.s3",
        100,
        set(),
    ),
    "events sink": (
        "import events.__main__, events.server, events.sink_app",
        520,
        {"flask", "cloudevents", "requests"},
    ),
    "turnout --help": ("import knative.cli.main as m; m.make_parser()", 100, set()),
    "turnout compile": (
        "import knative.cli.main, knative.cli.compile, knative.compiler, knative.emit",
        160,
        {"yaml"},
    ),
}


def loaded_by(program: str) -> list[str]:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{program}\nimport sys, json; print(json.dumps(list(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    modules: list[str] = json.loads(done.stdout)
    return modules


@pytest.fixture(scope="module")
def bare() -> int:
    return len(loaded_by("pass"))


@pytest.mark.parametrize("entry", BUDGETS)
def test_an_entry_point_stays_within_its_import_budget(entry: str, bare: int) -> None:
    program, most, allowed = BUDGETS[entry]
    modules = loaded_by(program)
    heavy = {name for name in HEAVY if name in modules}
    assert heavy <= allowed
    assert len(modules) - bare + BARE <= most, sorted(modules)


@pytest.mark.parametrize("entry", [name for name in BUDGETS if name.startswith("storage")])
def test_a_fetch_starts_without_what_costs_more_than_it_gives(entry: str) -> None:
    """Together these were half of the time from exec to the first request."""
    avoided = {"dataclasses", "encodings.idna", "inspect", "logging", "shutil", "ssl", "typing"}
    assert not avoided.intersection(loaded_by(BUDGETS[entry][0]))
