"""Archives that nobody should unpack, and those that everybody should."""

import errno
import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from storage_initializer import archive, items
from storage_initializer.errors import UnsafeArchive, UnsafePath
from storage_initializer.providers import oci_layers
from storage_initializer.retry import Control
from storage_initializer.settings import Settings


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


MEMBERS = {f"part-{n}": random.Random(n).randbytes(5000) for n in range(6)}


def pack(kind: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]
        for name, data in MEMBERS.items():
            tar.addfile(info(name, size=len(data)), io.BytesIO(data))
    return packed.getvalue()


def refused(path: Path, data: bytes, tree: Path) -> str:
    path.write_bytes(data)
    tree.mkdir()
    with pytest.raises(UnsafeArchive) as caught:
        archive.unpack(path, tree, limits(path.name, packed=len(data)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_every_damaged_byte_of_a_compressed_tar_is_noticed(kind: str, tmp_path: Path) -> None:
    """The checksum is behind the last member: a tar must be read to the very end."""
    good = pack(kind)
    for number in range(40):
        bad = bytearray(good)
        bad[10 + number * (len(good) - 11) // 40] ^= 0x55  # (byte 4 to 9 of gzip: the time)
        refused(tmp_path / f"m.tar.{kind}", bytes(bad), tmp_path / f"{number}")
    for number, cut in enumerate((1, 9, len(good) // 2, len(good) - 20)):
        refused(tmp_path / f"m.tar.{kind}", good[:-cut], tmp_path / f"cut-{number}")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda data: data[:16896] + b"Z" * 100 + data[16996:], "header is damaged"),
        (lambda data: data[:16896], "its end is missing"),
        (lambda data: data[:16900], "header is damaged"),
        (lambda data: data[:16000], "unexpected end"),
        (lambda data: b"<html>" + data, "no tar"),
        (lambda data: b"", "no tar"),
    ],
)
def test_a_plain_tar_that_is_cut_or_damaged_is_no_shorter_one(
    change: Callable[[bytes], bytes], cause: str, tmp_path: Path
) -> None:
    """A member takes 512 + 5120 bytes; the fourth begins at 16896."""
    assert cause in refused(tmp_path / "m.tar", change(pack("")), tmp_path / "t")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    long = info("long", tarfile.GNUTYPE_LONGNAME, size=1 << 40).tobuf(tarfile.GNU_FORMAT)
    data = info("a").tobuf() + long + bytes(10240)
    assert "an extended header of" in refused(tmp_path / "m.tar", data, tmp_path / "t")


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        ([info("a"), info("a", tarfile.LNKTYPE, "a")], "hard link"),
        ([info("d/x"), info("d", tarfile.LNKTYPE, "d/x")], "file and a directory"),
        ([info("a"), info("a", tarfile.DIRTYPE)], "file and a directory"),
        ([info("d/x"), info("d", tarfile.SYMTYPE, "x")], "file and a directory"),
        ([info("a", tarfile.SYMTYPE, "d/x"), info("d/x"), info("a/", tarfile.DIRTYPE)], "twice"),
        ([info("/".join(["d" * 200] * 30))], "too long"),
    ],
)
def test_members_that_cannot_be_together_are_the_archives_fault(
    members: list[tarfile.TarInfo], cause: str, tmp_path: Path
) -> None:
    path = make_tar(tmp_path / "m.tar.gz", *members)
    assert cause in refused(path, path.read_bytes(), tmp_path / "t")


def test_a_hard_link_to_a_symbolic_link_is_one_too(tmp_path: Path) -> None:
    path = make_tar(
        tmp_path / "m.tar.gz", info("a"), info("s", tarfile.SYMTYPE, "a"),
        info("h", tarfile.LNKTYPE, "s"),
    )  # fmt: skip
    assert unpack(path, tmp_path / "t") == {"a": "data", "s": "a", "h": "a"}


def test_a_volume_without_hard_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", refuse)
    path = make_tar(tmp_path / "m.tar.gz", info("a"), info("h", tarfile.LNKTYPE, "a"))
    assert unpack(path, tmp_path / "t") == {"a": "data", "h": "data"}


def test_a_damaged_lzma_member_of_a_zip_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a", MEMBERS["part-0"])
    bad = bytearray(path.read_bytes())
    bad[500:600] = bytes(100)
    assert "damaged" in refused(path, bytes(bad), tmp_path / "t")


# --- image layers --------------------------------------------------------------------------------


def apply(tmp_path: Path, *layers: list[tarfile.TarInfo]) -> dict[str, str]:
    """The tree below /models of an image with these layers; links as their targets."""
    raw = tmp_path / "deep" / "staging" / "tree" / oci_layers.RAW
    raw.mkdir(parents=True)
    paths = [make_tar(raw / f"{n}", *members) for n, members in enumerate(layers)]
    control = Control(attempts=1, back_off_s=0, back_off_max_s=0)
    out = oci_layers.apply("oci://r/m", raw.parent, paths, Settings(), control)
    found = [path for path in out.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        path.relative_to(out).as_posix(): os.readlink(path) if path.is_symlink() else "file"
        for path in found
    }


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([[info("models/m")], [info("models/l", tarfile.SYMTYPE, "m")]], {"m": "file", "l": "m"}),
        ([[info("models/a/m")], [info("models/a")]], {"a": "file"}),
        ([[info("models/a")], [info("models/a", tarfile.DIRTYPE), info("models/a/n")]],
         {"a/n": "file"}),
        ([[info("models/z"), info("models/a", tarfile.SYMTYPE, "z")], [info("models/a")]],
         {"z": "file", "a": "file"}),
        ([[info("models/a/m")], [info("models/a/.wh..wh..opq"), info("models/a/n")]],
         {"a/n": "file"}),
        ([[info("models/a/m")], [info(".wh.models"), info("models/n")]], {"n": "file"}),
        ([[info("models/m")], [info("./models/h"), info("h", tarfile.LNKTYPE, "models/h")]],
         {"m": "file", "h": "file"}),
    ],
    ids=["links-only", "file-over-directory", "directory-over-file", "file-over-link", "opaque",
         "all-removed", "hard-link-elsewhere"],
)  # fmt: skip
def test_layers_lie_over_each_other(
    layers: list[list[tarfile.TarInfo]], expected: dict[str, str], tmp_path: Path
) -> None:
    assert apply(tmp_path, *layers) == expected


def test_no_layer_writes_through_the_links_of_another(tmp_path: Path) -> None:
    """`b` is harmless until `c` exists; then it leads out, and the third layer would follow."""
    first = [info("models/x"), info("models/b", tarfile.SYMTYPE, "c/..")]
    second = [info("models/c", tarfile.SYMTYPE, "."), info("models/m")]
    with pytest.raises(UnsafeArchive, match="below a file or link"):
        apply(tmp_path, first, second, [info("models/b/evil")])
    assert not list(tmp_path.rglob("evil"))


def test_a_whiteout_removes_nothing_outside(tmp_path: Path) -> None:
    with pytest.raises(UnsafePath, match="leads out"):
        apply(tmp_path, [info("models/a/m")], [info("models/a/.wh...")])
