"""Volumes as directories, and mount paths in words."""

from pathlib import Path

import pytest

from knative.local import spec, volumes
from knative.local.errors import PodFailed
from knative.local.volumes import PathMap, Sources, make_volumes


def volume(kind: str, **source: object) -> spec.Volume:
    return spec.Volume(name="v", kind=kind, source=source)  # type: ignore[arg-type]


def mapped(tmp_path: Path, *paths: str) -> PathMap:
    mounts = [spec.Mount(volume=f"v{number}", path=path) for number, path in enumerate(paths)]
    return PathMap(mounts, {mount.volume: tmp_path / mount.volume for mount in mounts})


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/mnt/models", "{0}"),
        ("/mnt/models/cat/1", "{0}/cat/1"),
        ("--dir=/mnt/models", "--dir={0}"),
        ("file:///mnt/models/x", "file://{0}/x"),
        ("/a:/mnt/models:/b", "/a:{0}:/b"),
        ('{"dir": "/mnt/models"}', '{{"dir": "{0}"}}'),
        ("/mnt/models-old", "/mnt/models-old"),
        ("/mnt/models.bak", "/mnt/models.bak"),
        ("/other/mnt/models", "/other/mnt/models"),
        ("http://host/mnt/models", "http://host/mnt/models"),
        ("/mnt/models/deep", "{0}/deep"),
    ],
)
def test_only_whole_prefixes_are_mapped(tmp_path: Path, word: str, expected: str) -> None:
    assert mapped(tmp_path, "/mnt/models")(word) == expected.format(tmp_path.resolve() / "v0")


def test_longest_mount_wins(tmp_path: Path) -> None:
    paths = mapped(tmp_path, "/mnt", "/mnt/models")
    root = tmp_path.resolve()
    assert paths("/mnt/models/x /mnt/other") == f"{root}/v1/x {root}/v0/other"


def test_no_mounts_change_nothing(tmp_path: Path) -> None:
    assert mapped(tmp_path)("/mnt/models") == "/mnt/models"


def test_sub_path(tmp_path: Path) -> None:
    mount = spec.Mount(volume="v", path="/data", sub_path="a/b")
    assert PathMap([mount], {"v": tmp_path})("/data/x") == f"{tmp_path.resolve()}/a/b/x"


def test_secret_files_with_items_and_modes(tmp_path: Path) -> None:
    sources = Sources(secrets={"ns/s": {"key": b"value", "other": b"no"}})
    items = [{"key": "key", "path": "deep/name.txt"}]
    made = make_volumes([volume("secret", secretName="s", items=items)], "ns", tmp_path, sources)
    file = made["v"] / "deep" / "name.txt"
    assert file.read_bytes() == b"value"
    assert file.stat().st_mode & 0o777 == 0o600
    assert not (made["v"] / "other").exists()


def test_projected_volume_joins_sources(tmp_path: Path) -> None:
    sources = Sources(secrets={"ns/s": {"a": b"1"}}, config_maps={"ns/c": {"b": b"2"}})
    projected = volume(
        "projected", sources=[{"secret": {"name": "s"}}, {"configMap": {"name": "c"}}]
    )
    made = make_volumes([projected], "ns", tmp_path, sources)
    assert sorted(file.name for file in made["v"].iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (volume("secret", secretName="nope"), "there is no secret ns/nope"),
        (volume("configMap", name="c", items=[{"key": "x", "path": "y"}]), "no key x"),
        (volume("configMap", name="c", items=[{"key": "b", "path": "../../y"}]), "leaves the"),
        (volume("image", reference="repo/model:1"), "OCI image"),
        (volume("pvc", claimName="mapped"), "no such directory"),
    ],
)
def test_what_cannot_be_mounted(tmp_path: Path, made: spec.Volume, message: str) -> None:
    sources = Sources(config_maps={"ns/c": {"b": b"2"}}, claims={"mapped": tmp_path / "missing"})
    with pytest.raises(PodFailed, match=message):
        make_volumes([made], "ns", tmp_path, sources)


def test_optional_and_claims(tmp_path: Path) -> None:
    sources = Sources(claims={"ns/data": tmp_path}, claims_dir=tmp_path / "claims")
    optional = make_volumes(
        [volume("secret", secretName="x", optional=True)], "ns", tmp_path, sources
    )
    assert list(optional["v"].iterdir()) == []
    mapped_claim = make_volumes([volume("pvc", claimName="data")], "ns", tmp_path, sources)
    assert mapped_claim["v"] == tmp_path.resolve()
    own = make_volumes([volume("pvc", claimName="own")], "ns", tmp_path, sources)
    assert own["v"] == (tmp_path / "claims" / "ns" / "own").resolve()


def test_what_is_below_tmp_on_this_machine_is_meant_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "tmp"
    monkeypatch.setattr(volumes, "SHARED_PATH", str(shared))
    (shared / "model").mkdir(parents=True)
    (shared / "both").mkdir()
    path = mapped(tmp_path, str(shared))
    volume_dir = Path(path(str(shared)))
    (volume_dir / "both").mkdir(parents=True)
    assert volume_dir != shared
    assert path(f"file://{shared}/model") == f"file://{shared}/model"
    assert path(f"{shared}/model") == f"{shared}/model"
    assert path(f"file://{shared}/missing.mar") == f"file://{shared}/missing.mar"
    assert path(f"--log={shared}/new.log") == f"--log={volume_dir}/new.log"
    assert path(f"{shared}/both") == f"{volume_dir}/both"
    assert path(f"{shared}/") == f"{volume_dir}/"
