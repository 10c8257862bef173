"""From a dotted path or a file to a user's class or module, without asking for any SDK."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import AmbiguousArtifact, LoadFailed, NoArtifact

HOOK_NAMES = frozenset(
    {
        "predict",
        "preprocess",
        "postprocess",
        "explain",
        "predict_raw",
        "transform_input",
        "transform_output",
        "transform_input_raw",
        "transform_output_raw",
        "route",
        "route_raw",
        "aggregate",
        "aggregate_raw",
        "send_feedback",
        "send_feedback_raw",
        "handle",
    }
)
"""A class or module with one of these is a model: KServe's, Seldon's and TorchServe's spellings."""


_model_directories: set[Path] = set()
"""Where models of this process came from; only their modules are ever forgotten."""


def add_to_path(directory: Path) -> None:
    """Let user code import its neighbours: first in the path, as a script's own folder is.

    A module of the same name that another model brought is forgotten, so that this one imports its
    own (the other keeps the objects it holds).
    """
    entry = str(directory)
    if entry in sys.path:
        sys.path.remove(entry)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    for file in directory.glob("*.py"):
        loaded = getattr(sys.modules.get(file.stem), "__file__", None)
        if loaded is not None and Path(loaded).parent in _model_directories - {directory}:
            del sys.modules[file.stem]
    _model_directories.add(directory)


def load_object(reference: str, base: Path) -> Any:
    """The class or module that `reference` names.

    `module:Name`, `package.module.Name`, `file.py:Name`, `module` or `file.py`; files and modules
    are looked for in `base` first. Raises LoadFailed with what was looked for.
    """
    module_part, colon, name = reference.partition(":")
    if module_part.endswith(".py") or "/" in module_part:
        file = (base / module_part).resolve()
        module = load_file(file)
    else:
        add_to_path(base)
        if not colon and "." in module_part:
            module, name = _import_longest(module_part)
        else:
            module = _import(module_part)
    if not name:
        return pick_model(module)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise LoadFailed(f"{reference}: {module.__name__} has no {name!r}")
        found = getattr(found, part)
    return found


def load_file(file: Path, module_name: str | None = None) -> ModuleType:
    """Import one file under its own name; its folder becomes importable."""
    if not file.is_file():
        raise NoArtifact(f"{file} does not exist")
    add_to_path(file.parent)
    name = module_name or file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadFailed(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and (name == exc.name or name.startswith(exc.name + ".")):
            raise NoArtifact(
                f"module {name} was not found (looked in {', '.join(sys.path[:3])}, …)"
            ) from exc
        raise


def _import_longest(dotted: str) -> tuple[ModuleType, str]:
    """`a.b.C` is module `a.b` and name `C`; `a.b.c` may be a module itself."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            return importlib.import_module(name), ".".join(parts[length:])
        except ModuleNotFoundError as exc:
            if exc.name is None or not (name == exc.name or name.startswith(exc.name + ".")):
                raise
    raise NoArtifact(f"neither a module nor a class {dotted} was found")


def defined_classes(module: ModuleType) -> list[type]:
    """Classes written in this very module, not imported into it."""
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]


def pick_model(module: ModuleType) -> Any:
    """The one class of `module` with a hook, or the module itself when its functions are the
    hooks."""
    classes = [
        c for c in defined_classes(module) if any(callable(getattr(c, n, None)) for n in HOOK_NAMES)
    ]
    # A base class that another class here extends is not meant.
    leaves = [
        c for c in classes if not any(other is not c and issubclass(other, c) for other in classes)
    ]
    if len(leaves) == 1:
        return leaves[0]
    if len(leaves) > 1:
        names = ", ".join(c.__name__ for c in leaves)
        raise AmbiguousArtifact(
            f"{module.__name__} has several model classes ({names}): choose one with"
            f" --model-class {module.__name__}:{leaves[0].__name__}"
        )
    if any(callable(getattr(module, n, None)) for n in HOOK_NAMES):
        return module
    raise NoArtifact(
        f"{module.__name__} has neither a class nor functions with a hook (predict, preprocess,"
        " postprocess, …)"
    )


def find_python_file(directory: Path) -> Path:
    """`model.py`, else the only Python file at the top of the model directory."""
    preferred = directory / "model.py"
    if preferred.is_file():
        return preferred
    files = sorted(p for p in directory.glob("*.py") if not p.name.startswith("_"))
    if len(files) == 1:
        return files[0]
    if not files:
        raise NoArtifact(
            f"{directory} has no Python file: expected model.py, or give --model-class"
        )
    raise AmbiguousArtifact(
        f"{directory} has several Python files ({', '.join(p.name for p in files)}):"
        " name one model.py, or give --model-class file.py:Class"
    )
