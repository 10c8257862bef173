"""Starting and signalling pod processes through the spawner (`spawn_server`); the engine's side.

Everything here runs on the engine's event loop. A `Process` is one container's first process; its
group dies with it. If the spawner itself is killed, its pods are gone too (the kernel sees to
that): they are reported as killed, and the next spawn starts a new spawner.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import PodFailed

logger = logging.getLogger(__name__)

_SERVER = Path(__file__).with_name("spawn_server.py")
_KILLED = signal.SIGKILL.value
"""Wait status of a process that SIGKILL ended."""


class Process:
    """One started process. `exited` resolves to the wait status, which `describe_exit` puts into
    words."""

    __slots__ = ("_spawner", "exited", "pid")

    def __init__(self, spawner: "Spawner", pid: int) -> None:
        self._spawner = spawner
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: int) -> None:
        """Signal the whole process group; does nothing once the process has been reaped."""
        if not self.exited.done():
            self._spawner.send_signal(self.pid, number)


class Spawner:
    """The channel to the spawner process. Use `start` before, `close` after."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._tickets = 0
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._processes: dict[int, Process] = {}
        self._early_exits: dict[int, int] = {}

    @property
    def pid(self) -> int | None:
        """Process id of the spawner, for diagnosis."""
        return self._server.pid if self._server else None

    def start(self) -> None:
        """Start the spawner process and listen to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        os.set_inheritable(theirs.fileno(), True)
        self._server = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SERVER), str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # Ctrl-C at the terminal is the engine's to handle
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._channel = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)

    async def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: str,
        output: int,
        limits: Mapping[str, int] | None = None,
    ) -> Process:
        """Start `argv` with exactly `env`; stdout and stderr go to the descriptor `output` (kept
        open).

        Raises PodFailed when the program cannot be executed.
        """
        if self._channel is None:
            self.start()
        assert self._channel is not None
        request = {"argv": list(argv), "env": dict(env), "cwd": cwd, "limits": dict(limits or {})}
        memory = os.memfd_create("turnout-spawn", os.MFD_CLOEXEC)
        self._tickets += 1
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[self._tickets] = waiting
        try:
            with os.fdopen(os.dup(memory), "wb") as file:
                file.write(json.dumps(request).encode())
            packet = json.dumps({"spawn": self._tickets}).encode()
            socket.send_fds(self._channel, [packet], [memory, output, output])
        except OSError as error:
            self._waiting.pop(self._tickets, None)
            raise PodFailed("SpawnerLost", f"cannot reach the spawner: {error}") from error
        finally:
            os.close(memory)
        pid = await waiting
        process = Process(self, pid)
        if pid in self._early_exits:
            process.exited.set_result(self._early_exits.pop(pid))
        else:
            self._processes[pid] = process
        return process

    def send_signal(self, pid: int, number: int) -> None:
        """Signal a process group; lost if the spawner is gone (then so is the group)."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(json.dumps({"pid": pid, "signal": int(number)}).encode())

    async def close(self) -> None:
        """Close the channel: the spawner kills whatever is left, and ends."""
        server, self._server = self._server, None
        self._disconnect()
        if server is not None:
            loop = asyncio.get_running_loop()
            try:
                await asyncio.wait_for(loop.run_in_executor(None, server.wait), 10)
            except TimeoutError:
                server.kill()
                server.wait()

    def _disconnect(self) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _readable(self) -> None:
        assert self._channel is not None
        while self._channel is not None:
            try:
                packet = self._channel.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lost()
                return
            self._handle(json.loads(packet))

    def _handle(self, message: dict[str, int | str]) -> None:
        if "exited" in message:
            pid, status = int(message["exited"]), int(message["status"])
            process = self._processes.pop(pid, None)
            if process is None:
                self._early_exits[pid] = status
            elif not process.exited.done():
                process.exited.set_result(status)
            return
        failed = "failed" in message
        waiting = self._waiting.pop(int(message["failed" if failed else "spawned"]))
        if waiting.done():
            if not failed:  # whoever asked has been cancelled meanwhile
                self.send_signal(int(message["pid"]), signal.SIGKILL)
        elif failed:
            waiting.set_exception(PodFailed("CannotRun", f"cannot run {message['error']}"))
        else:
            waiting.set_result(int(message["pid"]))

    def _lost(self) -> None:
        """The spawner was killed: the kernel has killed its pods, and a new one starts on
        demand."""
        logger.error("the spawner process is gone; its pods went with it")
        self._disconnect()
        if self._server is not None:
            self._server.poll()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(PodFailed("SpawnerLost", "the spawner process is gone"))
        self._waiting.clear()
        processes, self._processes = self._processes, {}
        for process in processes.values():
            if not process.exited.done():
                process.exited.set_result(_KILLED)


def describe_exit(status: int) -> str:
    """A wait status in words: `exited with code 1`, `was killed by SIGKILL`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    return f"exited with code {os.waitstatus_to_exitcode(status)}"
