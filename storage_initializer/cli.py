"""The command line: arguments and environment in, log lines and an exit code out.

Exit codes: 0 every destination is complete, 1 failed (the line is in the termination log too),
2 bad arguments or settings. SIGTERM ends the run like a failure; a further run resumes.
"""

import signal
import sys
from types import FrameType

from . import logs
from .errors import InvalidSettings, StorageError
from .settings import Settings, termination_log

logger = logs.Log("storage_initializer")

USAGE = """\
usage: python -m storage_initializer SRC DEST [SRC DEST ...]

Fetches each SRC (a URI or a path) into the directory DEST and exits 0 when all of them are
complete. SRC: file:// http(s):// s3:// gs:// hf:// git+https:// oci:// hdfs:// webhdfs:// pvc://
azure:// abfs:// or a path. Settings come from the environment (docs/storage.md):
STORAGE_MIRRORS, STORAGE_CACHE_DIR, STORAGE_ALLOW_PATTERNS, STORAGE_DEADLINE_SECONDS, AWS_*, ...
"""


def main(argv: list[str]) -> int:
    logs.configure()
    if argv in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if not argv or len(argv) % 2:
        sys.stderr.write(USAGE)
        return _fail([f"expected pairs of SRC and DEST, got {len(argv)} arguments"], 2)
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_level)
        signal.signal(signal.SIGTERM, _terminate)
        return run(argv, settings)
    except InvalidSettings as exc:
        return _fail(exc.problems, exc.exit_code)
    except StorageError as exc:
        return _fail([str(exc)], exc.exit_code)
    except Exception as exc:
        import traceback

        traceback.print_exc()
        what = f"unexpected {type(exc).__name__}: {exc}".splitlines()[0]
        return _fail([f"{what}; a fault of storage_initializer, its log has the traceback"], 1)
    except KeyboardInterrupt:
        return _fail(["stopped by a signal; a further run resumes where this one stopped"], 1)


def _fail(problems: list[str], code: int) -> int:
    """Tell what is wrong on stderr and where `kubectl describe pod` shows it."""
    for problem in problems:
        logger.error("%s", problem)
    logs.write_termination_message(termination_log(), "\n".join(problems))
    return code


def run(argv: list[str], settings: Settings) -> int:
    from .fetching import fetch_all
    from .uri import redact

    pairs: list[tuple[str, str]] = list(zip(argv[::2], argv[1::2], strict=True))
    for source, dest in pairs:
        logger.info("fetching %s", redact(source), extra={"dest": dest})
    for report in fetch_all([*pairs], settings):
        logger.info(
            "%s: %s",
            report.dest,
            {"fetched": "complete", "complete": "already complete"}.get(
                report.outcome, report.outcome
            ),
            extra={
                "sources": list(report.sources),
                "outcome": report.outcome,
                "files": report.files,
                "bytes": report.bytes,
                "bytes_fetched": report.bytes_fetched,
                "seconds": round(report.seconds, 3),
                "mb_per_s": round(report.mb_per_s, 1),
                "retries": report.retries,
                "cache_hits": report.cache_hits,
            },
        )
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # the end is under way, within seconds: once is enough
    raise KeyboardInterrupt
