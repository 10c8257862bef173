"""`python -m events adapter|sqs|sink`: settings, logging, run, exit code."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from functions.wire import container

from . import settings
from .errors import SpecError

_COMMON = """
  PORT (8080), TURNOUT_LOG_LEVEL (INFO), TURNOUT_DRAIN_SECONDS (30)
  http_proxy, https_proxy, no_proxy, K_CA_CERTS

Everything is described in docs/events.md."""

_HELP = {
    "adapter": """\
settings are environment variables:
  K_SINK                      where events go (required), K_CE_OVERRIDES
  TURNOUT_TOKEN               bearer token, or ?access_token=; TURNOUT_USER and
                              TURNOUT_PASSWORD for basic authentication (open)
  TURNOUT_BUCKETS             allow-list, comma-separated (all)
  TURNOUT_SNS_TOPICS          topics that are believed (all), TURNOUT_SNS_VERIFY (true)
  TURNOUT_MAX_BODY_BYTES      larger is 413 (1048576)
  TURNOUT_RATE_PER_SECOND     more is 429 (no limit)
  TURNOUT_MAX_IN_FLIGHT       more at once is 429 (512)
  TURNOUT_SEND_TIMEOUT_SECONDS (30), TURNOUT_PARTITION_BY_OBJECT (false)"""
    + _COMMON
    + """

try it:
  K_SINK=http://127.0.0.1:9000/ PORT=8081 python -m events adapter
  curl -d '{"Records": [...]}' http://127.0.0.1:8081/""",
    "sqs": """\
settings are environment variables:
  TURNOUT_SQS_QUEUE_URL       the queue (required)
  K_SINK                      where events go (required), K_CE_OVERRIDES
  TURNOUT_SQS_WAIT_SECONDS (20), TURNOUT_SQS_VISIBILITY_SECONDS (60)
  TURNOUT_SQS_WORKERS (8), TURNOUT_SQS_MAX_RECEIVES (10)
  TURNOUT_BUCKETS             allow-list, comma-separated (all)
  TURNOUT_SEND_TIMEOUT_SECONDS (30), TURNOUT_PARTITION_BY_OBJECT (false)
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY ... as for any AWS program"""
    + _COMMON,
    "sink": """\
settings are environment variables:
  SINK_SPEC                   the specification: an InferenceTrigger's spec as JSON, with target.url
  K_SINK                      where sweeps publish what they find, K_CE_OVERRIDES
  TURNOUT_MAX_BODY_BYTES      larger events are 413 (8388608)
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL_S3"""
    + _COMMON,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 drained after SIGTERM, 1 failed, 2 bad configuration (every problem on
    stderr)."""
    arguments = _parser().parse_args(argv)
    try:
        return _RUN[arguments.program](arguments)
    except (settings.BadSettings, SpecError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"events {arguments.program}: {line}\n")
        return container.EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m events", description="The programs behind an InferenceTrigger."
    )
    programs = parser.add_subparsers(dest="program", required=True)

    def add(name: str, does: str) -> argparse.ArgumentParser:
        return programs.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            epilog=_HELP[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    add("adapter", "storage notifications over HTTP -> CloudEvents to K_SINK")
    add("sqs", "storage notifications from SQS -> CloudEvents to K_SINK")
    sink = add("sink", "CloudEvents -> graph -> result and reply")
    given = sink.add_mutually_exclusive_group()
    given.add_argument(
        "--spec-file", help="the specification, a JSON file (default: env SINK_SPEC)"
    )
    given.add_argument("--spec-json", help="the specification itself")
    sink.add_argument("--check", action="store_true", help="validate the specification and exit")
    return parser


def _log(unit: str, level: str) -> None:
    container.configure_logging(unit, level=level)
    for name in ("botocore", "urllib3"):  # their INFO is about themselves
        logging.getLogger(name).setLevel(logging.WARNING)


def _run_adapter(arguments: argparse.Namespace) -> int:
    given = settings.AdapterSettings.from_env()
    _log("events-adapter", given.server.log_level)
    from . import adapter_app, server

    return server.run(given.server, lambda: adapter_app.make_front(given), given.max_body_bytes)


def _run_sqs(arguments: argparse.Namespace) -> int:
    given = settings.SqsSettings.from_env()
    _log("events-sqs", given.server.log_level)
    from . import sqs

    return sqs.run(given)


def _run_sink(arguments: argparse.Namespace) -> int:
    text: str | None = arguments.spec_json
    if arguments.spec_file:
        try:
            text = Path(arguments.spec_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise settings.BadSettings(f"--spec-file {arguments.spec_file}: {error}") from error
    given = settings.SinkSettings.from_env(spec_text=text)
    from . import spec

    spec.parse(given.spec)
    if arguments.check:
        return container.EXIT_OK
    _log("events-sink", given.server.log_level)
    from . import server, sink_app

    most = sink_app.most_bytes(given.max_body_bytes)
    return server.run(given.server, lambda: sink_app.make_front(given), most)


_RUN = {"adapter": _run_adapter, "sqs": _run_sqs, "sink": _run_sink}

if __name__ == "__main__":
    sys.exit(main())
