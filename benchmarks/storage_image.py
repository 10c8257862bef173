"""The storage initializer as its image has it: the Dockerfile's steps in a directory.

No container engine is needed: a venv with the libraries of `EXTRAS` from the pins, botocore pruned,
our folder copied, everything byte-compiled. What is measured is then what a pod runs (a checkout
may have no byte code), and its size is the image's share on top of the Python base. Prune and
extras are read from the Dockerfile and pyproject.toml.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT

UNIT = ROOT / "storage_initializer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Where the pieces are and what they weigh."""

    python: str
    app: Path
    """For PYTHONPATH, as in the image."""
    app_bytes: int
    library_bytes: dict[str, int]
    """By top-level entry of site-packages."""


def requirements(extras: str) -> list[str]:
    """The libraries of some extras, extras of extras opened up (the Dockerfile's one-liner)."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def expand(extra: str) -> list[str]:
        found = []
        for requirement in table[extra]:
            if requirement.startswith("turnout["):
                inner = requirement.removeprefix("turnout[").partition("]")[0]
                found += [line for name in inner.split(",") for line in expand(name.strip())]
            else:
                found.append(requirement)
        return found

    return sorted({line for extra in filter(None, extras.split(",")) for line in expand(extra)})


def build(directory: Path, extras: str = "s3") -> Image:
    """Make (or reuse: the libraries are kept while the pins are) the image's content."""
    venv = directory / "venv"
    python = venv / "bin" / "python"
    pins = (ROOT / "constraints.txt").read_bytes()
    state = hashlib.sha256(pins + "\n".join(requirements(extras)).encode()).hexdigest()
    ready = directory / ".ready"
    if not ready.exists() or ready.read_text() != state:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        wanted = requirements(extras)
        if wanted:
            constraint = ["-c", str(ROOT / "constraints.txt")]
            install = [*pip, "install", "-q", "--no-compile", *constraint, *wanted]
            subprocess.run(install, check=True, capture_output=True)
        subprocess.run([*pip, "uninstall", "-q", "-y", "setuptools", "pip"], check=True)
        _prune(venv)
        subprocess.run([str(python), "-m", "compileall", "-q", str(venv)], check=False)
        ready.write_text(state)
    app = directory / "app"
    shutil.rmtree(app, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "Dockerfile")
    shutil.copytree(UNIT, app / UNIT.name, ignore=ignored)
    subprocess.run([str(python), "-m", "compileall", "-q", str(app)], check=True)
    packages = next(venv.glob("lib/python*/site-packages"))
    sizes = {entry.name: size_of(entry) for entry in packages.iterdir()}
    return Image(python=str(python), app=app, app_bytes=size_of(app), library_bytes=sizes)


def _prune(venv: Path) -> None:
    """botocore's descriptions of services that the Dockerfile does not keep."""
    kept = re.search(r"! -regex '\.\*/\(([^)]*)\)'", (UNIT / "Dockerfile").read_text())
    if kept is None:
        raise RuntimeError("the Dockerfile no longer says what to keep of botocore")
    for entry in venv.glob("lib/python*/site-packages/botocore/data/*"):
        if entry.is_dir() and entry.name not in kept[1].split("|"):
            shutil.rmtree(entry)


def size_of(path: Path) -> int:
    """Bytes of a file or a tree, links not followed."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(entry.lstat().st_size for entry in path.rglob("*") if not entry.is_dir())


def main() -> int:
    """Sizes for docs/storage.md: `python -m benchmarks.storage_image [EXTRAS ...]`."""
    for extras in sys.argv[1:] or ["", "s3", "storage"]:
        image = build(
            ROOT / ".venvs" / f"storage-image-{extras.replace(',', '-') or 'none'}", extras
        )
        total = image.app_bytes + sum(image.library_bytes.values())
        largest = sorted(image.library_bytes.items(), key=lambda pair: -pair[1])[:6]
        shown = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in largest)
        sys.stdout.write(
            f"EXTRAS={extras or '(none)'}: {total / 1e6:.1f} MB on top of the base; "
            f"our code with byte code {image.app_bytes / 1e6:.1f}; {shown}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
