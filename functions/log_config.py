"""`--log-config-file`: Python's own logging configuration, as KServe's `--log_config_file`.

`.json`, `.yaml` and `.yml` files are `logging.config.dictConfig` dictionaries, anything else is the
older format of `logging.config.fileConfig`.
"""

import json
import logging.config
from pathlib import Path

from .errors import ConfigurationError


def apply(file: str) -> None:
    """Configure logging by a file. Raises ConfigurationError that says what is wrong with it.

    Loggers that exist already go on (unless the file says `disable_existing_loggers` itself): the
    file would otherwise silence whatever was imported before it was read.
    """
    path = Path(file)
    try:
        if path.suffix not in (".json", ".yaml", ".yml"):
            if not path.is_file():
                raise FileNotFoundError("no such file")
            logging.config.fileConfig(path, disable_existing_loggers=False)
            return
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else _yaml(text)
        if not isinstance(document, dict):
            raise ValueError("expected a dictionary with `version: 1`")
        logging.config.dictConfig({"disable_existing_loggers": False, **document})
    except ConfigurationError:
        raise
    except Exception as exc:
        cause = f" ({exc.__cause__})" if exc.__cause__ is not None else ""
        raise ConfigurationError(
            [f"--log-config-file {file}: {type(exc).__name__}: {exc}{cause}"]
        ) from exc


def _yaml(text: str) -> object:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigurationError(
            ["--log-config-file: a .yaml file needs PyYAML: pip install pyyaml, or use .json"]
        ) from None
    document: object = yaml.safe_load(text)
    return document
