"""Where the models of a server come from, as its settings say it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from .settings import Settings


@dataclass(slots=True, kw_only=True)
class Source:
    """Where a model comes from."""

    name: str
    directory: Path
    runtime: str
    storage_uri: str = ""
    model_class: str = ""
    """Reference of a Python class; empty: found in the directory."""


def settings_for(source: Source, settings: Settings) -> Settings:
    """The settings as one of several models sees them: its own class, its own predictor."""
    host = dict(settings.model_predictor).get(source.name, settings.predictor_host)
    protocol = settings.predictor_protocol
    if host and protocol == "auto":
        from .predictor import target

        protocol = "grpc-v2" if target.speaks_grpc(host) else protocol
    return dataclasses.replace(
        settings,
        model_class=source.model_class,
        predictor_host=host,
        predictor_protocol=protocol,
    )


def sources(settings: Settings) -> list[Source]:
    """The models that the settings name, the main one first."""
    found = []
    behind = {name for name, _ in settings.model_predictor}
    runtime = settings.runtime or (
        "python" if settings.model_class or not settings.model_dir else ""
    )
    main = Source(
        name=settings.model_name,
        directory=Path(settings.model_dir or "."),
        runtime="transformer" if settings.ready_made else runtime,
        storage_uri=settings.storage_uri,
        model_class=settings.model_class,
    )
    # Without a class or directory it only passes on to the predictor; that is not meant where all
    # models bring something of their own.
    alone = not settings.model or not all(location for _, location in settings.model)
    passes_on = settings.predictor_host and alone
    if settings.model_dir or settings.model_class or passes_on or settings.model_name in behind:
        found.append(main)
    for name, location in settings.model:
        runtime, colon, path = location.partition(":")
        if not location:
            found.append(dataclasses.replace(main, name=name))
        elif runtime == "python" and (":" in path or path.endswith(".py")):
            directory = Path(settings.model_dir or ".")
            found.append(Source(name=name, directory=directory, runtime="python", model_class=path))
        elif colon:
            found.append(Source(name=name, directory=Path(path).absolute(), runtime=runtime))
        else:
            found.append(Source(name=name, directory=Path(location).absolute(), runtime=""))
    return found
