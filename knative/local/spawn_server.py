"""The spawner: a small process that starts, reaps and buries every pod process.

Run by the engine as `python -I -S spawn_server.py FD`, FD one end of a SOCK_SEQPACKET pair. Why a
process of its own: (1) forking a 10 MB single-threaded process is fast and safe, forking the
engine is neither; (2) when the engine dies, however it dies, the socket reads end-of-file here and
every pod is killed, with all descendants, because this process is their subreaper; (3) when *this*
process is killed, the kernel kills the pods (PR_SET_PDEATHSIG) and the engine notices.

Messages are JSON, one a packet. In: `{"spawn": id}` with three descriptors (request memfd, stdout,
stderr), the memfd holding `{"argv", "env", "cwd", "limits"}`; `{"signal": n, "pid": pid}` for a
pod's process group. Out: `{"spawned": id, "pid": pid}`, `{"failed": id, "error": text}`,
`{"exited": pid, "status": waitstatus}`. Standard library only; imports nothing of ours.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PACKET = 4096
_MARK = b"TURNOUT_POD="

_libc = ctypes.CDLL(None, use_errno=True)


class _Spawner:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pods: dict[int, str] = {}
        """pid of a container's first process -> its TURNOUT_POD mark."""

    def serve(self) -> None:
        """Handle packets and child exits until the engine is gone; then leave nothing running."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if wake_read in ready:
                    os.read(wake_read, 512)
                self._reap()
                if self._channel.fileno() in ready and not self._receive():
                    return
        except OSError:
            return  # the engine's end is gone in the middle of a message
        finally:
            kill_descendants()

    def _receive(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(
            self._channel, _PACKET, 3, socket.MSG_CMSG_CLOEXEC
        )
        if not packet:
            return False
        message = json.loads(packet)
        try:
            if "spawn" in message:
                self._spawn(message["spawn"], descriptors)
            elif message["pid"] in self._pods:
                _kill_group(message["pid"], message["signal"])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _spawn(self, ticket: int, descriptors: list[int]) -> None:
        with os.fdopen(os.dup(descriptors[0]), "rb") as memory:
            memory.seek(0)
            request = json.loads(memory.read())
        read, write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _become(request, descriptors, write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            error = pipe.read()
        if error:
            os.waitpid(pid, 0)
            self._send({"failed": ticket, "error": error.decode(errors="replace")})
            return
        self._pods[pid] = request["env"].get("TURNOUT_POD", "")
        self._send({"spawned": ticket, "pid": pid})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            mark = self._pods.pop(pid, None)
            if mark is None:
                continue  # an orphan that a pod left behind
            _kill_group(pid, signal.SIGKILL)  # as a container's processes die with its first one
            _kill_marked(mark, set(self._pods))
            self._send({"exited": pid, "status": status})

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.send(json.dumps(message).encode())


def _become(request: dict[str, Any], descriptors: list[int], errors: int) -> None:
    """In the child: turn into the container's process. Never returns."""
    try:
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (descriptors[1], 1), (descriptors[2], 2)):
            os.dup2(source, target)
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(name, signal.SIG_DFL)
        for limit, value in request["limits"].items():
            kind = getattr(resource, limit)
            hard = resource.getrlimit(kind)[1]
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (bound, bound))
        os.chdir(request["cwd"])
        os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606
    except BaseException as error:  # noqa: BLE001, RUF100 - the only channel out of a failed exec
        os.write(errors, f"{request['argv'][0]}: {error}".encode()[:512])
    finally:
        os._exit(127)


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _kill_marked(mark: str, keep: set[int]) -> None:
    """Kill processes of one container that left its group (daemons); they are our children by
    now."""
    if not mark:
        return
    for pid in _children():
        if pid in keep:
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                marked = _MARK + mark.encode() in file.read().split(b"\0")
            if marked:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def kill_descendants() -> None:
    """SIGKILL every child, and whoever they leave to us, until nobody is left."""
    while True:
        for pid in _children():
            _kill_group(pid, signal.SIGKILL)
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> None:
    """Serve the socket that the engine passed as descriptor number."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)  # a pod that held it would hide our death from the engine
    _Spawner(channel).serve()


if __name__ == "__main__":
    main()
