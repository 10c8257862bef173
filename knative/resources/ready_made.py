"""Parameters of our server's ready-made transformers, checked before anything runs."""

from collections.abc import Iterator, Mapping
from typing import Any

from knative.resources import container

JSON = Any


def problems(given: Mapping[str, JSON]) -> list[str]:
    """What the server would refuse to start with, as far as the manifest shows it: files and
    variables from elsewhere are not looked into."""
    kind = container.flag_value(given, "--transformer") or container.env_value(
        given, "FUNCTIONS_TRANSFORMER"
    )
    config = container.flag_value(given, "--transformer-config") or container.env_value(
        given, "FUNCTIONS_TRANSFORMER_CONFIG"
    )
    params = list(_params(given))
    if not (kind or config) or any("$(" in text for text in (kind, config, *params)):
        return []
    if config and not config.lstrip().startswith("{"):
        return []
    from functions import transformers
    from functions.errors import ConfigurationError

    unfit = [f"--param={text}: expected KEY=VALUE" for text in params if "=" not in text]
    pairs = [(text.partition("=")[0], text.partition("=")[2]) for text in params if "=" in text]
    try:
        transformers.plan(kind, config, pairs)
    except ConfigurationError as error:
        return [*unfit, *error.problems]
    return unfit


def _params(given: Mapping[str, JSON]) -> Iterator[str]:
    words = [str(word) for word in given.get("args") or []]
    for at, word in enumerate(words):
        if word == "--param" and at + 1 < len(words):
            yield words[at + 1]
        elif word.startswith("--param="):
            yield word.partition("=")[2]
    yield from filter(None, container.env_value(given, "FUNCTIONS_PARAMS").split(","))
