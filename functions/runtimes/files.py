"""Finding the one model file of a directory, with errors that say what to do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from functions.errors import AmbiguousArtifact, NoArtifact

MLSERVER = "model-settings.json"

BESIDE = frozenset(
    {MLSERVER, "settings.json", "warmup.json", "requirements.txt", "conda.txt", "license.txt"}
)
"""Files that lie beside a model and have a suffix of models; so have those that begin with README.
"""


def is_beside(file: Path) -> bool:
    """The file is about the model, and not the model."""
    return file.name.lower() in BESIDE or file.stem.lower().startswith("readme")


def newest_version(directory: Path, pattern: str) -> Path | None:
    """Triton's layout: the directory with the highest number that has such a file, or None."""
    found = [p.parent for p in directory.glob(f"[0-9]*/{pattern}") if p.parent.name.isdecimal()]
    return max(found, key=lambda folder: int(folder.name), default=None)


def one_model(directory: Path, suffixes: Sequence[str]) -> Path:
    """The only file with one of the suffixes, the one that MLServer's settings name, or the one
    named `model`; a file is itself."""
    if directory.is_file():
        return directory
    files = (
        sorted(p for p in directory.iterdir() if p.suffix in suffixes and not is_beside(p))
        if directory.is_dir()
        else []
    )
    named = str(mlserver_parameters(directory).get("uri") or "")
    preferred = [p for p in files if p.name == Path(named).name] if named else []
    preferred = preferred or [p for p in files if p.stem == "model"]
    if len(files) == 1 or len(preferred) == 1:
        return (preferred or files)[0]
    if not files:
        raise NoArtifact(f"{directory} has no {', '.join(suffixes)} file")
    names = ", ".join(p.name for p in files)
    raise AmbiguousArtifact(
        f"{directory} has several models ({names}): keep one, or name one model{files[0].suffix}"
    )


def mlserver_parameters(directory: Path) -> dict[str, Any]:
    """`parameters` of the settings that MLServer's users have beside a model: `uri`, `version`."""
    try:
        settings = json.loads((directory / MLSERVER).read_bytes())
    except (OSError, ValueError):  # none, or none that says anything
        return {}
    parameters = settings.get("parameters") if isinstance(settings, dict) else None
    return parameters if isinstance(parameters, dict) else {}
