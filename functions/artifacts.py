"""The model directory: is anything there, fetch it if not, and what format is it?"""

import fcntl
import logging
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import AmbiguousArtifact, LoadFailed, NoArtifact

if TYPE_CHECKING:
    from .settings import Settings

logger = logging.getLogger(__name__)

_OWN_PREFIX = "."
"""Names starting with a dot (done-markers, staging directories) do not make a directory non-empty.
"""


def model_directories(repository: str) -> list[Path]:
    """The model directories in the directory `--repository`; none if that is unset or missing."""
    root = Path(repository)
    if not repository or not root.is_dir():
        return []
    return [
        entry
        for entry in sorted(root.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    ]


def is_empty(directory: Path) -> bool:
    """True when the directory is missing or holds nothing but hidden entries."""
    if directory.is_file():
        return False
    if not directory.is_dir():
        return True
    return not any(not entry.name.startswith(_OWN_PREFIX) for entry in directory.iterdir())


def fetch_if_empty(uri: str, directory: Path, environ: Mapping[str, str]) -> None:
    """Fetch `uri` into `directory` with the storage initializer, unless something is there already.

    Safe with several workers: one fetches, the others wait for it. Raises LoadFailed with the
    initializer's own last line.
    """
    if not is_empty(directory):
        return
    mark = zlib.crc32(str(directory.absolute()).encode())
    lock = Path(tempfile.gettempdir()) / f"turnout-fetch-{mark:x}.lock"
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not is_empty(directory):
            return
        directory.mkdir(parents=True, exist_ok=True)
        logger.info("%s is empty, fetching the model", directory)
        done = subprocess.run(
            [sys.executable, "-m", "storage_initializer", uri, str(directory)],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit code {done.returncode}"
        raise LoadFailed(f"the model could not be fetched: {last}")
    if is_empty(directory):
        raise LoadFailed(f"the model could not be fetched: {directory} is still empty")


def detect_runtime(directory: Path, settings: "Settings") -> str:
    """The runtime whose format the directory holds. Raises NoArtifact or AmbiguousArtifact."""
    if directory.is_file():
        directory = directory.parent
    fitting = [runtime for runtime, fits in _DETECTORS if fits(directory)]
    whole = [runtime for runtime in fitting if runtime in _WHOLE_DIRECTORY]
    if whole:
        fitting = whole
    elif "pytorch" in fitting or not (directory / "model.py").is_file():
        # A Python file beside another format is that format's handler or architecture, but for a
        # model.py, which may as well be a class that loads the other file.
        fitting = [runtime for runtime in fitting if runtime != "python"] or fitting
    if len(fitting) == 1:
        logger.info("%s holds a %s model", directory, fitting[0])
        return fitting[0]
    if not fitting:
        names = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
        listing = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise NoArtifact(
            f"no known model format in {directory} ({listing or 'nothing there'}): give --runtime"
        )
    raise AmbiguousArtifact(
        f"{directory} fits several runtimes ({', '.join(fitting)}): choose one with --runtime"
    )


def _has(*patterns: str) -> Callable[[Path], bool]:
    def fits(directory: Path) -> bool:
        return any(any(directory.glob(pattern)) for pattern in patterns)

    return fits


def _is_python(directory: Path) -> bool:
    files = list(directory.glob("*.py"))
    return (directory / "model.py").is_file() or len(files) == 1


def _is_huggingface(directory: Path) -> bool:
    return (directory / "config.json").is_file() and _has(
        "*.safetensors", "pytorch_model*.bin", "tokenizer*.json", "vocab.txt"
    )(directory)


def _head(directory: Path, *patterns: str) -> list[bytes]:
    """The first bytes of the files that match: formats that share suffixes are told apart by
    them."""
    found = []
    for pattern in patterns:
        for file in directory.glob(pattern):
            with file.open("rb") as opened:
                found.append(opened.read(64))
    return found


def _is_xgboost(directory: Path) -> bool:
    if _has("*.ubj", "*.xgb")(directory):
        return True
    heads = _head(directory, "*.bst", "*.json")
    return any(
        head.startswith((b"binf", b"{L\0", b"{l", b"bs64")) or b'"learner"' in head
        for head in heads
    )


def _is_lightgbm(directory: Path) -> bool:
    return any(
        head.startswith(b"tree\n")
        for head in _head(directory, "*.txt", "*.bst", "*.lgb", "*.model")
    )


_WHOLE_DIRECTORY = frozenset({"mlflow", "tensorflow", "huggingface"})
"""Formats that own their directory: what else lies in it (pickles, ONNX files) is part of them."""

_DETECTORS: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("mlflow", _has("MLmodel", "*/MLmodel")),
    ("tensorflow", _has("saved_model.pb", "[0-9]*/saved_model.pb")),
    ("huggingface", _is_huggingface),
    (
        "pytorch",
        _has("*.mar", "model-store/*.mar", "MAR-INF/MANIFEST.json", "*.pt", "*.pth", "[0-9]*/*.pt"),
    ),
    ("onnx", _has("*.onnx", "[0-9]*/*.onnx")),
    ("sklearn", _has("*.joblib", "*.pkl", "*.pickle")),
    ("xgboost", _is_xgboost),
    ("lightgbm", _is_lightgbm),
    ("python", _is_python),
)
