"""`turnout package`: what goes into an archive, when it is made again, what is refused and how."""

import json
import os
import textwrap
import zipfile
from pathlib import Path

import pytest

from knative import errors, model_archive
from knative.cli import main

HANDLER = textwrap.dedent(
    """
    class Echo:
        def initialize(self, context):
            pass

        def handle(self, data, context):
            return data
    """
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "handler.py").write_text(HANDLER)
    (folder / "net.py").write_text("class Net: pass\n")
    (folder / "weights.pth").write_bytes(b"\x00weights" * 1000)
    (folder / "labels.txt").write_text("cat\ndog\n")
    (folder / "model.toml").write_text(
        'name = "echo-1.x"\nversion = "2.0"\nhandler = "handler.py"\nmodel-file = "net.py"\n'
        'weights = "weights.pth"\nextra-files = ["labels.txt"]\n'
    )
    return folder


def _build(model: Path, output: Path, **options: bool) -> model_archive.Built:
    (built,) = model_archive.build([model_archive.read(model / "model.toml")], output, **options)
    return built


def test_the_archive_holds_every_part_and_torch_model_archivers_manifest(
    model: Path, tmp_path: Path
) -> None:
    built = _build(model, tmp_path / "out")
    assert built.path == tmp_path / "out" / "echo-1.x.mar"
    with zipfile.ZipFile(built.path) as mar:
        assert set(mar.namelist()) == {
            "MAR-INF/MANIFEST.json", "handler.py", "net.py", "weights.pth", "labels.txt",
        }  # fmt: skip
        manifest = json.loads(mar.read("MAR-INF/MANIFEST.json"))
        assert mar.read("handler.py").decode() == HANDLER
        # Stored, not deflated: unpacking is part of every cold start.
        assert {entry.compress_type for entry in mar.infolist()} == {zipfile.ZIP_STORED}
    assert manifest["model"] == {
        "modelName": "echo-1.x",
        "modelVersion": "2.0",
        "handler": "handler.py",
        "modelFile": "net.py",
        "serializedFile": "weights.pth",
    }


def test_an_unchanged_archive_is_left_alone_and_any_change_makes_it_again(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert _build(model, out).fresh
    before = (out / "echo-1.x.mar").stat().st_mtime_ns
    assert not _build(model, out).fresh
    assert (out / "echo-1.x.mar").stat().st_mtime_ns == before
    (model / "labels.txt").write_text("cat\nhound\n")
    assert _build(model, out).fresh
    assert not _build(model, out).fresh
    assert _build(model, out, force=True).fresh


def test_the_same_parts_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    first = _build(model, tmp_path / "1").path.read_bytes()
    for path in model.iterdir():
        os.utime(path, (1, 1))
    assert _build(model, tmp_path / "2").path.read_bytes() == first


def test_a_damaged_archive_is_made_again(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = _build(model, out).path
    path.write_bytes(path.read_bytes()[:100])
    assert _build(model, out).fresh
    assert zipfile.ZipFile(path).testzip() is None


def test_nothing_is_left_beside_the_archive(model: Path, tmp_path: Path) -> None:
    _build(model, tmp_path / "out")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["echo-1.x.mar"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ('handler = "absent.py"', "absent.py: no such file"),
        ('handler = "no_such_handler"', "neither a .py file nor a handler of TorchServe"),
        ('extra-files = ["net.py"]', "has the same name; archives are flat"),
        ('extra-files = "labels.txt"', "extra-files: expected list, got str"),
        ("extra-files = [1]", "extra-files: expected a list of file names"),
        ('name = "a/b"', "name: 'a/b' may only have"),
        ('colour = "red"', "colour: unknown key; known are name, version"),
        ('weights = "package:no_such_package/w.pth"', "'no_such_package' is not installed"),
        ('weights = "package:json/no-such.pth"', "no-such.pth: no such file"),
        ("version = 1.0", "version: expected str, got float"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_bad_description_is_refused_with_its_path(model: Path, edit: str, message: str) -> None:
    path = model / "model.toml"
    key = edit.split(" ")[0]
    lines = [line for line in path.read_text().splitlines() if not line.startswith(key)]
    path.write_text("\n".join([*lines, edit]))
    with pytest.raises(errors.ManifestError) as caught:
        model_archive.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_problems_of_a_description_are_named_at_once(model: Path) -> None:
    (model / "model.toml").write_text('version = 1\nhandler = "handler.py"\nflavour = "x"\n')
    with pytest.raises(errors.ManifestError) as caught:
        model_archive.read(model / "model.toml")
    assert len(str(caught.value).splitlines()) == 3


def test_a_handler_that_does_not_parse_is_named_with_its_line(model: Path) -> None:
    (model / "handler.py").write_text("class Echo:\n    def handle(self\n")
    with pytest.raises(errors.ManifestError, match=r"not valid Python.*line"):
        model_archive.read(model / "model.toml")


def test_weights_that_torch_cannot_read_fail_with_its_last_words(
    model: Path, tmp_path: Path
) -> None:
    with (model / "model.toml").open("a") as stream:
        stream.write("resave-weights = true\n")
    with pytest.raises(model_archive.PackagingFailed, match="packing failed"):
        _build(model, tmp_path / "out")


def test_the_command_line_packs_a_folder_and_says_what_it_did(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["package", str(model), "--output", str(tmp_path / "out")]
    assert main.run(argv) == 0
    assert main.run(argv) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(str(tmp_path / "out" / "echo-1.x.mar"))
    assert second.endswith("unchanged")


def test_one_archive_from_options(model: Path, tmp_path: Path) -> None:
    argv = ["package", "--name", "flowers", "--handler", str(model / "handler.py")]
    argv += ["--weights", str(model / "weights.pth"), "--extra-file", str(model / "labels.txt")]
    assert main.run([*argv, "-o", str(tmp_path)]) == 0
    assert zipfile.ZipFile(tmp_path / "flowers.mar").testzip() is None


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 2, "nothing to pack"),
        (["absent"], 2, "no such file or folder"),
        (["."], 2, "no model.toml in this folder"),
        (["--name", "x"], 2, "--name and --handler go together"),
        (["--name", "x", "--handler", "y", "z"], 2, "not both"),
        (["--name", "x", "--handler", "h.py"], 65, "h.py: no such file"),
    ],
)
def test_wrong_usage_says_what_to_do(
    argv: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run(["package", *argv]) == code
    assert message in capsys.readouterr().err
