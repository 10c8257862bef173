"""`python -m functions`: read the settings, configure logging, serve, return the exit code."""

import logging
import sys
from collections.abc import Sequence

from .errors import ConfigurationError
from .settings import Settings, fail_usage
from .wire import container


def main(argv: Sequence[str]) -> int:
    try:
        settings = Settings.from_env(argv=argv)
    except ConfigurationError as error:
        return fail_usage(error.problems)
    container.configure_logging("functions", level=settings.log_level)
    if settings.log_config_file:
        from . import log_config

        try:
            log_config.apply(settings.log_config_file)
        except ConfigurationError as error:
            return fail_usage(error.problems)
    for note in settings.notes:
        logging.getLogger("functions").warning(note)
    from . import server

    return server.run(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
