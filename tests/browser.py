"""A real Chromium for tests of pages: started headless, driven over the DevTools protocol."""

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "--remote-allow-origins=*", "--window-size=1300,1400",
)  # fmt: skip


class Page:
    """One tab. `evaluate` runs JavaScript (promises are awaited) and returns its value."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self._number = 0
        self.messages: list[str] = []
        """Errors and warnings of the console, and failed requests."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, given = message.get("method", ""), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(given["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.messages.append(given["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = given["request"]["url"]
            if not url.startswith(("http://localhost:", "http://127.0.0.1:", "data:")):
                self.messages.append(f"left the machine: {url}")

    def goto(self, url: str) -> None:
        self.command("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        answer = self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, timeout_s: float = 20) -> Any:
        """Poll until the script is truthy; returns its value."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(script)):
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {script}"
            time.sleep(0.05)
        return value

    def press(self, key: str, code: int, text: str = "") -> None:
        """One key, as from the keyboard."""
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def scheme(self, name: str) -> None:
        """`light` or `dark`, as the system would say."""
        self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": name}],
        )

    def screenshot(self, path: Path) -> Path:
        shot = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path


@contextlib.contextmanager
def open_page() -> Iterator[Page]:
    """A fresh browser with one tab; ended with the block."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with contextlib.closing(_connect(Path(profile))) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _connect(profile: Path) -> websocket.WebSocket:
    port_file, deadline = profile / "DevToolsActivePort", time.monotonic() + 30
    target: Callable[[dict[str, Any]], bool] = lambda item: item["type"] == "page"  # noqa: E731
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, StopIteration, IndexError):
            port = port_file.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
                found = next(filter(target, json.load(answer)))
            return websocket.create_connection(
                found["webSocketDebuggerUrl"], timeout=30, http_no_proxy=["127.0.0.1"]
            )
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
