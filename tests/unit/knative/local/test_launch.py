"""From a container to a process: words, variables, limits."""

import sys
from pathlib import Path

import pytest

from knative.local import launch, spec
from knative.local.errors import PodFailed
from knative.local.settings import EngineSettings
from knative.local.volumes import Sources

IDENTITY = launch.Identity(
    pod="p-1", namespace="ns", service="svc", revision="svc-00001",
    labels={"team": "a"}, annotations={"note": "b"},
)  # fmt: skip
SOURCES = Sources(
    secrets={"ns/s": {"key": b"secret"}}, config_maps={"ns/c": {"A": b"1", "B": b"2"}}
)


def make(
    tmp_path: Path, container: spec.Container, identity: launch.Identity = IDENTITY, **place: object
) -> launch.Launch:
    settings = EngineSettings(
        environ={"PATH": "/bin", "HOME": "/me", "AWS_SECRET_ACCESS_KEY": "k", "EDITOR": "vi"},
        mirrors=("s3://a/=file:///b/",),
        root=tmp_path,
    )
    where = launch.Place(
        pod_dir=tmp_path, volumes={"m": tmp_path}, gateway_url="http://gw", **place  # type: ignore[arg-type]
    )  # fmt: skip
    return launch.make_launch(container, identity, where, settings, SOURCES)


def container(*env: spec.Env, **changes: object) -> spec.Container:
    base: dict[str, object] = {"name": "c", "command": ("python", "-m", "app"), "env": env}
    return spec.Container(**{**base, **changes})  # type: ignore[arg-type]


def test_python_is_our_interpreter_and_arguments_follow(tmp_path: Path) -> None:
    made = make(tmp_path, container(args=("--port", "$(PORT)")), port=20001)
    assert made.argv == (sys.executable, "-m", "app", "--port", "20001")
    assert made.cwd == str(tmp_path.resolve())


def test_what_is_inherited(tmp_path: Path) -> None:
    env = make(tmp_path, container(), port=1).env
    assert env["HOME"] == "/me"
    assert env["PATH"].endswith(":/bin")
    assert "EDITOR" not in env
    assert "AWS_SECRET_ACCESS_KEY" not in env
    assert "STORAGE_MIRRORS" not in env
    assert (env["http_proxy"], env["no_proxy"]) == ("http://gw", "127.0.0.1,localhost,::1")


def test_init_containers_get_credentials_and_no_identity(tmp_path: Path) -> None:
    env = make(tmp_path, container(), init=True).env
    assert env["AWS_SECRET_ACCESS_KEY"] == "k"
    assert env["STORAGE_MIRRORS"] == "s3://a/=file:///b/"
    assert not {"PORT", "K_SERVICE", "K_REVISION"} & env.keys()


def test_servers_that_fetch_themselves_get_credentials(tmp_path: Path) -> None:
    stock = container(spec.Env(name="STORAGE_URI", value="s3://a/b"))
    assert make(tmp_path, stock, port=1).env["AWS_SECRET_ACCESS_KEY"] == "k"


def test_variables_refer_to_earlier_ones(tmp_path: Path) -> None:
    made = make(
        tmp_path,
        container(
            spec.Env(name="ONE", value="1"),
            spec.Env(name="TWO", value="$(ONE)2 $(LATER) $$(ONE)"),
            spec.Env(name="LATER", value="x"),
        ),
    )
    assert made.env["TWO"] == "12 $(LATER) $(ONE)"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"secretKeyRef": {"name": "s", "key": "key"}}, "secret"),
        ({"configMapKeyRef": {"name": "c", "key": "A"}}, "1"),
        ({"fieldRef": {"fieldPath": "metadata.name"}}, "p-1"),
        ({"fieldRef": {"fieldPath": "metadata.labels['team']"}}, "a"),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "127.0.0.1"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "2"),
    ],
)
def test_values_from_elsewhere(tmp_path: Path, source: dict[str, object], value: str) -> None:
    limits = spec.Resources(cpu_limit_m=1500)
    made = make(tmp_path, container(spec.Env(name="X", source=source), resources=limits))
    assert made.env["X"] == value


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "s", "key": "nope"}}, "has no key nope"),
        ({"configMapKeyRef": {"name": "nope", "key": "k"}}, "configMapKeyRef ns/nope"),
        ({"fieldRef": {"fieldPath": "spec.hostIPC"}}, "means nothing on this machine"),
    ],
)
def test_references_that_do_not_resolve(
    tmp_path: Path, source: dict[str, object], message: str
) -> None:
    with pytest.raises(PodFailed, match=message):
        make(tmp_path, container(spec.Env(name="X", source=source)))


def test_optional_reference_leaves_the_variable_out(tmp_path: Path) -> None:
    source = {"secretKeyRef": {"name": "s", "key": "nope", "optional": True}}
    assert "X" not in make(tmp_path, container(spec.Env(name="X", source=source))).env


def test_env_from_with_prefix(tmp_path: Path) -> None:
    source = spec.EnvFrom(kind="configMap", name="c", prefix="P_")
    assert make(tmp_path, container(env_from=(source,))).env["P_A"] == "1"
    missing = spec.EnvFrom(kind="secret", name="nope")
    with pytest.raises(PodFailed, match="there is no secret ns/nope"):
        make(tmp_path, container(env_from=(missing,)))


def test_mount_paths_are_mapped_in_the_manifests_values_only(tmp_path: Path) -> None:
    mounts = (spec.Mount(volume="m", path="/tmp"),)
    made = make(tmp_path, container(spec.Env(name="X", value="/tmp/a"), mounts=mounts))
    root = tmp_path.resolve()
    assert made.env["X"] == f"{root}/a"
    assert made.env["TMPDIR"] == str(root)
    assert made.env["TERMINATION_LOG"] == f"{tmp_path}/c.termination"


def test_cpu_limit_tells_numeric_libraries(tmp_path: Path) -> None:
    limited = container(resources=spec.Resources(cpu_limit_m=2500))
    assert make(tmp_path, limited).env["OMP_NUM_THREADS"] == "2"
    chosen = container(
        spec.Env(name="OMP_NUM_THREADS", value="7"), resources=spec.Resources(cpu_limit_m=2500)
    )
    assert make(tmp_path, chosen).env["OMP_NUM_THREADS"] == "7"


def test_routers_pass_the_trace_on(tmp_path: Path) -> None:
    identity = launch.Identity(
        pod="p", namespace="ns", service="g", revision="g-1",
        labels={"turnout.dev/unit": "router-fn"}, annotations={},
    )  # fmt: skip
    mine = container(spec.Env(name="PROPAGATE_HEADERS", value="X-Mine"))
    env = make(tmp_path, mine, identity).env
    assert env["PROPAGATE_HEADERS"] == "X-Mine,Traceparent,Tracestate"
    assert make(tmp_path, container(), identity).env["PROPAGATE_HEADERS"].startswith("Trace")
    assert "PROPAGATE_HEADERS" not in make(tmp_path, container()).env


def test_map_commands_understand_quotes() -> None:
    assert launch.split_command("python -c 'a b' \"c d\"") == ("python", "-c", "a b", "c d")
    with pytest.raises(ValueError, match="quot"):
        launch.split_command("python 'oops")
