"""Small pure parts: CPU quota, faults, hooks, JSON, events, metrics, versions, archives,
detection."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functions import answers, artifacts, cpu, faults, hooks, jsonio, loader, metrics
from functions.codec_v1 import decode, encode
from functions.errors import (
    AmbiguousArtifact,
    InvalidRequest,
    LoadFailed,
    ModelFailed,
    NoArtifact,
    NotSupported,
)
from functions.model import Call
from functions.runtimes import files, mar, versions
from functions.settings import Settings
from functions.wire import tensorflow

SETTINGS = Settings.from_env({}, ["--model-dir", "/m"])

# --- CPU quota


@pytest.mark.parametrize(
    ("files", "cgroup", "expected"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"cpu.max": "400000 100000", "pod/cpu.max": "50000 100000"}, "0::/pod/c", 0.5),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/", 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/", None),
        (
            {
                "cpu,cpuacct/k/cpu.cfs_quota_us": "10000",
                "cpu,cpuacct/k/cpu.cfs_period_us": "100000",
            },
            "4:cpu,cpuacct:/k",
            0.1,
        ),
        ({"cpu.max": "nonsense"}, "garbage", None),
        ({}, "0::/../..", None),
    ],
)
def test_cpu_quota(
    tmp_path: Path, files: dict[str, str], cgroup: str, expected: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    own = tmp_path / "self"
    own.write_text(cgroup + "\n")
    assert cpu.quota_cpus(tmp_path, own) == expected


def test_a_quota_below_one_core_is_one_thread() -> None:
    assert cpu.usable_cpus(0.1) == 1


# --- faults


class WithStatus(Exception):
    def __init__(self, **attributes: Any) -> None:
        super().__init__("its text")
        vars(self).update(attributes)


def pil_fault() -> Exception:
    from PIL import Image

    try:
        Image.open(io.BytesIO(b"no image"))
    except Exception as exc:
        return exc
    raise AssertionError


def truncated_image() -> Exception:
    from PIL import Image

    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "PNG")
    try:
        Image.open(io.BytesIO(whole.getvalue()[:60])).load()
    except Exception as exc:
        return exc
    raise AssertionError


def unicode_fault() -> Exception:
    try:
        b"\xff".decode()
    except UnicodeDecodeError as exc:
        return exc
    raise AssertionError


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (InvalidRequest("x"), 400),
        (NotSupported("x"), 501),
        (WithStatus(status_code=418), 418),
        (WithStatus(error_code=422), 422),
        (WithStatus(http_status=503), 503),
        (WithStatus(code=404), 404),
        (WithStatus(code=200), 500),
        (WithStatus(code="404"), 500),
        (WithStatus(code=True), 500),
        (KeyError("instances"), 400),
        (KeyError("other"), 500),
        (ValueError("x"), 500),
        (OSError("disk"), 500),
        (NotImplementedError(), 501),
        (SystemExit(1), 500),
        (json.JSONDecodeError("x", "y", 0), 400),
        (unicode_fault(), 400),
        (pil_fault(), 400),
        (truncated_image(), 400),
    ],
    ids=lambda value: repr(value).partition(" <")[0],  # no addresses: they differ between processes
)
def test_whose_fault_it_was(exc: BaseException, status: int) -> None:
    found = faults.classify(exc, "m")
    assert found.http_status() == status
    if status == 500:
        assert isinstance(found, ModelFailed)
        assert "its text" not in str(found)


# --- hooks and loading


def test_hooks_get_as_many_arguments_as_they_take() -> None:
    assert hooks.trimmed(lambda a: [a])(1, 2, 3) == [1]
    assert hooks.trimmed(lambda a, b=None: [a, b])(1, 2, 3) == [1, 2]
    assert hooks.trimmed(lambda *a: list(a))(1, 2, 3) == [1, 2, 3]


def test_a_type_error_of_user_code_does_not_call_it_twice() -> None:
    calls = []

    def hook(payload: Any) -> None:
        calls.append(payload)
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        hooks.trimmed(hook)(1, {}, {})
    assert calls == [1]


def test_construction_offers_what_the_class_names() -> None:
    class Wants:
        def __init__(self, name: str, depth: int = 1) -> None:
            self.seen = (name, depth)

    assert hooks.construct(Wants, {"name": "m", "model_dir": "/d"}, {"depth": 3}).seen == ("m", 3)
    with pytest.raises(LoadFailed, match="takes no parameter 'width'"):
        hooks.construct(Wants, {"name": "m"}, {"width": 1})
    with pytest.raises(LoadFailed, match="needs name"):
        hooks.construct(Wants, {}, {})


def test_references_to_user_code(tmp_path: Path) -> None:
    (tmp_path / "references_of_test.py").write_text(
        "class Base:\n  def predict(self, x): return x\nclass A(Base): pass\nclass Inner:\n "
        " class B:\n    def predict(self, x): return x\n"
    )
    for reference in (
        "references_of_test:A",
        "references_of_test.A",
        "references_of_test.py:A",
        "references_of_test",
    ):
        assert loader.load_object(reference, tmp_path).__name__ == "A"
    assert loader.load_object("references_of_test:Inner.B", tmp_path).__name__ == "B"
    with pytest.raises(LoadFailed, match="has no 'C'"):
        loader.load_object("references_of_test:C", tmp_path)
    with pytest.raises(NoArtifact, match="nowhere_to_be_found"):
        loader.load_object("nowhere_to_be_found:C", tmp_path)


def test_models_with_modules_of_the_same_name_keep_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name_here.py").write_text(f"WHO = {name!r}")
        source = "import same_name_here\ndef predict(x): return same_name_here.WHO\n"
        (tmp_path / name / "model_of_same_name.py").write_text(source)
    files = [tmp_path / name / "model_of_same_name.py" for name in ("one", "two")]
    first, second = (loader.load_file(file) for file in files)
    assert (first.predict(0), second.predict(0)) == ("one", "two")
    assert json.__name__ == "json"  # nothing else is forgotten


# --- JSON and events


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": np.float32(0.2)}, b'{"a":0.2}'),
        ([np.arange(4).reshape(2, 2).T], b"[[[0,2],[1,3]]]"),
        ({1: {2}}, b'{"1":[2]}'),
        ([b"text", float("nan")], b'["text",null]'),
        ([np.int64(7), np.bool_(True)], b"[7,true]"),
    ],
)
def test_json_of_what_models_return(value: Any, expected: bytes) -> None:
    assert jsonio.dumps(value) == expected


def test_values_without_a_json_form_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        jsonio.dumps([object()])
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        jsonio.dumps([b"\xff"])


def test_merged_events_keep_the_requests_extensions() -> None:
    settings = Settings.from_env(
        {"CE_MERGE": "true", "CE_TYPE": "my.type", "CE_SOURCE": "/mine"}, ["--model-dir", "/m"]
    )
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/s",
        "ce-type": "t",
        "ce-color": "red",
        "ce-time": "x",
    }
    call = Call(headers)
    assert decode(b'{"instances":[]}', headers, True, call) == {"instances": []}
    answer: Any = encode({"predictions": []}, "m", call, settings)
    assert answer.headers["ce-color"] == "red"
    assert (answer.headers["ce-type"], answer.headers["ce-source"]) == ("my.type", "/mine")
    assert answer.headers["ce-id"] != "1"
    assert answer.headers["ce-time"] != "x"


def test_merged_attributes_of_structured_events_keep_their_types() -> None:
    settings = Settings.from_env({"CE_MERGE": "true"}, ["--model-dir", "/m"])
    headers = {"content-type": "application/cloudevents+json"}
    event = (
        b'{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "n": 4, "flag": true,'
        b' "data": {"instances": []}}'
    )
    call = Call(headers)
    decode(event, headers, True, call)
    answer: Any = encode({"predictions": []}, "m", call, settings)
    reply = jsonio.loads(answer.body)
    assert (reply["n"], reply["flag"]) == (4, True)


def test_undecodable_event_data_reaches_the_model_as_bytes() -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
    assert decode(b"\xff\xd8", headers, None, Call(headers)) == b"\xff\xd8"


# --- metrics


def test_metrics_of_siblings_are_added_up(tmp_path: Path) -> None:
    ours, theirs = metrics.Registry(tmp_path), metrics.Registry(tmp_path)
    theirs.model("m").observe("v1", 200, {"predict": 0.004})
    theirs.share()
    (file,) = tmp_path.glob("*.json")
    file.rename(tmp_path / "99999999.json")  # a worker that has died: counters stay
    ours.model("m").observe("v1", 200, {"predict": 0.2, "queue": 0.0001})
    text = ours.render().decode()
    assert 'turnout_requests_total{model_name="m",protocol="v1",code="200"} 2' in text
    assert 'request_predict_seconds_bucket{model_name="m",le="0.005"} 1' in text
    assert 'request_predict_seconds_bucket{model_name="m",le="+Inf"} 2' in text
    assert 'request_predict_seconds_count{model_name="m"} 2' in text


def test_label_values_are_escaped() -> None:
    registry = metrics.Registry()
    registry.model('a"\\\n').observe("v1", 200, {})
    assert 'model_name="a\\"\\\\\\n"' in registry.render().decode()


# --- TensorFlow's versions


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [("latest", {3}), ("latest:2", {2, 3}), ("all", {1, 2, 3}), ("specific:1,3,9", {1, 3})],
)
def test_version_policies(policy: str, chosen: set[int]) -> None:
    assert versions.Policy.parse(policy).choose([1, 3, 2]) == chosen


@pytest.mark.parametrize("text", ["newest", "latest:0", "latest:x", "specific:", "all:1"])
def test_bad_version_policies(text: str) -> None:
    with pytest.raises(LoadFailed, match="expected latest:N"):
        versions.Policy.parse(text)


def test_versions_are_whole_integer_names(tmp_path: Path) -> None:
    for name in ("1", "00000123", "2b", "-1", "x", "٣"):
        (tmp_path / name).mkdir()
    assert set(versions.scan(tmp_path)) == {1, 123}
    (tmp_path / "saved_model.pb").touch()
    assert versions.scan(tmp_path) == {1: tmp_path}


def test_a_version_is_settled_when_two_looks_agree(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    settling = versions.Settling()
    assert settling.settled({1: folder}) == set()  # no graph yet
    (folder / "saved_model.pb").write_bytes(b"half")
    assert settling.settled({1: folder}) == set()
    (folder / "saved_model.pb").write_bytes(b"half and more")
    assert settling.settled({1: folder}) == set()
    assert settling.settled({1: folder}) == {1}
    (folder / "variables").mkdir()  # weights are on their way
    assert settling.settled({1: folder}) == set()


# --- TensorFlow Serving's REST


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/models/m:predict", ("m", "", "", "predict")),
        ("POST", "/V1/Models/m/Versions/007:Regress", ("m", "7", "", "regress")),
        ("POST", "/v1/models/m%20n/labels/stable:classify", ("m n", "", "stable", "classify")),
        ("GET", "/v1/models/m", ("m", "", "", "status")),
        ("GET", "/v1/models/m/versions/2/metadata", ("m", "2", "", "metadata")),
    ],
)
def test_tensorflow_paths(method: str, path: str, expected: tuple[str, ...]) -> None:
    target = tensorflow.parse_path(method, path)
    assert (target.model, target.version, target.label, target.action) == expected


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/m:predict"),
        ("POST", "/v1/models/m/metadata"),
        ("POST", "/v1/models/m/versions/x:predict"),
        ("POST", "/v1/models/m/versions/1/labels/a:predict"),
        ("GET", "/v1/other"),
        ("DELETE", "/v1/models/m"),
        ("GET", "/v1/models"),
        ("POST", f"/v1/models/m/versions/{1 << 63}:predict"),
    ],
)
def test_malformed_tensorflow_paths(method: str, path: str) -> None:
    with pytest.raises(tensorflow.Malformed, match=r"Malformed request|Missing model name"):
        tensorflow.parse_path(method, path)


def test_tensorflow_json_reads_what_json_does_not() -> None:
    assert tensorflow.parse_json(b'{"instances": [NaN, Infinity]} trailing')["instances"][
        1
    ] == float("inf")
    for bad in (b"", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(tensorflow.Malformed, match="JSON Parse error"):
            tensorflow.parse_json(bad)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([80], "int64_list"),
        ([80.0], "float_list"),
        (["a"], "bytes_list"),
        ([{"b64": "aGk="}], "bytes_list"),
        ([True], "int64_list"),
        ([], "int64_list"),
    ],
)
def test_the_kind_of_a_feature_follows_its_first_element(values: list[Any], kind: str) -> None:
    assert tensorflow.feature_kind(values)[0] == kind


@pytest.mark.parametrize(
    "values", [[None], [[1]], [1, 1.5], ["a", 1], [1 << 63], [{"b64": "*"}], [{"x": 1}]]
)
def test_bad_features(values: list[Any]) -> None:
    with pytest.raises(tensorflow.Malformed, match=r"."):
        tensorflow.feature_kind(values)


def test_rows_and_columns() -> None:
    assert tensorflow.rows_to_columns([1, 2], ["x"]) == {"x": [1, 2]}
    assert tensorflow.rows_to_columns([{"b64": "aGk="}], ["x"]) == {"x": [{"b64": "aGk="}]}
    assert tensorflow.rows_to_columns([{"a": 1, "b": 2}], ["a", "b"]) == {"a": [1], "b": [2]}
    assert tensorflow.column_values({"a": 1, "b": 2, "c": 3}, ["a", "b"]) == {"a": 1, "b": 2}
    for instances, names in (
        ([], ["x"]),
        ("x", ["x"]),
        ([1], ["a", "b"]),
        ([1, {"a": 1}], ["a"]),
        ([{"a": 1}], ["a", "b"]),
        ([{"a": 1}, 2], ["a"]),
    ):
        with pytest.raises(tensorflow.Malformed, match=r"."):
            tensorflow.rows_to_columns(instances, names)
    for inputs in ({"a": 1}, 3):
        with pytest.raises(tensorflow.Malformed, match=r"."):
            tensorflow.column_values(inputs, ["a", "b"])


# --- archives and detection


def make_zip(path: Path, entries: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, text in entries.items():
            bundle.writestr(name, text)
    return path


GOOD = {"MAR-INF/MANIFEST.json": '{"model": {"handler": "h.py"}}', "h.py": ""}


def test_archives_are_unpacked_and_removed_again(tmp_path: Path) -> None:
    unpacked = mar.unpack(make_zip(tmp_path / "m.mar", GOOD))
    assert (unpacked.directory / "h.py").exists()
    assert unpacked.model["handler"] == "h.py"
    unpacked.close()
    assert not unpacked.directory.exists()


def test_archives_in_the_other_formats(tmp_path: Path) -> None:
    for name, text in GOOD.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text(text)
    assert mar.find(tmp_path / "folder", "m") == tmp_path / "folder"
    kept = mar.unpack(tmp_path / "folder")
    kept.close()
    assert kept.directory.exists()
    with tarfile.open(tmp_path / "m.mar", "w:gz") as tar:
        tar.add(tmp_path / "folder", ".")
    mar.unpack(tmp_path / "m.mar").close()


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "a/../../evil"])
def test_entries_outside_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadFailed, match="outside itself"):
        mar.unpack(make_zip(tmp_path / "m.mar", {**GOOD, name: "x"}))


def test_links_in_an_archive_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.mar"
    with zipfile.ZipFile(path, "w") as bundle:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        bundle.writestr(link, "/etc/passwd")
    with pytest.raises(LoadFailed, match="outside itself"):
        mar.unpack(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no archive at all", "neither a zip nor a tar"), (b"", "neither a zip nor a tar")],
)
def test_what_is_no_archive_says_so(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "m.mar").write_bytes(content)
    with pytest.raises(LoadFailed, match=reason):
        mar.unpack(tmp_path / "m.mar")


@pytest.mark.parametrize(
    ("manifest", "kind", "reason"),
    [
        (None, NoArtifact, "is missing"),
        ("{", LoadFailed, "not JSON"),
        ("[]", LoadFailed, 'no "model"'),
    ],
)
def test_manifests_that_are_none(
    tmp_path: Path, manifest: str | None, kind: type[Exception], reason: str
) -> None:
    entries = {"x": ""} if manifest is None else {"MAR-INF/MANIFEST.json": manifest}
    with pytest.raises(kind, match=reason):
        mar.unpack(make_zip(tmp_path / "m.mar", entries))


@pytest.mark.parametrize(
    ("names", "runtime"),
    [
        (["a.mar"], "pytorch"),
        (["model-store/a.mar", "config/config.properties"], "pytorch"),
        (["model.pt", "net.py"], "pytorch"),
        (["model.joblib"], "sklearn"),
        (["model.onnx"], "onnx"),
        (["1/saved_model.pb", "2/saved_model.pb"], "tensorflow"),
        (["saved_model.pb"], "tensorflow"),
        (["MLmodel", "model.pkl", "python_env.yaml"], "mlflow"),
        (["config.json", "model.safetensors", "tokenizer.json"], "huggingface"),
        (["model.ubj"], "xgboost"),
        (["model.json={L\x00\x00"], "xgboost"),
        (['model.json={"learner": {'], "xgboost"),
        (['iris.json={"learner": {', "model-settings.json={}"], "xgboost"),
        (["1/model.onnx", "2/model.onnx"], "onnx"),
        (["model.txt=tree\nversion=v4"], "lightgbm"),
        (["model.bst=tree\n"], "lightgbm"),
        (["model.bst=binf"], "xgboost"),
        (["model.py", "helper.py"], "python"),
        (["model.joblib", "transforms.py"], "sklearn"),
        (["model.pt", "model.py"], "pytorch"),
        (["only.py"], "python"),
    ],
)
def test_formats_are_detected(tmp_path: Path, names: list[str], runtime: str) -> None:
    for entry in names:
        name, _, text = entry.partition("=")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert artifacts.detect_runtime(tmp_path, SETTINGS) == runtime


def test_none_or_several_formats_are_named(tmp_path: Path) -> None:
    (tmp_path / "readme.md").touch()
    with pytest.raises(NoArtifact, match=r"readme\.md"):
        artifacts.detect_runtime(tmp_path, SETTINGS)
    (tmp_path / "a.onnx").touch()
    (tmp_path / "a.joblib").touch()
    with pytest.raises(AmbiguousArtifact, match="onnx, sklearn"):
        artifacts.detect_runtime(tmp_path, SETTINGS)
    (tmp_path / "a.onnx").unlink()
    (tmp_path / "model.py").touch()
    with pytest.raises(AmbiguousArtifact, match="sklearn, python"):
        artifacts.detect_runtime(tmp_path, SETTINGS)


def touch(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    return directory


def test_what_lies_beside_a_model_is_no_candidate(tmp_path: Path) -> None:
    about = ["model-settings.json", "warmup.json", "README.txt", "requirements.txt"]
    folder = touch(tmp_path / "a", "iris.json", *about)
    assert files.one_model(folder, (".json", ".txt")).name == "iris.json"
    folder = touch(tmp_path / "b", "old.json", "new.json", *about)
    with pytest.raises(AmbiguousArtifact, match=r"\(new\.json, old\.json\)"):
        files.one_model(folder, (".json", ".txt"))
    (folder / "model-settings.json").write_text('{"parameters": {"uri": "./new.json"}}')
    assert files.one_model(folder, (".json", ".txt")).name == "new.json"


def test_tritons_highest_version_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "2/model.onnx", "10/model.onnx", "11/notes.txt", "12x/model.onnx")
    assert files.newest_version(tmp_path, "*.onnx") == tmp_path / "10"
    assert files.newest_version(tmp_path, "*.pt") is None


def test_an_archive_of_torchserves_store_is_chosen_by_the_models_name(tmp_path: Path) -> None:
    touch(tmp_path, "model-store/cat-dog.mar", "model-store/breed-v2.mar", "config/x")
    snapshot = {"models": {"dog-breed": {"1.0": {"marName": "breed-v2.mar"}}}}
    (tmp_path / "config" / "config.properties").write_text(
        f"inference_address=http://0.0.0.0:8085\nmodel_snapshot={json.dumps(snapshot)}\n"
    )
    for name, archive in (("cat-dog", "cat-dog.mar"), ("dog-breed", "breed-v2.mar")):
        found = mar.find(tmp_path, name)
        assert found is not None
        assert found.name == archive
    with pytest.raises(AmbiguousArtifact, match="none of them is for other"):
        mar.find(tmp_path, "other")


def test_header_fields_of_user_code_cannot_break_the_answer() -> None:
    fields = {
        "x-good": "1", "X-Number": 5, "x-value": "a\r\nx-evil: 1", "x-name\r\nx-evil": "1",
        "x name": "1", "": "1", "content-length": "3", "Connection": "close", "Date": "x",
        "x-euro": "\u20ac",
    }  # fmt: skip
    lines = answers.field_lines(fields)  # type: ignore[arg-type]
    assert lines == b"x-good: 1\r\nX-Number: 5\r\nx-euro: ?\r\n"
