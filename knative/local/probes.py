"""Asking a pod whether it is ready or alive: HTTP, TCP, gRPC health, command. One check a call.

Semantics of spec section 1.7: HTTP success is 200-399, the user agent starts with `kube-probe/`.
"""

import asyncio
from collections.abc import Awaitable, Callable

from . import spec

AGGRESSIVE_TIMEOUT_S = 0.1
"""Per try, of the TCP probe that Knative gives a container without one."""

Exec = Callable[[tuple[str, ...], float], Awaitable[bool]]
"""Runs a command in a container's environment; True when it exits 0 within the seconds given."""


async def check(
    probe: spec.Probe, port: int, execute: Exec, connected: Callable[[], None] | None = None
) -> bool:
    """One try; never raises for anything the pod does. `connected` is called when the port is
    open."""
    timeout_s = (
        probe.timeout_s if probe.period_s > 0 else max(AGGRESSIVE_TIMEOUT_S, probe.timeout_s)
    )
    if probe.kind == "exec":
        return await execute(probe.command, timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if connected is not None:
                connected()
            try:
                if probe.kind == "http":
                    return await _http(probe, port, reader, writer)
                return probe.kind == "tcp" or await _grpc(probe, reader, writer)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return False


async def _grpc(
    probe: spec.Probe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    import h2.exceptions

    from . import grpc_probe

    try:
        return await grpc_probe.check(reader, writer, probe.service)
    except h2.exceptions.ProtocolError:
        return False


async def _http(
    probe: spec.Probe, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    host = probe.host or f"127.0.0.1:{port}"
    extra = "".join(f"{name}: {value}\r\n" for name, value in probe.headers)
    writer.write(
        f"GET {probe.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/turnout\r\n"
        f"{extra}Connection: close\r\n\r\n".encode("latin-1", "replace")
    )
    status_line = await reader.readline()
    parts = status_line.split(None, 2)
    return len(parts) >= 2 and parts[0].startswith(b"HTTP/") and 200 <= int(parts[1]) < 400
