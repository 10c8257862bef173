"""`python -m functions.tfs`: Turnout's model server under tensorflow_model_server's flags.

For manifests that start a TensorFlow Serving container, where there is only a process:

    turnout up seldon.yaml --map tensorflow/serving='python -m functions.tfs'

gRPC on --port (default 8500; 0: none), REST on --rest_api_port (default 8501).
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence


def parser() -> argparse.ArgumentParser:
    """The flags that are understood; anything else is refused by name."""
    made = argparse.ArgumentParser(
        prog="python -m functions.tfs", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = made.add_argument
    add("--port", type=int, default=8500, metavar="N", help="of gRPC; 0: none")
    add("--rest_api_port", type=int, default=8501, metavar="N", help="of REST")
    add("--model_name", metavar="NAME", help="default: $MODEL_NAME, else `model`")
    add("--model_base_path", metavar="DIR", help="has the version directories")
    add("--file_system_poll_wait_seconds", default="1", metavar="S", help="0: once; -1: never")
    add("--tensorflow_intra_op_parallelism", default="", metavar="N", help="threads")
    return made


def settings_of(
    argv: Sequence[str], environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of `python -m functions` for these flags. Exits on unknown ones."""
    given = parser().parse_args(argv)
    name = given.model_name or environ.get("MODEL_NAME") or "model"
    base = given.model_base_path or f"{environ.get('MODEL_BASE_PATH', '/models')}/{name}"
    arguments = ["--model-name", name, "--model-dir", base, "--runtime", "tensorflow"]
    arguments += ["--protocol", "tensorflow,grpc-v1" if given.port else "tensorflow"]
    arguments += ["--poll-s", given.file_system_poll_wait_seconds]
    if given.port:
        arguments += ["--grpc-port", str(given.port)]
    if given.tensorflow_intra_op_parallelism:
        arguments += ["--threads", given.tensorflow_intra_op_parallelism]
    return arguments, {**environ, "PORT": str(given.rest_api_port)}


def main(argv: Sequence[str]) -> int:
    from functions import server
    from functions.errors import ConfigurationError
    from functions.settings import Settings, fail_usage
    from functions.wire import container

    arguments, environ = settings_of(argv, os.environ)  # noqa: TID251 - one layer above settings
    try:
        settings = Settings.from_env(environ, argv=arguments)
    except ConfigurationError as error:
        return fail_usage(error.problems)
    container.configure_logging("functions", level=settings.log_level)
    return server.run(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
