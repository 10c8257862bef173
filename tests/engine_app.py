"""A user container for the engine's tests: standard library only, so that it starts in
milliseconds.

    /echo            the request as JSON            /status?code=N   that status
    /sleep?s=N       answers after N seconds        /stream?n=N      N chunks, 50 ms apart
    /big?n=N         N bytes with a length          /crash           exits with code 3 instead of
    answering
    /break           half an answer, then closes    /ws              websocket-style upgrade,
    echoes bytes
    /flood?n=N       N bytes of log lines           /fork            a child that outlives its
    parent
Environment: START_DELAY (seconds before listening), IGNORE_TERM, NEVER_LISTEN, DIE_AFTER (seconds).
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from urllib.parse import parse_qsl

READY = {"value": True}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await one(reader, writer):
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    return await reader.readexactly(int(headers.get("content-length", 0)))


async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    line = (await reader.readline()).decode()
    if not line:
        return False
    method, target, _ = line.split()
    headers: dict[str, str] = {}
    while (raw := (await reader.readline()).decode().strip()) != "":
        name, _, value = raw.partition(":")
        headers[name.lower()] = value.strip()
    path, _, query = target.partition("?")
    options = dict(parse_qsl(query))
    if headers.get("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await read_body(reader, headers)
    if path == "/ws":
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while data := await reader.read(4096):
            writer.write(b"echo:" + data)
            await writer.drain()
        return False
    await answer(writer, method, path, options, headers, body)
    await writer.drain()
    return headers.get("connection") != "close"


async def answer(writer, method, path, options, headers, body) -> None:  # type: ignore[no-untyped-def]
    status, kind = 200, "application/json"
    if path == "/crash":
        print("about to crash", flush=True)
        os._exit(3)
    if path == "/break":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()
        return
    if path == "/stream":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(int(options.get("n", 3))):
            writer.write(b"7\r\nchunk %d\r\n" % (number % 10))
            await writer.drain()
            await asyncio.sleep(float(options.get("s", 0.05)))
        writer.write(b"0\r\n\r\n")
        return
    if path == "/sleep":
        await asyncio.sleep(float(options.get("s", 1)))
    elif path == "/status":
        status = int(options["code"])
    elif path == "/flood":
        line = b"x" * 999 + b"\n"
        for _ in range(int(options["n"]) // 1000):
            os.write(1, line)
    elif path == "/fork":
        options["pid"] = str(fork())
    elif path == "/ready":
        READY["value"] = options.get("value") != "0"
    elif path == "/readyz" and not READY["value"]:
        status = 503
    result = (
        b"x" * int(options.get("n", 0))
        if path == "/big"
        else json.dumps(
            {
                "method": method,
                "path": path,
                "options": options,
                "headers": headers,
                "body": body.decode(errors="replace"),
                "bytes": len(body),
                "env": {k: v for k, v in os.environ.items() if k != "PATH"},
                "args": sys.argv[1:],
                "pid": os.getpid(),
                "cwd": os.getcwd(),
            }
        ).encode()
    )
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(result)}\r\n\r\n"
    writer.write(head.encode() + (b"" if method == "HEAD" else result))


def fork() -> int:
    """A daemon: its own session, not our child for long."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    pid = int(os.read(read, 20))
    os.wait()
    return pid


async def main() -> None:
    if os.environ.get("IGNORE_TERM"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.environ.get("NEVER_LISTEN"):
        print("listening nowhere", flush=True)
        await asyncio.sleep(600)
    if after := float(os.environ.get("DIE_AFTER", 0)):
        threading.Timer(after, lambda: (print("dying", flush=True), os._exit(9))).start()
    await asyncio.sleep(float(os.environ.get("START_DELAY", 0)))
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]))
    print(json.dumps({"message": "listening", "port": os.environ["PORT"]}), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
