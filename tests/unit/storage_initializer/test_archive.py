"""Archives that nobody should unpack, and those that everybody should."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from storage_initializer import archive, items
from storage_initializer.errors import UnsafeArchive
from storage_initializer.retry import Control


def limits(name: str, **options: int) -> archive.Limits:
    defaults = {"packed": 1000, "max_bytes": 1 << 30, "max_files": 100, "max_ratio": 200}
    control = Control(attempts=1, back_off_s=0, back_off_max_s=0)
    return archive.Limits(archive=name, control=control, **{**defaults, **options})


def info(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def make_tar(path: Path, *members: tarfile.TarInfo, data: bytes = b"data") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if member.isreg():
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            else:
                tar.addfile(member)
    return path


def unpack(path: Path, tree: Path, **options: int) -> dict[str, str]:
    tree.mkdir(exist_ok=True)
    files, links = archive.unpack(path, tree, limits(path.name, **options))
    return {record.path: (tree / record.path).read_text() for record in files} | links


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        ([info("/etc/passwd")], "absolute"),
        ([info("../evil")], "leads out"),
        ([info("a/../../evil")], "leads out"),
        ([info("a", tarfile.SYMTYPE, "/etc")], "leads out"),
        ([info("a/b", tarfile.SYMTYPE, "../../etc")], "leads out"),
        ([info("a", tarfile.SYMTYPE, "b"), info("a/x")], "below a file or link"),
        ([info("a", tarfile.SYMTYPE, "b"), info("b", tarfile.SYMTYPE, "..")], "leads out"),
        ([info("a"), info("a/x")], "below a file or link"),
        ([info("a", tarfile.LNKTYPE, "nowhere")], "which is not there"),
        ([info("a", tarfile.LNKTYPE, "../x")], "leads out"),
        ([info("a", tarfile.CHRTYPE)], "device"),
        ([info("a", tarfile.FIFOTYPE)], "device"),
        ([info("a\\b")], "backslash"),
        ([info("d", tarfile.DIRTYPE)], "holds no file"),
        ([info("d/x"), info("d")], "file and a directory"),
    ],
)
def test_a_tar_that_reaches_out_is_refused_whole(
    tmp_path: Path, members: list[tarfile.TarInfo], cause: str
) -> None:
    path = make_tar(tmp_path / "m.tar.gz", *members)
    with pytest.raises(UnsafeArchive, match=cause):
        unpack(path, tmp_path / "tree")
    assert not (tmp_path / "evil").exists()


def test_a_tar_with_inner_links_directories_and_repeats(tmp_path: Path) -> None:
    path = make_tar(
        tmp_path / "m.tar.gz",
        info("./", tarfile.DIRTYPE),
        info("./model/1/weights.bin"),
        info("model/latest", tarfile.SYMTYPE, "1"),
        info("model/copy.bin", tarfile.LNKTYPE, "model/1/weights.bin"),
        info("model/empty-dir", tarfile.DIRTYPE),
        info("model/1/weights.bin"),
    )
    assert unpack(path, tmp_path / "tree") == {
        "model/1/weights.bin": "data",
        "model/copy.bin": "data",
        "model/latest": "1",
    }
    assert (tmp_path / "tree/model/latest/weights.bin").read_text() == "data"
    assert (tmp_path / "tree/model/empty-dir").is_dir()


def test_special_permission_bits_and_owners_are_dropped(tmp_path: Path) -> None:
    member = info("run.sh")
    member.mode, member.uid = 0o6777, 4242
    path = make_tar(tmp_path / "m.tar.gz", member)
    unpack(path, tmp_path / "tree")
    status = (tmp_path / "tree/run.sh").stat()
    assert status.st_mode & 0o7022 == 0
    assert status.st_mode & 0o100
    assert status.st_uid != 4242


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"max_bytes": 1000}, "STORAGE_UNPACK_MAX_BYTES"),
        ({"max_files": 2}, "STORAGE_UNPACK_MAX_FILES"),
        ({"max_ratio": 5}, "STORAGE_UNPACK_MAX_RATIO"),
    ],
)
def test_bombs_are_defused(
    tmp_path: Path, options: dict[str, int], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "RATIO_FROM", 1000)
    members = [info(f"{number}") for number in range(3)]
    path = make_tar(tmp_path / "m.tar.gz", *members, data=b"\0" * 5000)
    with pytest.raises(UnsafeArchive, match=cause):
        unpack(path, tmp_path / "tree", **options)


def test_a_damaged_archive_is_an_error_of_ours(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "m.tar.gz", info("a"), data=bytes(range(256)) * 40)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not an archive", b"", whole[:20] + b"x" * 50):
        path.write_bytes(damaged)
        with pytest.raises(UnsafeArchive):
            unpack(path, tmp_path / "tree")


def test_a_zip_and_what_a_zip_may_not_do(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("model/weights.bin", "data")
        packed.writestr("model/dir/", "")
        link = zipfile.ZipInfo("model/latest")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "weights.bin")
    assert unpack(path, tmp_path / "tree") == {
        "model/weights.bin": "data",
        "model/latest": "weights.bin",
    }
    for name, attributes, content in (
        ("../evil", 0, "x"),
        ("/evil", 0, "x"),
        ("link", 0o120777 << 16, "/etc/passwd"),
        ("pipe", 0o010644 << 16, ""),
    ):
        with zipfile.ZipFile(path, "w") as packed:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = attributes
            packed.writestr(entry, content)
        with pytest.raises(UnsafeArchive):
            unpack(path, tmp_path / "other")
    assert not (tmp_path / "evil").exists()


def test_a_zip_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("weights.bin", "data-data-data")
    path.write_bytes(path.read_bytes().replace(b"data-data-data", b"data-dirt-data"))
    with pytest.raises(UnsafeArchive, match="CRC"):
        unpack(path, tmp_path / "tree")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.tar", True), ("MODEL.TGZ", True), ("m.tar.gz", True), ("m.tar.xz", True),
        ("m.zip", True), ("m.mar", False), ("m.gz", False), ("m.bin", False), ("tar", False),
    ],
)  # fmt: skip
def test_archives_are_known_by_their_names(name: str, expected: bool) -> None:
    assert items.is_archive(name) is expected
