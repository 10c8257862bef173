"""Finding the one model file of a directory, with errors that say what to do."""

from collections.abc import Sequence
from pathlib import Path

from functions.errors import AmbiguousArtifact, NoArtifact


def one_model(directory: Path, suffixes: Sequence[str]) -> Path:
    """The only file with one of the suffixes, or the one named `model`; a file is itself."""
    if directory.is_file():
        return directory
    files = (
        sorted(p for p in directory.iterdir() if p.suffix in suffixes) if directory.is_dir() else []
    )
    preferred = [p for p in files if p.stem == "model"]
    if len(files) == 1 or len(preferred) == 1:
        return (preferred or files)[0]
    if not files:
        raise NoArtifact(f"{directory} has no {', '.join(suffixes)} file")
    names = ", ".join(p.name for p in files)
    raise AmbiguousArtifact(
        f"{directory} has several models ({names}): keep one, or name one model{files[0].suffix}"
    )
