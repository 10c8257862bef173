"""`turnout compile` on the examples: the same bytes twice, and nothing Knative would refuse."""

from pathlib import Path

import pytest
import yaml

from tests.e2e import knative_rules, local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
INIT_CONTAINERS = "kubernetes.podspec-init-containers"


def _files(pipeline: str) -> list[Path]:
    return sorted((local.EXAMPLES / pipeline).glob("*.yaml"))


@pytest.mark.parametrize("pipeline", ["animal-plant", "dog-breed"])
def test_compiling_twice_gives_the_same_bytes(pipeline: str) -> None:
    first = local.turnout("compile", *_files(pipeline))
    second = local.turnout("compile", *reversed(_files(pipeline)), PYTHONHASHSEED="7")
    assert first.returncode == 0, first.stderr
    assert first.stdout
    assert first.stdout == second.stdout


@pytest.mark.parametrize("pipeline", ["animal-plant", "dog-breed"])
def test_knative_takes_it_with_only_the_init_container_flag_on(pipeline: str) -> None:
    done = local.turnout("compile", *_files(pipeline))
    objects = list(yaml.safe_load_all(done.stdout))
    assert {entry["kind"] for entry in objects} == {"Service"}
    problems = {
        entry["metadata"]["name"]: found
        for entry in objects
        if (found := knative_rules.problems(entry, {INIT_CONTAINERS}))
    }
    assert problems == {}
    without = [line for entry in objects for line in knative_rules.problems(entry)]
    assert without, "the flag is needed, and the compiler says so"
    assert INIT_CONTAINERS in done.stderr
    assert all(INIT_CONTAINERS in line for line in without)


@pytest.mark.parametrize("pipeline", ["animal-plant", "dog-breed"])
def test_only_the_graph_is_reachable_from_outside(pipeline: str) -> None:
    visibility = {
        entry["metadata"]["name"]: entry["metadata"]["labels"].get(
            "networking.knative.dev/visibility"
        )
        for entry in yaml.safe_load_all(local.turnout("compile", *_files(pipeline)).stdout)
    }
    graph = f"{pipeline}-pipeline"
    assert visibility.pop(graph) is None
    assert set(visibility.values()) == {"cluster-local"}


def test_one_file_per_service_for_kn(tmp_path: Path) -> None:
    done = local.turnout("compile", *_files("dog-breed"), "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    names = {}
    for path in tmp_path.iterdir():
        (entry,) = yaml.safe_load_all(path.read_text())
        names[path.name] = entry["metadata"]["name"]
    assert set(names.values()) == {
        "dog-breed-pipeline", "cat-dog-classifier", "dog-breed-classifier",
    }  # fmt: skip


def test_the_stock_profile_needs_no_flag_at_all() -> None:
    done = local.turnout("compile", *_files("dog-breed"), "--profile", "stock")
    assert done.returncode == 0, done.stderr
    for entry in yaml.safe_load_all(done.stdout):
        assert knative_rules.problems(entry) == []


def test_compiled_output_compiles_to_itself(tmp_path: Path) -> None:
    once = local.turnout("compile", *_files("animal-plant")).stdout
    (tmp_path / "compiled.yaml").write_text(once)
    again = local.turnout("compile", tmp_path / "compiled.yaml")
    assert again.returncode == 0, again.stderr
    assert again.stdout == once


def test_compiled_output_of_the_stock_profile_runs_as_it_is(models: Path, tmp_path: Path) -> None:
    """`turnout up` takes compiled YAML; the server fetches its model itself."""
    compiled = tmp_path / "stock.yaml"
    compiled.write_text(local.turnout("compile", *_files("dog-breed"), "--profile", "stock").stdout)
    cat = local.instances(local.photograph(local.CHELSEA))
    with local.up(compiled, "--mirror", local.MIRROR, folder=tmp_path / "up") as engine:
        status, answer, _ = engine.post("dog-breed-pipeline", cat)
        assert (status, answer) == (200, {"predictions": ["It's a cat!"]})
