"""Flags of KServe's model server that have no counterpart here.

Containers written for KServe are started with them; they are read, have no effect, and the log says
what does instead. (`--ssl_certfile` and `--ssl_keyfile` stay errors: whoever asks for TLS must not
get plain HTTP in silence.)
"""

from collections.abc import Mapping

INSTEAD: Mapping[str, str] = {
    "access-log-format": "--log-config-file says what is logged, and how",
    "configure-logging": "--log-config-file and --log-level say what is logged, and how",
    "enable-docs-url": "there is no Swagger page",
    "enable-grpc": "gRPC is served when --protocol names grpc-v2",
    "enable-latency-logging": "/metrics has the time of each hook",
    "enable-predictor-health-check": "a predictor that sleeps is waited for at each request",
    "event-loop": "the event loop is uvloop",
    "grpc-max-receive-message-length": "--max-body-bytes is the limit of gRPC messages too",
    "grpc-max-send-message-length": "--max-body-bytes is the limit of gRPC messages too",
    "max-asyncio-workers": "--threads says how many sync hooks run at once",
    "max-threads": "--threads says how many sync hooks run at once",
    "timeout-keep-alive": "idle connections are kept for 180 s",
}


def destination(flag: str) -> str:
    """Where argparse puts the value."""
    return "kserve_" + flag.replace("-", "_")


def notes(given: Mapping[str, object]) -> list[str]:
    """One sentence for each such flag in the parsed command line."""
    return [
        f"--{flag} is KServe's and has no effect here: {instead}"
        for flag, instead in INSTEAD.items()
        if given.get(destination(flag)) is not None
    ]
