"""Names, quantities, durations, orders, traffic: small pure functions as tables."""

import pytest

from knative import errors, keys, names, order
from knative.api import problems, scaling
from knative.cluster import state, traffic
from knative.resources import container, quantity, servers, storage


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pets", "pets-predictor"), ("x" * 63, "x" * 54 + "-"), ("a" * 53 + "-b", "a" * 53 + "-")],
)
def test_derived_names_fit_a_dns_label(name: str, expected: str) -> None:
    derived = names.predictor(name)
    assert derived.startswith(expected)
    assert len(derived) <= 63
    assert "--" not in derived


def test_long_names_stay_different() -> None:
    assert names.predictor("x" * 60 + "aaa") != names.predictor("x" * 60 + "bbb")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", 0.5),
        ("2Gi", 2**31),
        ("1k", 1000.0),
        (3, 3.0),
        ("1.5M", 1.5e6),
        ("x", None),
        ("1K", None),
    ],
)
def test_quantities(text: object, number: float | None) -> None:
    assert quantity.parse(text) == number


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1m30s", 90), ("1.5h", 5400), ("0", 0)]
)
def test_go_durations(text: str, seconds: float) -> None:
    assert scaling.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1 m", "-5s", "s"])
def test_bad_go_durations(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (no message: the caller says what it expects)
        scaling.duration_s(text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("spec", "nodes", "root", "steps", 1, "condition"), "spec.nodes.root.steps[1].condition"),
        (("metadata", "annotations", "a.b/c"), "metadata.annotations[a.b/c]"),
        ((), ""),
    ],
)
def test_paths_render_and_parse(path: problems.Path, text: str) -> None:
    assert problems.render(path) == text
    assert problems.parse(text) == path


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("storageURL", ' (did you mean "storageUri"?)'),
        ("minreplicas", ' (did you mean "minReplicas"?)'),
        ("zzz", ""),
    ],
)
def test_suggestions(word: str, hint: str) -> None:
    assert problems.suggest(word, ["storage", "storageUri", "minReplicas"]) == hint


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("a/b:1", "a/b:2"),
        ("host:5000/a/b", "host:5000/a/b:2"),
        ("a/b@sha256:00", "a/b:2"),
        ("a/b:1@sha256:00", "a/b:2"),
    ],
)
def test_another_tag(reference: str, expected: str) -> None:
    assert servers.with_tag(reference, "2") == expected


@pytest.mark.parametrize(
    ("directories", "expected"),
    [
        (["/mnt/models"], "/mnt/models"),
        (["/mnt/models/a", "/mnt/models/b"], "/mnt/models"),
        (["/mnt/models", "/mnt/models/b"], "/mnt/models"),
        (["/a", "/b"], "/"),
    ],
)
def test_common_directory(directories: list[str], expected: str) -> None:
    assert storage.common_directory(directories) == expected


def test_user_fields_merge_over_ours() -> None:
    base = {
        "name": "kserve-container",
        "args": ["--a"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "resources": {
            "requests": {"cpu": "1", "memory": "2Gi"},
            "limits": {"cpu": "1", "memory": "2Gi"},
        },
        "securityContext": {"runAsNonRoot": True, "readOnlyRootFilesystem": True},
    }
    user = {
        "args": ["--b"],
        "env": [{"name": "C", "value": "3"}, {"name": "A", "value": "9"}],
        "resources": {"limits": {"cpu": "4"}},
        "securityContext": {"readOnlyRootFilesystem": False},
        "command": None,
    }
    merged = container.merge(base, user)
    assert merged["args"] == ["--a", "--b"]
    assert [(e["name"], e["value"]) for e in merged["env"]] == [("A", "9"), ("B", "2"), ("C", "3")]
    assert merged["resources"] == {
        "requests": {"cpu": "4", "memory": "2Gi"},
        "limits": {"cpu": "4", "memory": "2Gi"},
    }
    assert merged["securityContext"] == {"runAsNonRoot": True, "readOnlyRootFilesystem": False}
    assert "command" not in merged


def _service(name: str, calls: str = "") -> dict[str, object]:
    env = [{"name": "U", "value": f"http://{calls}.ns.svc.cluster.local/"}] if calls else []
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"template": {"spec": {"containers": [{"image": "img", "env": env}]}}},
    }


def test_callees_come_before_callers_and_cycles_end() -> None:
    objects = [
        _service("a", "c"),
        _service("b", "a"),
        _service("c"),
        _service("x", "y"),
        _service("y", "x"),
        {"kind": "Trigger", "metadata": {"name": "t", "namespace": "ns"}},
        {"kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}},
    ]
    found = [o["metadata"]["name"] for o in order.ordered(objects)]  # type: ignore[index]
    assert found.index("c") < found.index("a") < found.index("b")
    assert found[0] == "s"
    assert found[-1] == "t"
    assert found == [o["metadata"]["name"] for o in order.ordered(objects[::-1])]  # type: ignore[index]


LIVE = {
    "metadata": {"name": "pets"},
    "spec": {"template": {"v": 1}, "traffic": [{"latestRevision": True, "percent": 100}]},
    "status": {"latestReadyRevisionName": "pets-00001"},
}


def _canary(percent: str = "10") -> dict[str, object]:
    return {
        "kind": "Service",
        "metadata": {"name": "pets", "annotations": {keys.CANARY_PERCENT: percent}},
        "spec": {"template": {"v": 2}},
    }


def test_a_canary_splits_with_the_revision_that_was_ready() -> None:
    item = traffic.with_canary(_canary(), LIVE, lambda o: o)
    assert item["spec"]["traffic"] == traffic.split("pets-00001", 10)


def test_the_first_deployment_has_nothing_to_split_with() -> None:
    assert "traffic" not in traffic.with_canary(_canary(), None, lambda o: o)["spec"]


@pytest.mark.parametrize(("share", "step"), [(0, 10), (10, 50), (50, 100), (100, 100), (25, 50)])
def test_steps(share: int, step: int) -> None:
    live = {**LIVE, "spec": {"traffic": traffic.split("pets-00001", share)}}
    assert traffic.next_step(live) == step


def test_rolling_without_a_canary_says_how_to_begin() -> None:
    with pytest.raises(errors.UsageError, match="canaryTrafficPercent"):
        traffic.rolled(LIVE, 50)
    with pytest.raises(errors.UsageError, match="no canary"):
        traffic.rolled_back(LIVE)


def _pod(**status: object) -> dict[str, object]:
    return {"metadata": {"name": "p"}, "status": status}


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (_pod(phase="Pending"), "pending"),
        (
            _pod(
                phase="Running",
                containerStatuses=[{"name": "c", "ready": True, "state": {"running": {}}}],
            ),
            "running",
        ),
        (
            _pod(phase="Running", containerStatuses=[{"name": "c", "state": {"running": {}}}]),
            "c is starting",
        ),
        (
            _pod(initContainerStatuses=[{"name": "i", "state": {"running": {}}}]),
            "i is running",
        ),
        (
            _pod(
                containerStatuses=[
                    {"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "m"}}}
                ]
            ),
            "c: ErrImagePull (m)",
        ),
        (
            _pod(
                initContainerStatuses=[
                    {"name": "i", "state": {"terminated": {"exitCode": 1, "message": "a\nb"}}}
                ]
            ),
            "i: exit code 1: b",
        ),
        (
            _pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "no node"}]),
            "not scheduled: no node",
        ),
        ({"metadata": {"name": "p", "deletionTimestamp": "x"}, "status": {}}, "stopping"),
    ],
)
def test_what_a_pod_is_doing(pod: dict[str, object], said: str) -> None:
    assert state.pod_reason(pod) == said
